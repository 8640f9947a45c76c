"""The layouts that a data set may have on disk: which picture and which mask belong together, and to which split."""

import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from unicodedata import normalize

from utils.config import require_choice

import numpy as np
from PIL import Image

from utils.classes import PETS, VOID, Classes, about_background, classes_file, read_classes
from utils.errors import UserError
from utils.files import read_text
from utils.inputs.cache import cache_folder, cached_arrays
from utils.inputs.pictures import WORKERS, Sample, mask_values
from utils.terminal import say_once

SPLITS = ("train", "val", "test", "trainval")
Image.init()  # the plugins, which know the suffixes
# Neither what Pillow cannot draw by itself nor its formats for tables, films and pages.
_NO_PICTURES = {"BUFR", "EPS", "FITS", "GRIB", "HDF5", "IPTC", "MPEG", "PDF", "WMF"}
_KINDS = Image.OPEN.keys() - _NO_PICTURES | {"MPO"}
PICTURE_SUFFIXES = tuple(suffix for suffix, kind in Image.registered_extensions().items() if kind in _KINDS)

LAYOUTS = """\
  Oxford:  images/*.jpg, annotations/trimaps/*.png, annotations/{trainval,test}.txt
  Course:  TrainVal/{color,label}, Test/{color,label}
  Folder:  {train,val,test}/{images,masks}, or images and masks alone, of which every 10th is for validation"""


def list_samples(root: str | Path, split: str) -> list[Sample]:
    """The samples of a split, one of SPLITS, of the data set in root.

    Raises UserError if root holds none of the known layouts, a file is missing, or no mask shows anything.
    """
    require_choice("split", split, SPLITS)
    root = Path(root)
    read = _layout(root)
    samples = read(root, split)
    if not samples:
        raise UserError(f"the {split} split of {root} is empty")
    for sample in samples:
        for file in (sample.image, sample.mask):
            if not os.path.isfile(file):  # Path.is_file() raises for a name that is too long
                there = f"found in {file.parent}: {contents(file.parent)}"
                raise UserError(f"{file} is missing: it belongs to the {split} split of {root}; {there}")
    if about := about_background(samples[0].classes):
        say_once(f"{classes_file(root)}: {about}")
    if read is _oxford:
        return samples
    white = _meaning_of_white(root, samples[0].classes)
    return [replace(sample, white=white) for sample in samples]


def _meaning_of_white(root: Path, classes: Classes) -> int:
    """The id of 255 in the masks of all splits: VOID, or 1 if there are two classes and they are black and white.

    Raises UserError if they show nothing but background and void.
    """
    masks = [mask for _, folder in _parts(root).values() if folder.is_dir() for mask in list_pictures(folder)]

    def kinds_in(mask: Path) -> list[bool]:
        """Whether a mask shows 0, an id, 255 and 65535."""
        try:
            values, white = mask_values(mask, classes)
        except UserError:  # said when it is used
            return [False] * 4
        there, deep = np.bincount(values.ravel(), minlength=256) > 0, white == 65535
        return [there[0], there[1:255].any(), there[255] and not deep, there[255] and deep]

    def fill(start: int, stop: int) -> dict[str, np.ndarray]:
        with ThreadPoolExecutor(WORKERS) as pool:
            return {"kinds": np.array(list(pool.map(kinds_in, masks[start:stop])))}

    if not masks or kinds_in(masks[0])[1]:  # nearly always
        return VOID
    key = [repr(classes), [[str(mask), (stat := mask.stat()).st_size, stat.st_mtime_ns] for mask in masks]]
    specs = {"kinds": ((len(masks), 4), "bool")}
    kinds = cached_arrays(cache_folder(root), key, specs, fill, 64, "reading masks")["kinds"].any(0)
    found = [value for value, there in zip((0, 1, 255, 65535), kinds, strict=True) if there]
    if 1 in found or not found:
        return VOID
    if len(classes) == 2 and found != [0]:
        say_once(f"{root}: its masks are black and white, so white ({found[-1]}) is {classes.names[1]}, not void")
        return 1
    raise UserError(
        f"the masks of {root} hold only {' and '.join(map(str, found))}; 0 is {classes.names[0]}, 255 is void, and no "
        f"pixel is {' or '.join(classes.things)}. Masks hold the ids 0 to {len(classes) - 1}, or the colours, of these "
        f"classes. If white is the one thing to find, list two in {root / 'classes.txt'}: background, and its name"
    )


