"""data/prepare.py: the synthetic data set, and downloads that go wrong."""

import contextlib
import functools
import hashlib
import http.server
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
import threading
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
from conftest import script_environment
from PIL import Image

from data.drawing import dataset
from data.drawing.animals import ANIMALS
from data.folder_layout import write_data_set
from utils.errors import UserError
from utils.inputs.layouts import list_samples
from utils.inputs.pictures import read_sample

SCRIPT = Path(__file__).parent.parent / "data" / "prepare.py"


@pytest.fixture(scope="module")
def prepare():
    spec = importlib.util.spec_from_file_location("prepare", SCRIPT)
    module = sys.modules["prepare"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.TRAIN_PICTURES, module.TEST_PICTURES = 16, 8
    yield module
    del sys.modules["prepare"]
    socket.setdefaulttimeout(None)


@pytest.fixture(scope="module")
def drawn(prepare, tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "synthetic"
    prepare.synthesise(root)
    return root


def contents(root: Path) -> dict[str, bytes]:
    return {str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*") if file.is_file()}


# -------------------------------------------------------------------------------------- synthetic data


def test_same_seed_draws_the_same_bytes_and_another_seed_others(prepare, drawn, tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "TRAIN_PICTURES", 4)
    monkeypatch.setattr(prepare, "TEST_PICTURES", 2)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        monkeypatch.setattr(prepare, "SEED", seed)
        prepare.synthesise(tmp_path / name)
    first, second, other = (contents(tmp_path / name) for name in "abc")
    assert first == second
    pictures = [name for name in first if name.endswith(("jpg", "png"))]
    assert len(pictures) == 12 and all(first[name] != other[name] for name in pictures)
    # A picture depends on the seed and on its number, not on how many there are.
    assert first["images/Cat_pied_1.jpg"] == contents(drawn)["images/Cat_pied_1.jpg"]


@pytest.mark.parametrize("split, count", [("train", 14), ("val", 2), ("trainval", 16), ("test", 8)])
def test_loader_reads_every_split(drawn, split, count):
    samples = list_samples(drawn, split)
    assert len(samples) == count
    assert {sample.species for sample in samples} == {1, 2}
    for sample in samples:
        assert sample.species == (1 if sample.name.startswith("Cat_") else 2)
        image, mask = read_sample(sample)
        assert image.std() > 10 and all(128 <= side <= 160 for side in mask.shape)
        assert set(np.unique(mask)) == {0, sample.species, 255}


def test_splits_share_no_picture_and_use_all(drawn):
    names = [sample.name for split in ("train", "val", "test") for sample in list_samples(drawn, split)]
    assert len(set(names)) == 24 and sorted(names) == sorted(file.stem for file in (drawn / "images").iterdir())


def test_trimap_is_pet_and_background_with_a_narrow_outline_between(drawn):
    for file in (drawn / "annotations" / "trimaps").iterdir():
        trimap = np.asarray(Image.open(file))
        shares = [(trimap == value).mean() for value in (1, 2, 3)]
        assert sum(shares) == pytest.approx(1) and min(shares[:2]) > 0.03 and 0.005 < shares[2] < 0.15, file.name
        for step in (1, 2):  # pixels from pet to background
            for one, other in ((trimap[step:], trimap[:-step]), (trimap[:, step:], trimap[:, :-step])):
                assert not (one + other == 1 + 2).any(), file.name


def test_second_run_does_nothing(prepare, drawn, capsys):
    before = {file: file.stat().st_mtime_ns for file in drawn.rglob("*")}
    prepare.synthesise(drawn)
    assert "nothing to do" in capsys.readouterr().out
    assert before == {file: file.stat().st_mtime_ns for file in drawn.rglob("*")}


def test_set_of_other_constants_is_refused_untouched(prepare, drawn, monkeypatch):
    before = contents(drawn)
    monkeypatch.setattr(prepare, "SEED", 7)
    with pytest.raises(UserError, match="other constants"):
        prepare.synthesise(drawn)
    assert contents(drawn) == before


def test_foreign_folder_is_refused_untouched(prepare, tmp_path):
    (tmp_path / "synthetic").mkdir()
    (tmp_path / "synthetic" / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="something else.*SYNTHETIC_ROOT"):
        prepare.synthesise(tmp_path / "synthetic")
    assert contents(tmp_path) == {str(Path("synthetic/thesis.txt")): b"years of work"}


def test_interrupted_drawing_leaves_nothing_behind(prepare, tmp_path, monkeypatch):
    draw, count = dataset.draw_picture, iter(range(3))

    def stop_at_the_third(*args):
        if next(count) == 2:
            raise KeyboardInterrupt
        return draw(*args)

    monkeypatch.setattr(dataset, "draw_picture", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        prepare.synthesise(tmp_path / "synthetic")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name, value", [("TEST_PICTURES", 0), ("SIDES", (128,)), ("SIDES", (160, 128)), ("SEED", -1)])
def test_senseless_constant_is_named(prepare, tmp_path, monkeypatch, name, value):
    monkeypatch.setattr(prepare, name, value)
    with pytest.raises(UserError, match=name):
        prepare.synthesise(tmp_path / "synthetic")


# ------------------------------------------------------------------------------ synthetic data, other classes


@pytest.fixture(scope="module", params=["cat", "rabbit,cat", "cat,dog,bird,rabbit"])
def classes_drawn(prepare, request, tmp_path_factory):
    """(root, classes) of a data set of 2, 3 and 5 classes with background, 45 + 5 + 5 pictures."""
    root, classes = tmp_path_factory.mktemp("classes") / "synthetic", tuple(request.param.split(","))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"CLASSES": classes, "TRAIN_PICTURES": 50, "TEST_PICTURES": 5, "SIDES": (64, 80)}.items():
            patch.setattr(prepare, name, value)
        prepare.synthesise(root)
    return root, classes


def test_same_seed_and_classes_draw_the_same_bytes(prepare, tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "CLASSES", ("rabbit", "bird"))
    monkeypatch.setattr(prepare, "TRAIN_PICTURES", 4)
    monkeypatch.setattr(prepare, "TEST_PICTURES", 2)
    for name in "ab":
        prepare.synthesise(tmp_path / name)
    monkeypatch.setattr(prepare, "SEED", 1)
    prepare.synthesise(tmp_path / "c")
    first, second, other = (contents(tmp_path / name) for name in "abc")
    assert first == second and len(first) == 14
    assert all(first[name] != other[name] for name in first if name.endswith(("jpg", "png")))


def test_masks_hold_ids_and_void_and_every_split_has_every_class(classes_drawn):
    root, classes = classes_drawn
    for split, count in (("train", 45), ("val", 5), ("test", 5)):
        samples, seen = list_samples(root, split), set()
        assert len(samples) == count
        for sample in samples:
            image, mask = Image.open(sample.image), Image.open(sample.mask)
            assert image.size == mask.size and mask.mode == "P"
            ids = set(np.unique(mask).tolist())
            own = classes.index(sample.name.rpartition("_")[0]) + 1  # a picture is named after its first animal
            assert {0, own, 255} <= ids <= {0, *range(1, len(classes) + 1), 255} and len(ids) <= 4, sample.name
            assert 0.005 < (np.asarray(mask) == 255).mean() < 0.25, sample.name
            seen |= ids
        assert seen == {0, *range(1, len(classes) + 1), 255}


def test_some_pictures_show_two_classes_and_most_show_one(classes_drawn):
    root, classes = classes_drawn
    masks = [np.unique(Image.open(sample.mask)) for sample in list_samples(root, "trainval")]
    mixed = sum(len(ids) == 4 for ids in masks)
    assert (1 <= mixed <= 15) if len(classes) > 1 else mixed == 0


def test_classes_file_and_palette_agree(classes_drawn):
    root, classes = classes_drawn
    colours = ["0,0,0", "128,0,0", "0,128,0", "128,128,0", "0,0,128", "128,0,128"]  # PASCAL VOC's
    names = ["background", *classes]
    lines = [f"{name} {colour}" for name, colour in zip(names, colours, strict=False)]
    assert (root / "classes.txt").read_text().splitlines() == lines
    palette = np.array(Image.open(list_samples(root, "test")[0].mask).getpalette()).reshape(-1, 3)
    assert [",".join(map(str, palette[index])) for index in range(len(names))] == colours[: len(names)]
    assert palette[255].tolist() == [255, 255, 255]


def test_record_has_the_name_first_and_the_constants(classes_drawn):
    root, classes = classes_drawn
    record = json.loads((root / "data.json").read_text())
    assert list(record)[0] == "name" and record["name"] == "synthetic"
    assert record["CLASSES"] == list(classes) and record["SIDES"] == [64, 80]


@pytest.mark.parametrize(
    "classes, message",
    [
        (("cat", "rabit"), "'rabit'; did you mean rabbit.*cat, dog, rabbit, bird"),
        (("zeppelin",), "'zeppelin'; known are cat, dog"),
        (("cat", "dog", "cat"), "cat occurs more than once"),
        (("background", "cat"), "'background'.*background is always class 0"),
    ],
)
def test_class_that_cannot_be_drawn_is_named(prepare, tmp_path, monkeypatch, classes, message):
    monkeypatch.setattr(prepare, "CLASSES", classes)
    with pytest.raises(UserError, match=message):
        prepare.synthesise(tmp_path / "synthetic")
    assert not list(tmp_path.iterdir())


def test_remark_behind_the_constant_lists_what_can_be_drawn():
    assert f"any of {','.join(ANIMALS)}," in SCRIPT.read_text()


@pytest.mark.slow
def test_script_runs_from_any_directory(tmp_path):
    options = ["--SYNTHETIC=True", "--TRAIN_PICTURES=2", "--TEST_PICTURES=1", "--SYNTHETIC_ROOT=here"]
    subprocess.run([sys.executable, SCRIPT, *options], cwd=tmp_path, check=True, capture_output=True)
    assert len(list_samples(tmp_path / "here", "trainval")) == 2


# -------------------------------------------------------------------------------------------- download


@pytest.fixture
def server(prepare, drawn, tmp_path, monkeypatch):
    """Small archives in place of the official ones, served on this machine: (their folder, requested paths)."""
    served, requests, resources = tmp_path / "served", [], []
    served.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            requests.append(self.path)

    handler = functools.partial(Handler, directory=str(served))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as http_server:
        threading.Thread(target=http_server.serve_forever, args=(0.02,), daemon=True).start()
        for folder in ("images", "annotations"):
            archive = served / f"{folder}.tar.gz"
            with tarfile.open(archive, "w:gz") as tar:
                tar.add(drawn / folder, folder)
            url = f"http://127.0.0.1:{http_server.server_port}/{archive.name}"
            resources.append((url, hashlib.md5(archive.read_bytes()).hexdigest()))
        monkeypatch.setenv("no_proxy", "*")
        monkeypatch.setattr(prepare.OxfordIIITPet, "_RESOURCES", resources)
        yield served, requests
        http_server.shutdown()


def is_official_layout(root: Path) -> bool:
    return sorted(entry.name for entry in root.iterdir()) == ["annotations", "images"]


def test_download_arrives_whole_and_a_second_run_does_nothing(prepare, server, tmp_path, capsys):
    target = tmp_path / "pets"
    prepare.download(target)
    assert is_official_layout(target) and not (tmp_path / "pets.download").exists()
    assert [len(list_samples(target, split)) for split in ("trainval", "test")] == [16, 8]
    server[1].clear()
    prepare.download(target)
    assert "nothing to do" in capsys.readouterr().out and not server[1]


def test_cut_off_download_goes_on_with_the_archive_that_is_missing(prepare, server, tmp_path):
    served, requests = server
    target, archive = tmp_path / "pets", served / "annotations.tar.gz"
    whole = archive.read_bytes()
    archive.write_bytes(whole[:1000])
    with pytest.raises(UserError, match="again"):
        prepare.download(target)
    assert not target.exists()
    archive.write_bytes(whole)
    requests.clear()
    prepare.download(target)
    assert is_official_layout(target) and set(requests) == {"/annotations.tar.gz"}


def test_half_unpacked_archives_are_unpacked_again(prepare, server, tmp_path):
    for folder in ("images", "annotations"):
        half = tmp_path / "pets.download" / "oxford-iiit-pet" / folder
        half.mkdir(parents=True)
        (half / "half.txt").touch()
    prepare.download(tmp_path / "pets")
    assert is_official_layout(tmp_path / "pets") and not list((tmp_path / "pets").rglob("half.txt"))


@pytest.mark.parametrize("error", [URLError("no route"), TimeoutError("silence"), RuntimeError("corrupted")])
def test_failed_download_names_archives_and_folder(prepare, tmp_path, monkeypatch, error):
    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(prepare, "OxfordIIITPet", refuse)
    with pytest.raises(UserError) as caught:
        prepare.download(tmp_path / "pets")
    for part in ("images.tar.gz", "annotations.tar.gz", "robots.ox.ac.uk", str(tmp_path / "pets")):
        assert part in str(caught.value)
    assert not (tmp_path / "pets").exists()


def test_incomplete_or_foreign_target_is_refused_untouched(prepare, drawn, tmp_path):
    target = tmp_path / "pets"
    (target / "images").mkdir(parents=True)
    (target / "images" / "mine.jpg").write_bytes(b"mine")
    with pytest.raises(UserError, match="no complete data set"):
        prepare.download(target)
    assert contents(tmp_path) == {str(Path("pets/images/mine.jpg")): b"mine"}


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


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGKILL"])
@pytest.mark.parametrize("send", [os.kill, os.killpg], ids=["process", "group"])
def test_workers_end_with_the_script_and_the_unfinished_folder_is_removed(tmp_path, name, send):
    (tmp_path / "slow.py").write_text(SLOW)
    command = [sys.executable, str(tmp_path / "slow.py"), f"--FOLDER={tmp_path / 'out' / 'mine'}"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, env=script_environment(), start_new_session=True, **pipes)
    try:
        assert process.stdout.readline().startswith("begun")
        send(process.pid, getattr(signal, name))
        _, messages = process.communicate(timeout=30)  # the pipes are open until the last worker has ended
    finally:
        if send is os.kill or process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    number = getattr(signal, name)
    assert process.returncode == (-number if name == "SIGKILL" else 128 + number)
    assert name == "SIGKILL" or not list((tmp_path / "out").iterdir())
    assert "Traceback" not in messages


def end_itself(folder: Path, task: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_worker_that_the_system_ends_is_an_error_and_nothing_is_left(tmp_path):
    with pytest.raises(UserError, match="ended from outside"):
        write_data_set(tmp_path / "mine", "{}", ["background", "cat"], {"train": range(100)}, end_itself)
    assert not list(tmp_path.iterdir())
