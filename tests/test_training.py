"""The training loop: it learns, it repeats exactly, it survives being killed, and it says what is wrong."""

import math
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from utils.config import script_constants

import numpy as np
import pytest
import torch
from conftest import run_here
from PIL import Image
from torch import nn

import train_autoencoder
import train_clip
import train_unet
from data import prepare
from models.unet import UNet
from utils import checkpoint
from utils.classes import PETS, named
from utils.errors import UserError
from utils.files import read_csv
from utils.inputs.augment import IMAGENET_MEAN, IMAGENET_STD
from utils.inputs.layouts import list_samples
from utils.metrics import scores
from utils.rows import load_model, load_row
from utils.rows.by_class import ByClass
from utils.rows.row import Row
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
    lines = read_csv(folder / "log.csv")
    return [{key: float(value) for key, value in line.items() if key != "seconds"} for line in lines]


def assert_same_run(left: Path, right: Path) -> None:
    """The same losses and scores and, bit for bit, the same weights, averages and optimizer."""
    assert log(left) == log(right)
    for name in ("best.safetensors", "last.pt"):
        one, two = checkpoint.load(left / name), checkpoint.load(right / name)
        assert one["epoch"] == two["epoch"]
        states = [[x["weights"], x.get("ema", {}), x.get("optimizer", {}).get("state", {})] for x in (one, two)]
        torch.testing.assert_close(*states, rtol=0, atol=0)


def stop_at(monkeypatch, owner: object, name: str, call: int) -> None:
    """Let the given call of a function of a module or class be interrupted."""
    original, calls = getattr(owner, name), []

    def counting(*args, **kwargs):
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, counting)


# ------------------------------------------------------------------------------------------- what a run does


def test_a_run_writes_its_files_and_says_with_which_settings(train, capsys):
    folder = train("run", "--BATCH_SIZE=1", "--EPOCHS=2")
    assert [line["epoch"] for line in log(folder)] == [1, 2]
    assert list(log(folder)[0]) == ["epoch", "loss", "score", "iou_cat", "iou_dog", "lr"]
    files = {file.name for file in folder.iterdir() if file.name[0] != "."}
    assert files == {"best.safetensors", "curves.png", "last.pt", "log.csv", "progress.png"}
    assert all(Image.open(folder / name).width > 500 for name in ("curves.png", "progress.png"))
    lines = capsys.readouterr().out.splitlines()
    assert "EPOCHS=2" in lines[0] and "WIDTH=4" in lines[0]
    assert re.fullmatch(r"[\d,]+ parameters to train, \d+ pictures, on cpu", lines[1])


def test_a_tiny_unet_learns_the_tiny_data_set_and_a_run_may_start_from_its_weights(train):
    first = train("first", "--EPOCHS=20", "--WIDTH=8", "--DROPOUT=0", "--SMALL_SHARE=0")
    lines = log(first)
    assert lines[-1]["loss"] < 0.5 * lines[0]["loss"]
    assert lines[-1]["score"] > 0.8  # everything background is below .3
    options = ("--WIDTH=8", "--EPOCHS=1", "--LEARNING_RATE=0.0001", "--EMA_DECAY=0")
    further = log(train("further", f"--START={first / 'best.safetensors'}", *options))
    assert further[0]["score"] > 0.8 > log(train("new", *options))[0]["score"]
    with pytest.raises(UserError, match="another architecture"):
        train("narrow", f"--START={first / 'best.safetensors'}")


def test_the_rate_rises_during_warmup_and_ends_at_zero(train):
    rates = [line["lr"] for line in log(train("run", "--EPOCHS=6", "--WARMUP=0.5", "--LEARNING_RATE=0.004"))]
    assert rates[0] < rates[1] < rates[2] == pytest.approx(0.004)
    assert rates[2] > rates[3] > rates[4] > rates[5] == pytest.approx(0, abs=1e-12)


def averaged_model(folder: Path) -> tuple[UNet, dict]:
    """The averaged weights of the last epoch, unrounded, and the content of last.pt."""
    content = checkpoint.load(folder / "last.pt")
    model = UNet(**content["arguments"])
    checkpoint.load_state(model, content["ema"], folder / "last.pt")
    return model.to(memory_format=torch.channels_last).eval(), content


