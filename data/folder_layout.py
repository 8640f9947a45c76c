"""Writing a data set in the folder layout, whole or not at all, and the report of what was left out.

{train,val,test}/images/NAME.jpg, {train,val,test}/masks/NAME.png, classes.txt, data.json
"""

import json
import multiprocessing
import os
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from http.client import HTTPException
from itertools import repeat
from pathlib import Path
from typing import NamedTuple

from utils.config import require_positive

import numpy as np
from PIL import ExifTags, Image
from tqdm import tqdm

from utils.classes import MOST, named, write_classes
from utils.errors import UserError
from utils.files import write_text
from utils.inputs.pictures import open_picture

PALETTE = named(range(MOST)).palette.tobytes()  # of all ids
SPLITS = {"train": "training", "val": "validation", "test": "testing"}


class Fault(NamedTuple):
    """One thing that was left out."""

    noun: str  # "picture"
    why: str  # "of another size than in the JSON"
    where: str  # "pictures/a.jpg"


# A job writes one task's picture and mask into the folder of a split: whether it did, and what it left out.
Job = Callable[[Path, object], tuple[bool, list[Fault]]]


def require_known(constant: str, names: Sequence[str], known: Sequence[str], source: object) -> None:
    """Raise UserError unless the constant names some of the classes known, each once."""
    if not 0 < len(set(names) & set(known)) == len(names):
        raise UserError(
            f"{constant} = {','.join(names)}: must name different classes, without background, of {source}: "
            f"{', '.join(known)}"
        )


def occupied(target: Path) -> bool:
    """Whether target is a file, or a folder that holds something."""
    return target.is_file() or (target.is_dir() and any(target.iterdir()))


def move_into_place(folder: Path, target: Path) -> None:
    """Rename a finished folder to target, which may be there but empty."""
    if target.exists():
        target.rmdir()
    folder.rename(target)


def describe(name: str, **constants: object) -> str:
    """The content of data.json: what the tables of results call the data set, and the constants that made it."""
    return json.dumps({"name": name, "made by": "data/prepare.py", **constants}) + "\n"


def holds(target: Path, record: str, option: str = "OUT") -> bool:
    """Whether target holds the data set of this data.json. Raises UserError if it holds anything else."""
    if not occupied(target):
        return False
    file = target / "data.json"
    if file.is_file() and file.read_bytes() == record.encode():
        print(f"{target} holds this data set already: nothing to do")
        return True
    held = f"a data set made from other files or constants, see {file.name}" if file.is_file() else "something else"
    raise UserError(f"{target} holds {held}: remove it, or choose another folder with --{option}=...")


def fetch(download: Callable[[Path], object], inside: str, target: Path, timeout: float, by_hand: str) -> None:
    """Download with torchvision into a folder beside target, and move what is `inside` it to target when it is whole.

    Raises UserError; by_hand: what one can do instead.
    """
    require_positive({"TIMEOUT": timeout}, "TIMEOUT")
    arriving = target.with_name(f"{target.name}.download")  # archives that arrived whole are kept for the next run
    print(f"downloading into {arriving}")
    socket.setdefaulttimeout(timeout)
    try:
        download(arriving)
    except (OSError, RuntimeError, HTTPException) as error:  # no network; wrong checksum; cut off
        raise UserError(f"the download failed ({error}). Run the command again, or do it by hand: {by_hand}") from error
    move_into_place(arriving / inside, target)
    shutil.rmtree(arriving)


def write_data_set(
    target: Path,
    record: str,
    names: list[str],
    tasks: dict[str, Sequence],
    job: Job,
    faults: Sequence = (),
    note: str = "",
) -> None:
    """Write the tasks of every split with all processors, print what came of it. Raises UserError.

    record: the content of data.json; names: the classes in the order of their ids; faults: what the report has
    to name besides those of the job; note: its further line. An error leaves nothing behind.
    """
    counts, faults = dict.fromkeys(tasks, 0), list(faults)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f"{target.name}.") as folder:
        whole = Path(folder) / "whole"
        for split, written, left_out in _run(job, whole, tasks):
            counts[split] += written
            faults += left_out
        for split, count in counts.items():
            if not count:
                raise UserError("\n".join([f"no picture is left for {SPLITS[split]}", *report(faults)]))
        write_classes(names, whole)
        write_text(record, whole / "data.json")
        move_into_place(whole, target)
    words = ", ".join(f"{count:,} picture{'s' * (count > 1)} for {SPLITS[split]}" for split, count in counts.items())
    print("\n".join([*report(faults), *filter(None, [note]), f"{target}: {words}; {len(names)} classes"]))


def _run(job: Job, root: Path, tasks: dict[str, Sequence]) -> Iterator[tuple[str, bool, list[Fault]]]:
    """Make the folders of every split and do its tasks; yields the split and what the job returned."""
    with ProcessPoolExecutor(initializer=_attend) as pool:
        try:
            for split, own in tasks.items():
                for kind in ("images", "masks"):
                    (root / split / kind).mkdir(parents=True)
                with ThreadPoolExecutor(1) as helper:  # a Ctrl-C in the midst of map could leave a lock taken for ever
                    results = helper.submit(pool.map, job, repeat(root / split), own).result()
                for written, faults in tqdm(results, split, len(own), leave=False, unit="img", disable=None):
                    yield split, written, faults
        except BrokenProcessPool as error:
            for process in multiprocessing.active_children():  # they ignore the executor's SIGTERM
                process.kill()
            raise UserError("a process that drew masks was ended from outside: is the memory too small?") from error
        except BaseException:  # also Ctrl-C
            pool.shutdown(cancel_futures=True)
            raise


def _attend() -> None:
    """In a worker: leave Ctrl-C and the like to the process that waits, and end when it is no more."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):  # Windows has no SIGHUP
            signal.signal(getattr(signal, name), signal.SIG_IGN)

    def follow() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def report(faults: list[Fault]) -> list[str]:
    """A line per kind of thing left out: how many, and for every reason the first of them."""
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
    """Height and width of a picture as the loader will see it: turned as its EXIF entry says. Raises UserError."""
    with open_picture(file) as image:
        turned = image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
        return image.size if turned else image.size[::-1]


def save_pair(picture: Path, mask: np.ndarray, folder: Path, name: str) -> None:
    """Link or copy the picture file, and write its mask: uint8 (H, W) class ids."""
    link = folder / "images" / f"{name}{picture.suffix}"
    try:
        os.link(picture.resolve(), link)
    except OSError:  # on another disk, or of another owner
        shutil.copyfile(picture, link)
    save_mask(Image.fromarray(mask), folder, name)


def save_mask(ids: Image.Image, folder: Path, name: str) -> None:
    """Write a mask of class ids as a PNG with PASCAL VOC's colours as its palette."""
    ids.putpalette(PALETTE)
    ids.save(folder / "masks" / f"{name}.png")
