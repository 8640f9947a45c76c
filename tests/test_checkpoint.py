"""Checkpoint files: what comes back, what is refused, what a failure leaves behind."""

import json
import pickle
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save as to_bytes

from models.unet import UNet
from utils import checkpoint
from utils.classes import PETS
from utils.errors import UserError
from utils.rows import best_row, find_rows, load_model, load_row

CPU = torch.device("cpu")
ARGUMENTS = {"classes": 3, "width": 4, "depth": 3}


@pytest.fixture
def model() -> UNet:
    """A small U-Net in evaluation mode whose batch norms have seen a batch."""
    torch.manual_seed(1)
    model = UNet(**ARGUMENTS)
    model(torch.randn(4, 3, 32, 32))
    return model.eval()


@pytest.fixture(params=["best.safetensors", "last.pt"])
def path(model, tmp_path, request) -> Path:
    """A checkpoint of that model."""
    content = {"model": "unet", "arguments": ARGUMENTS, "weights": model.state_dict(), "mean": (0.5, 0.4, 0.3)}
    checkpoint.save(content, tmp_path / "unet" / request.param)
    return tmp_path / "unet" / request.param


def rewrite(path: Path, **changes: object) -> None:
    """Write a checkpoint with other content, whatever save() would say about it."""
    content = {**checkpoint.load(path), **changes}
    if path.suffix == ".pt":
        torch.save(content, path)
    else:
        about = {key: value for key, value in content.items() if key != "weights"}
        path.write_bytes(to_bytes(content["weights"], {"about": json.dumps(about)}))


def test_a_model_is_rebuilt_from_the_file_alone_with_the_same_logits(model, path):
    loaded, content = load_model(path, "unet", CPU)
    images = torch.randn(2, 3, 33, 47)
    with torch.inference_mode():
        torch.testing.assert_close(loaded(images), model(images), atol=1e-6, rtol=1e-5)
    assert not loaded.training
    assert tuple(content["mean"]) == (0.5, 0.4, 0.3) and checkpoint.classes_of(content) == PETS


def refused(path: Path) -> str:
    """The message with which a checkpoint is refused; it has to name the file."""
    with pytest.raises(UserError, match=re.escape(str(path))) as error:
        load_model(path, "unet", CPU)
    return str(error.value)


def test_a_file_that_was_cut_off_or_is_no_checkpoint_is_refused(path):
    whole = path.read_bytes()
    for content in (b"garbage", b"\x80\x02garbage", bytes(5000), b"PK\x03\x04" + bytes(100)):
        path.write_bytes(content)
        assert "no checkpoint of this project, or is damaged" in refused(path)
    for share in (0.0, 0.02, 0.5, 0.99):
        path.write_bytes(whole[: int(share * len(whole))])
        assert "no checkpoint of this project, or is damaged" in refused(path)


def test_a_file_of_another_program_is_refused(tmp_path):
    path, about = tmp_path / "last.pt", {"format": 1, "model": "unet", "arguments": {}}
    for content in (3, {}, {"format": None}, about, about | {"weights": [1]}, about | {"weights": {"a": 1}}):
        torch.save(content, path)
        assert "no checkpoint" in refused(path)


def test_random_damage_within_the_structure_never_ends_in_a_traceback(path):
    generator, whole = torch.Generator().manual_seed(0), path.read_bytes()
    for _ in range(20):
        content = bytearray(whole)
        for position in torch.randint(0, 3000, (30,), generator=generator).tolist():  # pickled dictionary, header
            content[position] = int(torch.randint(0, 256, (1,), generator=generator))
        path.write_bytes(content)
        refused(path)


def test_a_missing_file_and_a_folder_in_its_place_are_refused(tmp_path):
    assert "missing" in refused(tmp_path / "last.pt")
    (tmp_path / "best.safetensors").mkdir()
    refused(tmp_path / "best.safetensors")


class Malicious:
    """Creates a file when it is unpickled."""

    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return open, (str(self.target), "w")


