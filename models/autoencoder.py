"""Autoencoder: a U-Net that first reconstructs pictures without masks, then segments.

A denoising autoencoder (Vincent et al., ICML 2008) that sees less than half of the patches, as in MAE (He et al., CVPR
2022). Its decoder is pretrained too: Models Genesis (Zhou et al., Medical Image Analysis 2021).
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

    frozen: the encoder's weights do not change; its batch-norm statistics do, since stage 1 saw parts of pictures.
    Other arguments: as in models.unet.
    """

    def __init__(self, classes: int = 3, frozen: bool = False, **arguments):
        super().__init__(classes, **arguments)
        self.encoder.requires_grad_(not frozen)
