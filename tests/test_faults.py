"""Hard to break: damaged files of every kind, and processes that are killed at any moment."""

import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import run_here
from PIL import Image

import train_unet
from utils import checkpoint
from utils.classes import VOID
from utils.errors import UserError
from utils.inputs.dataset import SegmentationDataset
from utils.inputs.layouts import Sample, list_samples
from utils.inputs.pictures import read_image, read_mask

# ------------------------------------------------------------------------------------------ damaged files


EXIF = Image.Exif()
EXIF[0x0112] = 6
COLOUR = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 31, 3), np.uint8))
GREY = Image.fromarray(np.random.default_rng(1).integers(0, 256, (24, 31), np.uint8))
WHOLE = {
    "rotated.jpg": (COLOUR, {"quality": 80, "exif": EXIF}),
    "cmyk.jpg": (COLOUR.convert("CMYK"), {}),
    "a.png": (COLOUR, {}),
    "transparent.png": (COLOUR.convert("RGBA"), {}),
    "deep.png": (Image.fromarray(np.asarray(GREY).astype(np.uint16) * 256), {}),
    "floats.tif": (Image.fromarray(np.asarray(GREY).astype(np.float32) * 3), {}),
    "one.bmp": (COLOUR.crop((0, 0, 1, 1)), {}),
    "a.avif": (COLOUR, {}),
    "a.jp2": (COLOUR, {}),
    "a.webp": (COLOUR, {}),
    "moving.gif": (GREY, {"save_all": True, "append_images": [GREY.transpose(Image.Transpose.ROTATE_180)]}),
}


