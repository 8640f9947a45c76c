"""Autoencoder: a U-Net that first reconstructs pictures without masks, then segments.

Hidden patches and the loss on them: MAE (He et al., CVPR 2022). Pretraining the decoder too, not only the encoder:
Models Genesis (Zhou et al., Medical Image Analysis 2021).
"""

import torch
from torch import nn

from models.unet import UNet


class Autoencoder(UNet):
    """Stage 1. images (N, 3, H, W), normalised, their hidden patches 0 -> pictures (N, 3, H, W).

    Arguments: as in models.unet, but for classes.
    """

    def __init__(self, stem_stride: int = 2, **arguments):
        super().__init__(3 * stem_stride**2, stem_stride=stem_stride, **arguments)
        self.to_pixels = nn.PixelShuffle(stem_stride)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        pixels = self.to_pixels(self.head(self.decoder(self.encoder(images))))
        return pixels[..., : images.shape[-2], : images.shape[-1]]  # a side that stem_stride does not divide


class AutoencoderSegmenter(UNet):
    """Stage 2. images (N, 3, H, W), normalised -> logits (N, classes, H, W).

    frozen: the encoder's weights and batch-norm statistics do not change. Other arguments: as in models.unet.
    """

    def __init__(self, classes: int = 3, frozen: bool = False, **arguments):
        super().__init__(classes, **arguments)
        self.frozen = frozen
        self.encoder.requires_grad_(not frozen)

    def train(self, mode: bool = True) -> "AutoencoderSegmenter":
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self
