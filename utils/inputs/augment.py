"""Augmentation of whole batches on their device: geometry of pictures and masks, then colour of pictures."""

import torch
import torch.nn.functional as F

from utils.classes import VOID
from utils.inputs.geometry import random_affine, sample, sampling_grid, uniform
from utils.inputs.paste import compose

EDGES = ("grey", "mirror")  # fill beyond a picture's edge
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # RGB in 0..1


def normalise(images: torch.Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
    """uint8 in 0..255 or float in 0..1, (N, 3, H, W) -> float32, (value - mean) / std per channel."""
    if images.dtype == torch.uint8:
        images = images.float() / 255
    mean_, std_ = (torch.tensor(values, device=images.device).view(1, 3, 1, 1) for values in (mean, std))
    return ((images - mean_) / std_).contiguous(memory_format=torch.channels_last)


def augment(
    images: torch.Tensor,
    masks: torch.Tensor,
    generator: torch.Generator,
    size: int,
    scale: tuple[float, float] = (1.0, 1.0),
    rotation: float = 0.0,
    colour: float = 0.0,
    erase: float = 0.0,
    edge: str = "grey",
    paste: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Random scale, crop, aspect, rotation and horizontal flip of pictures and masks, then colour of pictures.

    images: uint8 (N, 3, H, W), masks: uint8 (N, H, W). Returns float32 (N, 3, size, size) in 0..1 and int64
    (N, size, size). generator: on the CPU, so that a seed gives the same numbers on every device; scale: lowest and
    highest magnification; rotation: largest angle, in degrees; colour: 0 none, 1 strong; erase: chance of a grey
    rectangle; edge: beyond a picture's edge is grey, and VOID in the mask, or both are mirrored there; paste:
    chance that compose() replaces a picture.
    """
    batch = images, masks
    theta = random_affine(len(images), generator, scale, rotation)
    grid = sampling_grid(theta, size, images.device)
    padding = "reflection" if edge == "mirror" else "zeros"
    # Shifted so that the zeros beyond the edge become grey, and VOID in the mask.
    images = sample(images.float() / 255 - 0.5, grid, theta, padding) + 0.5
    masks = F.grid_sample(masks[:, None].float() - VOID, grid, "nearest", padding, False)[:, 0] + VOID
    if paste:
        pasted = torch.rand(len(images), generator=generator) < paste
        if pasted.any():
            images[pasted], masks[pasted] = compose(*batch, generator, size, int(pasted.sum()))
    if colour:
        images = jitter_colour(images, generator, colour)
    if erase:
        images = erase_rectangle(images, generator, erase)
    return images, masks.long()


def jitter_colour(images: torch.Tensor, generator: torch.Generator, strength: float) -> torch.Tensor:
    """Random brightness, contrast, saturation and hue of each picture, float (N, 3, H, W) in 0..1."""
    count = len(images)
    spreads = (0.4, 0.4, 0.7)
    brightness, contrast, saturation = (torch.exp(uniform(count, generator, -x, x) * strength) for x in spreads)
    hue = uniform(count, generator, -0.35, 0.35) * strength  # radians
    saturation = saturation.where(torch.rand(count, generator=generator) > 0.1 * strength, 0.0)  # some grey pictures
    # In YIQ, saturation scales and hue rotates the two colour axes: a 3 x 3 matrix per picture.
    to_yiq = torch.tensor([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
    turn = torch.zeros(count, 3, 3)
    turn[:, 0, 0] = 1
    turn[:, 1, 1] = turn[:, 2, 2] = saturation * hue.cos()
    turn[:, 1, 2] = -saturation * hue.sin()
    turn[:, 2, 1] = saturation * hue.sin()
    matrix = torch.linalg.inv(to_yiq) @ turn @ to_yiq * (brightness * contrast)[:, None, None]
    matrix, contrast, brightness = (x.to(images.device) for x in (matrix, contrast, brightness))
    grey = images.mean((1, 2, 3)) * brightness * (1 - contrast)  # contrast keeps the picture's mean
    return (torch.einsum("nij,njhw->nihw", matrix, images) + grey.view(-1, 1, 1, 1)).clamp(0, 1)


def erase_rectangle(images: torch.Tensor, generator: torch.Generator, chance: float) -> torch.Tensor:
    """Fill a random rectangle with grey, in a random share `chance` of pictures (Zhong et al., AAAI 2020)."""
    count, _, height, width = images.shape
    half = uniform(2 * count, generator, 0.05, 0.25).view(2, count, 1)
    centre = torch.rand(2, count, 1, generator=generator)
    chosen = torch.rand(count, 1, generator=generator) < chance
    rows = ((torch.arange(height) / height - centre[0]).abs() < half[0]) & chosen  # (N, H)
    columns = (torch.arange(width) / width - centre[1]).abs() < half[1]  # (N, W)
    rows, columns = rows.to(images.device), columns.to(images.device)
    return images.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0.5)
