"""The training loop: it learns, it repeats exactly, it survives being killed, and it says what is wrong."""

import csv
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REPOSITORY, run_here, script_environment, torchrun
from PIL import Image
from torch import nn

import train_autoencoder
import train_clip
import train_unet
from models.unet import UNet
from utils import checkpoint
from utils.classes import PETS, named
from utils.errors import UserError
from utils.figures.plots import plot_curves
from utils.inputs.dataset import SegmentationDataset
from utils.inputs.layouts import list_samples
from utils.metrics import scores
from utils.rows import load_model
from utils.rows.by_class import evaluate, predictor
from utils.training import fit as training

CPU = torch.device("cpu")
TINY = (
    "--IMAGE_SIZE=32 --SMALL_SIZE=24 --WIDTH=4 --DEPTH=2 --EPOCHS=3 --BATCH_SIZE=8 --EMA_DECAY=0.5 "
    "--LEARNING_RATE=0.02 --COLOUR=0 --ERASE=0 --PRECISION=fp32 --DEVICE=cpu"
).split()  # two steps an epoch


@pytest.fixture
def train(oxford_root, tmp_path) -> Callable[..., Path]:
    """train(name, *arguments): train_unet.py with a tiny U-Net in this process; returns the folder of its files."""

    def run(name: str, *arguments: str) -> Path:
        run_here(train_unet, f"--DATA_ROOT={oxford_root}", *TINY, f"--CHECKPOINTS={tmp_path / name}", *arguments)
        return tmp_path / name / "unet"

    return run


def log(folder: Path) -> list[dict[str, float]]:
    """The lines of log.csv without the time they took."""
    with open(folder / "log.csv", newline="") as file:
        lines = [{key: float(value) for key, value in line.items()} for line in csv.DictReader(file)]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def differences(left: object, right: object, where: str = "") -> list[str]:
    """Where two nested structures differ; tensors have to be equal bit for bit."""
    if isinstance(left, dict) and left.keys() == right.keys():
        return [d for key in left for d in differences(left[key], right[key], f"{where}/{key}")]
    same = torch.equal(left, right) if isinstance(left, torch.Tensor) else left == right
    return [] if same else [where]


def assert_same_run(left: Path, right: Path) -> None:
    """The same losses and scores, the same weights, averages and optimizer."""
    assert log(left) == log(right)
    for name in ("best.safetensors", "last.pt"):
        one, two = checkpoint.load(left / name), checkpoint.load(right / name)
        for content in (one, two):
            for line in content.pop("log", []):
                line.pop("seconds")
            content["constants"] |= {"CHECKPOINTS": "", "RESUME": False}
        assert differences(one, two) == []


def stop_at(monkeypatch, name: str, call: int, error: BaseException, module: object = train_unet) -> None:
    """Let the given call of a function that train_unet.py, or another module, uses raise an error."""
    original, calls = getattr(module, name), []

    def counting(*args, **kwargs):
        calls.append(1)
        if len(calls) == call:
            raise error
        return original(*args, **kwargs)

    monkeypatch.setattr(module, name, counting)


# ------------------------------------------------------------------------------------------- what a run does


def test_a_tiny_unet_learns_the_tiny_data_set(train):
    lines = log(train("run", "--EPOCHS=20", "--WIDTH=8", "--DROPOUT=0", "--SMALL_SHARE=0"))
    assert lines[-1]["loss"] < 0.5 * lines[0]["loss"]
    assert lines[-1]["score"] > 0.8  # everything background is below .3


def test_the_log_has_one_line_per_epoch_and_the_curves_are_a_picture(train):
    folder = train("run")
    assert [line["epoch"] for line in log(folder)] == [1, 2, 3]
    assert list(log(folder)[0]) == ["epoch", "loss", "score", "cat", "dog", "lr"]
    with Image.open(folder / "curves.png") as curves:
        assert curves.width > 500
    assert sorted(file.name for file in folder.iterdir() if file.name[0] != ".") == [
        "best.safetensors",
        "curves.png",
        "last.pt",
        "log.csv",
        "progress.png",
    ]
    with Image.open(folder / "progress.png") as progress:
        assert progress.size == (3 * 32, 4 * 32)  # picture, mask, prediction


