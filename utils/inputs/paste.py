"""Copy-paste augmentation: animals at any scale, several and partly hidden, on the backgrounds of other pictures."""

import math

import torch
import torch.nn.functional as F

from utils.classes import VOID
from utils.inputs.geometry import random_affine, sample, sampling_grid, uniform

SHARE = (0.01, 1.5)  # range of the animal's box over the picture's area
ANIMALS = 3  # most animals in a picture
PLAIN = 0.15  # share of backgrounds that are colour gradients
HIDE = 0.3  # share of pictures in which a blob of background covers a part of the animals


def compose(
    images: torch.Tensor, masks: torch.Tensor, generator: torch.Generator, size: int, count: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """New pictures, float32 (count, 3, size, size) in 0..1, and masks, float32 (count, size, size), by copy-paste.

    images: uint8 (N, 3, H, W), masks: uint8 (N, H, W). Ghiasi et al., CVPR 2021.
    """
    device = images.device
    images, masks = images.float() / 255, masks[:, None].float()
    plates = fill_animals(images, masks)
    canvas = _background(plates, generator, size, count)
    target = torch.zeros(count, 1, size, size, device=device)
    layers = torch.cat([images - 0.5, cut_out(masks)], 1)  # (N, 4, H, W); sampling fills with 0, which is grey
    boxes = _boxes(masks[:, 0]).cpu()  # (N, 4)
    number = torch.randint(1, ANIMALS + 1, (count,), generator=generator)
    for animal in range(ANIMALS):
        chosen = torch.randint(len(images), (count,), generator=generator)
        there = ((number > animal) & (boxes[chosen, 2] > 0)).float().to(device).view(-1, 1, 1, 1)
        theta = _place(boxes[chosen], generator)
        grid = sampling_grid(theta, size, device)
        moved = sample(layers[chosen], grid, theta)
        canvas = canvas + moved[:, 3:] * there * (moved[:, :3] + 0.5 - canvas)
        label = F.grid_sample(masks[chosen], grid, "nearest", "zeros", False)
        target = torch.where((label > 0) & (there > 0), label, target)
    over = _blob(count, generator, size, device)
    texture = _background(plates, generator, size, count)
    canvas = canvas + over * (texture - canvas)
    target = torch.where(over > 0.5, 0.0, target)
    return canvas.clamp(0, 1), target[:, 0]


def fill_animals(images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Fill the pixels of the animals with the colours around them.

    images: float (N, 3, H, W), masks: (N, 1, H, W). Pull-push of Gortler et al., The Lumigraph, SIGGRAPH 1996.
    """
    known = 1 - F.max_pool2d((masks != 0).float(), 7, 1, 3)  # the soft edge of the fur is filled too
    levels = [(images * known, known)]
    while min(levels[-1][0].shape[-2:]) > 1:
        levels.append(tuple(F.avg_pool2d(x, 2, ceil_mode=True) for x in levels[-1]))
    filled = levels[-1][0] / levels[-1][1].clamp(min=1e-4)
    for colour, weight in reversed(levels[:-1]):
        filled = F.interpolate(filled, size=colour.shape[-2:], mode="bilinear", align_corners=False)
        sure = (4 * weight).clamp(max=1)
        filled = sure * colour / weight.clamp(min=1e-4) + (1 - sure) * filled
    return filled.clamp(0, 1)


def cut_out(masks: torch.Tensor) -> torch.Tensor:
    """Opacity of the animals, 0..1, soft at their edges, from masks (N, 1, H, W). Void near an animal gets 0.6."""
    inside = ((masks > 0) & (masks != VOID)).float()
    near = F.max_pool2d(inside, 9, 1, 4)
    return F.avg_pool2d(F.pad(inside + 0.6 * (masks == VOID) * near, (1, 1, 1, 1), mode="replicate"), 3, 1)


def _background(plates: torch.Tensor, generator: torch.Generator, size: int, count: int) -> torch.Tensor:
    """Backgrounds at random scales, mirrored at their edges, or colour gradients: (count, 3, size, size) in 0..1."""
    chosen = torch.randint(len(plates), (count,), generator=generator)
    theta = random_affine(count, generator, (0.5, 3.0), 15.0)
    grid = sampling_grid(theta, size, plates.device)
    backgrounds = F.grid_sample(plates[chosen], grid, "bilinear", "reflection", False)
    is_plain = torch.rand(count, generator=generator) < PLAIN
    number = int(is_plain.sum())
    if number:
        corners = torch.rand(number, 3, 2, 2, generator=generator).to(plates.device)
        gradients = F.interpolate(corners, size=(size, size), mode="bilinear", align_corners=True)
        strength = uniform(number, generator, 0, 0.1).view(-1, 1, 1, 1).to(plates.device)
        # The noise is drawn on the device, from a seed drawn on the CPU.
        drawn = torch.Generator(plates.device).manual_seed(int(torch.randint(2**62, (), generator=generator)))
        gradients += strength * torch.randn(number, 1, size, size, generator=drawn, device=plates.device)
        backgrounds[is_plain.to(plates.device)] = gradients.clamp(0, 1)
    return backgrounds


def _boxes(masks: torch.Tensor) -> torch.Tensor:
    """Boxes of the animals in masks (N, H, W), in -1..1: (N, 4), centre x and y, half width and height; 0 if none."""
    inside = (masks > 0) & (masks != VOID)
    centres, halves = [], []
    for axis in (1, 2):  # columns, rows
        hit = inside.any(axis).float()  # (N, length)
        length = hit.shape[1]
        low, high = hit.argmax(1), length - hit.flip(1).argmax(1)
        centres.append((low + high) / length - 1)
        halves.append((high - low) / length * hit.amax(1))
    return torch.stack(centres + halves, 1)


def _place(boxes: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Random maps from output to input coordinates, (N, 2, 3), that put a box anywhere, at least half of it inside."""
    count = len(boxes)
    centre, half = boxes[:, :2], boxes[:, 2:].clamp(min=0.05)
    area = torch.exp(uniform(count, generator, math.log(SHARE[0]), math.log(SHARE[1])))
    zoom = (area / half.prod(1)).sqrt()
    aspect = torch.exp(uniform(count, generator, -0.25, 0.25))
    scale = torch.stack([zoom * aspect, zoom / aspect], 1)  # output over input, across and down
    angle = torch.deg2rad(uniform(count, generator, -15, 15))
    flip = torch.where(torch.rand(count, generator=generator) < 0.5, -1.0, 1.0)
    # A small box may have its centre anywhere; one larger than the picture covers the picture's centre.
    at = uniform(2 * count, generator, -1, 1).view(count, 2) * (1 - 0.5 * (half * scale).clamp(max=1))
    turn = torch.stack([angle.cos() * flip, -angle.sin(), angle.sin() * flip, angle.cos()], 1).view(count, 2, 2)
    linear = turn / scale[:, None, :]
    return torch.cat([linear, (centre[:, :, None] - linear @ at[:, :, None])], 2)


def _blob(count: int, generator: torch.Generator, size: int, device: torch.device) -> torch.Tensor:
    """Opacity 0..1 of a soft-edged superellipse in a random share HIDE of pictures: (count, 1, size, size)."""
    axis = torch.linspace(-1, 1, size, device=device)
    centre = uniform(2 * count, generator, -1, 1).view(2, count, 1, 1).to(device)
    half = uniform(2 * count, generator, 0.1, 0.5).view(2, count, 1, 1).to(device)
    power = uniform(count, generator, 1, 5).view(count, 1, 1).to(device)  # 1 a rhombus, 2 an ellipse
    across, down = (axis.view(1, 1, -1) - centre[0]) / half[0], (axis.view(1, -1, 1) - centre[1]) / half[1]
    distance = across.abs() ** power + down.abs() ** power
    there = (torch.rand(count, generator=generator) < HIDE).view(count, 1, 1).to(device)
    return (((1 - distance) * 10).clamp(0, 1) * there)[:, None]
