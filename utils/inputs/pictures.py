"""Reading one picture or one mask from disk, as arrays."""

import hashlib
import os
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from utils.classes import PETS, VOID, Classes, parse_classes
from utils.errors import UserError

warnings.filterwarnings("ignore", module="PIL")  # about odd metadata; here, because threads share the filters

WORKERS = os.cpu_count() or 1
# Everything that Pillow's decoders raise on damaged files.
_DAMAGE = (OSError, ValueError, SyntaxError, EOFError, IndexError, RuntimeError, AssertionError, struct.error)
_DAMAGE += (Image.DecompressionBombError,)
_FEW_BITS = {"L;4": 17, "L;2": 85}  # Pillow multiplies grey values of 4 and 2 bits by these
_GREY = {38: 1, 75: 2}  # grey values of the colours of cat and dog, in the course's label files


@dataclass(frozen=True)
class Sample:
    """One picture and its mask on disk."""

    name: str
    image: Path
    mask: Path
    species: int = 0  # class id for trimaps, which mark only foreground; 0: the mask is no trimap
    classes: Classes = PETS
    white: int = VOID  # the id of white; 1 in a data set of black and white masks

    @property
    def breed(self) -> str:
        """From the name of an Oxford picture: "Maine_Coon_12" -> "Maine_Coon"; empty for other data sets."""
        return self.name.rpartition("_")[0] if self.species else ""


def read_image(path: str | Path) -> np.ndarray:
    """Any picture file as RGB: uint8 (H, W, 3), rotated by its EXIF entry, the first frame of an animation.

    Raises UserError naming the file if it is no picture, is cut off, or is absurdly large.
    """
    with open_picture(path) as image:
        deep = _has_deep_colours(image)  # known only before it is decoded
        ImageOps.exif_transpose(image, in_place=True)
        if image.mode[0] in "IF":  # 16 or 32 bits: convert() would clip at 255
            image = Image.fromarray(_to_bytes(np.asarray(image)))
        rgb = np.array(image.convert("RGB"))
    if deep and rgb.max() < 16:
        raise UserError(f"{path}: the 16 bits of its colours hold values below 4096, which look black: save it with 8")
    return rgb


def read_mask(sample: Sample) -> np.ndarray:
    """The mask of a sample: uint8 (H, W) with class ids and VOID. Raises UserError naming the file."""
    if sample.species:
        with open_picture(sample.mask) as image:
            if image.mode not in ("L", "P"):
                raise UserError(f"{sample.mask}: a trimap is grey, with 8 bits a pixel; this one is {image.mode}")
            values = np.array(image)
        ids = {1: sample.species, 2: 0, 3: VOID}
    else:
        values = mask_values(sample.mask, sample.classes)
        ids = {index: index for index in range(len(sample.classes))} | {VOID: sample.white}
        if sample.classes == PETS:
            ids |= _GREY
    table = np.full(256, -1, np.int16)
    table[list(ids)] = list(ids.values())
    mask = table[values]
    if (mask < 0).any():
        odd = np.unique(values[mask < 0]).tolist()[:5]
        raise UserError(f"{sample.mask}: unknown mask values {odd}; known are {sorted(ids)}")
    return mask.astype(np.uint8)


def read_sample(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    """Picture (H, W, 3) and mask (H, W) of one size. Raises UserError if the sizes differ."""
    image, mask = read_image(sample.image), read_mask(sample)
    if image.shape[:2] != mask.shape:
        (height, width), (tall, wide) = image.shape[:2], mask.shape
        raise UserError(f"{sample.mask} is {wide} x {tall}, but its picture {sample.image} is {width} x {height}")
    return image, mask


def resize_image(image: np.ndarray, size: int) -> np.ndarray:
    """uint8 (H, W, 3) -> (size, size, 3), with antialiasing; the aspect ratio is not kept."""
    return np.array(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))


@contextmanager
def open_picture(path: str | Path) -> Iterator[Image.Image]:
    """The picture in a file, not decoded yet. Raises UserError naming it, also for damage found in the with block."""
    try:
        with Image.open(path) as image:
            yield image
    except _DAMAGE as error:
        raise UserError(f"{path}: cannot be read as a picture ({error})") from error


def _stored_as(image: Image.Image) -> str:
    """Text that contains the raw mode of the pixels in the file, such as "L;4"; empty once they are decoded."""
    return str(getattr(image, "tile", ""))


def _has_deep_colours(image: Image.Image) -> bool:
    """Whether a picture has colours of 16 bits, of which Pillow keeps the upper 8."""
    return image.mode[0] not in "IF" and ";16" in _stored_as(image)


