"""Pictures of masks: overlays and index PNGs."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from PIL import Image, ImageDraw

from utils.classes import VOID, Classes
from utils.files import replacing


def overlay(image: np.ndarray, mask: np.ndarray, classes: Classes, opacity: float = 0.5) -> np.ndarray:
    """Picture (H, W, 3) uint8 with its mask (H, W): things tinted in their colour, with a white outline."""
    thing, mixed = (mask != 0) & (mask != VOID), image.copy()
    # Nearly twice the brightness: dark red on a dark picture could not be seen.
    tint = np.clip(classes.palette * 1.8, 0, 255)
    mixed[thing] = ((1 - opacity) * image[thing] + opacity * tint[mask[thing]]).round()
    mixed[outline(mask, width=max(1, min(mask.shape) // 150))] = 255
    return mixed


def cutout(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Picture (H, W, 3) uint8 -> (H, W, 4): things as they are, the rest transparent."""
    thing = ((mask != 0) & (mask != VOID))[..., None]
    return np.concatenate([image * thing, np.uint8(255) * thing], -1)


def heat_map(image: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Picture (H, W, 3) uint8, greyed, under the colours of scores (H, W) in 0..1: uint8 (H, W, 3)."""
    colours = colormaps["inferno"](scores)[..., :3] * 255
    grey = image.mean(-1, keepdims=True)
    return (0.35 * grey + 0.65 * colours).round().astype(np.uint8)


def outline(mask: np.ndarray, width: int = 1) -> np.ndarray:
    """The things' pixels within `width` of a pixel of another class: bool (H, W)."""
    padded = np.pad(mask, width, mode="edge")
    height, length = mask.shape
    edge = np.zeros(mask.shape, bool)
    for down, right in ((0, 1), (1, 0), (0, -1), (-1, 0)):
        top, left = width * (1 + down), width * (1 + right)
        edge |= padded[top : top + height, left : left + length] != mask
    return edge & (mask != 0) & (mask != VOID)


def draw_points(image: np.ndarray, points: Sequence[tuple[int, int]], labels: Sequence[int]) -> np.ndarray:
    """A picture with its clicks as dots: green on the thing (1), red on the rest (0), with a white rim."""
    canvas = Image.fromarray(image)
    draw = ImageDraw.Draw(canvas)
    radius = max(3, min(canvas.size) // 50)
    for (x, y), label in zip(points, labels, strict=True):
        fill, width = ((0, 200, 0) if label else (220, 0, 0)), max(1, radius // 3)
        draw.circle((x, y), radius, fill=fill, outline=(255, 255, 255), width=width)
    return np.array(canvas)


def save_mask(mask: np.ndarray, path: Path, classes: Classes) -> None:
    """Write class ids (H, W) as an index PNG; its palette shows them in colour."""
    image = Image.fromarray(mask.astype(np.uint8)).convert("L")
    image.putpalette(classes.palette.flatten().tolist())
    save_picture(image, path)


def save_picture(image: Image.Image | np.ndarray, path: Path) -> None:
    """Write a PNG."""
    with replacing(path) as temporary:
        image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
        image.save(temporary, format="PNG", compress_level=1)  # four times as fast, and a tenth larger
