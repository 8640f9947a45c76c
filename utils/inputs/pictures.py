"""Reading one picture or one mask from disk, as arrays."""

import hashlib
import os
import struct
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from utils.classes import PETS, VOID, Classes
from utils.errors import UserError

warnings.filterwarnings("ignore", module="PIL")  # about odd metadata; in one place, as threads share the filters

WORKERS = os.cpu_count() or 1
PIXELS = 30_000_000  # of the pictures in flight, if these are several: a pixel takes 12 bytes while it is written
BAND = 1 << 20  # pixels of a picture that are computed at once
_DAMAGE = (OSError, ValueError, SyntaxError, EOFError, IndexError, RuntimeError, AssertionError, struct.error)
_DAMAGE += (Image.DecompressionBombError,)  # all that Pillow's decoders raise on damaged files
_GREY = {38: 1, 75: 2}  # what the colours of cat and dog are in the course's grey label files


@dataclass(frozen=True)
class Sample:
    """One picture and its mask on disk."""

    name: str
    image: Path
    mask: Path
    species: int = 0  # trimaps only, which do not tell a cat from a dog: the class id of their animal
    classes: Classes = PETS
    white: int = VOID  # the id of white: 1 in a data set whose masks are black and white

    @property
    def breed(self) -> str:
        """Oxford pictures are named after it: "Maine_Coon_12" -> "Maine_Coon"; empty for others."""
        return self.name.rpartition("_")[0] if self.species else ""


def read_image(path: str | Path) -> np.ndarray:
    """Any picture file as RGB: uint8 (H, W, 3), turned as its EXIF entry says, the first frame of several.

    Raises UserError naming the file if it is no picture, is cut off, or is absurdly large.
    """
    with open_picture(path) as image:
        deep = _has_deep_colours(image)  # to be asked before it is decoded
        ImageOps.exif_transpose(image, in_place=True)
        if image.mode[0] in "IF":  # 16 or 32 bits: convert() would clip at 255
            image = Image.fromarray(_to_bytes(np.asarray(image)))
        image = image if image.mode == "RGB" else image.convert("RGB")
        rgb = np.empty((image.height, image.width, 3), np.uint8)
        for rows in bands(image.height, image.width):  # np.array() holds it three times meanwhile
            rgb[rows] = image.crop((0, rows.start, image.width, rows.stop))
    if deep and rgb.max() < 16:
        raise UserError(f"{path}: the 16 bits of its colours hold values below 4096, which look black: save it with 8")
    return rgb


def read_mask(sample: Sample) -> np.ndarray:
    """The mask of a sample: uint8 (H, W) with class ids and VOID. Raises UserError naming the file."""
    if sample.species:
        white, table = 255, {1: sample.species, 2: 0, 3: VOID}
        with open_picture(sample.mask) as image:
            if image.mode not in ("L", "P"):
                raise UserError(f"{sample.mask}: a trimap is grey, with 8 bits a pixel; this one is {image.mode}")
            values = np.array(image)
    else:
        values, white = mask_values(sample.mask, sample.classes)
        table = {index: index for index in range(len(sample.classes))}
        if sample.classes == PETS:
            table |= _GREY
        if white == "white" and len(sample.classes) == 2:  # one bit has no room for void
            table[255] = 1
        elif white == 255 or sample.white == 1:
            table[255] = sample.white
    lookup = np.full(256, -1, np.int16)
    lookup[list(table)] = list(table.values())
    ids = lookup[values]
    if (ids >= 0).all():
        return ids.astype(np.uint8)
    odd = [white if value == 255 else value for value in np.unique(values[ids < 0]).tolist()[:5]]
    known = f"{sorted(table)} and the colours of {sample.classes}" if not sample.species else "1, 2, 3, a trimap's"
    raise UserError(f"{sample.mask}: unknown mask values {odd}; known are {known}")


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
            return ""
        except UserError as error:
            return str(error)

    with ThreadPoolExecutor(threads_for([sample.image for sample in samples])) as pool:
        reasons = zip(samples, pool.map(reason, samples), strict=True)
        return {sample.name: why for sample, why in reasons if why}


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
    except _DAMAGE as error:
        raise UserError(f"{path}: cannot be read as a picture ({error})") from error


