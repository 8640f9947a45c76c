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
    dropout: chance that a channel of the coarsest level is dropped. skips: False cuts the skip connections.
    teacher_channels: of a vision transformer whose tokens are predicted too, in training alone (distillation).
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
        skips: bool = True,
        teacher_channels: int = 0,
    ):
        super().__init__()
        widths = tuple(min(width * 2**level, max_width) for level in range(depth))
        self.encoder = Encoder(widths, blocks, stem_stride)
        self.dropout = nn.Dropout2d(dropout)
        self.decoder = Decoder(widths, skips)
        self.head = nn.Conv2d(widths[0], classes, 1)
        if teacher_channels:
            sources = (widths[-1], widths[-1], widths[-2])  # of the embedding and of two maps of tokens
            self.teacher_heads = nn.ModuleList(nn.Conv2d(width, teacher_channels, 1) for width in sources)

    def forward(
        self, images: torch.Tensor, with_tokens: bool = False
    ) -> torch.Tensor | tuple[torch.Tensor, list[torch.Tensor]]:
        """with_tokens: return a teacher's tokens, as predicted by the two coarsest levels, too.

        These are three maps with teacher_channels: of one place for the whole picture, then coarsest first.
        """
        features = self.encoder(images)
        features[-1] = self.dropout(features[-1])
        maps = self.decoder.maps(features)
        logits = self.head(maps[0])  # (N, classes, H / stem_stride, W / stem_stride)
        logits = F.interpolate(logits, size=images.shape[-2:], mode="bilinear", align_corners=False)
        if not with_tokens:
            return logits
        sources = (maps[-1].mean((2, 3), keepdim=True), maps[-1], maps[-2])
        return logits, [head(x) for head, x in zip(self.teacher_heads, sources, strict=True)]
