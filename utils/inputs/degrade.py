"""Other cameras and other files: blur, sharpening, noise and JPEG's blocks, of whole batches."""

import math

import torch
import torch.nn.functional as F

from utils.inputs.geometry import noise, uniform


def degrade(images: torch.Tensor, generator: torch.Generator, chance: float) -> torch.Tensor:
    """Blur or sharpen, noise and JPEG's blocks, each in its own share of the pictures: float (N, 3, H, W) in 0..1."""
    count = len(images)

    def some(low: float, high: float) -> torch.Tensor:
        there = torch.rand(count, generator=generator) < chance
        return (uniform(count, generator, low, high) * there).view(-1, 1, 1, 1).to(images.device)

    smooth = F.avg_pool2d(F.pad(images, (2, 2, 2, 2), mode="replicate"), 5, 1)
    images = images + some(-1, 1.5) * (images - smooth)  # -1 is the blurred picture, above 0 is sharper
    strength = some(0, 0.08)
    noisy = strength.flatten() > 0
    images[noisy] += strength[noisy] * noise((int(noisy.sum()), *images.shape[1:]), generator, images.device)
    return _jpeg(images.clamp(0, 1), some(0.02, 0.2))


def _jpeg(images: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    """Round the cosine transform of 8 x 8 blocks to multiples of step, (N, 1, 1, 1), where that is not 0."""
    where = step.flatten() > 0
    height, width = (side // 8 * 8 for side in images.shape[-2:])
    if not where.any() or not height or not width:
        return images
    k, x = torch.arange(8.0)[:, None], torch.arange(8.0)[None]
    basis = torch.cos(math.pi * (x + 0.5) * k / 8) * torch.where(k == 0, 0.125, 0.25).sqrt()
    basis = basis.to(images.device)
    chosen = images[where]
    blocks = chosen[..., :height, :width].unflatten(-1, (-1, 8)).unflatten(-3, (-1, 8)).transpose(-3, -2)
    spectrum = basis @ blocks @ basis.T  # (n, 3, H / 8, W / 8, 8, 8)
    steps = step[where].view(-1, 1, 1, 1, 1, 1) * (1 + (k + x).to(images.device) / 4)  # coarser for fine detail
    blocks = basis.T @ ((spectrum / steps).round() * steps) @ basis
    chosen[..., :height, :width] = blocks.transpose(-3, -2).flatten(-4, -3).flatten(-2)
    out = images.clone()
    out[where] = chosen.clamp(0, 1)
    return out
