"""The coats of the animals: colours, patterns and hairs, shared by all of them."""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from data.drawing.shapes import Rng, Shape, extent, stamp

PATTERNS = ("patches", "plain", "spots", "stripes")
COATS = (  # shared by all animals: the colour must not tell the class
    (216, 140, 70),
    (232, 204, 158),
    (150, 152, 160),
    (70, 66, 70),
    (134, 92, 60),
    (240, 236, 228),
    (98, 72, 58),
    (196, 172, 140),
)


def paint_coat(canvas: Image.Image, rng: Rng, coat: list[Shape], pattern: str, scale: float) -> Image.Image:
    """Paint shapes (in pixels) one over the other with a patterned, furry coat; scale is pixels per unit.

    Returns where the coat is: 255, on 0, of the canvas's size.
    """
    low, high = extent(coat)
    margin = 0.3 * scale  # radii, blur
    left, top = (int(value) for value in (low - margin).clip(0))
    right, bottom = (int(value) for value in np.minimum(high + margin, canvas.size))
    width, height = size = right - left, bottom - top
    labels, creases = Image.new("L", size), Image.new("L", size)  # which shape is seen; where one ends on another
    draw_label, draw_crease = ImageDraw.Draw(labels), ImageDraw.Draw(creases)
    for label, shape in enumerate(coat, 1):
        shape = shape.moved(np.eye(2), 1, (-left, -top))
        stamp(draw_crease, shape, 255, grow=0.01 * scale)
        stamp(draw_crease, shape, 0)
        stamp(draw_label, shape, label)

    # Hairs: every pixel is fetched from a place nearby.
    y, x = np.indices((height, width), np.float32)
    y = (y + noise(rng, size, 2) * (0.009 * scale)).astype(np.int32).clip(0, height - 1)
    x = (x + noise(rng, size, 2) * (0.009 * scale)).astype(np.int32).clip(0, width - 1)
    nearby = y * width + x
    labels = np.asarray(labels).take(nearby)  # (H, W)
    mask = Image.fromarray((labels > 0).astype(np.uint8) * 255)
    ink = Image.fromarray(np.asarray(creases).take(nearby)).filter(ImageFilter.BoxBlur(0.006 * scale))

    # Round: brighter above, darker below.
    solid = np.asarray(mask.filter(ImageFilter.BoxBlur(0.06 * scale)), np.float32) / 255
    light = 0.8 + 0.2 * solid + 0.25 * (solid - np.roll(solid, round(0.05 * scale), 0))
    light *= 1 - np.asarray(ink, np.float32) * (0.4 / 255)
    light *= 1 + 0.06 * noise(rng, size, 1) + 0.05 * noise(rng, size, 4)
    light *= np.array([0, *(shape.paint for shape in coat)], np.float32)[labels]
    colours = coat_colours(rng, size, pattern, scale) * light[..., None]  # (H, W, 3)
    canvas.paste(Image.fromarray(colours.clip(0, 255).astype(np.uint8)), (left, top), mask)
    silhouette = Image.new("L", canvas.size)
    silhouette.paste(mask, (left, top))
    return silhouette


def coat_colours(rng: Rng, size: tuple[int, int], pattern: str, scale: float) -> np.ndarray:
    """One of COATS, a second colour laid over it in the pattern: (H, W, 3)."""
    first, second = np.array(COATS, np.float32)[rng.choice(len(COATS), 2, replace=False)]
    if np.abs(first - second).sum() < 150:
        second = first * 0.5 if first.sum() > 300 else first + 90
    if pattern == "stripes":
        x = np.arange(size[0], dtype=np.float32) / scale
        amount = np.sin(x * rng.uniform(45, 65) + 2.5 * noise(rng, size, 0.15 * scale)) - 0.2
        second = first * 0.55
    elif pattern == "patches":
        amount = 3 * noise(rng, size, 0.22 * scale)
    elif pattern == "spots":
        amount = 2.5 * noise(rng, size, 0.06 * scale) - 1.2
    else:
        amount = noise(rng, size, 0.3 * scale) * 0.2 - 0.4
    amount = (0.5 + 2 * amount).clip(0, 1)[..., None]
    return first + (second - first) * amount


def noise(rng: Rng, size: tuple[int, int], cell: float) -> np.ndarray:
    """Smooth Gaussian noise, float32 (H, W), whose bumps are `cell` pixels apart."""
    shape = [int(side / cell) + 2 for side in size[::-1]]
    coarse = Image.fromarray(rng.standard_normal(shape, dtype=np.float32))
    return np.asarray(coarse.resize(size, Image.Resampling.BILINEAR if cell < 4 else Image.Resampling.BICUBIC))