@pytest.mark.parametrize("name", ["last.pt", "best.safetensors"])
@pytest.mark.parametrize("save", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_a_file_that_would_run_code_is_refused_and_runs_nothing(tmp_path, save, name):
    path = tmp_path / name
    target = tmp_path / "written by the attacker"
    save({"format": 1, "model": "unet", "arguments": ARGUMENTS, "weights": Malicious(target)}, path)
    refused(path)
    assert not target.exists()


def test_a_file_of_a_newer_format_is_refused_with_advice_to_update(path):
    rewrite(path, format=checkpoint.FORMAT + 1, mean="written in another way")
    assert "newer version" in refused(path)


def test_the_checkpoint_of_another_model_or_architecture_is_refused(path, model):
    weights, name = model.state_dict(), "head.weight"
    for changes, message in (
        ({"model": "clip"}, "holds a model 'clip', not 'unet'"),
        ({"arguments": {"width": 8, "depth": 3}}, "another architecture: size mismatch"),
        ({"arguments": {"width": 4, "depth": 2}}, "another architecture: Unexpected"),
        ({"weights": {**weights, name: weights[name][:, :2].contiguous()}}, f"size mismatch for {name}"),
        ({"weights": {**weights, "surplus": torch.zeros(1)}}, 'Unexpected key(s) in state_dict: "surplus"'),
    ):
        whole = path.read_bytes()
        rewrite(path, **changes)
        assert message in refused(path)
        path.write_bytes(whole)


@pytest.mark.parametrize(
    "arguments", [{"breadth": 4}, {"width": "4"}, {"width": -4}, {"depth": 0}, {"stem_stride": 0}, {"max_width": []}]
)
def test_arguments_that_the_model_does_not_take_are_refused(path, arguments):
    rewrite(path, arguments=arguments)
    assert "another version" in refused(path)


def test_a_row_needs_to_know_which_pictures_its_model_sees(path):
    file = path.with_name("best.safetensors")
    checkpoint.save(checkpoint.load(path), file)
    with pytest.raises(UserError, match=f"{re.escape(str(file))} does not say its image_size and std"):
        load_row("UNET", path.parent.parent, CPU)


CONTENT = {"model": "unet", "arguments": {}, "weights": {"a": torch.zeros(99)}}


def test_a_write_that_is_interrupted_keeps_the_old_file_and_leaves_no_other(path, monkeypatch):
    before, write = path.read_bytes(), Path.write_bytes

    def stop(*arguments: object) -> None:
        write(next(file for file in arguments if isinstance(file, Path)), b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", stop)
    monkeypatch.setattr(torch, "save", stop)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(CONTENT, path)
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]


def test_halved_weights_are_rounded_and_biases_and_norms_are_not(model):
    before = model.state_dict()
    after = checkpoint.halve(before)
    assert after.keys() == before.keys()
    for name, value in before.items():
        assert after[name].dtype == (torch.float16 if value.ndim > 1 else value.dtype)
        torch.testing.assert_close(after[name], value, check_dtype=False, rtol=1e-3, atol=1e-6)


# ------------------------------------------------------------------------------------------ weights as safetensors

EVERYTHING = {
    "model": "clip",
    "arguments": {
        "layers": (),
        "widths": (16, 48),
        "encoder_config": {"vit": {"architectures": ["ViT"], "none": None}},
    },
    "image_size": 320,
    "mean": (0.485, 0.456, 0.406),
    "std": (0.1, 1 / 3, 1e-9),
    "classes": ("Hintergrund", "Kätzchen"),
    "colours": ((0, 0, 0), (128, 0, 0)),
    "constants": {"SCALE": (0.7, 1.8), "RESUME": False, "LEARNING_RATE": 2e-3, "ROW": ""},
    "score": 0.8793507057421893,
    "zoom": True,
}


@pytest.mark.parametrize("name", ["best.safetensors", "last.pt"])
def test_what_a_file_says_of_itself_comes_back_equal_but_for_tuples_in_json(tmp_path, name):
    weights = {"b": torch.randn(2, 3, 2, 2).to(memory_format=torch.channels_last), "a": torch.tensor(5)}
    weights |= {"half": torch.randn(3, 3).half(), "view of b": weights["b"][0], "none": torch.zeros(0, 4)}
    checkpoint.save({**EVERYTHING, "weights": weights}, tmp_path / name)
    content = checkpoint.load(tmp_path / name)
    (tmp_path / name).write_bytes(bytes((tmp_path / name).stat().st_size))  # what was loaded does not change with it
    loaded = content.pop("weights")
    expected = {"format": 1, **EVERYTHING}
    assert content == (expected if name == "last.pt" else json.loads(json.dumps(expected)))
    assert {key: value.dtype for key, value in loaded.items()} == {key: value.dtype for key, value in weights.items()}
    assert checkpoint.digest(loaded) == checkpoint.digest(weights)


def test_weights_to_use_are_taken_and_not_the_state_of_a_run_beside_them(model, tmp_path):
    content = {"model": "unet", "arguments": ARGUMENTS, "weights": model.state_dict(), "image_size": 32}
    content |= {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    with pytest.raises(UserError, match="best.safetensors is missing; `python"):
        load_row("UNET", tmp_path, CPU)
    for folder, row in (("unet", "UNET"), ("Mine", "Mine")):
        for score, name in ((0.1, "last.pt"), (0.9, "best.safetensors")):
            checkpoint.save({**content, "score": score}, tmp_path / folder / name)
        assert Path(load_row(row, tmp_path, CPU).checkpoint).name == "best.safetensors"
        assert checkpoint.load(tmp_path / folder)["score"] == 0.9
    assert "Mine" in find_rows(tmp_path) and best_row(tmp_path) == "Mine"  # the later one of equals
    (tmp_path / "unet" / "best.safetensors").unlink()
    with pytest.raises(UserError, match="best.safetensors is missing"):
        load_row("UNET", tmp_path, CPU)


ABOUT = json.dumps({"format": 1, "model": "unet", "arguments": {}})
TENSOR = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def raw(header: object, data: bytes = bytes(8)) -> bytes:
    """A file of safetensors made by hand."""
    header = json.dumps(header).encode()
    return len(header).to_bytes(8, "little") + header + data


def about(text: object = ABOUT, **tensors: object) -> dict:
    return {"__metadata__": {"about": text}, **(tensors or {"a": TENSOR})}


DAMAGED = {
    "shorter than the length": b"\x10\x00",
    "a list": raw([1, 2]),
    "nested without end": raw(about("[" * 100_000)),
    "metadata of another program": raw({"__metadata__": {"format": "pt"}, "a": TENSOR}),
    "metadata without a model": raw(about('{"format": 1, "arguments": {}}')),
    "tensors outside the file": raw(about(a={**TENSOR, "data_offsets": [0, 80], "shape": [20]})),
    "an unknown dtype": raw(about(a={**TENSOR, "dtype": "F31"})),
    "NaN": raw(about(), torch.tensor([1.0, float("nan")]).numpy().tobytes()),
    "infinity": raw(about(), torch.tensor([float("-inf"), 1.0]).numpy().tobytes()),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_of_safetensors_is_refused(tmp_path, name):
    path = tmp_path / "best.safetensors"
    path.write_bytes(raw(about()))
    assert checkpoint.load(path)["weights"]["a"].tolist() == [0, 0], "the file made by hand"
    path.write_bytes(DAMAGED[name])
    assert "is no checkpoint of this project, or is damaged (" in refused(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_not_written(tmp_path, value):
    path = tmp_path / "best.safetensors"
    checkpoint.save(CONTENT, path)
    before = path.read_bytes()
    with pytest.raises(
        UserError, match="cannot write .*best.safetensors: a holds NaN or infinity.*the old file is unchanged"
    ):
        checkpoint.save({**CONTENT, "weights": {"a": torch.tensor([1.0, value])}}, path)
    assert path.read_bytes() == before
