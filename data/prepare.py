"""Get the data: download Oxford-IIIT Pet, or draw a small synthetic data set that needs no network.

    python data/prepare.py                    # 800 MB into data/pets; run it again after an interruption
    python data/prepare.py --SYNTHETIC=True   # 300 drawn cats and dogs into data/synthetic, in seconds

Both are written in the Oxford layout (see data/README.md) and appear in their place only when they are whole.
Train on the drawn ones with `--DATA_ROOT=data/synthetic`.
"""

import json
import os
import shutil
import socket
import sys
import tempfile
from http.client import HTTPException
from pathlib import Path

import numpy as np
from torchvision.datasets import OxfordIIITPet
from tqdm import tqdm

# A script sees the modules of its own folder only: add the repository's.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from utils.config import require_positive, run_script, script_constants  # noqa: E402
from utils.dataset import list_samples  # noqa: E402
from utils.errors import UserError  # noqa: E402
from utils.synthetic import BREEDS, draw_picture  # noqa: E402

# Oxford-IIIT Pet
DATA_ROOT = os.environ.get("PETS_ROOT") or str(Path(__file__).with_name("pets"))  # where the other scripts look for it
TIMEOUT = 60.0  # seconds of silence after which the download is given up
# synthetic data
SYNTHETIC = False  # True: draw pictures instead of downloading any
SYNTHETIC_ROOT = str(Path(__file__).with_name("synthetic"))  # where they go
TRAIN_PICTURES = 240  # for training and validation
TEST_PICTURES = 60
SIDES = (128, 160)  # shortest and longest side of a picture, in pixels
SEED = 0  # the same seed draws the same pictures


def main() -> None:
    try:
        if SYNTHETIC:
            synthesise(Path(SYNTHETIC_ROOT).resolve())
        else:
            download(Path(DATA_ROOT).resolve())
    except OSError as error:
        raise UserError(f"cannot write the data: {error}") from error


def occupied(target: Path) -> bool:
    """Whether target is a file, or a folder that holds something."""
    return target.is_file() or (target.is_dir() and any(target.iterdir()))


def move_into_place(folder: Path, target: Path) -> None:
    """Rename a finished folder to target, which may be there but empty."""
    if target.exists():
        target.rmdir()
    folder.rename(target)


# ------------------------------------------------------------------------------------- Oxford-IIIT Pet


def download(target: Path) -> None:
    """Fetch and unpack the two archives beside target, then move the whole into place. Raises UserError."""
    if occupied(target):
        try:
            print(f"{target} is complete ({count_pictures(target)}): nothing to do")
        except UserError as error:
            raise UserError(
                f"{target} is not empty, but holds no complete data set: move it away, or choose another folder "
                f"with --DATA_ROOT=...\nWhat is wrong with it: {error}"
            ) from error
        return

    require_positive({"TIMEOUT": TIMEOUT}, "TIMEOUT")
    partial = target.with_name(f"{target.name}.download")  # archives that arrived whole are kept for the next run
    unpacked = partial / "oxford-iiit-pet"  # torchvision's name
    for folder in (unpacked / "images", unpacked / "annotations"):
        if folder.exists():  # torchvision would take a half unpacked folder for a whole one
            shutil.rmtree(folder)
    print(f"downloading 800 MB into {partial}")
    socket.setdefaulttimeout(TIMEOUT)
    try:
        for split in ("trainval", "test"):
            OxfordIIITPet(partial, split, target_types="segmentation", download=True)
    except (OSError, RuntimeError, HTTPException) as error:  # no network; wrong checksum; cut off
        raise UserError(
            f"the download failed ({error}). Run the command again, or do it by hand: fetch images.tar.gz and\n"
            "annotations.tar.gz from https://www.robots.ox.ac.uk/~vgg/data/pets/ and unpack both in\n"
            f"{target}, which then holds the folders images and annotations."
        ) from error
    pictures = count_pictures(unpacked)
    move_into_place(unpacked, target)
    for archive in target.glob("*.tar.gz"):
        archive.unlink()
    partial.rmdir()
    print(f"{target}: {pictures}")


def count_pictures(root: Path) -> str:
    """The sizes of a data set's splits, in words. Raises UserError if any file of theirs is missing."""
    trainval, test = (len(list_samples(root, split)) for split in ("trainval", "test"))
    return f"{trainval} pictures for training and validation, {test} for testing"


# ------------------------------------------------------------------------------------- synthetic data


def synthesise(target: Path) -> None:
    """Draw the synthetic data set, unless target holds the same one already. Raises UserError."""
    constants = script_constants(main)
    require_positive(constants, "TRAIN_PICTURES", "TEST_PICTURES")
    if len(SIDES) != 2 or not 64 <= SIDES[0] <= SIDES[1]:
        raise UserError(f"SIDES = {SIDES}: must be two numbers from 64, the smaller one first")
    if SEED < 0:
        raise UserError(f"SEED = {SEED}: must not be negative")
    about = {name: constants[name] for name in ("TRAIN_PICTURES", "TEST_PICTURES", "SIDES", "SEED")}
    record = json.dumps({"drawn by": "data/prepare.py", **about}) + "\n"
    if occupied(target):
        file = target / "synthetic.json"
        if file.is_file() and file.read_text() == record:
            print(f"{target} holds this synthetic data set already: nothing to do")
            return
        held = f"a data set drawn with other constants, see {file.name}" if file.is_file() else "something else"
        raise UserError(f"{target} holds {held}: remove it, or choose another folder with --SYNTHETIC_ROOT=...")

    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f"{target.name}.") as folder:
        whole = Path(folder) / "whole"
        write_set(whole)
        (whole / "synthetic.json").write_text(record)
        move_into_place(whole, target)
    print(f"{target}: {count_pictures(target)}")


def write_set(root: Path) -> None:
    """Pictures, trimaps and lists in the Oxford layout. Every picture has random numbers of its own."""
    trimaps = root / "annotations" / "trimaps"
    for folder in (root / "images", trimaps):
        folder.mkdir(parents=True)
    header = ["#Image CLASS-ID SPECIES BREED ID", "#SPECIES: 1:Cat 2:Dog"]
    lists = {"list": header, "trainval": [], "test": []}
    # By breed, like the original lists: so every 10th line, which is for validation, meets all breeds.
    numbers = sorted(range(TRAIN_PICTURES + TEST_PICTURES), key=breed_of)
    for number in tqdm(numbers, desc="drawing", unit="img", leave=False, disable=None):
        index = breed_of(number)
        breed = BREEDS[index]
        name = f"{breed.name}_{number // len(BREEDS) + 1}"
        image, trimap = draw_picture(np.random.default_rng((SEED, number)), breed, SIDES)
        image.save(root / "images" / f"{name}.jpg", quality=92)
        trimap.save(trimaps / f"{name}.png")
        line = f"{name} {index + 1} {breed.species} {index % 4 + 1}"  # the last is the breed within its species
        lists["list"].append(line)
        lists["trainval" if number < TRAIN_PICTURES else "test"].append(line)
    for name, lines in lists.items():
        (root / "annotations" / f"{name}.txt").write_text("\n".join(lines) + "\n")


def breed_of(number: int) -> int:
    """The breeds in turn, cats and dogs mixed: an index into BREEDS."""
    return number * 5 % len(BREEDS)


if __name__ == "__main__":
    run_script(main)