def _has_deep_colours(image: Image.Image) -> bool:
    """Whether a picture that is not decoded yet has colours of 16 bits, of which Pillow keeps the upper 8."""
    return image.mode[0] not in "IF" and ";16" in str(getattr(image, "tile", ""))


def _to_bytes(values: np.ndarray) -> np.ndarray:
    """Numbers of any range (H, W) -> uint8.

    White is 1 (floating point only), 255, 4095, 65535 or the largest value, the first that is not exceeded; pictures
    with negative values are stretched from their smallest to their largest one.
    """
    floating = values.dtype.kind == "f"
    values = values.astype(np.float64)
    finite = values[np.isfinite(values)]
    low, high = min(finite.min(initial=0), 0), finite.max(initial=0)
    values = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
    if low < 0:
        values, white = values - low, high - low
    elif floating and high <= 2:  # sharpening and resizing of 0..1 may exceed 1 a little
        white = 1
    else:
        white = next((top for top in (255, 4095, 65535) if high <= top), high)
    return (values * (255 / white)).round().clip(0, 255).astype(np.uint8)


def mask_values(path: Path, classes: Classes) -> tuple[np.ndarray, int | str]:
    """What a mask file holds, uint8 (H, W), and what 255 in it was: 255, "white" (one bit), or 65535 (beside 0 alone).

    Colours of the classes become ids, others must be grey or indices. Raises UserError naming the file and values that
    cannot be ids.
    """
    with open_picture(path) as image:
        if image.format in ("JPEG", "MPO"):
            raise UserError(f"{path} is a JPEG, which changes the values of pixels: save masks as PNG")
        if image.mode in ("L", "1"):
            return np.array(image.convert("L")), 255 if image.mode == "L" else "white"
        if _has_deep_colours(image):
            raise UserError(f"{path} has colours of 16 bits: save masks with 8, in colour or as ids in grey")
        if image.mode[0] not in "IF":
            return _class_values(image, path, classes), 255
        values = np.asarray(image).astype(np.float64)
    fits = (values >= 0) & (values <= 255) & (values == np.floor(values))
    if fits.all():
        return values.astype(np.uint8), 255
    found = np.unique(values)
    if set(found.tolist()) <= {0, 65535}:
        return np.where(values == 0, 0, 255).astype(np.uint8), 65535
    odd = ", ".join(f"{value:.12g}" for value in np.unique(values[~fits])[:5])
    raise UserError(f"{path}: unknown mask values {odd}; known are the ids 0 to {len(classes) - 1} and 255 for void")


def _class_values(image: Image.Image, path: Path, classes: Classes) -> np.ndarray:
    """A palette or colour mask as ids or grey values, uint8 (H, W). UserError for other colours."""
    rgb = np.array(image.convert("RGB"))
    colours, codes = _codes(rgb), _codes(classes.palette[[*range(len(classes)), VOID]])
    order = np.argsort(codes)
    places = order[np.searchsorted(codes[order], colours).clip(max=len(codes) - 1)]  # into codes
    unknown = codes[places] != colours
    if image.mode == "P":
        palette = _codes(np.array(image.getpalette()).reshape(-1, 3)[: len(classes)])
        greys = np.arange(len(classes)) * 0x10101
        if codes[-1] in palette and not np.isin(palette, [*codes, *greys]).all():
            return np.array(image)  # indices under a palette of somebody's own, in which white is one of the ids
    if not unknown.any():
        return np.where(places == len(classes), VOID, places).astype(np.uint8)
    grey = rgb[..., 0]
    if (rgb == grey[..., None]).all() and (image.mode != "P" or np.isin(grey, (*range(len(classes)), VOID)).all()):
        return grey
    if image.mode == "P":
        return np.array(image)  # likewise
    odd = [f"{code >> 16},{code >> 8 & 255},{code & 255}" for code in np.unique(colours[unknown])[:5].tolist()]
    raise UserError(f"{path}: unknown mask values, the colours {'; '.join(odd)}; known are those of {classes}")


def _codes(rgb: np.ndarray) -> np.ndarray:
    """Colours (..., 3) as one number each."""
    return rgb.astype(np.int32) @ (1 << 16, 1 << 8, 1)


def rng_of(name: str) -> np.random.Generator:
    """Random numbers that depend on a picture's file name only: the same on every machine and for every model."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big"))
