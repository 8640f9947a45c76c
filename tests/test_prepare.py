"""data/prepare.py: the synthetic data set, downloads that go wrong, and runs that are stopped."""

import contextlib
import functools
import hashlib
import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY, run_here, script_environment, start
from PIL import Image

from data import prepare
from utils.errors import UserError
from utils.inputs.layouts import list_samples


def contents(root: Path) -> dict[str, bytes]:
    return {str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*") if file.is_file()}


# -------------------------------------------------------------------------------------- synthetic data


def draw(root: Path, *options: str) -> Path:
    few = "--TRAIN_PICTURES=4", "--TEST_PICTURES=2", "--SIDES=64,80"
    run_here(prepare, "--SYNTHETIC=True", f"--SYNTHETIC_ROOT={root}", *few, *options)
    return root


@pytest.fixture(scope="module", params=["rabbit", "cat,dog,bird,rabbit"])
def drawn(request, tmp_path_factory) -> tuple[Path, list[str]]:
    """(root, classes without background) of 45 + 5 + 5 pictures."""
    root = tmp_path_factory.mktemp("data") / "synthetic"
    draw(root, "--TRAIN_PICTURES=50", "--TEST_PICTURES=5", f"--CLASSES={request.param}")
    return root, request.param.split(",")


def test_same_seed_draws_the_same_bytes_and_another_seed_others(tmp_path):
    seeds = {"a": 0, "b": 0, "c": 1}
    first, second, other = (contents(draw(tmp_path / name, f"--SEED={seed}")) for name, seed in seeds.items())
    assert first == second and len(first) == 14
    assert all(first[name] != other[name] for name in first if name.endswith(("jpg", "png")))


def test_masks_hold_ids_and_void_and_every_split_has_every_class(drawn):
    root, classes = drawn
    for split, count in (("train", 45), ("val", 5), ("test", 5)):
        samples, seen = list_samples(root, split), set()
        assert len(samples) == count
        for sample in samples:
            image, mask = Image.open(sample.image), Image.open(sample.mask)
            assert image.size == mask.size and np.std(image) > 10 and all(64 <= side <= 80 for side in image.size)
            ids = set(np.unique(mask).tolist())
            own = classes.index(sample.name.rpartition("_")[0]) + 1  # a picture is named after its first animal
            assert {0, own, 255} <= ids and len(ids) <= 4, sample.name
            assert 0.005 < (np.asarray(mask) == 255).mean() < 0.25, sample.name
            seen |= ids
        assert seen == {0, *range(1, len(classes) + 1), 255}


def test_classes_file_palette_and_record_agree(drawn):
    root, classes = drawn
    colours = ["0,0,0", "128,0,0", "0,128,0", "128,128,0", "0,0,128"]  # PASCAL VOC's
    lines = [f"{name} {colour}" for name, colour in zip(["background", *classes], colours, strict=False)]
    assert (root / "classes.txt").read_text().splitlines() == lines
    palette = np.array(Image.open(list_samples(root, "test")[0].mask).getpalette()).reshape(-1, 3).tolist()
    assert [",".join(map(str, colour)) for colour in palette[: len(lines)]] == colours[: len(lines)]
    assert palette[255] == [255, 255, 255]
    record = json.loads((root / "data.json").read_text())
    assert record["name"] == "synthetic" and record["CLASSES"] == classes and record["SIDES"] == [64, 80]


def test_other_constants_are_refused_untouched(tmp_path):
    before = contents(draw(tmp_path / "synthetic"))
    with pytest.raises(UserError, match="other files or constants.*SYNTHETIC_ROOT"):
        draw(tmp_path / "synthetic", "--SEED=7")
    assert contents(tmp_path / "synthetic") == before


@pytest.mark.parametrize(
    "option, message",
    [
        ("--SIDES=160,128", "SIDES"),
        ("--CLASSES=cat,rabit", "CLASSES = cat,rabit: .*cat, dog, rabbit, bird"),
        ("--CLASSES=background,cat", "without background"),
        ("--SYNTHETIC=False", "--SYNTHETIC=True"),
    ],
)
def test_senseless_constant_is_named(tmp_path, option, message):
    with pytest.raises(UserError, match=message):
        draw(tmp_path / "synthetic", "--CLASSES=dog,cat", option)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_script_runs_from_any_directory(tmp_path):
    options = ["--SYNTHETIC=True", "--TRAIN_PICTURES=2", "--TEST_PICTURES=1", "--SYNTHETIC_ROOT=here"]
    assert start(REPOSITORY / "data" / "prepare.py", options, tmp_path, script_environment()).returncode == 0
    assert len(list_samples(tmp_path / "here", "trainval")) == 2


# -------------------------------------------------------------------------------------------- download


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """A server on this machine for the files of a folder: (its address, the requested paths)."""
    requests = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            requests.append(self.path)

    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, pytest.MonkeyPatch.context() as patch:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        patch.setenv("no_proxy", "*")
        yield f"http://127.0.0.1:{server.server_port}", requests
        server.shutdown()
    socket.setdefaulttimeout(None)


@pytest.fixture
def server(oxford_root, tmp_path, monkeypatch):
    """Small archives in place of the official ones, served on this machine: (their folder, requested paths)."""
    served, resources = tmp_path / "served", []
    served.mkdir()
    with serving(served) as (address, requests):
        for folder in ("images", "annotations"):
            archive = served / f"{folder}.tar.gz"
            with tarfile.open(archive, "w:gz") as tar:
                tar.add(oxford_root / folder, folder)
            resources.append((f"{address}/{archive.name}", hashlib.md5(archive.read_bytes()).hexdigest()))
        monkeypatch.setattr(prepare.OxfordIIITPet, "_RESOURCES", resources)
        yield served, requests


def test_download_arrives_whole_and_a_second_run_does_nothing(server, tmp_path, capsys):
    target = tmp_path / "pets"
    prepare.download(target)
    assert sorted(os.listdir(target)) == ["annotations", "images"] and not (tmp_path / "pets.download").exists()
    assert [len(list_samples(target, split)) for split in ("trainval", "test")] == [24, 8]
    server[1].clear()
    prepare.download(target)
    assert "nothing to do" in capsys.readouterr().out and not server[1]


def test_cut_off_download_goes_on_with_the_archive_that_is_missing(server, tmp_path):
    served, requests = server
    target, archive = tmp_path / "pets", served / "annotations.tar.gz"
    whole = archive.read_bytes()
    archive.write_bytes(whole[:1000])
    with pytest.raises(
        UserError, match=r"Run the command again, .*images.tar.gz and annotations.tar.gz .*\n.*robots.ox.ac.uk.*/pets$"
    ):
        prepare.download(target)
    assert not target.exists()
    archive.write_bytes(whole)
    requests.clear()
    prepare.download(target)
    assert sorted(os.listdir(target)) == ["annotations", "images"] and set(requests) == {"/annotations.tar.gz"}


def test_half_unpacked_archives_are_unpacked_again(server, tmp_path):
    for folder in ("images", "annotations"):
        half = tmp_path / "pets.download" / "oxford-iiit-pet" / folder
        half.mkdir(parents=True)
        (half / "half.txt").touch()
    prepare.download(tmp_path / "pets")
    assert sorted(os.listdir(tmp_path / "pets")) == ["annotations", "images"]
    assert not list((tmp_path / "pets").rglob("half.txt"))


def test_incomplete_or_foreign_target_is_refused_untouched(tmp_path):
    (tmp_path / "images").mkdir(parents=True)
    (tmp_path / "images" / "mine.jpg").write_bytes(b"mine")
    with pytest.raises(UserError, match=f"no data set in DATA_ROOT = {tmp_path}"):
        prepare.download(tmp_path)
    assert contents(tmp_path) == {str(Path("images/mine.jpg")): b"mine"}


# ----------------------------------------------------------------------------------- ended from outside

SLOW = """
import sys
import time
from pathlib import Path

from data.folder_layout import write_data_set
from utils.config import run_script

FOLDER = ""


def job(folder, number):
    print("begun", flush=True)
    time.sleep(0.2)
    return False, []


def main():
    write_data_set(Path(FOLDER), "{}", ["background", "cat"], {"train": range(1000)}, job)


if __name__ == "__main__":
    run_script(main)
"""


def restore_signals() -> None:
    """Under nohup, or in the background, some signals are ignored, and a child would inherit that."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_stopped_script_removes_the_unfinished_folder(tmp_path, name):
    (tmp_path / "slow.py").write_text(SLOW)
    command = [sys.executable, str(tmp_path / "slow.py"), f"--FOLDER={tmp_path / 'out' / 'mine'}"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    number = getattr(signal, name)
    process = subprocess.Popen(
        command, env=script_environment(), start_new_session=True, preexec_fn=restore_signals, **pipes
    )
    try:
        assert process.stdout.readline().startswith("begun")
        os.kill(process.pid, number)
        _, messages = process.communicate(timeout=30)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 128 + number and not list((tmp_path / "out").iterdir())
    assert "Traceback" not in messages
