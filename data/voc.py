"""PASCAL VOC's segmentation masks, fetched and found by torchvision, into the folder layout."""

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
SPLITS = {"train": "train", "test": "val"}  # VOC keeps the masks of its own test split to itself
UNKNOWN = 254  # no value of VOC's


def convert(target: Path, name: str, year: str, root: Path, categories: tuple[str, ...], timeout: float) -> None:
    """Write VOC's train and val to target as train and test, unless they are there already. Raises UserError."""
    require_choice("VOC", year, YEARS)
    kept = categories or tuple(CLASSES[1:])
    require_known("CATEGORIES", kept, CLASSES[1:], "VOC")
    record = describe(name, VOC=year, VOC_ROOT=str(root), CATEGORIES=categories)
    if holds(target, record):
        return
    if not (root / DATASET_YEAR_DICT[year]["base_dir"]).is_dir():
        download(root, year, timeout)
    names = ["background", *kept]
    tasks = {split: list_pairs(root, year, voc_split) for split, voc_split in SPLITS.items()}
    write_data_set(target, record, names, tasks, partial(recode, ids=id_table(names), must_show=bool(categories)))


def download(root: Path, year: str, timeout: float) -> None:
    """Fetch a year's archive, 2 GB for 2012, and unpack it. Raises UserError."""
    source = DATASET_YEAR_DICT[year]
    devkit = root / source["base_dir"]
    if (root / devkit.name).is_dir():
        raise UserError(f"VOC_ROOT = {root} holds {devkit.name} itself: name the folder in which {devkit} would lie")
    by_hand = f"fetch {source['url']}\nand unpack it in {root}, or in --VOC_ROOT=..., so that {devkit} is there"
    archive = partial(VOCSegmentation, year=year, image_set="train", download=True)
    fetch(archive, source["base_dir"], devkit, timeout, by_hand)


def list_pairs(root: Path, year: str, split: str) -> list[tuple[Path, Path]]:
    """The pictures of a split of VOC and their masks. Raises OSError."""
    voc = VOCSegmentation(root, year, split)
    return list(zip(map(Path, voc.images), map(Path, voc.masks), strict=True))


def id_table(names: list[str]) -> np.ndarray:
    """VOC's mask values -> ids in names, 0 for classes that are not in names, UNKNOWN for other values."""
    table = np.full(256, UNKNOWN, np.uint8)
    table[: len(CLASSES)] = [names.index(name) if name in names else 0 for name in CLASSES]
    table[VOID] = VOID
    return table


def recode(folder: Path, pair: tuple[Path, Path], ids: np.ndarray, must_show: bool) -> tuple[bool, list[Fault]]:
    """Write one picture and its mask into the folder of a split: whether it did, and no faults.

    ids: see id_table; must_show: leave the picture out if none of its pixels shows a class. Raises UserError.
    """
    picture, file = pair
    with open_picture(file) as image:
        values = np.array(image)  # of a palette PNG: its indices
    mask = ids[values] if values.ndim == 2 and values.dtype == np.uint8 else np.array(UNKNOWN)
    if (mask == UNKNOWN).any():
        raise UserError(f"{file} is no mask of VOC: its values must be 0 to {len(CLASSES) - 1}, and {VOID} for void")
    if must_show and not ((mask > 0) & (mask < VOID)).any():
        return False, []
    save_pair(picture, mask, folder, picture.stem)
    return True, []
