"""U-Net with residual blocks (Ronneberger et al., MICCAI 2015; blocks of He et al., CVPR 2016)."""

import torch
import torch.nn.functional as F
from torch import nn

from models.blocks import Decoder, Encoder


class UNet(nn.Module):
    """images (N, 3, H, W) float, any H and W -> logits (N, classes, H, W).

    width: channels of the finest level; each level down halves the size and doubles the channels, up to
    max_width. depth: number of levels. blocks: residual blocks per level of the encoder. stem_stride: the
    finest level works at 1 / stem_stride of the picture's size; 2 costs a third of 1.
    dropout: chance that a channel of the coarsest level is dropped.
    """

    def __init__(
        self,
        classes: int = 3,
        width: int = 32,
        depth: int = 5,
        max_width: int = 512,
        blocks: int = 1,
        stem_stride: int = 2,
        dropout: float = 0.0,
    ):
        super().__init__()
        widths = tuple(min(width * 2**level, max_width) for level in range(depth))
        self.encoder = Encoder(widths, blocks, stem_stride)
        self.dropout = nn.Dropout2d(dropout)
        self.decoder = Decoder(widths)
        self.head = nn.Conv2d(widths[0], classes, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.encoder(images)
        features[-1] = self.dropout(features[-1])
        logits = self.head(self.decoder(features))  # (N, classes, H / stem_stride, W / stem_stride)
        return F.interpolate(logits, size=images.shape[-2:], mode="bilinear", align_corners=False)
