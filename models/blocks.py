"""Building blocks shared by the U-Net, the autoencoder and the CNN decoders of the CLIP models."""

import torch
import torch.nn.functional as F
from torch import nn


def conv_norm(in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution and batch norm: (N, C_in, H, W) -> (N, C_out, ceil(H/stride), ceil(W/stride))."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False),
        nn.BatchNorm2d(out_channels),
    )


class ResidualBlock(nn.Module):
    """Basic residual block (He et al., CVPR 2016): (N, C_in, H, W) -> (N, C_out, H/stride, W/stride)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1):
        super().__init__()
        self.conv1 = conv_norm(in_channels, out_channels, 3, stride)
        self.conv2 = conv_norm(out_channels, out_channels, 3)
        same = in_channels == out_channels and stride == 1
        self.shortcut = nn.Identity() if same else conv_norm(in_channels, out_channels, 1)
        self.pool = nn.AvgPool2d(stride, ceil_mode=True) if stride > 1 else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv2(F.relu(self.conv1(x), inplace=True))
        return F.relu(y + self.shortcut(self.pool(x)), inplace=True)


class SelfAttention(nn.Module):
    """Self-attention over positions, (N, C, H, W) -> the same shape (non-local block, Wang et al., CVPR 2018)."""

    def __init__(self, channels: int):
        super().__init__()
        self.heads = channels // 32 if channels % 32 == 0 else 1
        self.norm = nn.BatchNorm2d(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.qkv(self.norm(x)).flatten(2).transpose(1, 2)  # (N, H * W, 3 * C)
        query, key, value = tokens.unflatten(2, (3, self.heads, -1)).movedim(1, -2).unbind(1)  # (N, heads, H * W, D)
        y = F.scaled_dot_product_attention(query, key, value)
        y = y.movedim(1, -2).flatten(2).transpose(1, 2).unflatten(2, x.shape[-2:])
        return x + self.out(y)


class Encoder(nn.Module):
    """Residual pyramid: (N, 3, H, W) -> one feature map per level, finest first.

    Level i has widths[i] channels at 1 / (stem_stride * 2**i) of the input size.
    """

    def __init__(self, widths: tuple[int, ...], blocks: int = 1, stem_stride: int = 1):
        super().__init__()
        kernel_size = 3 if stem_stride == 1 else 2 * stem_stride - 1
        self.stem = nn.Sequential(conv_norm(3, widths[0], kernel_size, stem_stride), nn.ReLU(inplace=True))
        self.levels = nn.ModuleList()
        for level, width in enumerate(widths):
            first = ResidualBlock(widths[max(level - 1, 0)], width, stride=1 if level == 0 else 2)
            self.levels.append(nn.Sequential(first, *(ResidualBlock(width, width) for _ in range(blocks - 1))))

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        x = self.stem(images)
        features = []
        for level in self.levels:
            x = level(x)
            features.append(x)
        return features


class Decoder(nn.Module):
    """The U-Net's decoder: feature maps, finest first -> (N, widths[0], h, w) at the finest map's size.

    Upsampling is bilinear after a 1 x 1 convolution: no checkerboard, and odd sizes work.
    """

    def __init__(self, widths: tuple[int, ...]):
        super().__init__()
        pairs = list(zip(widths[:-1], widths[1:], strict=True))[::-1]  # coarsest first: (fine, coarse)
        self.reduce = nn.ModuleList(nn.Conv2d(coarse, fine, 1, bias=False) for fine, coarse in pairs)
        self.merge = nn.ModuleList(ResidualBlock(2 * fine, fine) for fine, _ in pairs)

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        x = features[-1]
        for reduce, merge, skip in zip(self.reduce, self.merge, reversed(features[:-1]), strict=True):
            x = reduce(x)
            with torch.autocast(x.device.type, enabled=False):  # on a CPU it would convert to fp32 and back
                x = F.interpolate(x, size=skip.shape[-2:], mode="bilinear", align_corners=False)
            x = merge(torch.cat([x, skip], dim=1))
        return x
