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
    mixed, width = image.copy(), max(1, min(mask.shape) // 150)
    # Nearly twice the brightness: dark red would be invisible on a dark picture.
    tint = np.clip(classes.palette * 1.8, 0, 255)
    thing = (mask != 0) & (mask != VOID)
    mixed[thing] = ((1 - opacity) * mixed[thing] + opacity * tint[mask[thing]]).round()
    mixed[outline(mask, width)] = 255
    return mixed


def cutout(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Picture (H, W, 3) uint8 -> (H, W, 4): things unchanged, the rest transparent."""
    thing = ((mask != 0) & (mask != VOID))[..., None]
    return np.concatenate([image * thing, 255 * thing.astype(np.uint8)], -1)


def heat_map(image: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Picture (H, W, 3) uint8 in grey, blended with the colours of scores (H, W) in 0..1: uint8 (H, W, 3)."""
    grey, colours = image.mean(-1, keepdims=True), colormaps["inferno"](scores, bytes=True)[..., :3]
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
    image, radius = image.copy(), max(3, min(image.shape[:2]) // 50)
    for (x, y), label in zip(points, labels, strict=True):
        left, top = (max(0, int(place) - radius - 2) for place in (x, y))
        part = image[top : int(y) + radius + 3, left : int(x) + radius + 3]  # the pixels that the dot covers
        canvas, fill = Image.fromarray(part), (0, 200, 0) if label else (220, 0, 0)
        dot = {"fill": fill, "outline": (255, 255, 255), "width": max(1, radius // 3)}
        ImageDraw.Draw(canvas).circle((x - left, y - top), radius, **dot)
        part[:] = canvas
    return image


def save_mask(mask: np.ndarray, path: Path, classes: Classes) -> None:
    """Write class ids (H, W) as an index PNG; its palette shows them in colour."""
    image = Image.fromarray(mask.astype(np.uint8, copy=False))
    image.putpalette(classes.palette.flatten().tolist())
    save_picture(image, path)


def save_picture(image: Image.Image | np.ndarray, path: Path) -> None:
    """Write a PNG."""
    with replacing(path) as temporary:
        image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
        image.save(temporary, format="PNG", compress_level=1)  # four times as fast, and a tenth larger