def test_a_log_begins_with_the_settings_and_the_time_to_expect(train, capsys):
    train("run", "--BATCH_SIZE=1", "--EPOCHS=2")
    lines = capsys.readouterr().out.splitlines()
    assert "EPOCHS=2" in "".join(lines) and "WIDTH=4" in "".join(lines)
    assert any(re.fullmatch(r"[\d,]+ parameters to train, \d+ pictures, on cpu", line) for line in lines)
    assert sum(line.startswith("about 0 minutes of training") for line in lines) == 1


def test_a_run_may_start_from_the_weights_of_another(train):
    first = train("first", "--EPOCHS=20", "--WIDTH=8", "--DROPOUT=0", "--SMALL_SHARE=0")
    options = ("--WIDTH=8", "--EPOCHS=1", "--LEARNING_RATE=0.0001", "--EMA_DECAY=0")
    further = log(train("further", f"--START={first / 'best.safetensors'}", *options))
    assert further[0]["score"] > 0.8 > log(train("new", *options))[0]["score"]
    with pytest.raises(UserError, match="another architecture"):
        train("narrow", f"--START={first / 'best.safetensors'}")


def test_the_rate_rises_during_warmup_and_ends_at_zero(train):
    rates = [line["lr"] for line in log(train("run", "--EPOCHS=6", "--WARMUP=0.5", "--LEARNING_RATE=0.004"))]
    assert rates[0] < rates[1] < rates[2] == pytest.approx(0.004)
    assert rates[2] > rates[3] > rates[4] > rates[5] == pytest.approx(0, abs=1e-12)


def validation_score(model: nn.Module, content: dict, root: Path) -> float:
    """The mIoU of a model on the validation pictures; content: of its checkpoint."""
    val = SegmentationDataset(root, "val", content["image_size"])
    return scores(evaluate(predictor(model.eval(), content["mean"], content["std"]), val, CPU, 3), val.classes.names)[
        "miou"
    ]


def averaged_model(folder: Path) -> tuple[UNet, dict]:
    """The averaged weights of the last epoch, unrounded, and the content of last.pt."""
    content = checkpoint.load(folder / "last.pt")
    model = UNet(**content["arguments"])
    checkpoint.load_state(model, content["ema"], folder / "last.pt")
    return model.to(memory_format=torch.channels_last), content


def test_the_averaged_weights_have_the_score_in_the_log(train, oxford_root):
    folder = train("run")
    assert validation_score(*averaged_model(folder), oxford_root) == pytest.approx(log(folder)[-1]["score"], abs=1e-9)


def test_the_best_checkpoint_has_its_score_but_for_rounding(train, oxford_root):
    folder = train("run")
    model, content = load_model(folder / "best.safetensors", "unet", CPU)
    assert validation_score(model, content, oxford_root) == pytest.approx(content["score"], abs=0.005)
    assert content["score"] == max(line["score"] for line in log(folder))
    assert content["constants"]["WIDTH"] == 4 and content["epoch"] in (1, 2, 3)


def test_the_same_seed_gives_the_same_run_and_another_seed_another(train):
    assert_same_run(train("one"), train("two"))
    assert log(train("other", "--SEED=1"))[0]["loss"] != log(train("three"))[0]["loss"]


def test_validation_every_second_epoch_changes_no_weight_and_a_run_goes_on_from_the_last_one(train, monkeypatch):
    every = log(train("every", "--EPOCHS=5"))
    assert [line["epoch"] for line in log(train("second", "--EPOCHS=5", "--VALIDATE_EVERY=2"))] == [2, 4, 5]
    assert log(train("second", "--EPOCHS=5", "--VALIDATE_EVERY=2")) == [every[1], every[3], every[4]]
    with monkeypatch.context() as patch:
        stop_at(patch, "segmentation_loss", 6, KeyboardInterrupt())  # in epoch 3
        with pytest.raises(KeyboardInterrupt):
            train("stopped", "--EPOCHS=5", "--VALIDATE_EVERY=2")
    assert log(train("stopped", "--EPOCHS=5", "--VALIDATE_EVERY=2", "--RESUME=True")) == [every[1], every[3], every[4]]


def test_a_new_run_keeps_the_files_of_the_last_one(train, capsys):
    folder = train("run")
    before = {name: (folder / name).read_bytes() for name in ("best.safetensors", "last.pt", "log.csv", "curves.png")}
    train("run", "--SEED=1")
    assert {name: (folder / "previous" / name).read_bytes() for name in before} == before
    assert (folder / "last.pt").read_bytes() != before["last.pt"]
    assert str(folder / "previous") in capsys.readouterr().out