def _to_bytes(values: np.ndarray) -> np.ndarray:
    """Numbers of any range (H, W) -> uint8.

    White is the first of 1 (floating point only), 255, 4095, 65535 that no value exceeds, else the largest value. With
    negative values the range from the smallest to the largest one is stretched.
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


def mask_values(path: Path, classes: Classes) -> np.ndarray:
    """Ids, grey values and VOID in a mask file, uint8 (H, W); white is VOID, whatever the depth of the file.

    Colours of the classes become ids. Raises UserError naming the file and values that cannot be ids.
    """
    with open_picture(path) as image:
        if image.format in ("JPEG", "MPO"):
            raise UserError(f"{path} is a JPEG, which changes the values of pixels: save masks as PNG")
        if image.mode == "P" and "classes" in image.info:  # of save_mask(): ids of these classes
            names = parse_classes(image.info["classes"], path).names
            if names != classes.names[: len(names)]:
                found = f"{path} says that its classes are {', '.join(names)}, not {classes}"
                raise UserError(f"{found}; `python data/prepare.py --MASKS=...` translates masks by name")
            return np.array(image)
        if image.mode in ("L", "1"):
            step = next((step for bits, step in _FEW_BITS.items() if bits in _stored_as(image)), 1)
            values = np.array(image.convert("L"))
            return values if step == 1 else np.where(values == VOID, VOID, values // step)
        if _has_deep_colours(image):
            raise UserError(f"{path} has colours of 16 bits: save masks with 8, in colour or as ids in grey")
        if image.mode[0] not in "IF":
            return _from_colours(image, path, classes)
        values = np.asarray(image)
    values = np.where(values == 65535, VOID, values)  # white in 16 bits
    with np.errstate(invalid="ignore"):  # NaN
        ids = values.astype(np.uint8)
    if (ids != values).any():
        odd = ", ".join(f"{value:.12g}" for value in np.unique(values[ids != values])[:5])
        known = f"the ids 0 to {len(classes) - 1} and 255 for void"
        raise UserError(f"{path}: unknown mask values {odd}; known are {known}")
    return ids


def _from_colours(image: Image.Image, path: Path, classes: Classes) -> np.ndarray:
    """A palette or colour mask as ids or grey values, uint8 (H, W). UserError for other colours."""
    rgb = np.array(image.convert("RGB"))
    if "A" in image.getbands() and (rgb[np.array(image.getchannel("A")) == 0] != classes.palette[0]).any():
        raise UserError(f"{path} has transparent pixels, whose colours are unknown: fill them with a class's colour")
    colours, codes = _codes(rgb), _codes(classes.palette[[*range(len(classes)), VOID]])
    table = np.full(1 << 24, -1, np.int16)
    table[codes] = [*range(len(classes)), VOID]
    ids = table[colours]
    if image.mode == "P":
        raw, palette = np.array(image), _codes(np.array(image.getpalette()).reshape(-1, 3)[: len(classes)])
        greys = np.arange(len(classes)) * 0x10101
        if not np.isin(palette, [*codes, *greys]).all():  # it has colours of no class
            if codes[-1] in palette:  # white is the colour of an id
                return raw
            if (ids >= 0).all() and (raw != ids).any() and raw[raw != VOID].max(initial=0) < len(classes):
                why = "its palette has colours of other classes, so its pixels may be meant as colours or as ids"
                raise UserError(f"{path}: {why}; give the palette's colours in classes.txt (data/README.md)")
    if (ids >= 0).all():
        return ids.astype(np.uint8)
    grey = rgb[..., 0]
    if (rgb == grey[..., None]).all() and (image.mode != "P" or np.isin(grey, (*range(len(classes)), VOID)).all()):
        return grey
    if image.mode == "P":
        return np.array(image)  # the palette's colours mean nothing
    odd = [f"{code >> 16},{code >> 8 & 255},{code & 255}" for code in np.unique(colours[ids < 0])[:5].tolist()]
    raise UserError(f"{path}: unknown mask values, the colours {'; '.join(odd)}; known are those of {classes}")


def _codes(rgb: np.ndarray) -> np.ndarray:
    """Colours, uint8 (..., 3), as numbers 0xRRGGBB, int32 (...)."""
    return rgb.astype(np.int32) @ (1 << 16, 1 << 8, 1)


def rng_of(name: str) -> np.random.Generator:
    """Random numbers seeded by a picture's file name: the same on every machine and for every model."""
    digest = hashlib.sha256(name.encode(errors="surrogateescape")).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))
