"""The U-Net: any size in, the same size out."""

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
