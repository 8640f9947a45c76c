"""Autoencoder: a U-Net that first rebuilds pictures without any mask, then segments with what it learned.

Hidden patches and the loss on them: MAE (He et al., CVPR 2022). Handing on the whole U-Net, not only its encoder:
Models Genesis (Zhou et al., Medical Image Analysis 2021). Sparse convolutions: SparK (Tian et al., ICLR 2023).
"""

import torch
import torch.nn.functional as F
from torch import nn

from models.unet import UNet


class Autoencoder(UNet):
    """Stage 1. images (N, 3, H, W), normalised -> pictures (N, 3, H, W).

    sparse: forward() takes hidden too, bool (N, h, w), True: hide this patch of H / h x W / w pixels. The encoder
    computes nothing there, and the decoder finds a learned vector. Other arguments: as in models.unet.
    """

    def __init__(self, stem_stride: int = 2, sparse: bool = False, **arguments):
        super().__init__(3 * stem_stride**2, stem_stride=stem_stride, **arguments)
        self.to_pixels = nn.PixelShuffle(stem_stride)
        if sparse:
            make_sparse(self.encoder)
            widths = [level[-1].conv2[0].out_channels for level in self.encoder.levels]
            self.tokens = nn.ParameterList(torch.zeros(width) for width in widths)

    def forward(self, images: torch.Tensor, hidden: torch.Tensor | None = None) -> torch.Tensor:
        features = self.encoder(images) if hidden is None else self.encode_sparsely(images, hidden)
        features[-1] = self.dropout(features[-1])
        pixels = self.to_pixels(self.head(self.decoder(features)))
        return pixels[..., : images.shape[-2], : images.shape[-1]]  # a side that stem_stride does not divide

    def encode_sparsely(self, images: torch.Tensor, hidden: torch.Tensor) -> list[torch.Tensor]:
        """Feature maps of what is shown, with each level's learned vector in place of what is not."""
        for module in self.encoder.modules():
            if isinstance(module, SparseBatchNorm2d):
                module.shown = ~hidden
        features = self.encoder(images.masked_fill(spread(hidden, images), 0.0))
        return [
            torch.where(shown_at(~hidden, feature)[:, None], feature, token[:, None, None].to(feature.dtype))
            for feature, token in zip(features, self.tokens, strict=True)
        ]


class AutoencoderSegmenter(UNet):
    """Stage 2. images (N, 3, H, W), normalised -> logits (N, classes, H, W).

    frozen: the encoder's weights and batch statistics stay as they are. Other arguments: as in models.unet.
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


class SparseBatchNorm2d(nn.BatchNorm2d):
    """Batch norm with the statistics of the shown places alone; hidden places become 0.

    With one after every convolution, the encoder computes as with sparse convolutions (Tian et al., ICLR 2023).
    shown: bool (N, h, w), patches, to be set before each call.
    """

    shown: torch.Tensor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        places = shown_at(self.shown, x)[:, None].to(x.dtype)
        x = x * places
        if self.training:  # hidden places add nothing to either mean
            count, total = places.sum(dtype=torch.float32), places.numel()
            mean = x.mean((0, 2, 3), dtype=torch.float32) * total / count
            variance = x.float().square().mean((0, 2, 3)) * total / count - mean.square()
            with torch.no_grad():
                self.num_batches_tracked += 1
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(variance * count / (count - 1).clamp(min=1), self.momentum)
        else:
            mean, variance = self.running_mean, self.running_var
        scale = self.weight * (variance.clamp(min=0) + self.eps).rsqrt()
        shift = self.bias - mean * scale
        return x * scale.to(x.dtype)[:, None, None] + places * shift.to(x.dtype)[:, None, None]


def make_sparse(module: nn.Module) -> None:
    """Replace every batch norm by one that leaves out what is hidden."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, SparseBatchNorm2d(child.num_features))
        else:
            make_sparse(child)


def shown_at(shown: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """Patches bool (N, h, w) -> places (N, H, W) of feature maps (N, C, H, W) that see anything of a shown patch."""
    return F.adaptive_max_pool2d(shown.float(), features.shape[-2:]) > 0


def spread(patches: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """A value per patch (N, h, w) -> the same at every one of its pixels, (N, 1, H, W)."""
    patch = images.shape[-1] // patches.shape[-1]
    return patches[:, None].repeat_interleave(patch, 2).repeat_interleave(patch, 3)
