"""Convert PASCAL VOC's segmentation masks to the folder layout."""

from functools import partial
from pathlib import Path

from utils.config import require_choice

import numpy as np
from torchvision.datasets import VOCSegmentation
from torchvision.datasets.voc import DATASET_YEAR_DICT

from data.folder_layout import Fault, describe, fetch, holds, require_known, save_pair, write_data_set
from utils.classes import VOID
from utils.errors import UserError
from utils.inputs.pictures import open_picture

CLASSES = (
    "background,aeroplane,bicycle,bird,boat,bottle,bus,car,cat,chair,cow,diningtable,dog,horse,motorbike,person,"
    "pottedplant,sheep,sofa,train,tvmonitor"
).split(",")
YEARS = tuple(sorted(year for year in DATASET_YEAR_DICT if year.isdigit()))
SPLITS = {"train": "train", "test": "val"}  # the masks of VOC's own test split are not public
UNKNOWN = 254  # not a value of VOC's masks


def convert(target: Path, name: str, year: str, root: Path, categories: tuple[str, ...]) -> None:
    """Write VOC's train and val to target as train and test, unless they are there. Raises UserError."""
    require_choice("VOC", year, YEARS)
    kept = categories or tuple(CLASSES[1:])
    require_known("CATEGORIES", kept, CLASSES[1:], "VOC")
    record = describe(name, VOC=year, VOC_ROOT=str(root), CATEGORIES=categories)
    if holds(target, record):
        return
    if not (root / DATASET_YEAR_DICT[year]["base_dir"]).is_dir():
        download(root, year)
    names = ["background", *kept]
    tasks = {split: list_pairs(root, year, voc_split) for split, voc_split in SPLITS.items()}
    write_data_set(target, record, names, tasks, partial(recode, ids=id_table(names), must_show=bool(categories)))


def download(root: Path, year: str) -> None:
    """Fetch a year's archive, 2 GB for 2012, and unpack it. Raises UserError."""
    source = DATASET_YEAR_DICT[year]
    devkit = root / source["base_dir"]
    if (root / devkit.name).is_dir():
        raise UserError(f"VOC_ROOT = {root} holds {devkit.name} itself: it must be the folder around VOCdevkit")
    by_hand = f"fetch {source['url']}\nand unpack it in {root}, or in --VOC_ROOT=..., so that {devkit} is there"
    archive = partial(VOCSegmentation, year=year, image_set="train", download=True)
    fetch(archive, source["base_dir"], devkit, by_hand)


def list_pairs(root: Path, year: str, split: str) -> list[tuple[Path, Path]]:
    """(picture, mask) files of a split. Raises OSError."""
    voc = VOCSegmentation(root, year, split)
    return list(zip(map(Path, voc.images), map(Path, voc.masks), strict=True))


def id_table(names: list[str]) -> np.ndarray:
    """Table (256,) from VOC's mask values to ids in names: 0 for other classes, UNKNOWN for other values."""
    table = np.full(256, UNKNOWN, np.uint8)
    table[: len(CLASSES)] = [names.index(name) if name in names else 0 for name in CLASSES]
    table[VOID] = VOID
    return table


def recode(folder: Path, pair: tuple[Path, Path], ids: np.ndarray, must_show: bool) -> tuple[bool, list[Fault]]:
    """A Job of write_data_set: write a picture and its mask. Raises UserError.

    ids: see id_table; must_show: leave the picture out if its mask is all background or void.
    """
    picture, file = pair
    with open_picture(file) as image:
        values = np.array(image)  # the indices of a palette PNG
    mask = ids[values] if values.ndim == 2 and values.dtype == np.uint8 else np.array(UNKNOWN)
    if (mask == UNKNOWN).any():
        raise UserError(f"{file} is no mask of VOC: values must be 0 to {len(CLASSES) - 1}, and {VOID} for void")
    if must_show and not ((mask > 0) & (mask < VOID)).any():
        return False, []
    save_pair(picture, mask, folder, picture.stem)
    return True, []
