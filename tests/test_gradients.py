"""Forward and backward through every model: each parameter that is trained gets a finite gradient that is not 0."""

from collections.abc import Callable

import pytest
import torch
from conftest import REPOSITORY
from test_clipseg import tiny_reference
from torch import nn

from models.autoencoder import Autoencoder, AutoencoderSegmenter
from models.clip import CLIPCNN
from models.clipseg import CLIPSeg
from models.pointclip import PointCLIP
from models.unet import UNet

IMAGES = (4, 3, 32, 32)
TINY = {"width": 4, "depth": 3}
CLIP = {"encoder": "tiny", "widths": (8, 8, 8, 32), "freeze_encoder": False}
CLICKS = torch.tensor([[[0.2, 0.3, 1.0], [0.7, 0.6, 0.0]]]).expand(4, -1, -1)
UNUSED = "encoder.vit.post_layernorm."  # of CLIP's pooled output; patch tokens and class token are read before it


def with_names(model: CLIPCNN, images: torch.Tensor) -> torch.Tensor:
    return torch.cat([output.flatten() for output in model.with_names(images)])


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[nn.Module, torch.Tensor], object]]] = {
    "U-Net": (lambda: UNet(**TINY, blocks=2), lambda model, x: model(x)),
    "autoencoder": (lambda: Autoencoder(**TINY), lambda model, x: model(x)),
    "autoencoder, stage 2": (lambda: AutoencoderSegmenter(**TINY), lambda model, x: model(x)),
    "autoencoder, frozen": (lambda: AutoencoderSegmenter(**TINY, frozen=True), lambda model, x: model(x)),
    "CLIP": (lambda: CLIPCNN(**CLIP), lambda model, x: model(x)),
    "CLIP, frozen": (lambda: CLIPCNN(**CLIP | {"freeze_encoder": True}), lambda model, x: model(x)),
    "CLIP, named": (lambda: CLIPCNN(**CLIP, name_parts=True), with_names),
    "PointCLIP": (lambda: PointCLIP(**CLIP), lambda model, x: model(x, CLICKS, torch.rand(4, 1, 16, 16))),
}


@pytest.mark.parametrize("name", CASES)
def test_each_parameter_that_is_trained_gets_a_finite_gradient(name):
    torch.manual_seed(0)
    make, forward = CASES[name]
    model = make().train()
    for parameter in model.parameters():
        if parameter.ndim > 1 and not parameter.any():  # what starts as 0 lets no gradient through
            nn.init.normal_(parameter, std=0.1)
    output = forward(model, torch.randn(IMAGES))
    (output * torch.randn_like(output)).sum().backward()
    trained = {key: p.grad for key, p in model.named_parameters() if p.requires_grad and not key.startswith(UNUSED)}
    assert trained and all(p.grad is None for p in model.parameters() if not p.requires_grad)
    assert [key for key, grad in trained.items() if grad is None or not grad.isfinite().all() or not grad.any()] == []


def test_clipseg_is_used_as_it_is_and_lets_gradients_through_to_the_picture():
    model, images = CLIPSeg(tiny_reference(), None, image_size=32), torch.randn(1, 3, 32, 32, requires_grad=True)
    assert not any(p.requires_grad for p in model.parameters())
    model(images, torch.randn(2, 12)).sum().backward()
    assert images.grad.isfinite().all() and images.grad.any()


def test_no_model_is_left_out():
    tested = {type(make()).__module__ for make, _ in CASES.values()} | {CLIPSeg.__module__}
    files = {f"models.{path.stem}" for path in (REPOSITORY / "models").glob("*.py")}
    assert tested == files - {"models.__init__", "models.blocks", "models.hub"}
