"""From files to uint8 tensors: the layouts a data set may have on disk, reading one picture, one split."""

import hashlib
import os
import warnings
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from utils.cache import cache_folder, cached_arrays
from utils.classes import PALETTE, VOID
from utils.config import require_choice
from utils.errors import UserError

warnings.filterwarnings("ignore", module="PIL")  # about odd metadata; in one place, as threads share the filters

SPLITS = ("train", "val", "test", "trainval")
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff")
WORKERS = os.cpu_count() or 1

LAYOUTS = """\
  Oxford:  images/*.jpg, annotations/trimaps/*.png, annotations/{trainval,test}.txt
  Course:  TrainVal/{color,label}, Test/{color,label}
  Folder:  {train,val,test}/{images,masks}"""


@dataclass(frozen=True)
class Sample:
    """One picture and its mask on disk."""

    name: str
    image: Path
    mask: Path
    species: int = 0  # trimaps only, which do not tell a cat from a dog: the class id of their animal

    @property
    def breed(self) -> str:
        """Oxford pictures are named after the breed: "Maine_Coon_12" -> "Maine_Coon"."""
        return self.name.rpartition("_")[0]


# ---------------------------------------------------------------------------------------------- layouts


def list_samples(root: str | Path, split: str) -> list[Sample]:
    """The samples of a split ("train", "val", "test", "trainval") of the data set in root.

    Validation is every 10th line of trainval (a folder with a `val` of its own uses that). Raises UserError
    if root holds none of the known layouts, or a file that it names is missing.
    """
    require_choice("split", split, SPLITS)
    root = Path(root)
    layouts = {"images": _oxford, "TrainVal": _course, "train": _folder}
    for landmark, read_layout in layouts.items():
        if (root / landmark).is_dir():
            samples = read_layout(root, split)
            break
    else:
        found = "no such folder"
        if root.is_dir():
            found = ", ".join(sorted(file.name for file in root.iterdir())[:8]) or "nothing"
        raise UserError(
            f"no data set in DATA_ROOT = {root} (found: {found}). Looked for one of\n{LAYOUTS}\n"
            "`python data/prepare.py` downloads Oxford-IIIT Pet, `--SYNTHETIC=True` draws a small one in seconds."
        )
    if not samples:
        raise UserError(f"the {split} split of {root} is empty")
    for sample in samples:
        for file in (sample.image, sample.mask):
            if not os.path.isfile(file):  # Path.is_file() raises for a name that is too long
                raise UserError(f"{file} is missing: it belongs to the {split} split of {root}")
    return samples


def take_split(trainval: list, split: str) -> list:
    """Every 10th of trainval is for validation, the others are for training."""
    if split == "trainval":
        return trainval
    return trainval[::10] if split == "val" else [x for i, x in enumerate(trainval) if i % 10]


