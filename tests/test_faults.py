"""Hard to break: damaged files of every kind, and processes that are killed at any moment."""

import io
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
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


def whole_files() -> dict[str, bytes]:
    """One small file of every kind that may lie under a picture's name."""
    rng = np.random.default_rng(0)
    colour, grey = rng.integers(0, 256, (24, 31, 3), np.uint8), rng.integers(0, 256, (24, 31), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    pictures = {
        "a.jpg": (Image.fromarray(colour), {"quality": 80}),
        "rotated.jpg": (Image.fromarray(colour), {"exif": exif}),
        "cmyk.jpg": (Image.fromarray(colour).convert("CMYK"), {}),
        "a.png": (Image.fromarray(colour), {}),
        "transparent.png": (Image.fromarray(colour).convert("RGBA"), {}),
        "deep.png": (Image.fromarray(grey.astype(np.uint16) * 256), {}),
        "floats.tif": (Image.fromarray(grey.astype(np.float32) * 3), {}),
        "one.bmp": (Image.fromarray(colour[:1, :1]), {}),
        "moving.gif": (Image.fromarray(grey), {"save_all": True, "append_images": [Image.fromarray(grey.T)]}),
    }
    files = {}
    for name, (picture, options) in pictures.items():
        buffer = io.BytesIO()
        picture.save(buffer, Image.registered_extensions()[Path(name).suffix], **options)
        files[name] = buffer.getvalue()
    return files


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


def test_damaged_pictures_give_a_picture_or_an_error_that_names_the_file(tmp_path):
    refused = []
    for number, (name, content) in enumerate(whole_files().items()):
        path = tmp_path / name
        path.write_bytes(content)
        assert read_image(path).shape[2] == 3
        for data in mutations(content, 170, number):
            path.write_bytes(data)
            try:
                image = read_image(path)
                assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
            except UserError as error:
                assert str(path) in str(error)
                refused.append(name)
    assert len(set(refused)) == len(whole_files())


def test_a_header_that_promises_20000_by_20000_pixels_is_refused_at_once(tmp_path):
    path = tmp_path / "huge.png"
    Image.new("1", (20000, 20000)).save(path)
    started = time.perf_counter()
    with pytest.raises(UserError, match="huge.png"):
        read_image(path)
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize("species", [0, 1])
def test_damaged_masks_give_known_classes_or_an_error_that_names_the_file(tmp_path, species):
    values = np.random.default_rng(0).integers(1, 4, (20, 30)) if species else np.tile([0, 1, 2, 255], (20, 8))
    path, refused = tmp_path / "mask.png", 0
    Image.fromarray(values.astype(np.uint8)).save(path)
    for data in mutations(path.read_bytes(), 300, species):
        path.write_bytes(data)
        try:
            assert set(np.unique(read_mask(Sample("a", path, path, species)))) <= {0, 1, 2, VOID}
        except UserError as error:
            refused += 1
            assert str(path) in str(error)
    assert refused > 30


def test_damaged_lists_of_pictures_give_samples_or_an_error_that_names_a_file(oxford_copy):
    path = oxford_copy / "annotations" / "trainval.txt"
    refused = 0
    for data in mutations(path.read_bytes(), 300, 0):
        path.write_bytes(data)
        try:
            assert all(sample.image.is_file() for sample in list_samples(oxford_copy, "train"))
        except UserError as error:
            refused += 1
            assert str(oxford_copy) in str(error)
    assert refused > 100


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
    with pytest.raises(UserError, match=f"cannot write {path}.*untouched"):
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


def kill_again_and_again(work: Callable[[], None], kills: int, seconds: float) -> int:
    """Run work in child processes, kill -9 so many at a random moment; then let it end. Returns how many died."""
    rng, killed = random.Random(0), 0
    for _ in range(5 * kills):  # some end before they are killed
        if killed == kills:
            break
        child = PROCESSES.Process(target=work)
        child.start()
        child.join(seconds * 0.5 ** rng.uniform(0, 8))  # early moments too: what is left to do becomes little
        killed += child.is_alive()
        child.kill()
        child.join()
    child = PROCESSES.Process(target=work)
    child.start()
    child.join(300)
    assert child.exitcode == 0
    return killed


def train(root: Path, folder: Path) -> None:
    """Train a small U-Net in this process, quietly, or go on with it."""
    tiny = "--IMAGE_SIZE=32 --SMALL_SIZE=32 --WIDTH=4 --DEPTH=2 --EPOCHS=6 --BATCH_SIZE=8 --PRECISION=fp32".split()
    resume = (folder / "unet" / "last.pt").exists()
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        run_here(train_unet, *tiny, f"--DATA_ROOT={root}", f"--CHECKPOINTS={folder}", f"--RESUME={resume}")


@pytest.mark.slow
def test_ten_kills_change_no_number(oxford_root, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # where the fork server finds what it preloads
    trained = [tmp_path / name for name in ("once", "often")]
    works = [partial(train, shutil.copytree(oxford_root, folder / "data"), folder) for folder in trained]
    for folder in trained:
        shutil.rmtree(folder / "data" / ".cache", ignore_errors=True)  # is built again
    started = time.perf_counter()
    kill_again_and_again(works[0], 0, 0)
    assert kill_again_and_again(works[1], 10, (time.perf_counter() - started) / 2) == 10

    whole, stopped = (checkpoint.load(folder / "unet" / "last.pt") for folder in trained)
    assert all(torch.equal(value, stopped["weights"][name]) for name, value in whole["weights"].items())
    assert [line["loss"] for line in whole["log"]] == [line["loss"] for line in stopped["log"]]
    assert not list((trained[1] / "unet").glob("*.tmp"))  # of processes that died while they wrote
    caches = [SegmentationDataset(folder / "data", "train", 32).arrays for folder in trained]
    assert all(np.array_equal(array, caches[1][name]) for name, array in caches[0].items())
