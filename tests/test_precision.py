"""In which precision scripts and rows compute, where "auto" is bf16: fp32 for what measures a number."""

import numpy as np
import pytest
import torch
from conftest import REPOSITORY, run_here
from torch import nn

import evaluate
import predict
import train_clip
import train_pointclip
import train_unet
from models.blocks import ResidualBlock
from models.clip import CLIPCNN, ImageEncoder
from models.unet import UNet
from utils import device
from utils.device import autocast
from utils.errors import UserError
from utils.rows import load_row

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def auto_is_bf16(monkeypatch):
    monkeypatch.setattr(device, "_cpu_multiplies_bf16", lambda: True)


@pytest.fixture
def calls(monkeypatch):
    """calls(class): a list of (training, in bf16) of every call of its forward from now on."""

    def record(module_class: type[nn.Module]) -> list[tuple[bool, bool]]:
        seen, forward = [], module_class.forward

        def recorded(self, *arguments, **options):
            seen.append((self.training, torch.is_autocast_enabled("cpu")))
            return forward(self, *arguments, **options)

        monkeypatch.setattr(module_class, "forward", recorded)
        return seen

    return record


def test_training_and_predict_take_bf16_and_what_measures_a_number_fp32(calls, oxford_root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seen, data = calls(UNet), f"--DATA_ROOT={oxford_root}"
    small = ("--IMAGE_SIZE=32", "--SMALL_SIZE=32", "--WIDTH=4", "--DEPTH=2", "--EPOCHS=1", "--BATCH_SIZE=8")
    run_here(train_unet, data, *small)
    assert set(seen) == {(True, True), (False, False)}  # steps, validation
    picture = str(next((oxford_root / "images").iterdir()))
    score, guess = (evaluate, data, "--ROWS=UNET"), (predict, picture)
    for (script, *arguments), option, bf16 in (
        (score, (), False),
        (score, ("--PRECISION=auto",), True),
        (guess, (), True),
        (guess, ("--PRECISION=fp32",), False),
    ):
        seen.clear()
        run_here(script, *arguments, *option)
        assert set(seen) == {(False, bf16)}
        with pytest.raises(UserError, match="PRECISION = 'fp8': must be one of 'auto', 'bf16', 'fp32'"):
            run_here(script, *arguments, "--PRECISION=fp8")


def test_frozen_encoders_train_in_bf16_and_names_and_validations_are_in_fp32(
    calls, oxford_root, tiny_clip_folder, tmp_path
):
    decoding, encoding = calls(CLIPCNN), calls(ImageEncoder)
    small = ("--IMAGE_SIZE=32", "--EPOCHS=1", "--BATCH_SIZE=8", "--WIDTHS=4,8,8,16", f"--ENCODER={tiny_clip_folder}")
    run_here(train_clip, f"--DATA_ROOT={oxford_root}", f"--CHECKPOINTS={tmp_path}", "--ZOOM=True", *small)
    assert set(decoding) == {(True, True), (False, False)}
    encoding.clear()
    run_here(train_pointclip, f"--DATA_ROOT={oxford_root}", f"--CHECKPOINTS={tmp_path}", "--VIEW_SIZE=32", *small)
    assert {bf16 for _, bf16 in encoding} == {True, False}


def test_the_class_map_beside_clicks_has_the_precision_of_the_clicks(calls):
    seen = calls(ResidualBlock)
    for precision in ("fp32", "bf16"):
        row = load_row("PointCLIP", REPOSITORY / "checkpoints", CPU, precision=precision)
        assert row.precision == row.class_row.precision == precision
        seen.clear()
        row.segment(np.zeros((8, 8, 3), np.uint8), [(4, 4, 1)])
        assert set(seen) == {(False, precision == "bf16")}


def test_weights_first_used_without_gradients_get_them_later():
    layer, images = nn.Conv2d(3, 4, 1), torch.rand(1, 3, 4, 4)
    with autocast(CPU, "bf16"):
        with torch.no_grad():
            layer(images)
        layer(images).float().sum().backward()
    assert layer.weight.grad is not None