def validation_score(model: nn.Module, content: dict, root: Path) -> float:
    """The mIoU of a model on the validation pictures; content: of its checkpoint."""
    row = ByClass("again", model, CPU, content["image_size"], content["mean"], content["std"], PETS)
    return row.validate(list_samples(root, "val"))["score"]


def test_the_score_in_the_log_is_that_of_the_averaged_weights_and_of_the_best_ones_but_for_rounding(train, oxford_root):
    folder = train("run")
    assert validation_score(*averaged_model(folder), oxford_root) == pytest.approx(log(folder)[-1]["score"], abs=1e-9)
    model, content = load_model(folder / "best.safetensors", "unet", CPU)
    assert validation_score(model, content, oxford_root) == pytest.approx(content["score"], abs=0.005)
    assert content["score"] == max(line["score"] for line in log(folder))
    assert content["constants"]["WIDTH"] == 4 and content["epoch"] in (1, 2, 3)


def test_the_same_seed_gives_the_same_run_and_another_seed_another(train):
    assert_same_run(train("one"), train("two"))
    assert log(train("other", "--SEED=1"))[0]["loss"] != log(train("three"))[0]["loss"]


def test_validation_every_second_epoch_changes_no_weight_and_a_run_goes_on_from_the_last_one(train, monkeypatch):
    every = log(train("every", "--EPOCHS=5"))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_at(patch, train_unet, "segmentation_loss", 6)  # in epoch 3
        train("second", "--EPOCHS=5", "--VALIDATE_EVERY=2")
    assert log(train("second", "--EPOCHS=5", "--VALIDATE_EVERY=2", "--RESUME=True")) == [every[1], every[3], every[4]]


def test_a_new_run_keeps_the_files_of_the_last_one(train, capsys):
    folder = train("run")
    before = {name: (folder / name).read_bytes() for name in ("best.safetensors", "last.pt", "log.csv", "curves.png")}
    train("run", "--SEED=1")
    assert {name: (folder / "previous_1" / name).read_bytes() for name in before} == before
    assert str(folder / "previous_1") in capsys.readouterr().out


# ------------------------------------------------------------------------------------------ stops and failures


# fsync: of a file that is written but not in its place; of the second and third epoch, whatever is written there
MOMENTS = [(train_unet, "segmentation_loss", 3), (ByClass, "validate", 2)]
MOMENTS += [(os, "fsync", call) for call in (6, 8, 12)]


def test_a_run_that_was_stopped_and_resumed_equals_one_that_was_not(train, monkeypatch):
    whole = train("whole", "--PRECISION=auto")
    for moment in MOMENTS:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            stop_at(patch, *moment)
            train("stopped", "--PRECISION=auto")
        assert_same_run(train("stopped", "--PRECISION=auto", "--RESUME=True"), whole)