def data_name(root: str | Path) -> str:
    """What a data set is called in tables: the name in its data.json, else Oxford-IIIT Pet, or its folder's name."""
    root = Path(root)
    record = root / "data.json"
    if record.is_file():
        try:
            return str(json.loads(record.read_text(encoding="utf-8"))["name"])
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{record}: cannot be read as the record of a data set ({error!r})") from error
    return "Oxford-IIIT Pet" if _layout(root) is _oxford else root.resolve().name


def subset(samples: Sequence[Sample], count: int) -> Sequence[Sample]:
    """A random subset of so many, always the same, in their order; 0: all."""
    if not 0 < count < len(samples):
        return samples
    return [samples[index] for index in sorted(np.random.default_rng(0).choice(len(samples), count, replace=False))]


def take_split(trainval: list, split: str) -> list:
    """Every 10th of trainval is for validation, the others are for training."""
    others = [x for i, x in enumerate(trainval) if i % 10]
    return {"trainval": trainval, "val": trainval[::10], "train": others}[split]


def list_files(folder: Path) -> list[Path]:
    """The files in a folder, by name, without those that systems hide there: ._a.jpg, .DS_Store, Thumbs.db."""
    hidden = ("thumbs.db", "desktop.ini")
    files = (file for file in folder.iterdir() if file.name[0] != "." and file.name.lower() not in hidden)
    return sorted(file for file in files if not file.is_dir())


def is_picture(file: Path) -> bool:
    """Whether a file's name ends as Pillow's pictures do."""
    return file.suffix.lower() in PICTURE_SUFFIXES


def list_pictures(folder: Path) -> list[Path]:
    """The picture files in a folder, by name."""
    return list(filter(is_picture, list_files(folder)))


def skipped(folder: Path) -> str:
    """A line about the files in a folder that are no pictures; empty if there are none."""
    return some_of(sorted({*list_files(folder)} - {*list_pictures(folder)}), f"skipped in {folder}")


def some_of(files: list[Path], what: str) -> str:
    """ "3 files WHAT: a.heic, b.txt, c.txt", of many the first; empty without files."""
    names = [file.name for file in files[:5]] + ["..."] * (len(files) > 5)
    return f"{len(files)} file{'s' * (len(files) > 1)} {what}: {', '.join(names)}" if files else ""


