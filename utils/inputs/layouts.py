"""Layouts of a data set on disk: which picture and which mask belong together, and in which split they are."""

import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path
from unicodedata import normalize

import numpy as np
from PIL import Image

from utils.classes import PETS, VOID, Classes, classes_file, read_classes
from utils.errors import UserError
from utils.files import read_text
from utils.inputs.pictures import WORKERS, Sample, mask_values, open_picture
from utils.terminal import say_once

SPLITS = ("train", "val", "test", "trainval")
Image.init()  # loads the plugins, which know the suffixes
# Formats of Pillow that need another program, or hold tables, films or pages.
_NO_PICTURES = {"BUFR", "EPS", "FITS", "GRIB", "HDF5", "IPTC", "MPEG", "PDF", "WMF"}
_KINDS = Image.OPEN.keys() - _NO_PICTURES | {"MPO"}
PICTURE_SUFFIXES = tuple(suffix for suffix, kind in Image.registered_extensions().items() if kind in _KINDS)

LAYOUTS = """\
  Oxford:  images/*.jpg, annotations/trimaps/*.png, annotations/{trainval,test}.txt
  Course:  TrainVal/{color,label}, Test/{color,label}
  Folder:  {train,val,test}/{images,masks}, or images and masks alone, of which every 10th is for validation"""


def list_samples(root: str | Path, split: str) -> list[Sample]:
    """The samples of a split, one of SPLITS, of the data set in root.

    Raises UserError if root holds none of the known layouts, a file is missing, or no mask shows a class but id 0.
    """
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
    classes = samples[0].classes
    if not classes.first:
        say_once(f"{classes_file(root)}: id 0 is {classes.names[0]}: there is no background")
    if read is _oxford:
        return samples
    white = meaning_of_white(root, classes)
    return [replace(sample, white=white) for sample in samples]


def meaning_of_white(root: Path, classes: Classes) -> int:
    """The id of white in the masks of all splits: VOID, or 1 if there are two classes and every pixel is 0 or white.

    Raises UserError if the masks hold nothing but background and void.
    """
    folders = [masks for _, masks in _parts(root).values() if masks.is_dir()]
    masks = [(mask, classes, mask.stat().st_mtime_ns) for folder in folders for mask in list_pictures(folder)]
    if not masks or _values_in(*masks[0]) - {0, VOID}:  # nearly always
        return VOID
    with ThreadPoolExecutor(WORKERS) as pool:
        found = set().union(*pool.map(lambda mask: _values_in(*mask), masks))
    if found - {0, VOID} or not found:
        return VOID
    with open_picture(masks[0][0]) as first:
        ours = "classes" in first.info  # of label.py, for example
    if len(classes) == 2 and VOID in found and not ours:
        say_once(f"{root}: its masks are black and white, so white is {classes.names[1]}, not void")
        return 1
    raise UserError(
        f"the masks of {root} hold only {' and '.join(map(str, sorted(found)))}; 0 is {classes.names[0]}, 255 void, no "
        f"pixel is {' or '.join(classes.things)}. Masks hold the ids 0 to {len(classes) - 1}, or the classes' colours. "
        f"If white is the one thing to find, list two classes in {root / 'classes.txt'}: background, and its name"
    )


@cache
def _values_in(mask: Path, classes: Classes, changed: int) -> set[int]:
    """The ids and VOID in a mask; empty if it cannot be read, which is reported when it is used. changed: its date."""
    try:
        return set(np.unique(mask_values(mask, classes)).tolist())
    except UserError:
        return set()


def data_name(root: str | Path) -> str:
    """The data set's name in tables: from its data.json, else Oxford-IIIT Pet, or the name of its folder."""
    root = Path(root)
    record = root / "data.json"
    if record.is_file():
        try:
            return str(json.loads(record.read_text(encoding="utf-8"))["name"])
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{record}: cannot be read as the record of a data set ({error!r})") from error
    return "Oxford-IIIT Pet" if _layout(root) is _oxford else root.resolve().name


def subset(samples: Sequence[Sample], count: int) -> Sequence[Sample]:
    """A random subset of `count` samples in their order, always the same; all if count is 0."""
    if not 0 < count < len(samples):
        return samples
    return [samples[index] for index in sorted(np.random.default_rng(0).choice(len(samples), count, replace=False))]


def take_split(trainval: list, split: str) -> list:
    """A split of the trainval list: every 10th entry is for validation, the others are for training."""
    others = [x for i, x in enumerate(trainval) if i % 10]
    return {"trainval": trainval, "val": trainval[::10], "train": others}[split]


def list_files(folder: Path) -> list[Path]:
    """The files in a folder, sorted, without those of the system: ._a.jpg, .DS_Store, Thumbs.db."""
    hidden = ("thumbs.db", "desktop.ini")
    files = (file for file in folder.iterdir() if file.name[0] != "." and file.name.lower() not in hidden)
    return sorted(file for file in files if not file.is_dir())


def is_picture(file: Path) -> bool:
    """Whether a file has the suffix of a format that Pillow reads."""
    return file.suffix.lower() in PICTURE_SUFFIXES