def test_a_loss_that_is_not_finite_stops_the_run_which_can_be_resumed(train, monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        original, calls = train_unet.segmentation_loss, []

        def explode(*args):
            calls.append(1)
            return original(*args) * (math.nan if len(calls) == 3 else 1)

        patch.setattr(train_unet, "segmentation_loss", explode)
        with pytest.raises(UserError, match=r"loss became nan in epoch 2: start again with a lower LEARNING_RATE"):
            train("run")
    model, content = load_model(tmp_path / "run" / "unet" / "best.safetensors", "unet", CPU)
    assert content["epoch"] == 1 and all(value.isfinite().all() for value in model.state_dict().values())
    assert_same_run(train("run", "--RESUME=True"), train("whole"))


def test_a_second_run_in_the_same_folder_at_the_same_time_is_refused_and_does_not_disturb_the_first(tmp_path):
    def meanwhile(model):
        with pytest.raises(UserError, match="another training is writing to .*run"):
            fit_frozen(tmp_path / "run")
        return {"score": 0.0}

    fit_frozen(tmp_path / "run", meanwhile)
    fit_frozen(tmp_path / "alone")
    assert_same_run(tmp_path / "run", tmp_path / "alone")


def test_resuming_what_is_not_this_run_is_refused(train):
    with pytest.raises(UserError, match=r"RESUME = True, but .*last.pt is missing: start with RESUME = False"):
        train("run", "--RESUME=True")
    folder = train("run")
    finished = checkpoint.load(folder / "last.pt")
    interrupted = finished | {"epoch": 2, "training pictures": 99}
    for content, argument, message in (
        (finished, "--EPOCHS=4", "EPOCHS = 3, now it is 4"),
        (finished, "--WIDTH=6", "width = 4, now it is 6: change that, or start"),
        (finished, "--DROPOUT=0.5", "dropout = 0.1, now it is 0.5"),
        (interrupted, "--SEED=0", "training pictures = 99, now it is "),
        (interrupted, "--SMALL_SIZE=16", "SMALL_SIZE = [0-9]+, now it is 16"),
        (interrupted, "--SEED=1", "SEED = 0, now it is 1"),
    ):
        checkpoint.save(content, folder / "last.pt")
        with pytest.raises(UserError, match=f"last.pt belongs to a run of {message}"):
            train("run", "--RESUME=True", argument)
    (folder / "last.pt").write_bytes((folder / "last.pt").read_bytes()[:999])
    with pytest.raises(UserError, match="last.pt is no checkpoint of this project, or is damaged"):
        train("run", "--RESUME=True")


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--LEARNING_RATE=nan", "LEARNING_RATE = nan"),
        ("--SCALE=2,1", "SCALE = 2.0,1.0: must be two positive numbers"),
        ("--PRECISION=fp8", "PRECISION = 'fp8': must be one of 'auto', 'bf16', 'fp32'"),
        ("--DEVICE=nonsense", 'DEVICE = "nonsense" cannot be used here: choose one of auto, cpu'),
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
    class Scored(Row):
        def validate(self, val: tuple) -> dict[str, float]:
            return validate(self.model)

    torch.manual_seed(0)
    model = FrozenEncoder()
    constants = script_constants(train_unet.main) | {"EPOCHS": 2, "BATCH_SIZE": 4, "PRECISION": "fp32", **changes}
    training.fit(
        Scored("frozen", model, CPU, 2, IMAGENET_MEAN, IMAGENET_STD, classes),
        Pictures(),
        compute_loss,
        (),
        folder=folder,
        about={"model": "frozen", "arguments": {"freeze_encoder": True}},
        settings=training.Settings.of(constants),
        report=lambda log, row, val, folder: None,
    )
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


def test_few_pictures_are_repeated_until_an_epoch_has_its_steps(tmp_path):
    shown = []

    def watch(model, batch, generator, progress):
        shown.append(sorted(int((Pictures.images == image).all((1, 2, 3)).nonzero()) for image in batch[0]))
        return mean_square(model, batch, generator, progress)

    fit_frozen(tmp_path, compute_loss=watch, EPOCHS=2, EPOCH_STEPS=5)
    assert list(map(len, shown)) == [4] * 10 and shown[:5] != shown[5:]
    assert sorted(shown[0] + shown[1]) == sorted(shown[2] + shown[3]) == list(range(8))
    assert read_csv(tmp_path / "log.csv")[-1]["lr"] == "0.0"  # the rate falls over all steps


def test_a_batch_larger_than_the_data_set_is_the_data_set(tmp_path):
    for size in (8, 100):
        fit_frozen(tmp_path / str(size), BATCH_SIZE=size)
    assert_same_run(tmp_path / "8", tmp_path / "100")


def test_frozen_weights_are_neither_stored_nor_changed_and_the_others_are_both(tmp_path):
    torch.manual_seed(0)
    before = FrozenEncoder().state_dict()
    after = fit_frozen(tmp_path).state_dict()
    assert [name for name in before if not torch.equal(before[name], after[name])] == ["decoder.weight", "decoder.bias"]
    assert set(checkpoint.load(tmp_path / "best.safetensors")["weights"]) == {"decoder.weight", "decoder.bias"}
    last = checkpoint.load(tmp_path / "last.pt")
    assert list(last["weights"]) == list(last["ema"]) == ["decoder.weight", "decoder.bias"]


def test_the_moving_average_forgets_the_start_of_a_short_run(tmp_path):
    weights, decay = [], 0.8

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
    scores = iter([{"score": 0.0}])  # of the first epoch alone
    with pytest.raises(StopIteration):
        fit_frozen(tmp_path / "stopped", lambda model: next(scores))
    with pytest.raises(UserError, match=r"last.pt belongs to a run of LEARNING_RATE = 0.002, now it is 0.001: change"):
        fit_frozen(tmp_path / "stopped", RESUME=True, LEARNING_RATE=1e-3)
    fit_frozen(tmp_path / "stopped", RESUME=True)
    fit_frozen(tmp_path / "whole")
    assert_same_run(tmp_path / "stopped", tmp_path / "whole")


def test_resuming_on_other_classes_or_another_order_of_them_is_refused_with_both_lists(tmp_path):
    fit_frozen(tmp_path)
    with pytest.raises(UserError, match="(?s)last.pt was trained on other.*background, cat, dog.*background, dog, cat"):
        fit_frozen(tmp_path, classes=named(("background", "dog", "cat")), RESUME=True)


def test_resuming_from_a_file_that_holds_no_such_run_is_refused(tmp_path):
    fit_frozen(tmp_path)
    content = checkpoint.load(tmp_path / "last.pt")
    content["optimizer"]["param_groups"].pop()  # other learning rates per block
    checkpoint.save(content, tmp_path / "last.pt")
    with pytest.raises(UserError, match="last.pt belongs to a run with other constants"):
        fit_frozen(tmp_path, RESUME=True)


def test_no_new_run_takes_the_weights_of_an_earlier_one(tmp_path):
    for seed in range(3):
        fit_frozen(tmp_path, SEED=seed)
    kept = [checkpoint.load(tmp_path / f"previous_{n}")["constants"]["SEED"] for n in (1, 2)]
    assert kept == [0, 1] and checkpoint.load(tmp_path)["constants"]["SEED"] == 2


def test_a_score_that_is_not_finite_stops_the_run_and_keeps_its_files(tmp_path):
    scores = iter([0.5, math.nan])
    with pytest.raises(
        UserError, match=r"the validation score became nan in epoch 2: start again with a lower LEARNING_RATE"
    ):
        fit_frozen(tmp_path, lambda model: {"score": next(scores)}, EPOCHS=3)
    assert [checkpoint.load(tmp_path / name)["epoch"] for name in ("best.safetensors", "last.pt")] == [1, 1]


def test_one_value_per_channel_in_batch_norm_is_an_error_that_says_what_to_change(train):
    smallest = ("--IMAGE_SIZE=16", "--SMALL_SIZE=16", "--DEPTH=4")  # 1 x 1 at the coarsest level
    with pytest.raises(UserError, match="single value per channel.*raise BATCH_SIZE.*raise IMAGE_SIZE and SMALL_SIZE"):
        train("run", *smallest, "--BATCH_SIZE=1")


def test_weights_of_other_classes_are_a_start_that_keeps_the_classes_of_the_same_name(
    oxford_root, tiny_clip_folder, tmp_path, capsys
):
    """START and ENCODER take any file of the same family, wherever it lies; the new row needs no other file."""
    options = ["--IMAGE_SIZE=32", "--EPOCHS=1", "--BATCH_SIZE=8", "--LEARNING_RATE=1e-9", "--EMA_DECAY=0.0"]
    folders = tmp_path / "folders"
    drawn = ("--CLASSES=rabbit,cat,dog", "--TRAIN_PICTURES=10", "--TEST_PICTURES=3", "--SIDES=64,80")
    run_here(prepare, "--SYNTHETIC=True", f"--SYNTHETIC_ROOT={folders}", *drawn)
    for script, small in (
        (train_unet, ["--SMALL_SIZE=32", "--WIDTH=4", "--DEPTH=2"]),
        (train_autoencoder, ["--SMALL_SIZE=32", "--WIDTH=4", "--DEPTH=2", "--PRETRAIN_EPOCHS=1"]),
        (train_clip, ["--WIDTHS=4,8,8,16", f"--ENCODER={tiny_clip_folder}", "--FREEZE_ENCODER=False"]),
    ):
        name = script.__name__.removeprefix("train_")
        run_here(script, f"--DATA_ROOT={oxford_root}", f"--CHECKPOINTS={tmp_path / 'first'}", *options, *small)
        start, row = tmp_path / "first" / name, tmp_path / "second" / name
        capsys.readouterr()
        freeze = ["--FREEZE_ENCODER=True"] if script == train_clip else []
        places = [f"--DATA_ROOT={folders}", f"--CHECKPOINTS={tmp_path / 'second'}", f"--START={start}"]
        run_here(script, *places, *options, *small, *freeze)
        assert "its last layer: kept background, cat, dog; new rabbit" in capsys.readouterr().out
        before, after = (checkpoint.load(folder)["weights"] for folder in (start, row))
        assert torch.allclose(after["head.weight"][[0, 2, 3]].float(), before["head.weight"].float(), atol=1e-3)
        shutil.rmtree(tmp_path / "first" / name)
        classes = load_model(checkpoint.weights_file(row), name, CPU)[1]["classes"]
        assert " ".join(classes) == "background rabbit cat dog"
    with pytest.raises(UserError, match="holds a model 'unet': give weights of a model clip"):
        run_here(train_clip, f"--DATA_ROOT={oxford_root}", f"--START={tmp_path / 'second' / 'unet'}")


TINY_CLIP = "--WIDTHS=4,8 --IMAGE_SIZE=32 --VIEW_SIZE=32 --EPOCHS=1 --BATCH_SIZE=8 --DEVICE=cpu --ENCODER=tiny".split()


def test_a_row_that_looks_closer_is_a_start_too_and_a_frozen_encoder_stays_what_the_checkpoint_says(
    oxford_root, tiny_clip_folder, tmp_path
):
    options = [f"--DATA_ROOT={oxford_root}", f"--CHECKPOINTS={tmp_path}", *TINY_CLIP, f"--ENCODER={tiny_clip_folder}"]
    run_here(train_clip, *options, "--FREEZE_ENCODER=False", "--ZOOM=True")
    assert "name_layer.weight" in checkpoint.load(tmp_path / "clip")["weights"]
    run_here(train_clip, *options, f"--START={tmp_path / 'clip'}", "--ROW=frozen")
    content, val = checkpoint.load(tmp_path / "frozen"), list_samples(oxford_root, "val")
    first = checkpoint.load(tmp_path / "clip")["weights"]
    assert "name_layer.weight" not in content["weights"] and content["holds_encoder"]  # the file stands alone
    encoder = {name: value for name, value in content["weights"].items() if name.startswith("encoder.")}
    assert encoder and all(torch.equal(value, first[name]) for name, value in encoder.items())
    again = scores(load_row("frozen", tmp_path, CPU).score(val), PETS.names)["miou"]
    assert again == pytest.approx(content["score"], abs=0.005)


def test_masks_without_any_thing_leave_nothing_to_name_which_is_an_error_that_keeps_the_training(oxford_copy, tmp_path):
    for sample in list_samples(oxford_copy, "train"):
        Image.fromarray(np.full(Image.open(sample.mask).size[::-1], 2, np.uint8)).save(sample.mask)
    options = [f"--DATA_ROOT={oxford_copy}", f"--CHECKPOINTS={tmp_path}", *TINY_CLIP]
    with pytest.raises(UserError, match="nothing but background.*set ZOOM = False"):
        run_here(train_clip, *options, "--ZOOM=True")
    assert load_row("CLIP", tmp_path, CPU).zoom is False


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("script", [train_unet, train_autoencoder])
def test_a_split_that_is_void_everywhere_is_refused_before_the_first_epoch(oxford_copy, tmp_path, script, split):
    for sample in list_samples(oxford_copy, split):
        Image.new("L", Image.open(sample.image).size, 3).save(sample.mask)
    options = [*TINY, "--SMALL_SIZE=32", f"--CHECKPOINTS={tmp_path / 'runs'}"]
    with pytest.raises(UserError, match=f"every pixel of the {split} split is void in .*trimaps"):
        run_here(script, f"--DATA_ROOT={oxford_copy}", *options)
    assert not (tmp_path / "runs").exists()


def test_only_a_better_score_replaces_the_best_checkpoint(tmp_path):
    results = iter([0.2, 0.5, 0.4, 0.5])
    fit_frozen(tmp_path, lambda model: {"score": next(results)}, EPOCHS=4)
    best = checkpoint.load(tmp_path / "best.safetensors")
    assert (best["epoch"], best["score"]) == (2, 0.5)
    assert checkpoint.load(tmp_path / "last.pt")["epoch"] == 4
