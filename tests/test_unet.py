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


@pytest.mark.parametrize(("max_width", "channels"), [(512, [6]), (512, [6, 12, 24]), (16, [6, 12, 16, 16])])
def test_width_depth_and_max_width_set_the_channels_of_the_levels(max_width, channels):
    model = UNet(width=6, depth=len(channels), max_width=max_width).eval()
    features = model.encoder(torch.randn(1, 3, 64, 64))
    assert [f.shape[1] for f in features] == channels
    assert [f.shape[-1] for f in features] == [32, 16, 8, 4][: len(channels)]  # the stem halves the size


def test_blocks_and_classes_are_what_the_constructor_says():
    model = UNet(classes=7, width=4, depth=2, blocks=2)
    assert model(torch.randn(2, 3, 16, 16)).shape == (2, 7, 16, 16)
    assert [len(level) for level in model.encoder.levels] == [2, 2]


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