def list_pictures(folder: Path) -> list[Path]:
    """The picture files in a folder, sorted."""
    return list(filter(is_picture, list_files(folder)))


def skipped(folder: Path) -> str:
    """A line about the files in a folder that are no pictures; empty if there are none."""
    others = [file for file in list_files(folder) if not is_picture(file)]
    return f"skipped in {folder}: {_first_of(others)}" if others else ""


def contents(folder: Path) -> str:
    """What a folder holds, for messages."""
    if not folder.is_dir():
        return "no such folder"
    folders = [path for path in sorted(folder.iterdir()) if path.is_dir() and path.name[0] not in "._"]
    return _first_of(folders + list_files(folder)) or "nothing"


def _first_of(paths: Sequence[Path]) -> str:
    """ "photos/, a.heic, b.txt and 12 more": the first five names."""
    names = ", ".join(f"{path.name}/" if path.is_dir() else path.name for path in paths[:5])
    return f"{names} and {len(paths) - 5} more" if len(paths) > 5 else names


def same_name(name: str) -> str:
    """A name for comparisons: é may be one character or two (macOS), capitals do not count."""
    return normalize("NFC", name).casefold()


def _layout(root: Path) -> Callable[[Path, str], list[Sample]]:
    """The function that reads the layout in root. Raises UserError if there is none."""
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
        "For your own data put pictures into images, and masks of the same names into masks.\n"
        "`python data/prepare.py` downloads Oxford-IIIT Pet, `--SYNTHETIC=True` draws a small one in seconds."
    )


_LISTS = {"trainval": "trainval.txt", "test": "test.txt"}


def _oxford(root: Path, split: str) -> list[Sample]:
    classes = read_classes(root)
    if len(classes) != len(PETS) or (set(classes.names) == set(PETS.names) and classes.names != PETS.names):
        has = f"{root / 'classes.txt'} lists {classes}, but trimaps with species have three classes"
        raise UserError(f"{has}, in this order: {PETS}. For other classes use the folder layout, see data/README.md")
    file = root / "annotations" / _LISTS["test" if split == "test" else "trainval"]
    text = read_text(file, "the pictures of a split, a name per line")
    lines = [line.split() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    lines = lines if split == "test" else take_split(lines, split)
    samples = []
    for name, *columns in lines:
        cat = columns[1] == "1" if len(columns) > 1 else name[0].isupper()  # names of cat breeds have a capital letter
        trimap = root / "annotations" / "trimaps" / f"{name}.png"
        samples.append(Sample(name, root / "images" / f"{name}.jpg", trimap, 1 if cat else 2, classes))
    return samples


def _parts(root: Path) -> dict[str, tuple[Path, Path]]:
    """Split -> its folders of pictures and of masks; "train" is always in it, "val" and "test" if they are there."""
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
    """Pictures and their masks: the one of the same name, else the only one of a similar name.

    Raises UserError if there are several.
    """
    for folder in (images, masks):
        if not folder.is_dir():
            there = f"{folder.parent} holds {contents(folder.parent)}"
            raise UserError(f"{folder} is missing; {there}. Layouts of data sets:\n{LAYOUTS}")
    similar = defaultdict(list)
    for mask in list_pictures(masks):
        similar[_plain(mask.name)].append(mask)
    pictures, samples, owners = list_pictures(images), [], {}
    stems = Counter(picture.stem for picture in pictures)
    for picture in pictures:
        found = similar[_plain(picture.name)] or [masks / f"{picture.stem}.png"]
        own = [normalize("NFC", name) for name in (picture.stem, picture.name)]
        same = [mask for mask in found if normalize("NFC", mask.stem) in own]
        found = [mask for mask in same if mask.suffix == ".png"] or same or found
        if len(found) > 1:
            raise UserError(f"{picture} has several masks, keep one of them: {', '.join(map(str, found))}")
        (mask,) = found
        if mask in owners:
            raise UserError(f"{mask} is the mask of {owners[mask]} and of {picture}: rename or remove one of them")
        owners[mask] = picture
        name = picture.stem if stems[picture.stem] == 1 else picture.name
        samples.append(Sample(name, picture, mask, classes=classes))
    if not samples:
        raise UserError(f"{images} holds no pictures, but {contents(images)}. Layouts of data sets:\n{LAYOUTS}")
    if line := skipped(images):
        say_once(line)
    if spare := [file for file in list_files(masks) if file not in owners]:
        say_once(f"without a picture in {masks}: {_first_of(spare)}")
    return samples


def _plain(name: str) -> str:
    """What similar file names have in common: "a.jpg.png", "A_mask.tif" and "img-a.png" -> "a"."""
    name = same_name(name)
    while name.endswith(PICTURE_SUFFIXES):
        name = name.rpartition(".")[0]
    words = "masks?|labels?|l|seg|segmentation|gt|matte|images?|img|photo|picture|rgb"
    return re.sub(rf"^({words})[-_. ]+|[-_. ]+({words})$", "", name)
