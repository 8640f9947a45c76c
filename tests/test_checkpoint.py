"""Checkpoint files: what comes back, what is refused, what a failure leaves behind."""

import pickle
import re
from pathlib import Path

import pytest
import torch

from models.unet import UNet
from utils import checkpoint
from utils.classes import PETS
from utils.errors import UserError
from utils.rows import load_model

CPU = torch.device("cpu")
ARGUMENTS = {"classes": 3, "width": 4, "depth": 3}


@pytest.fixture
def model() -> UNet:
    """A small U-Net in evaluation mode whose batch norms have seen a batch."""
    torch.manual_seed(1)
    model = UNet(**ARGUMENTS)
    model(torch.randn(4, 3, 32, 32))
    return model.eval()


@pytest.fixture
def path(model, tmp_path) -> Path:
    """A checkpoint of that model."""
    content = {"model": "unet", "arguments": ARGUMENTS, "weights": model.state_dict(), "mean": (0.5, 0.4, 0.3)}
    checkpoint.save(content, tmp_path / "unet" / "best.pt")
    return tmp_path / "unet" / "best.pt"


def test_a_model_is_rebuilt_from_the_file_alone_with_the_same_logits(model, path):
    loaded, content = load_model(path, "unet", CPU)
    images = torch.randn(2, 3, 33, 47)
    with torch.inference_mode():
        torch.testing.assert_close(loaded(images), model(images), atol=1e-6, rtol=1e-5)
    assert not loaded.training
    assert content["mean"] == (0.5, 0.4, 0.3) and checkpoint.classes_of(content) == PETS


def test_saving_leaves_the_file_alone_in_its_folder(path):
    assert list(path.parent.iterdir()) == [path]


def refused(path: Path) -> str:
    """The message with which a checkpoint is refused; it has to name the file."""
    with pytest.raises(UserError, match=re.escape(str(path))) as error:
        load_model(path, "unet", CPU)
    return str(error.value)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
def test_a_file_that_was_cut_off_is_refused(path, share):
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert "damaged" in refused(path)


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x80\x02garbage", bytes(5000), b"PK\x03\x04" + bytes(100)])
def test_a_file_that_is_no_checkpoint_is_refused(path, content):
    path.write_bytes(content)
    assert "no checkpoint" in refused(path)


@pytest.mark.parametrize("content", [3, ["format"], {}, {"format": None}, {"weights": {}}])
def test_a_file_of_another_program_is_refused(path, content):
    torch.save(content, path)
    assert "no checkpoint" in refused(path)


@pytest.mark.parametrize("seed", range(20))
def test_random_damage_within_the_structure_never_ends_in_a_traceback(path, seed):
    generator = torch.Generator().manual_seed(seed)
    content = bytearray(path.read_bytes())
    for position in torch.randint(0, 3000, (30,), generator=generator).tolist():  # the pickled dictionary
        content[position] = int(torch.randint(0, 256, (1,), generator=generator))
    path.write_bytes(content)
    refused(path)


def test_a_missing_file_is_reported_as_missing(tmp_path):
    assert "missing" in refused(tmp_path / "best.pt")


class Malicious:
    """Creates a file when it is unpickled."""

    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return open, (str(self.target), "w")


@pytest.mark.parametrize("save", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_a_file_that_would_run_code_is_refused_and_runs_nothing(path, tmp_path, save):
    target = tmp_path / "written by the attacker"
    save({"format": 1, "model": "unet", "arguments": ARGUMENTS, "weights": Malicious(target)}, path)
    refused(path)
    assert not target.exists()


def test_a_file_of_a_newer_format_is_refused_with_advice_to_update(path):
    torch.save({**torch.load(path), "format": checkpoint.FORMAT + 1}, path)
    assert "newer version" in refused(path)


def test_the_checkpoint_of_another_model_is_refused(path):
    torch.save({**torch.load(path), "model": "clip"}, path)
    message = refused(path)
    assert "'clip'" in message and "'unet'" in message


@pytest.mark.parametrize("arguments", [{"width": 8, "depth": 3}, {"width": 4, "depth": 2}, {"width": 4, "depth": 4}])
def test_weights_of_another_architecture_are_refused(path, arguments):
    torch.save({**torch.load(path), "arguments": arguments}, path)
    assert "another architecture" in refused(path)


@pytest.mark.parametrize("arguments", [{"breadth": 4}, None])
def test_arguments_that_the_model_does_not_know_are_refused(path, arguments):
    torch.save({**torch.load(path), "arguments": arguments}, path)
    assert "another version" in refused(path)


@pytest.mark.parametrize("error", [RuntimeError("PytorchStreamWriter failed"), OSError(28, "No space left on device")])
def test_a_write_that_fails_keeps_the_old_file_and_leaves_no_other(path, monkeypatch, error):
    before = path.read_bytes()

    def fail_half_way(content, file):
        file.write_bytes(before[: len(before) // 2])
        raise error

    monkeypatch.setattr(torch, "save", fail_half_way)
    with pytest.raises(UserError, match=f"{re.escape(str(path))}.*untouched"):
        checkpoint.save({"model": "unet"}, path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_an_interrupted_write_keeps_the_old_file_and_leaves_no_other(path, monkeypatch):
    before = path.read_bytes()

    def interrupt(content, file):
        file.write_bytes(before[:100])
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", interrupt)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save({"model": "unet"}, path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_is_reported(path):
    with pytest.raises(UserError, match="cannot write"):
        checkpoint.save({}, path / "below a file" / "best.pt")


def test_halved_weights_are_rounded_and_biases_and_norms_are_not(model):
    before = model.state_dict()
    after = checkpoint.halve(before)
    assert after.keys() == before.keys()
    rounded = {name for name, value in after.items() if value.dtype == torch.float16}
    assert rounded == {name for name, value in before.items() if value.ndim > 1}
    for name, value in before.items():
        if name in rounded:
            torch.testing.assert_close(after[name].float(), value, rtol=1e-3, atol=1e-6)
        else:
            assert torch.equal(after[name], value)


def test_missing_weights_are_accepted_only_under_the_ignored_name(model, path):
    decoder = {name: value for name, value in model.state_dict().items() if not name.startswith("encoder.")}
    checkpoint.load_state(UNet(**ARGUMENTS), decoder, path, ignore="encoder.")
    with pytest.raises(UserError, match="it lacks encoder"):
        checkpoint.load_state(UNet(**ARGUMENTS), decoder, path)
    with pytest.raises(UserError, match="it has surplus"):
        checkpoint.load_state(UNet(**ARGUMENTS), {**model.state_dict(), "surplus": torch.zeros(1)}, path)
