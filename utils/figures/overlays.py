"""Pictures of masks: overlays and index PNGs."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo
from scipy import ndimage

from utils.classes import VOID, Classes
from utils.files import replacing


def overlay(image: np.ndarray, mask: np.ndarray, classes: Classes, opacity: float = 0.5) -> np.ndarray:
    """Picture (H, W, 3) uint8 with its mask (H, W): things tinted in their colour, with a white outline."""
    mixed, width = image.copy(), max(1, min(mask.shape) // 150)
    # Nearly twice the brightness: dark red would be invisible on a dark picture.
    tint = np.clip(classes.palette * 1.8, 0, 255)
    tables = ((1 - opacity) * np.arange(256)[:, None] + opacity * tint[:, None]).round().astype(np.uint8)
    tables[[*range(classes.first), VOID]] = np.arange(256)[:, None]  # (id, value, channel) -> value
    ids = mask.astype(np.uint16) * 256
    for channel in range(3):  # looked up: five times as fast as numbers with a fraction
        mixed[..., channel] = tables[..., channel].ravel().take(ids + mixed[..., channel])
    mixed[outline(mask, width) & (mask >= classes.first) & (mask != VOID)] = 255
    return mixed


def outline(mask: np.ndarray, width: int) -> np.ndarray:
    """The pixels within `width` of a pixel of another id: bool (H, W)."""
    return ndimage.maximum_filter(mask, 2 * width + 1) != ndimage.minimum_filter(mask, 2 * width + 1)


def cutout(image: np.ndarray, mask: np.ndarray, first: int = 1) -> np.ndarray:
    """Picture (H, W, 3) uint8 -> (H, W, 4), opaque where mask >= first; soft outlines follow the picture's edges."""
    thing = ((mask >= first) & (mask != VOID)).astype(np.float32)
    grey, radius = image.mean(-1, dtype=np.float32) / 255, max(1, round(0.01 * np.hypot(*mask.shape)))
    opacity = (2 * guided_filter(thing, grey, radius) - 0.5).clip(0, 1)[..., None]  # steeper, against halos
    return np.concatenate([image * (opacity > 0), (255 * opacity).round().astype(np.uint8)], -1)


def guided_filter(values: np.ndarray, guide: np.ndarray, radius: int, smoothing: float = 1e-4) -> np.ndarray:
    """Smooth values (H, W) except at the edges of a guide (H, W) in 0..1, float32 (He et al., ECCV 2010).

    Within a window of 2 * radius + 1 pixels the result is a linear function of the guide.
    """

    def mean(x: np.ndarray) -> np.ndarray:
        return ndimage.uniform_filter(x, 2 * radius + 1, mode="nearest")

    of_guide, of_values = mean(guide), mean(values)
    slope = (mean(guide * values) - of_guide * of_values) / (mean(guide * guide) - of_guide**2 + smoothing)
    return mean(slope) * guide + mean(of_values - slope * of_guide)


def draw_points(image: np.ndarray, points: Sequence[tuple[int, int]], labels: Sequence[int]) -> np.ndarray:
    """A picture with its clicks as dots: green on the thing (1), red on the rest (0), with a white rim."""
    canvas, radius = Image.fromarray(image), max(3, min(image.shape[:2]) // 50)
    for (x, y), label in zip(points, labels, strict=True):
        fill = (0, 200, 0) if label else (220, 0, 0)
        ImageDraw.Draw(canvas).circle((x, y), radius, fill, outline=(255, 255, 255), width=max(1, radius // 3))
    return np.array(canvas)


def save_mask(mask: np.ndarray, path: Path, classes: Classes) -> None:
    """Write class ids (H, W) as an index PNG; its palette shows them in colour, its text "classes" is a classes.txt."""
    image = Image.fromarray(mask.astype(np.uint8, copy=False))
    image.putpalette(classes.palette.flatten().tolist())
    about = PngInfo()
    about.add_text("classes", classes.text)
    save_picture(image, path, pnginfo=about)


def save_picture(image: Image.Image | np.ndarray, path: Path, **options) -> None:
    """Write a PNG; options of Pillow."""
    with replacing(path) as temporary:
        image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
        image.save(temporary, format="PNG", compress_level=1, **options)  # four times as fast, and a tenth larger
