"""Masked image reconstruction: hiding patches, the loss, pictures of the progress."""

import torch
import torch.nn.functional as F


def random_patches(count: int, size: int, patch: int, ratio: float, generator: torch.Generator) -> torch.Tensor:
    """Patches to hide: bool (N, size / patch, size / patch), in every picture the same share of them, `ratio`."""
    side = size // patch
    ranks = torch.rand(count, side * side, generator=generator).argsort(1).argsort(1)
    return (ranks < round(ratio * side * side)).unflatten(1, (side, side))


def hide(images: torch.Tensor, hidden: torch.Tensor | None) -> torch.Tensor:
    """Normalised pictures (N, 3, H, W), hidden patches 0; hidden: bool (N, h, w), or None."""
    return images if hidden is None else images.masked_fill(spread(hidden, images), 0.0)


def reconstruction_loss(rebuilt: torch.Tensor, images: torch.Tensor, hidden: torch.Tensor | None) -> torch.Tensor:
    """Mean squared error of pictures (N, 3, H, W); with hidden, bool (N, h, w), of the hidden patches alone.

    There the target is the patch with its own mean and standard deviation taken out (MAE, He et al., CVPR 2022),
    so that what counts is its structure: a hidden patch's brightness can be copied from its neighbours.
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
    deviation = (variance.clamp(min=0) + 1e-2).sqrt()  # a flat patch's noise is no structure
    return tuple(spread(x[:, 0], images) for x in (mean, deviation))


def complete(rebuilt: torch.Tensor, images: torch.Tensor, hidden: torch.Tensor | None) -> torch.Tensor:
    """Pictures to look at: the hidden patches filled in with what was rebuilt, at their own mean and deviation."""
    if hidden is None:
        return rebuilt.float()
    mean, deviation = patch_statistics(images, hidden)
    return torch.where(spread(hidden, images), rebuilt.float() * deviation + mean, images)


def spread(patches: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """A value per patch (N, h, w) -> the same at every one of its pixels, (N, 1, H, W)."""
    patch = images.shape[-1] // patches.shape[-1]
    return patches[:, None].repeat_interleave(patch, 2).repeat_interleave(patch, 3)
