"""Pictures of masks: overlays and index PNGs."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from PIL import Image, ImageDraw

from utils.classes import VOID, Classes
from utils.files import replacing
from utils.inputs.pictures import bands


def overlay(image: np.ndarray, mask: np.ndarray, classes: Classes, opacity: float = 0.5) -> np.ndarray:
    """Picture (H, W, 3) uint8 with its mask (H, W): things tinted in their colour, with a white outline."""
    mixed, width = image.copy(), max(1, min(mask.shape) // 150)
    # Nearly twice the brightness: dark red would be invisible on a dark picture.
    tint = np.clip(classes.palette * 1.8, 0, 255)
    tables = (
        ((1 - opacity) * np.arange(256)[:, None] + opacity * tint[:, None]).round().astype(np.uint8)
    )  # (id, value, 3)
    tables[[0, VOID]] = np.arange(256)[:, None]
    for rows in bands(*mask.shape):
        part, ids = mixed[rows], mask[rows].astype(np.uint16) * 256
        for channel in range(3):  # a table is five times as fast as numbers with a fraction
            part[..., channel] = tables[..., channel].ravel().take(ids + part[..., channel])
        above = min(width, rows.start)
        around = mask[rows.start - above : rows.stop + width]
        part[outline(around, width)[above : above + len(part)]] = 255
    return mixed


def cutout(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Picture (H, W, 3) uint8 -> (H, W, 4): things unchanged, the rest transparent."""
    thing = ((mask != 0) & (mask != VOID))[..., None]
    cut = np.empty((*mask.shape, 4), np.uint8)
    np.multiply(image, thing, out=cut[..., :3])
    cut[..., 3:] = 255 * thing.view(np.uint8)
    return cut


def heat_map(image: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Picture (H, W, 3) uint8 in grey, blended with the colours of scores (H, W) in 0..1: uint8 (H, W, 3)."""
    heat = np.empty_like(image)
    for rows in bands(*scores.shape):
        colours = colormaps["inferno"](scores[rows])[..., :3] * 255
        grey = image[rows].mean(-1, keepdims=True)
        heat[rows] = (0.35 * grey + 0.65 * colours).round()
    return heat


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
