"""Write a data set in the folder layout, whole or not at all, and report what was left out.

{train,val,test}/images/NAME.jpg, {train,val,test}/masks/NAME.png, classes.txt, data.json
"""

import json
import shutil
import socket
import tempfile
from collections.abc import Callable, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple
from unicodedata import normalize

import numpy as np
from PIL import ExifTags, Image
from tqdm import tqdm

from utils.classes import MOST, name_and_colour, named, parse_classes
from utils.errors import UserError
from utils.files import write_text
from utils.inputs.pictures import open_picture

PALETTE = named(range(MOST)).palette.tobytes()  # PASCAL VOC's colours
SPLITS = {"train": "training", "val": "validation", "test": "testing"}
TIMEOUT = 60  # seconds without data after which a download stops


class Fault(NamedTuple):
    """Something that was left out of the data set."""

    noun: str  # "picture"
    why: str  # "of another size than in the JSON"
    where: str  # "pictures/a.jpg"


# (folder of a split, task) -> whether the task's picture and mask were written, and what was left out
Job = Callable[[Path, object], tuple[bool, list[Fault]]]


def require_known(constant: str, names: Sequence[str], known: Sequence[str], source: object) -> None:
    """Raise UserError unless `names`, the value of a constant, are different names out of `known`, at least one."""
    if not 0 < len(set(names) & set(known)) == len(names):
        raise UserError(
            f"{constant} = {','.join(names)}: must name different classes of {source}, without background: "
            f"{', '.join(known)}"
        )


def occupied(target: Path) -> bool:
    """Whether target is a file or a folder with content."""
    return target.is_file() or (target.is_dir() and any(target.iterdir()))


def move_into_place(folder: Path, target: Path) -> None:
    """Rename a finished folder to target, which may exist as an empty folder."""
    if target.exists():
        target.rmdir()
    folder.rename(target)


def describe(name: str, **constants: object) -> str:
    """The content of data.json: the data set's name in tables of results, and the constants that made it."""
    return json.dumps({"name": name, "made by": "data/prepare.py", **constants}) + "\n"


def holds(target: Path, record: str, option: str = "OUT") -> bool:
    """Whether target holds the data set with this data.json. Raises UserError if it holds anything else."""
    if not occupied(target):
        return False
    file = target / "data.json"
    if file.is_file() and file.read_bytes() == record.encode():
        print(f"{target} holds this data set already: nothing to do")
        return True
    held = f"a data set made from other files or constants, see {file.name}" if file.is_file() else "something else"
    raise UserError(f"{target} holds {held}: remove it, or choose another folder with --{option}=...")


def fetch(download: Callable[[Path], object], inside: str, target: Path, by_hand: str) -> None:
    """Download with torchvision into a folder beside target, then move its subfolder `inside` to target.

    Raises UserError with by_hand, the instructions for a download by hand.
    """
    arriving = target.with_name(f"{target.name}.download")  # complete archives stay there for the next run
    print(f"downloading into {arriving}")
    socket.setdefaulttimeout(TIMEOUT)
    try:
        download(arriving)
    except (OSError, RuntimeError, HTTPException) as error:  # no network; wrong checksum; cut off
        raise UserError(f"the download failed ({error}). Run the command again, or do it by hand: {by_hand}") from error
    move_into_place(arriving / inside, target)
    shutil.rmtree(arriving)


def write_data_set(
    target: Path, record: str, names: list[str], tasks: dict[str, Sequence], job: Job, faults: Sequence[Fault] = ()
) -> None:
    """Write the tasks of every split and print a report. Raises UserError; nothing is left behind then.

    record: the content of data.json; names: the classes in the order of their ids; faults: found before this.
    """
    counts, faults = dict.fromkeys(tasks, 0), list(faults)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f"{target.name}.") as folder:
        whole = Path(folder) / "whole"
        for split, own in tasks.items():
            for kind in ("images", "masks"):
                (whole / split / kind).mkdir(parents=True)
            for task in tqdm(own, split, leave=False, unit="img", disable=None):
                written, left_out = job(whole / split, task)
                counts[split] += written
                faults += left_out
        for split, count in counts.items():
            if not count:
                raise UserError("\n".join([f"no picture is left for {SPLITS[split]}", *report(faults)]))
        write_classes(names, whole)
        write_text(record, whole / "data.json")
        move_into_place(whole, target)
    words = ", ".join(f"{count:,} picture{'s' * (count > 1)} for {SPLITS[split]}" for split, count in counts.items())
    print("\n".join([*report(faults), f"{target}: {words}; {len(names)} classes"]))


def report(faults: list[Fault]) -> list[str]:
    """A line per kind of fault: how many, and for every reason the first example."""
    kinds = {}
    for noun, why, where in faults:
        kinds.setdefault(noun, {}).setdefault(why, []).append(where)
    lines = []
    for noun, places in kinds.items():
        total = sum(map(len, places.values()))
        reasons = [f"{len(where):,} {why} (first: {where[0]})" for why, where in places.items()]
        lines.append(f"{total:,} {noun}{'s' * (total > 1)} left out: {', '.join(reasons)}")
    return lines


def displayed_size(file: Path) -> tuple[int, int]:
    """Height and width of a picture after its EXIF rotation. Raises UserError."""
    with open_picture(file) as image:
        turned = image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
        return image.size if turned else image.size[::-1]


def save_pair(picture: Path, mask: np.ndarray, folder: Path, name: str) -> None:
    """Copy the picture file, and write its mask: uint8 (H, W) class ids."""
    shutil.copyfile(picture, folder / "images" / f"{name}{picture.suffix}")
    save_mask(Image.fromarray(mask), folder, name)


def save_mask(ids: Image.Image, folder: Path, name: str) -> None:
    """Write a mask of class ids as a PNG with PASCAL VOC's colours as its palette."""
    ids.putpalette(PALETTE)
    ids.save(folder / "masks" / f"{name}.png")


def write_classes(names: Sequence[str], root: str | Path) -> None:
    """Write root/classes.txt with the colours of PASCAL VOC. UserError for names that cannot be read back."""
    path, names = Path(root) / "classes.txt", [normalize("NFC", name).strip() for name in names]
    text = named(names).text
    odd = [name for name in names if name_and_colour(f"{name} 1,1,1")[0] != name]
    if odd or parse_classes(text, path).names != tuple(names):
        raise UserError(f"{path} cannot hold these names of classes, rename them: {', '.join(odd or names)}")
    write_text(text, path)