def _oxford(root: Path, split: str) -> list[Sample]:
    file = root / "annotations" / ("test.txt" if split == "test" else "trainval.txt")
    if not file.is_file():
        raise UserError(f"{file} is missing: it lists the pictures of a split, one name per line")
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: cannot be read as a list of names ({error})") from error
    lines = [line.split() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    lines = lines if split == "test" else take_split(lines, split)
    samples = []
    for name, *columns in lines:
        cat = columns[1] == "1" if len(columns) > 1 else name[0].isupper()  # cats' names have a capital letter
        trimap = root / "annotations" / "trimaps" / f"{name}.png"
        samples.append(Sample(name, root / "images" / f"{name}.jpg", trimap, 1 if cat else 2))
    return samples


def _course(root: Path, split: str) -> list[Sample]:
    if split == "test":
        return _pairs(root / "Test" / "color", root / "Test" / "label")
    return take_split(_pairs(root / "TrainVal" / "color", root / "TrainVal" / "label"), split)


def _folder(root: Path, split: str) -> list[Sample]:
    def pairs(name: str) -> list[Sample]:
        return _pairs(root / name / "images", root / name / "masks")

    if split in ("train", "val", "trainval") and not (root / "val").is_dir():
        return take_split(pairs("train"), split)
    return pairs("train") + pairs("val") if split == "trainval" else pairs(split)


def _pairs(images: Path, masks: Path) -> list[Sample]:
    """Pictures and the PNG masks of the same name."""
    for folder in (images, masks):
        if not folder.is_dir():
            raise UserError(f"{folder} is missing; a data set is laid out in one of these ways:\n{LAYOUTS}")
    return [Sample(file.stem, file, masks / f"{file.stem}.png") for file in list_pictures(images)]


def rng_of(name: str) -> np.random.Generator:
    """Random numbers that depend on a picture's file name only: the same on every machine and for every model."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big"))


def list_pictures(folder: Path) -> list[Path]:
    """The picture files in a folder, by name."""
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in PICTURE_SUFFIXES)


# ---------------------------------------------------------------------------------------- one file each


def read_image(path: str | Path) -> np.ndarray:
    """Any picture file as RGB: uint8 (H, W, 3), turned as its EXIF entry says, the first frame of several.

    Raises UserError naming the file if it is no picture, is cut off, or is absurdly large.
    """
    return np.array(_open(path, lambda image: _to_rgb(ImageOps.exif_transpose(image))))


def read_mask(sample: Sample) -> np.ndarray:
    """The mask of a sample: uint8 (H, W) with class ids and VOID. Raises UserError naming the file."""
    if sample.species:
        values = _open(sample.mask, np.array)
        table = {1: sample.species, 2: 0, 3: VOID}
    else:
        values = _open(sample.mask, _class_values)
        # The ids themselves, and the grey values of PALETTE's colours in the course's label files.
        table = {0: 0, 1: 1, 2: 2, 38: 1, 75: 2, VOID: VOID}
    lookup = np.full(256, 254, np.uint8)
    lookup[list(table)] = list(table.values())
    mask = lookup[values] if values.ndim == 2 and values.dtype == np.uint8 else np.full(values.shape, 254)
    if (mask == 254).any():
        odd = sorted(set(np.unique(values[mask == 254]).tolist()))[:5]
        raise UserError(f"{sample.mask}: unknown mask values {odd}; known are {sorted(table)} and PALETTE's colours")
    return mask


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

    with ThreadPoolExecutor(WORKERS) as pool:
        reasons = list(pool.map(reason, samples))
    return {sample.name: why for sample, why in zip(samples, reasons, strict=True) if why}


def resize_image(image: np.ndarray, size: int) -> np.ndarray:
    """(H, W, 3) -> (size, size, 3), squashed, with antialiasing."""
    return np.array(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))


def _open(path: str | Path, convert):
    try:
        with Image.open(path) as image:
            return convert(image)
    # What Pillow's decoders raise on damaged files.
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: cannot be read as a picture ({error})") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):  # 16 bits: convert() would clip at 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        values = np.nan_to_num(np.asarray(image, np.float64))
        image = Image.fromarray((255 * values / max(values.max(), 255)).clip(0, 255).astype(np.uint8))
    return image.convert("RGB")


def _class_values(image: Image.Image) -> np.ndarray:
    """An index, grey, palette or colour mask as ids or grey values: uint8 (H, W); 254 for an unknown colour."""
    values = np.array(image)
    if image.mode == "L":
        return values
    colours = np.array(image.convert("RGB")).astype(np.int32) @ (1 << 16, 1 << 8, 1)
    classes = np.full(colours.shape, 254, np.uint8)
    for index, (red, green, blue) in PALETTE.items():
        classes[colours == (red << 16 | green << 8 | blue)] = index
    # Indices under a palette of somebody's own.
    return values if image.mode == "P" and (classes == 254).any() else classes


# ------------------------------------------------------------------------------------------- one split


class PetDataset(torch.utils.data.Dataset):
    """The pictures of a split, squashed to size x size, as uint8 tensors from a memory-mapped cache.

    dataset[i] is (image (3, size, size), mask (size, size)); dataset[[i, j, ...]] is a batch of them in one
    read, which is what the training loop uses. A model sees the squashed picture; evaluation resizes its
    logits to the mask's own size, which undoes the squashing exactly. left_out: names of pictures to leave out.
    """

    def __init__(self, root: str | Path, split: str, size: int, left_out: Collection[str] = ()):
        self.samples = [sample for sample in list_samples(root, split) if sample.name not in left_out]
        self.size = size
        count = len(self.samples)
        self.cache = cache_folder(root)
        self.key = [size, [_fingerprint(sample) for sample in self.samples]]
        specs = {"images": ((count, size, size, 3), "uint8"), "masks": ((count, size, size), "uint8")}
        self.arrays = cached_arrays(self.cache, self.key, specs, self._read, 256, f"reading {split} pictures")

    def _read(self, start: int, stop: int) -> dict[str, np.ndarray]:
        def read(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
            image, mask = read_sample(sample)
            small = Image.fromarray(mask).resize((self.size, self.size), Image.Resampling.NEAREST)
            return resize_image(image, self.size), np.array(small)

        with ThreadPoolExecutor(WORKERS) as pool:  # Pillow decodes and resizes outside of Python's lock
            images, masks = zip(*pool.map(read, self.samples[start:stop]), strict=True)
        return {"images": np.stack(images), "masks": np.stack(masks)}

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int | Sequence[int]) -> tuple[torch.Tensor, ...]:
        images = torch.from_numpy(np.array(self.arrays["images"][index]))
        return images.movedim(-1, -3), torch.from_numpy(np.array(self.arrays["masks"][index]))


def _fingerprint(sample: Sample) -> list:
    """What changes when a source file changes."""
    stats = (os.stat(sample.image), os.stat(sample.mask))
    return [str(sample.image.resolve()), sample.species, *((s.st_size, s.st_mtime_ns) for s in stats)]