# ------------------------------------------------------------------------------------------ stops and failures


# fsync: of a file that is written but not in its place; of the second and third epoch, whatever is written there
MOMENTS = [(train_unet, "segmentation_loss", 3), (train_unet, "segmentation_loss", 6), (train_unet, "validate", 2)]
MOMENTS += [(os, "fsync", call) for call in (6, 8, 12)]


@pytest.mark.parametrize(("module", "function", "call"), MOMENTS)
def test_a_run_that_was_stopped_and_resumed_equals_one_that_was_not(train, monkeypatch, module, function, call):
    whole = train("whole", "--PRECISION=auto")
    with monkeypatch.context() as patch:
        stop_at(patch, function, call, KeyboardInterrupt(), module)
        with pytest.raises(KeyboardInterrupt):
            train("stopped", "--PRECISION=auto")
    assert_same_run(train("stopped", "--PRECISION=auto", "--RESUME=True"), whole)


KILLED = """
import io, os, runpy, signal, sys
import torch

save, calls = torch.save, []

def die_half_way(content, file):
    calls.append(1)
    if len(calls) < 2:  # last.pt of the first epoch
        return save(content, file)
    buffer = io.BytesIO()
    save(content, buffer)
    file.write_bytes(buffer.getvalue()[: buffer.tell() // 2])
    os.kill(os.getpid(), signal.SIGKILL)

torch.save = die_half_way
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow
def test_a_run_killed_while_it_writes_its_checkpoint_is_resumed_exactly(train, oxford_root, tmp_path):
    script = f"import sys; sys.argv[0] = {str(REPOSITORY / 'train_unet.py')!r}\n{KILLED}"
    arguments = [f"--DATA_ROOT={oxford_root}", *TINY, f"--CHECKPOINTS={tmp_path / 'killed'}"]
    result = subprocess.run([sys.executable, "-c", script, *arguments], env=script_environment(), timeout=600)
    assert result.returncode == -9
    folder = tmp_path / "killed" / "unet"
    assert list(folder.glob("last.pt.*.tmp"))  # it died where it should
    resumed_from = checkpoint.load(folder / "last.pt")["epoch"]
    assert resumed_from == 1
    assert_same_run(train("killed", "--RESUME=True"), train("whole"))


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_loss_that_is_not_finite_stops_the_run_which_can_be_resumed(train, monkeypatch, tmp_path, value):
    with monkeypatch.context() as patch:
        original, calls = train_unet.segmentation_loss, []

        def explode(*args):
            calls.append(1)
            return original(*args) * (float(value) if len(calls) == 3 else 1)

        patch.setattr(train_unet, "segmentation_loss", explode)
        with pytest.raises(UserError, match=r"loss became (nan|inf) in epoch 2: lower LEARNING_RATE"):
            train("run")
    folder = tmp_path / "run" / "unet"
    model, content = load_model(folder / "best.safetensors", "unet", CPU)
    assert content["epoch"] == 1
    assert all(value.isfinite().all() for value in model.state_dict().values())
    assert_same_run(train("run", "--RESUME=True"), train("whole"))


def test_a_second_run_in_the_same_folder_at_the_same_time_is_refused(train, monkeypatch):
    original = train_unet.validate

    def meanwhile(*args):
        with pytest.raises(UserError, match="another training is writing to .*run"):
            train("run")
        refused.append(1)
        return original(*args)

    refused = []
    with monkeypatch.context() as patch:
        patch.setattr(train_unet, "validate", meanwhile)
        folder = train("run")
    assert len(refused) == 3
    alone = train("alone")
    assert log(folder) == log(alone)  # the first was not disturbed
    weights = [checkpoint.load(run / "best.safetensors")["weights"] for run in (folder, alone)]
    assert differences(*weights) == []


def test_resuming_without_a_checkpoint_says_that_it_is_missing(train):
    with pytest.raises(UserError, match=r"RESUME = True, but .*last.pt is missing: start with RESUME = False"):
        train("run", "--RESUME=True")


def test_resuming_with_another_number_of_epochs_is_refused(train):
    train("run")
    with pytest.raises(UserError, match="belongs to a run of EPOCHS = 3, now it is 4"):
        train("run", "--RESUME=True", "--EPOCHS=4")


def test_resuming_with_another_architecture_is_refused(train):
    train("run")
    with pytest.raises(UserError, match="last.pt belongs to a run of width = 4, now it is 6: change that, or start"):
        train("run", "--RESUME=True", "--WIDTH=6")
    with pytest.raises(UserError, match="last.pt belongs to a run of dropout = 0.1, now it is 0.5"):
        train("run", "--RESUME=True", "--DROPOUT=0.5")


def test_resuming_from_a_damaged_checkpoint_is_refused(train):
    folder = train("run")
    (folder / "last.pt").write_bytes((folder / "last.pt").read_bytes()[:999])
    with pytest.raises(UserError, match="last.pt is no checkpoint of this project, or is damaged"):
        train("run", "--RESUME=True")


def test_resuming_a_finished_run_changes_nothing(train):
    folder = train("run")
    before = {name: (folder / name).read_bytes() for name in ("best.safetensors", "last.pt", "log.csv")}
    train("run", "--RESUME=True")
    assert {name: (folder / name).read_bytes() for name in before} == before


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--EPOCHS=0", "EPOCHS = 0: must be greater than 0"),
        ("--BATCH_SIZE=-1", "BATCH_SIZE = -1: must be greater than 0"),
        ("--MICRO_BATCH=-1", "MICRO_BATCH = -1: must be in 0 .. inf"),
        ("--LEARNING_RATE=0", "LEARNING_RATE = 0.0"),
        ("--LEARNING_RATE=nan", "LEARNING_RATE = nan"),
        ("--WEIGHT_DECAY=-1", "WEIGHT_DECAY = -1.0"),
        ("--WARMUP=2", "WARMUP = 2.0: must be in 0 .. 1"),
        ("--EMA_DECAY=1.5", "EMA_DECAY = 1.5: must be in 0 .. 1"),
        ("--CLIP_NORM=0", "CLIP_NORM = 0.0"),
        ("--SEED=-1", "SEED = -1"),
        ("--IMAGE_SIZE=0", "IMAGE_SIZE = 0"),
        ("--DEPTH=-2", "DEPTH = -2"),
        ("--PRECISION=fp8", "PRECISION = 'fp8': must be one of 'auto', 'bf16', 'fp32'"),
        ("--DEVICE=nonsense", 'DEVICE = "nonsense" cannot be used here'),
        ("--TRAIN_SPLIT=trian", "'trian': must be one of 'train'"),
        ("--DATA_ROOT=nowhere", "no data set in DATA_ROOT = nowhere (found: no such folder)"),
        ("--CHECKPOINTS=/dev/null", "cannot write to /dev/null"),
    ],
)
def test_an_absurd_constant_is_named_and_the_last_run_stays_where_it_is(train, tmp_path, argument, message):
    (tmp_path / "run" / "unet").mkdir(parents=True)
    (tmp_path / "run" / "unet" / "best.safetensors").write_text("of the last run")
    with pytest.raises(UserError, match=re.escape(message)):
        train("run", argument)
    assert (tmp_path / "run" / "unet" / "best.safetensors").read_text() == "of the last run"


@pytest.mark.slow
def test_an_absurd_constant_ends_a_script_with_one_line_and_status_1(run_script, oxford_root):
    result = run_script("train_unet.py", *TINY, "--EPOCHS=0", env={"PETS_ROOT": str(oxford_root)})
    assert result.returncode == 1
    assert result.stderr == "error: EPOCHS = 0: must be greater than 0\n"


# ------------------------------------------------------------------------------------------- parts of a step


class Pictures(torch.utils.data.Dataset):
    """Eight random pictures, in batches as training.fit wants them."""

    images = torch.randn(8, 3, 6, 6, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, indices: list[int]) -> tuple[torch.Tensor, ...]:
        return self.images[indices], self.images[indices].mean(1, keepdim=True)


def mean_square(model, batch, generator, progress):
    return (model(batch[0]) - batch[1]).square().mean()


@pytest.mark.parametrize("micro_batch", [1, 3, 4])
def test_accumulated_gradients_are_those_of_the_whole_batch(micro_batch):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.Tanh(), nn.Conv2d(5, 1, 1))
    batch = Pictures()[list(range(8))]

    def gradients(at_once: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
        model.zero_grad()
        loss = training._backward(model, batch, mean_square, torch.Generator(), 0.0, at_once, nullcontext())
        return loss, [p.grad.clone() for p in model.parameters()]

    loss, whole = gradients(8)
    accumulated_loss, accumulated = gradients(micro_batch)
    torch.testing.assert_close(accumulated_loss, loss)
    torch.testing.assert_close(accumulated, whole)
    assert all(gradient.abs().sum() > 0 for gradient in whole)


class FrozenEncoder(nn.Module):
    """A frozen encoder and a decoder that is trained."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Conv2d(3, 4, 1).requires_grad_(False)
        self.activation = nn.Tanh()
        self.decoder = nn.Conv2d(4, 1, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.activation(self.encoder(images)))