def mutations(content: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Files that are cut off, have bytes changed, doubled or missing, or are of noise."""
    rng = random.Random(seed)
    for _ in range(count):
        data = bytearray(content)
        for _ in range(rng.choice((1, 1, 2, 8))):
            place = rng.randrange(len(data) + 1)
            kind = rng.randrange(5)
            if kind == 0:
                del data[place:]
            elif kind == 1 and place < len(data):
                data[place] = rng.randrange(256)
            elif kind == 2:
                data[place:place] = rng.randbytes(rng.randrange(1, 20))
            elif kind == 3:
                del data[place : place + rng.randrange(1, 20)]
            elif kind == 4 and rng.random() < 0.1:
                data = bytearray(rng.randbytes(len(data)))
        yield bytes(data)


def refusals(path: Path, count: int, seed: int, read: Callable[[], None], named: Path) -> int:
    """How many damaged forms of a file are refused, each with an error that names it or its folder."""
    refused = 0
    for data in mutations(path.read_bytes(), count, seed):
        path.write_bytes(data)
        try:
            read()
        except UserError as error:
            refused += 1
            assert str(named) in str(error)
    return refused


@pytest.mark.parametrize("name", WHOLE)
def test_damaged_pictures_give_a_picture_or_an_error_that_names_the_file(tmp_path, name):
    def read() -> None:
        image = read_image(path)
        assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3

    path, (picture, options) = tmp_path / name, WHOLE[name]
    picture.save(path, **options)
    read()
    assert 10 < refusals(path, 170, 0, read, path) < 170


def test_a_header_that_promises_20000_by_20000_pixels_is_refused_at_once(tmp_path):
    path = tmp_path / "huge.png"
    Image.new("1", (20000, 20000)).save(path)
    started = time.perf_counter()
    with pytest.raises(UserError, match="huge.png"):
        read_image(path)
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize("species", [0, 1])
def test_damaged_masks_give_known_classes_or_an_error_that_names_the_file(tmp_path, species):
    def read() -> None:
        assert set(np.unique(read_mask(Sample("a", path, path, species)))) <= {0, 1, 2, VOID}

    values = np.random.default_rng(0).integers(1, 4, (20, 30)) if species else np.tile([0, 1, 2, 255], (20, 8))
    path = tmp_path / "mask.png"
    Image.fromarray(values.astype(np.uint8)).save(path)
    assert refusals(path, 300, species, read, path) > 30


def test_damaged_lists_of_pictures_give_samples_or_an_error_that_names_a_file(oxford_copy):
    def read() -> None:
        assert all(sample.image.is_file() for sample in list_samples(oxford_copy, "train"))

    assert refusals(oxford_copy / "annotations" / "trainval.txt", 300, 0, read, oxford_copy) > 100


# ------------------------------------------------------------------------------------------- a full disk


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A folder on a disk of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True) if shutil.which("mount") else None
    if done is None or done.returncode:
        pytest.skip(f"no disk can be mounted here: {done.stderr.strip() if done else 'there is no mount'}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("name", ["best.safetensors", "last.pt"])
def test_a_checkpoint_that_the_disk_cannot_hold_leaves_the_one_before(small_disk, name):
    path, about = small_disk / "unet" / name, {"model": "unet", "arguments": {}}
    checkpoint.save({**about, "epoch": 1, "weights": {}}, path)
    with pytest.raises(UserError, match=f"cannot write {path}.*the old file is unchanged"):
        checkpoint.save({**about, "epoch": 2, "weights": {"a": torch.randn(400_000)}}, path)
    assert checkpoint.load(path)["epoch"] == 1
    assert list(path.parent.iterdir()) == [path]


def test_a_cache_that_the_disk_cannot_hold_is_refused_and_a_smaller_one_is_built(small_disk, oxford_root):
    root = shutil.copytree(oxford_root, small_disk / "pets", ignore=shutil.ignore_patterns(".cache"))
    with pytest.raises(UserError, match="cannot write the cache.*No space left.*free some space"):
        SegmentationDataset(root, "train", 256)
    expected = SegmentationDataset(oxford_root, "train", 16)[[0, 1]]
    assert all(map(torch.equal, SegmentationDataset(root, "train", 16)[[0, 1]], expected))


# ------------------------------------------------------------------------------------------- killed work

# Not forked from here: a child would inherit the locks and threads of all that ran before, and a killed one would take
# tqdm's lock along.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["test_faults"])


def train(root: Path, folder: Path) -> None:
    """Train a small U-Net in this process, quietly, or go on with it."""
    tiny = "--IMAGE_SIZE=32 --SMALL_SIZE=32 --WIDTH=4 --DEPTH=2 --EPOCHS=6 --BATCH_SIZE=8 --PRECISION=fp32".split()
    resume = (folder / "unet" / "last.pt").exists()
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        run_here(train_unet, *tiny, f"--DATA_ROOT={root}", f"--CHECKPOINTS={folder}", f"--RESUME={resume}")


@pytest.mark.slow
def test_kills_at_any_moment_change_no_number(oxford_root, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # where the fork server finds what it preloads
    ignore, folders = shutil.ignore_patterns(".cache"), (tmp_path / "once", tmp_path / "often")
    once, often = [(shutil.copytree(oxford_root, folder / "data", ignore=ignore), folder) for folder in folders]
    started = time.perf_counter()
    train(*once)
    rng, killed, seconds = random.Random(0), 0, time.perf_counter() - started
    for _ in range(15):
        child = PROCESSES.Process(target=train, args=often)
        child.start()
        child.join(seconds * 0.5 ** rng.uniform(0, 8))  # early moments too: what is left to do becomes little
        killed += child.is_alive()
        child.kill()
        child.join()
    train(*often)
    assert killed >= 8

    whole, stopped = (checkpoint.load(folder / "unet" / "last.pt") for folder in folders)
    assert all(torch.equal(value, stopped["weights"][name]) for name, value in whole["weights"].items())
    assert [line["loss"] for line in whole["log"]] == [line["loss"] for line in stopped["log"]]
    assert not list((folders[1] / "unet").glob("*.tmp"))  # of processes that died while they wrote
    caches = [SegmentationDataset(folder / "data", "train", 32).arrays for folder in folders]
    assert all(np.array_equal(array, caches[1][name]) for name, array in caches[0].items())