def contents(folder: Path) -> str:
    """What is in a folder, for messages: its folders, and how many files of which suffix, with the first of them."""
    if not folder.is_dir():
        return "no such folder"
    folders = sorted(f"{path.name}/" for path in folder.iterdir() if path.is_dir() and path.name[0] not in "._")
    files = defaultdict(list)
    for file in list_files(folder):
        files[file.suffix].append(file.name)
    counted = [names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more" for names in files.values()]
    return ", ".join([*folders[:8], *counted[:8]]) or "nothing"


def same_name(name: str) -> str:
    """A name as it is compared: é may be one character or two (macOS), capitals do not count."""
    return normalize("NFC", name).casefold()


def find_file(folder: Path, name: str) -> Path:
    """The file of this name, however its accents are written on the disk; folder / name if there is none."""
    forms = (folder / form for form in (name, normalize("NFC", name), normalize("NFD", name)))
    return next(filter(os.path.isfile, forms), folder / name)


def _layout(root: Path) -> Callable[[Path, str], list[Sample]]:
    """What reads the layout that is there. Raises UserError if none is."""
    annotations = root / "annotations"
    if (root / "images").is_dir() and any((annotations / name).exists() for name in ("trimaps", *_LISTS.values())):
        return _oxford
    if any(images.is_dir() and masks.is_dir() for images, masks in _parts(root).values()) or any(
        (root / landmark).is_dir() for landmark in ("TrainVal", "train", "val", "test")
    ):
        return _from_folders
    inside = "".join(f"\n  {path.name}/: {contents(path)}" for path in sorted(root.glob("[!._]*/"))[:8])
    raise UserError(
        f"no data set in DATA_ROOT = {root} (found: {contents(root)}).{inside}\nLooked for one of\n{LAYOUTS}\n"
        "For data of your own put pictures into images and masks of the same names into masks.\n"
        "`python data/prepare.py` downloads Oxford-IIIT Pet, `--SYNTHETIC=True` draws a small one in seconds."
    )


_LISTS = {"trainval": "trainval.txt", "test": "test.txt"}


def _oxford(root: Path, split: str) -> list[Sample]:
    classes = read_classes(root)
    if len(classes) != len(PETS):
        raise UserError(
            f"{root / 'classes.txt'} lists {classes}, but trimaps with species have three classes: {PETS}. "
            "For others use the folder layout, see data/README.md"
        )
    file = root / "annotations" / _LISTS["test" if split == "test" else "trainval"]
    text = read_text(file, "the pictures of a split, a name per line")
    lines = [line.split() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    lines = lines if split == "test" else take_split(lines, split)
    samples = []
    for name, *columns in lines:
        cat = columns[1] == "1" if len(columns) > 1 else name[0].isupper()  # cats' names have a capital letter
        image = find_file(root / "images", f"{name}.jpg")
        trimap = find_file(root / "annotations" / "trimaps", f"{name}.png")
        samples.append(Sample(name, image, trimap, 1 if cat else 2, classes))
    return samples


def _parts(root: Path) -> dict[str, tuple[Path, Path]]:
    """The folders of pictures and of masks of "train", "val" and "test": those that are there, and always "train"."""
    if (root / "TrainVal").is_dir() or (root / "Test" / "color").is_dir():
        parts = {"train": "TrainVal", "test": "Test"}
        return {part: (root / name / "color", root / name / "label") for part, name in parts.items()}
    names = (("train", "train"), ("validation", "val"), ("valid", "val"), ("val", "val"), ("test", "test"))
    parts = {part: root / name for name, part in names if (root / name).is_dir()}
    parts.setdefault("train", root if (root / "images").is_dir() else root / "train")
    return {part: (folder / "images", folder / "masks") for part, folder in parts.items()}


def _from_folders(root: Path, split: str) -> list[Sample]:
    parts, classes = _parts(root), read_classes(root)
    if split not in parts and split == "test":
        raise UserError(
            f"{root} has no test split (found: {contents(root)}): put pictures to test on into test/images and "
            "their masks into test/masks, or score another split"
        )
    if "val" not in parts and split != "test":
        return take_split(_pairs(*parts["train"], classes), split)
    own = ("train", "val") if split == "trainval" else (split,)
    return [sample for part in own for sample in _pairs(*parts[part], classes)]


def _pairs(images: Path, masks: Path, classes: Classes) -> list[Sample]:
    """Pictures and their masks: NAME.png, or the only one of a similar name. Raises UserError if several are."""
    for folder in (images, masks):
        if not folder.is_dir():
            parent = next(parent for parent in folder.parents if parent.is_dir())
            raise UserError(f"{folder} is missing; {parent} holds {contents(parent)}. Layouts of data sets:\n{LAYOUTS}")
    by_name = defaultdict(list)
    for mask in list_pictures(masks):
        name = same_name(mask.stem)
        for own in {name, _without_word(name)}:
            by_name[own].append(mask)
    pictures, samples, owners = list_pictures(images), [], {}
    stems = Counter(picture.stem for picture in pictures)
    for picture in pictures:
        mask = find_file(masks, f"{picture.stem}.png")
        if not os.path.isfile(mask):
            stem = same_name(picture.stem)
            found = by_name[stem] + by_name[same_name(picture.name)] or by_name[_without_word(stem)] or [mask]
            if len(found) > 1:
                raise UserError(f"{picture} has several masks, keep one of them: {', '.join(map(str, found))}")
            mask = found[0]
        if mask in owners:
            raise UserError(f"{mask} is the mask of {owners[mask]} and of {picture}: rename or remove one of them")
        owners[mask] = picture
        name = picture.stem if stems[picture.stem] == 1 else picture.name
        samples.append(Sample(name, picture, mask, classes=classes))
    if not samples:
        raise UserError(f"{images} holds no pictures, but {contents(images)}. Layouts of data sets:\n{LAYOUTS}")
    spare = some_of(sorted({*list_files(masks)} - {*owners}), f"in {masks} without a picture")
    for line in filter(None, (skipped(images), spare)):
        say_once(line)
    return samples


def _without_word(name: str) -> str:
    """ "a_mask", "mask-a" and "img_a" -> "a"."""
    words = "masks?|labels?|l|seg|segmentation|gt|matte|images?|img|photo|picture|rgb"
    return re.sub(rf"^({words})[-_. ]+|[-_. ]+({words})$", "", name)