def fit_frozen(
    folder: Path, validate=lambda model: {"score": 0.0}, compute_loss=mean_square, classes=PETS, **changes
) -> nn.Module:
    torch.manual_seed(0)
    model = FrozenEncoder()
    names = "EPOCHS BATCH_SIZE MICRO_BATCH LEARNING_RATE WEIGHT_DECAY WARMUP EMA_DECAY CLIP_NORM"
    names = [*names.split(), "VALIDATE_EVERY", "SEED", "RESUME"]
    constants = {name: getattr(train_unet, name) for name in names}
    constants |= {"EPOCHS": 2, "BATCH_SIZE": 4, "PRECISION": "fp32", **changes}
    about = {"model": "frozen", "arguments": {"freeze_encoder": True}}
    settings = {"folder": folder, "about": about, "classes": classes, "constants": constants, "device": CPU}
    training.fit(model, Pictures(), compute_loss, validate, **settings, draw=plot_curves)
    return model


def test_an_epoch_is_every_picture_once_in_a_new_order_with_new_random_numbers(tmp_path):
    shown, drawn, shares = [], [], []

    def watch(model, batch, generator, progress):
        shown.extend(int((Pictures.images == image).all((1, 2, 3)).nonzero()) for image in batch[0])
        drawn.append(torch.rand((), generator=generator).item())
        shares.append(progress)
        return mean_square(model, batch, generator, progress)

    fit_frozen(tmp_path, compute_loss=watch, EPOCHS=3)
    epochs = [shown[:8], shown[8:16], shown[16:]]
    assert [sorted(epoch) for epoch in epochs] == [list(range(8))] * 3
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    assert len(set(drawn)) == 6
    assert shares == pytest.approx([0, 1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6])


