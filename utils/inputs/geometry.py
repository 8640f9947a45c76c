"""Random geometry of whole batches: affine maps from output to input coordinates, and sampling with them."""

import math

import torch
import torch.nn.functional as F


def random_affine(count: int, generator: torch.Generator, scale: tuple[float, float], rotation: float) -> torch.Tensor:
    """Random maps from output to input coordinates in -1..1, (N, 2, 3), for F.affine_grid.

    scale: lowest and highest magnification; rotation: largest angle, in degrees.
    """
    zoom = torch.exp(uniform(count, generator, math.log(scale[0]), math.log(scale[1])))
    aspect = torch.exp(uniform(count, generator, -0.15, 0.15) * (scale[0] != scale[1]))
    angle = torch.deg2rad(uniform(count, generator, -rotation, rotation))
    flip = torch.where(torch.rand(count, generator=generator) < 0.5, -1.0, 1.0)
    across, down = aspect / zoom, 1 / (aspect * zoom)  # width and height of the window over the picture's
    shift = uniform(2 * count, generator, -1, 1).view(2, count)
    # A window smaller than the picture stays inside it; a larger one contains the whole picture.
    shift = shift * torch.stack([(1 - across).abs(), (1 - down).abs()])
    x = [across * angle.cos() * flip, -down * angle.sin(), shift[0]]
    y = [across * angle.sin() * flip, down * angle.cos(), shift[1]]
    return torch.stack(x + y, 1).view(count, 2, 3)


def sampling_grid(theta: torch.Tensor, size: int, device: torch.device) -> torch.Tensor:
    """F.affine_grid (N, size, size, 2) of maps theta (N, 2, 3), computed on the device."""
    return F.affine_grid(theta.to(device), (len(theta), 1, size, size), False)


def uniform(count: int, generator: torch.Generator, low: float, high: float) -> torch.Tensor:
    return torch.rand(count, generator=generator) * (high - low) + low


def sample(layers: torch.Tensor, grid: torch.Tensor, theta: torch.Tensor, padding: str = "zeros") -> torch.Tensor:
    """F.grid_sample of (N, C, H, W) with sampling_grid() of theta (N, 2, 3), and antialiasing.

    A picture that is scaled to half its size or less is averaged over 2 x 2 pixels first, up to three times.
    """
    scale = grid.shape[1] / layers.shape[-1] / theta[:, :, :2].norm(dim=1).amax(1)  # output over input pixels
    level = (-scale.log2()).floor().clamp(0, 3).long().tolist()
    if not any(level):
        return F.grid_sample(layers, grid, "bilinear", padding, False)
    out = layers.new_zeros(len(layers), layers.shape[1], *grid.shape[1:3])
    for halvings in set(level):
        these = [i for i, own in enumerate(level) if own == halvings]
        small = F.avg_pool2d(layers[these], 2**halvings) if halvings else layers[these]
        out[these] = F.grid_sample(small, grid[these], "bilinear", padding, False)
    return out
