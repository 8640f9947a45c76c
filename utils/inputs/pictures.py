"""Reading one picture or one mask from disk, as arrays."""

import hashlib
import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from utils.classes import PETS, VOID
from utils.errors import UserError
from utils.inputs.layouts import Sample

warnings.filterwarnings("ignore", module="PIL")  # about odd metadata; in one place, as threads share the filters

WORKERS = os.cpu_count() or 1
PIXELS = 30_000_000  # of the pictures in flight, if these are several: a pixel takes 12 bytes while it is written
BAND = 1 << 20  # pixels of a picture that are computed at once
_GREY = {38: 1, 75: 2}  # what the colours of cat and dog are in the course's grey label files


def read_image(path: str | Path) -> np.ndarray:
    """Any picture file as RGB: uint8 (H, W, 3), turned as its EXIF entry says, the first frame of several.

    Raises UserError naming the file if it is no picture, is cut off, or is absurdly large.
    """
    with open_picture(path) as image:
        ImageOps.exif_transpose(image, in_place=True)
        image = _to_rgb(image)
        array = np.empty((image.height, image.width, 3), np.uint8)
        for rows in bands(image.height, image.width):  # np.array() holds it three times meanwhile
            array[rows] = image.crop((0, rows.start, image.width, rows.stop))
        return array


def read_mask(sample: Sample) -> np.ndarray:
    """The mask of a sample: uint8 (H, W) with class ids and VOID. Raises UserError naming the file."""
    with open_picture(sample.mask) as image:
        values = np.array(image) if sample.species else _class_values(image, sample)
    if sample.species:
        table = {1: sample.species, 2: 0, 3: VOID}
    else:
        table = {index: index for index in (*range(len(sample.classes)), VOID)}
        if sample.classes == PETS:
            table |= _GREY
    known = np.zeros(256, bool)
    known[list(table)] = True
    lookup = np.zeros(256, np.uint8)
    lookup[list(table)] = list(table.values())
    if values.ndim != 2 or values.dtype != np.uint8:
        odd = [f"{values.dtype} {values.shape}"]
    elif known[values].all():
        return lookup[values]
    else:
        odd = np.unique(values[~known[values]]).tolist()[:5]
    raise UserError(
        f"{sample.mask}: unknown mask values {odd}; known are {sorted(table)}"
        + (" (a trimap's)" if sample.species else f" and the colours of {sample.classes}")
    )


def read_sample(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    """Picture (H, W, 3) and mask (H, W) of one size. Raises UserError if the sizes differ."""
    image, mask = read_image(sample.image), read_mask(sample)
    if image.shape[:2] != mask.shape:
        sizes = "{1} x {0}".format(*image.shape), "{1} x {0}".format(*mask.shape)
        raise UserError(f"{sample.mask} is {sizes[1]}, but its picture {sample.image} is {sizes[0]}")
    return image, mask


def unreadable(samples: Sequence[Sample]) -> dict[str, str]:
    """Names of the samples whose picture or mask cannot be read, and why."""

    def reason(sample: Sample) -> str:
        try:
            read_sample(sample)
        except UserError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(threads_for([sample.image for sample in samples])) as pool:
        reasons = list(pool.map(reason, samples))
    return {sample.name: why for sample, why in zip(samples, reasons, strict=True) if why}


def resize_image(image: np.ndarray, size: int) -> np.ndarray:
    """(H, W, 3) -> (size, size, 3), squashed, with antialiasing."""
    return np.array(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))


def bands(height: int, width: int) -> Iterator[slice]:
    """The rows of a picture, so many at once that they have about BAND pixels: all of a small one."""
    rows = max(1, BAND // width)
    for top in range(0, height, rows):
        yield slice(top, min(top + rows, height))


def pixels_of(path: str | Path) -> int:
    """From the file's header; 0 if it cannot be read."""
    try:
        with open_picture(path) as image:
            return image.width * image.height
    except UserError:
        return 0


def threads_for(pictures: Sequence[Path]) -> int:
    """How many of these pictures may be read at once."""
    return min(WORKERS, max(1, PIXELS // max(1, *map(pixels_of, pictures))))


def batches_of(pictures: Sequence[Path], count: int) -> Iterator[tuple[list[Path], int]]:
    """Up to `count` pictures and a third of PIXELS at once, but one at least; and their pixels."""
    batch, total = [], 0
    for picture in pictures:
        pixels = pixels_of(picture)
        if batch and (len(batch) == count or total + pixels > PIXELS // 3):
            yield batch, total
            batch, total = [], 0
        batch.append(picture)
        total += pixels
    if batch:
        yield batch, total


@contextmanager
def open_picture(path: str | Path) -> Iterator[Image.Image]:
    """The picture in a file, not decoded yet. Raises UserError naming it, also for damage found while it is open."""
    try:
        with Image.open(path) as image:
            yield image
    # What Pillow's decoders raise on damaged files.
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: cannot be read as a picture ({error})") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):  # 16 bits: convert() would clip at 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        values = np.nan_to_num(np.asarray(image, np.float64))
        image = Image.fromarray((255 * values / max(values.max(), 255)).clip(0, 255).astype(np.uint8))
    return image if image.mode == "RGB" else image.convert("RGB")


def _class_values(image: Image.Image, sample: Sample) -> np.ndarray:
    """An index, grey, palette or colour mask as ids or grey values, uint8 (H, W). UserError for other colours."""
    if image.mode == "L":
        return np.array(image)
    classes = sample.classes
    colours = np.array(image.convert("RGB")).astype(np.int32) @ (1 << 16, 1 << 8, 1)
    codes = classes.palette[[*range(len(classes)), VOID]].astype(np.int32) @ (1 << 16, 1 << 8, 1)
    order = np.argsort(codes)
    places = order[np.searchsorted(codes[order], colours).clip(max=len(codes) - 1)]  # into codes
    unknown = codes[places] != colours
    if not unknown.any():
        return np.where(places == len(classes), VOID, places).astype(np.uint8)
    if image.mode == "P":
        return np.array(image)  # indices under a palette of somebody's own
    odd = [f"{code >> 16},{code >> 8 & 255},{code & 255}" for code in np.unique(colours[unknown])[:5].tolist()]
    raise UserError(f"{sample.mask}: unknown mask values, the colours {'; '.join(odd)}; known are those of {classes}")


def rng_of(name: str) -> np.random.Generator:
    """Random numbers that depend on a picture's file name only: the same on every machine and for every model."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big"))