def test_a_batch_larger_than_the_data_set_is_the_data_set(tmp_path):
    counts = []

    def watch(model, batch, generator, progress):
        counts.append(len(batch[0]))
        return mean_square(model, batch, generator, progress)

    fit_frozen(tmp_path, compute_loss=watch, BATCH_SIZE=100, MICRO_BATCH=3)
    assert counts == [3, 3, 2] * 2


def test_frozen_weights_are_neither_stored_nor_changed_and_the_others_are_both(tmp_path):
    torch.manual_seed(0)
    before = FrozenEncoder().state_dict()
    after = fit_frozen(tmp_path).state_dict()
    assert [name for name in before if not torch.equal(before[name], after[name])] == ["decoder.weight", "decoder.bias"]
    assert set(checkpoint.load(tmp_path / "best.safetensors")["weights"]) == {"decoder.weight", "decoder.bias"}
    last = checkpoint.load(tmp_path / "last.pt")
    assert list(last["weights"]) == list(last["ema"]) == ["decoder.weight", "decoder.bias"]


@pytest.mark.parametrize("decay", [0.5, 0.998])
def test_the_moving_average_forgets_the_start_of_a_short_run(tmp_path, decay):
    weights = []

    def watch(model, batch, generator, progress):
        weights.append(model.decoder.weight.detach().clone())
        return mean_square(model, batch, generator, progress)

    trained = fit_frozen(tmp_path, compute_loss=watch, EPOCHS=10, EMA_DECAY=decay, LEARNING_RATE=0.1)
    start, *steps = *weights, trained.decoder.weight.detach()
    expected = steps[0]
    for done, step in enumerate(steps[1:], 1):
        share = max(1 - decay, 9 / (10 + done))  # of the newest weights
        expected = (1 - share) * expected + share * step
    averaged = checkpoint.load(tmp_path / "last.pt")["ema"]["decoder.weight"]
    assert len(steps) == 20 and torch.allclose(averaged, expected, atol=1e-6)
    assert (averaged - steps[-1]).norm() < 0.1 * (averaged - start).norm()


