"""Distillation: what the teacher sees, the loss, and a U-Net that is a plain one afterwards."""

import pytest
import torch
import torch.nn.functional as F
from conftest import run_here

import train_unet
from models.clip import ImageEncoder
from models.unet import UNet
from utils.checkpoint import load, save
from utils.errors import UserError
from utils.rows import load_row
from utils.training.distill import Teacher, distillation_loss

CPU = torch.device("cpu")


@pytest.fixture
def encoder() -> ImageEncoder:
    torch.manual_seed(0)
    return ImageEncoder.tiny(layers=(3,))


def test_the_teacher_sees_normalised_pictures_at_its_own_size_to_the_next_patch(encoder):
    images = torch.rand(2, 3, 64, 96)
    tokens, embedding = Teacher(encoder, 1.3)(images)  # 83.2 x 124.8 pixels: 5 x 8 patches of 16
    resized = F.interpolate(images, size=(80, 128), mode="bilinear", antialias=True)
    expected, expected_embedding = encoder.encode((resized - 0.5) / 0.5)
    assert tokens.shape == (2, 96, 5, 8) and embedding.shape == (2, 96) and not tokens.requires_grad
    torch.testing.assert_close(tokens, expected)
    torch.testing.assert_close(embedding, expected_embedding)
    assert Teacher(encoder, 0.1)(images)[0].shape == (2, 96, 1, 1)  # at least one patch


def test_the_loss_is_0_for_the_normalised_tokens_and_1_for_nothing():
    torch.manual_seed(0)
    tokens, embedding = 3 + 5 * torch.randn(2, 16, 4, 4), torch.randn(2, 16)
    right = F.layer_norm(tokens.movedim(1, -1), (16,)).movedim(-1, 1)
    named = F.layer_norm(embedding, (16,))[:, :, None, None]
    halves = F.avg_pool2d(right, 2)
    assert distillation_loss([named, halves, right], tokens, embedding) < 1e-10
    nothing = [torch.zeros_like(named), torch.zeros_like(right)]
    assert distillation_loss(nothing, tokens, embedding).item() == pytest.approx(1, abs=1e-3)  # their variance
    one_wrong = distillation_loss([named, halves, right + 0.3], tokens, embedding)
    assert one_wrong.item() == pytest.approx(0.3**2 / 3, abs=1e-5)


def test_the_u_net_predicts_the_tokens_at_its_two_coarsest_levels_beside_the_same_logits():
    torch.manual_seed(0)
    model = UNet(width=4, depth=4, teacher_channels=24).eval()
    images = torch.randn(2, 3, 64, 96)
    logits, predicted = model(images, with_tokens=True)
    assert [tuple(x.shape) for x in predicted] == [(2, 24, 1, 1), (2, 24, 4, 6), (2, 24, 8, 12)]
    assert torch.equal(logits, model(images))
    loss = logits.sum() + distillation_loss(predicted, torch.randn(2, 24, 5, 8), torch.randn(2, 24))
    loss.backward()
    assert all(p.grad.abs().sum() > 0 for p in model.teacher_heads.parameters())


@pytest.mark.slow
def test_a_distilled_u_net_learns_the_tokens_and_is_a_plain_one_afterwards(encoder, oxford_root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    weights = {f"encoder.{name}": value for name, value in encoder.state_dict().items()}
    save({"arguments": {"encoder_config": encoder.config()}, "weights": weights}, "teacher.pt")
    small = (f"--DATA_ROOT={oxford_root}", "--IMAGE_SIZE=32", "--SMALL_SIZE=32", "--EPOCHS=4", "--BATCH_SIZE=8")
    small += ("--WIDTH=4", "--DEPTH=3", "--CHECKPOINTS=runs")
    run_here(train_unet, *small)
    start = "--START=runs/unet/best.pt"
    run_here(train_unet, *small, start, "--TEACHER=teacher.pt", "--TEACHER_WEIGHT=100", "--ROW=UNET distilled")
    losses = [line["loss"] for line in load("runs/unet_distilled/last.pt")["log"]]
    assert losses[0] - losses[-1] > 5  # the loss on the masks is below 2
    plain, distilled = (load(f"runs/{name}/best.pt") for name in ("unet", "unet_distilled"))
    assert distilled["arguments"] == plain["arguments"] and distilled["weights"].keys() == plain["weights"].keys()
    assert load_row("UNET distilled", "runs", CPU).params_m == load_row("UNET", "runs", CPU).params_m
    with pytest.raises(UserError, match="runs/unet/best.pt holds no pretrained encoder"):
        run_here(train_unet, *small, "--TEACHER=runs/unet/best.pt")
