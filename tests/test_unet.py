"""The U-Net: any size in, the same size out, every parameter in use."""

import pytest
import torch

from models.unet import UNet


@pytest.mark.parametrize("stem_stride", [1, 2, 4])
@pytest.mark.parametrize("size", [(33, 47), (1, 1), (7, 2)])
def test_logits_have_the_size_of_the_picture(size, stem_stride):
    model = UNet(width=4, depth=4, stem_stride=stem_stride).eval()
    with torch.inference_mode():
        logits = model(torch.randn(2, 3, *size))
    assert logits.shape == (2, 3, *size)
    assert logits.isfinite().all()


def test_the_coarsest_level_sees_the_whole_picture():
    torch.manual_seed(0)
    model = UNet(width=4, depth=5).eval()
    images = torch.randn(1, 3, 96, 96, requires_grad=True)
    model(images)[0, :, 48, 48].sum().backward()
    corners = images.grad[0][:, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corners != 0).any(0).all()


def test_dropout_acts_in_training_only():
    model = UNet(width=4, depth=2, dropout=0.5)
    images = torch.randn(2, 3, 32, 32)
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))