def test_a_model_with_a_frozen_encoder_is_resumed_exactly(tmp_path):
    def stop(model):
        if validated:
            raise KeyboardInterrupt
        validated.append(1)
        return {"score": 0.0}

    validated = []
    with pytest.raises(KeyboardInterrupt):
        fit_frozen(tmp_path / "stopped", stop)
    fit_frozen(tmp_path / "stopped", RESUME=True)
    fit_frozen(tmp_path / "whole")
    assert_same_run(tmp_path / "stopped", tmp_path / "whole")


@pytest.mark.parametrize("other", [("background", "dog", "cat"), ("background", "fox")])
def test_resuming_on_other_classes_or_another_order_of_them_is_refused_with_both_lists(tmp_path, other):
    fit_frozen(tmp_path)
    with pytest.raises(UserError, match=f"(?s)last.pt was trained on other.*background, cat, dog.*{', '.join(other)}"):
        fit_frozen(tmp_path, classes=named(other), RESUME=True)


@pytest.mark.parametrize("key", ["optimizer", "schedule", "ema", "log"])
def test_resuming_from_a_file_that_holds_no_such_run_is_refused(tmp_path, key):
    fit_frozen(tmp_path)
    content = checkpoint.load(tmp_path / "last.pt")
    del content[key]
    checkpoint.save(content, tmp_path / "last.pt")
    with pytest.raises(UserError, match=f"last.pt belongs to a run with other constants .*{key}"):
        fit_frozen(tmp_path, RESUME=True)


def test_resuming_with_other_learning_rates_per_block_is_refused(tmp_path):
    fit_frozen(tmp_path)
    content = checkpoint.load(tmp_path / "last.pt")
    content["optimizer"]["param_groups"].pop()
    checkpoint.save(content, tmp_path / "last.pt")
    with pytest.raises(UserError, match="last.pt belongs to a run with other constants"):
        fit_frozen(tmp_path, RESUME=True)


def test_an_epoch_is_on_the_disk_before_its_line_is_printed(tmp_path, monkeypatch):
    def look(*values, **options):
        if values[0].startswith("epoch "):
            files = [checkpoint.load(tmp_path / name) for name in ("best.safetensors", "last.pt")]
            printed.append([*(content["epoch"] for content in files), log(tmp_path)[-1]["epoch"]])

    printed = []
    monkeypatch.setattr("builtins.print", look)
    scores = iter([0.1, 0.2])
    fit_frozen(tmp_path, lambda model: {"score": next(scores)})
    assert printed == [[1, 1, 1], [2, 2, 2]]


@pytest.mark.parametrize("score", [float("nan"), float("-inf")])
def test_a_score_that_is_not_finite_stops_the_run_which_can_be_resumed(tmp_path, score):
    scores = iter([0.5, score])
    with pytest.raises(UserError, match=r"the validation score became (nan|-inf) in epoch 2: lower LEARNING_RATE"):
        fit_frozen(tmp_path, lambda model: {"score": next(scores)}, EPOCHS=3)
    files = {name: checkpoint.load(tmp_path / name) for name in ("best.safetensors", "last.pt")}
    assert [content["epoch"] for content in files.values()] == [1, 1]
    fit_frozen(tmp_path, EPOCHS=3, RESUME=True)
    assert checkpoint.load(tmp_path / "last.pt")["epoch"] == 3


def test_an_old_best_file_is_set_aside_by_a_new_run_and_kept_by_one_that_goes_on(tmp_path):
    fit_frozen(tmp_path, lambda model: {"score": 0.9})
    content = checkpoint.load(tmp_path / "best.safetensors")
    (tmp_path / "best.safetensors").unlink()
    checkpoint.save(content, tmp_path / "best.pt")
    fit_frozen(tmp_path, RESUME=True)
    assert checkpoint.weights_file(tmp_path) == tmp_path / "best.pt"
    fit_frozen(tmp_path)
    assert (tmp_path / "previous" / "best.pt").exists() and not (tmp_path / "best.pt").exists()
    assert checkpoint.weights_file(tmp_path) == tmp_path / "best.safetensors"


SMALLEST = ("--IMAGE_SIZE=16", "--SMALL_SIZE=16", "--DEPTH=4", "--EPOCHS=1")  # 1 x 1 at the coarsest level


