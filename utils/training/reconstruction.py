"""Masked image reconstruction: hidden patches, the loss, and pictures to look at."""

import torch
import torch.nn.functional as F


def random_patches(count: int, size: int, patch: int, ratio: float, generator: torch.Generator) -> torch.Tensor:
    """Random patches to hide, a share `ratio` in every picture: bool (N, size / patch, size / patch)."""
    side = size // patch
    ranks = torch.rand(count, side * side, generator=generator).argsort(1).argsort(1)
    return (ranks < round(ratio * side * side)).unflatten(1, (side, side))


def hide(images: torch.Tensor, hidden: torch.Tensor | None) -> torch.Tensor:
    """Normalised pictures (N, 3, H, W), hidden patches 0; hidden: bool (N, h, w), or None."""
    return images if hidden is None else images.masked_fill(spread(hidden, images), 0.0)


def reconstruction_loss(rebuilt: torch.Tensor, images: torch.Tensor, hidden: torch.Tensor | None) -> torch.Tensor:
    """Mean squared error of pictures (N, 3, H, W); with hidden, bool (N, h, w), only in the hidden patches.

    Their targets are normalised with the patch's own mean and standard deviation (MAE, He et al., CVPR 2022): the
    loss then measures structure, not brightness, which can be copied from the neighbours.
    """
    if hidden is None:
        return F.mse_loss(rebuilt.float(), images)
    mean, deviation = patch_statistics(images, hidden)
    error = (rebuilt.float() - (images - mean) / deviation).square()
    return error.masked_select(spread(hidden, images).expand_as(error)).mean()


def patch_statistics(images: torch.Tensor, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation over each patch's pixels and channels, at the pictures' size: (N, 1, H, W)."""
    patch = images.shape[-1] // hidden.shape[-1]
    mean = F.avg_pool2d(images.mean(1, keepdim=True), patch)  # (N, 1, h, w)
    variance = F.avg_pool2d(images.square().mean(1, keepdim=True), patch) - mean.square()
    deviation = (variance.clamp(min=0) + 1e-2).sqrt()  # do not amplify the noise of a flat patch
    return tuple(spread(x[:, 0], images) for x in (mean, deviation))


def complete(rebuilt: torch.Tensor, images: torch.Tensor, hidden: torch.Tensor | None) -> torch.Tensor:
    """Pictures with reconstructed hidden patches, at the mean and deviation of the originals."""
    if hidden is None:
        return rebuilt.float()
    mean, deviation = patch_statistics(images, hidden)
    return torch.where(spread(hidden, images), rebuilt.float() * deviation + mean, images)


def spread(patches: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Repeat a value per patch (N, h, w) at each of its pixels: (N, 1, H, W)."""
    patch = images.shape[-1] // patches.shape[-1]
    return patches[:, None].repeat_interleave(patch, 2).repeat_interleave(patch, 3)
