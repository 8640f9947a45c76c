"""The layouts that a data set may have on disk: which picture and which mask belong together, and to which split."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from utils.config import require_choice

from utils.classes import PETS, Classes, read_classes
from utils.errors import UserError

SPLITS = ("train", "val", "test", "trainval")
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff")

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
    classes: Classes = PETS

    @property
    def breed(self) -> str:
        """Oxford pictures are named after it: "Maine_Coon_12" -> "Maine_Coon"; empty for others."""
        return self.name.rpartition("_")[0] if self.species else ""


def list_samples(root: str | Path, split: str) -> list[Sample]:
    """The samples of a split ("train", "val", "test", "trainval") of the data set in root.

    Validation is every 10th line of trainval (a folder with a `val` of its own uses that). Raises UserError
    if root holds none of the known layouts, or a file that it names is missing.
    """
    require_choice("split", split, SPLITS)
    root = Path(root)
    samples = _layout(root)(root, split)
    if not samples:
        raise UserError(f"the {split} split of {root} is empty")
    for sample in samples:
        for file in (sample.image, sample.mask):
            if not os.path.isfile(file):  # Path.is_file() raises for a name that is too long
                raise UserError(f"{file} is missing: it belongs to the {split} split of {root}")
    return samples


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


def take_split(trainval: list, split: str) -> list:
    """Every 10th of trainval is for validation, the others are for training."""
    if split == "trainval":
        return trainval
    return trainval[::10] if split == "val" else [x for i, x in enumerate(trainval) if i % 10]


def list_pictures(folder: Path) -> list[Path]:
    """The picture files in a folder, by name."""
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in PICTURE_SUFFIXES)


def _layout(root: Path) -> Callable[[Path, str], list[Sample]]:
    """What reads the layout that is there. Raises UserError if none is."""
    for landmark, read in {"images": _oxford, "TrainVal": _course, "train": _folder}.items():
        if (root / landmark).is_dir():
            return read
    found = "no such folder"
    if root.is_dir():
        found = ", ".join(sorted(file.name for file in root.iterdir())[:8]) or "nothing"
    raise UserError(
        f"no data set in DATA_ROOT = {root} (found: {found}). Looked for one of\n{LAYOUTS}\n"
        "`python data/prepare.py` downloads Oxford-IIIT Pet, `--SYNTHETIC=True` draws a small one in seconds."
    )


def _oxford(root: Path, split: str) -> list[Sample]:
    classes = read_classes(root)
    if len(classes) != len(PETS):
        raise UserError(
            f"{root / 'classes.txt'} lists {classes}, but trimaps with species have three classes: {PETS}. "
            "For others use the folder layout, see data/README.md"
        )
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
        image, trimap = root / "images" / f"{name}.jpg", root / "annotations" / "trimaps" / f"{name}.png"
        samples.append(Sample(name, image, trimap, 1 if cat else 2, classes))
    return samples


def _course(root: Path, split: str) -> list[Sample]:
    classes = read_classes(root)
    if split == "test":
        return _pairs(root / "Test" / "color", root / "Test" / "label", classes)
    return take_split(_pairs(root / "TrainVal" / "color", root / "TrainVal" / "label", classes), split)


def _folder(root: Path, split: str) -> list[Sample]:
    classes = read_classes(root)

    def pairs(name: str) -> list[Sample]:
        return _pairs(root / name / "images", root / name / "masks", classes)

    if split in ("train", "val", "trainval") and not (root / "val").is_dir():
        return take_split(pairs("train"), split)
    return pairs("train") + pairs("val") if split == "trainval" else pairs(split)


def _pairs(images: Path, masks: Path, classes: Classes) -> list[Sample]:
    """Pictures and the PNG masks of the same name."""
    for folder in (images, masks):
        if not folder.is_dir():
            raise UserError(f"{folder} is missing; a data set is laid out in one of these ways:\n{LAYOUTS}")
    return [Sample(file.stem, file, masks / f"{file.stem}.png", classes=classes) for file in list_pictures(images)]