@pytest.mark.parametrize("sizes", [["--BATCH_SIZE=1"], ["--BATCH_SIZE=5", "--MICRO_BATCH=2"], ["--MICRO_BATCH=1"]])
def test_one_value_per_channel_in_batch_norm_is_an_error_that_says_what_to_change(train, sizes):
    with pytest.raises(UserError, match="single value per channel.*BATCH_SIZE or MICRO_BATCH.*raise IMAGE_SIZE"):
        train("run", *SMALLEST, *sizes)


@pytest.mark.parametrize(
    ("count", "most", "expected"),
    [(8, 3, [3, 3, 2]), (7, 3, [3, 2, 2]), (4, 3, [2, 2]), (5, 2, [2, 2, 1]), (3, 1, [1, 1, 1]), (1, 4, [1])],
)
def test_no_part_of_a_batch_is_one_picture_if_that_can_be_helped(count, most, expected):
    assert training.parts(count, most) == expected


def test_a_batch_that_would_end_in_one_picture_is_split_otherwise(train):
    assert len(log(train("run", *SMALLEST, "--BATCH_SIZE=7", "--MICRO_BATCH=3"))) == 1


def test_fewer_pictures_than_processes_are_refused_in_all_of_them_and_the_last_run_stays(tmp_path, monkeypatch):
    fit_frozen(tmp_path)
    monkeypatch.setattr(training, "world_size", lambda: 9)
    for batch_size in (4, 100):
        with pytest.raises(UserError, match="8 training pictures leave nothing for some of 9 processes: start fewer"):
            fit_frozen(tmp_path, BATCH_SIZE=batch_size)
    assert not (tmp_path / "previous").exists()


TINY_CLIP = ["--ENCODER=tiny", "--WIDTHS=4,8", "--IMAGE_SIZE=32", "--DEVICE=cpu"]


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize(
    ("script", "options"),
    [
        (train_unet, TINY),
        *((train_autoencoder, [*TINY, "--SMALL_SIZE=32", f"--STAGE={stage}"]) for stage in (0, 1, 2)),
        *(
            (train_clip, [*TINY_CLIP, "--AUGMENT_FEATURES=False", f"--PROMPT={prompt}"])
            for prompt in ("class", "point")
        ),
    ],
)
def test_a_split_that_is_void_everywhere_is_refused_before_the_first_epoch(
    oxford_copy, tmp_path, script, options, split
):
    for sample in list_samples(oxford_copy, split):
        Image.fromarray(np.full((40, 50), 3, np.uint8)).save(sample.mask)
    with pytest.raises(UserError, match=f"every pixel of the {split} split is void in .*trimaps"):
        run_here(script, f"--DATA_ROOT={oxford_copy}", f"--CHECKPOINTS={tmp_path / 'runs'}", *options)
    assert not (tmp_path / "runs").exists()


def test_only_a_better_score_replaces_the_best_checkpoint(tmp_path):
    results = iter([0.2, 0.5, 0.4, 0.5])
    fit_frozen(tmp_path, lambda model: {"score": next(results)}, EPOCHS=4)
    best = checkpoint.load(tmp_path / "best.safetensors")
    assert (best["epoch"], best["score"]) == (2, 0.5)
    assert checkpoint.load(tmp_path / "last.pt")["epoch"] == 4


# ------------------------------------------------------------------------------------------ several processes


@pytest.mark.slow
def test_two_processes_train_one_model_and_write_one_log(train, oxford_root, tmp_path):
    arguments = [f"--DATA_ROOT={oxford_root}", *TINY, f"--CHECKPOINTS={tmp_path / 'two'}"]
    result = torchrun(2, REPOSITORY / "train_unet.py", *arguments)
    folder = tmp_path / "two" / "unet"
    assert [line["epoch"] for line in log(folder)] == [1, 2, 3]
    assert len(re.findall("^epoch 1/3 ", result.stdout, re.MULTILINE)) == 1
    # the weights that were scored are those that were kept
    assert validation_score(*averaged_model(folder), oxford_root) == pytest.approx(log(folder)[-1]["score"], abs=1e-6)


@pytest.mark.slow
def test_two_machines_train_one_model(oxford_root, tmp_path):
    with socket.create_server(("localhost", 0)) as free:
        endpoint = f"localhost:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc_per_node=1"]
    command += ["--rdzv_backend=c10d", f"--rdzv_endpoint={endpoint}", str(REPOSITORY / "train_unet.py"), *TINY]
    command += [f"--DATA_ROOT={oxford_root}", f"--CHECKPOINTS={tmp_path}"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": script_environment()}
    machines = [subprocess.Popen(command, **pipes) for _ in range(2)]
    outputs = [machine.communicate(timeout=600) for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], outputs
    assert sorted("epoch 3/3" in output for output, _ in outputs) == [False, True]
    assert [line["epoch"] for line in log(tmp_path / "unet")] == [1, 2, 3]


DYING = """
import os
import signal
import train_autoencoder
import train_clip
import train_unet
from utils.config import run_script
from utils.distributed import rank

loss, steps = train_unet.segmentation_loss, 0

def die(*arguments):
    global steps
    steps += 1
    if rank() == 1 and steps == 4:  # in the second epoch
        os.kill(os.getpid(), signal.SIGKILL)
    return loss(*arguments)

train_unet.segmentation_loss = die
run_script(train_unet.main)
"""


@pytest.mark.slow
def test_a_job_that_lost_a_process_ends_and_goes_on_with_more_or_fewer(train, oxford_root, tmp_path):
    script = tmp_path / "dying.py"
    script.write_text(DYING)
    arguments = [f"--DATA_ROOT={oxford_root}", *TINY]
    result = torchrun(2, script, *arguments, f"--CHECKPOINTS={tmp_path / 'one'}", dies=True)
    assert "SIGKILL" in result.stderr
    assert checkpoint.load(tmp_path / "one" / "unet" / "last.pt")["epoch"] == 1
    shutil.copytree(tmp_path / "one", tmp_path / "three")
    train("one", "--RESUME=True")
    resume = [*arguments, f"--CHECKPOINTS={tmp_path / 'three'}", "--RESUME=True"]
    torchrun(3, REPOSITORY / "train_unet.py", *resume)
    one, three = (log(tmp_path / name / "unet") for name in ("one", "three"))
    assert one[0] == three[0]
    assert [line["epoch"] for line in one] == [line["epoch"] for line in three] == [1, 2, 3]
    assert [line["lr"] for line in one] == pytest.approx([line["lr"] for line in three])


EVALUATE = """
import sys
from pathlib import Path
import torch
from utils.rows import load_model
from utils.inputs.dataset import SegmentationDataset
from utils.inputs.layouts import list_samples
from utils.distributed import distributed, rank
from utils.rows.by_class import evaluate, predictor

checkpoint, out, *roots = map(Path, sys.argv[1:])
cpu = torch.device("cpu")
with distributed(cpu):
    model, content = load_model(checkpoint, "unet", cpu)
    predict = predictor(model, content["mean"], content["std"], flip=True)
    datasets = [SegmentationDataset(root, split, 32) for root in roots for split in ("val", "test")]
    torch.save([evaluate(predict, dataset, cpu, 3, batch_size=2) for dataset in datasets], out / f"{rank()}.pt")
"""


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 3])
def test_evaluation_under_several_processes_counts_what_one_process_counts(
    train, oxford_root, oxford_copy, tmp_path, processes
):
    folder = train("run", "--EPOCHS=6")
    for split, count in (("trainval", 1), ("test", 2)):  # fewer pictures than processes
        file = oxford_copy / "annotations" / f"{split}.txt"
        file.write_text("".join(file.read_text().splitlines(keepends=True)[-count:]))
    roots = (oxford_root, oxford_copy)
    script = tmp_path / "evaluate_them.py"
    script.write_text(EVALUATE)
    torchrun(processes, script, folder / "best.safetensors", tmp_path, *roots)

    model, content = load_model(folder / "best.safetensors", "unet", CPU)
    predict = predictor(model, content["mean"], content["std"], flip=True)
    datasets = [SegmentationDataset(root, split, 32) for root in roots for split in ("val", "test")]
    assert [len(dataset) for dataset in datasets] == [3, 8, 1, 2]
    expected = [evaluate(predict, dataset, CPU, 3).tolist() for dataset in datasets]
    assert all(torch.tensor(counts).sum((0, 1)).count_nonzero() > 1 for counts in expected[:2])  # not all background
    for rank in range(processes):
        assert [counts.tolist() for counts in torch.load(tmp_path / f"{rank}.pt")] == expected
