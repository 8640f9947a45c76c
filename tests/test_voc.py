"""data/prepare.py --VOC: from a VOCdevkit that lies there, from a download, and damaged ones."""

import hashlib
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from conftest import run_here
from PIL import Image
from test_prepare import serving
from torchvision.datasets.voc import DATASET_YEAR_DICT

from data import prepare
from utils.classes import named
from utils.errors import UserError

# What the masks show besides background and void; cat is 8, dog is 12.
PICTURES = {"train": {"2007_01": [8], "2007_02": [12, 15], "2007_03": [1]}, "val": {"2007_04": [12], "2007_05": [20]}}


@pytest.fixture
def root(tmp_path) -> Path:
    """A folder with a VOCdevkit of five pictures, 12 x 10 pixels; a palette as VOC's, its void not white."""
    devkit = tmp_path / "root" / "VOCdevkit" / "VOC2012"
    lists = devkit / "ImageSets" / "Segmentation"
    for folder in (devkit / "JPEGImages", devkit / "SegmentationClass", lists):
        folder.mkdir(parents=True)
    palette = named(range(255)).palette.copy()
    palette[255] = (224, 224, 192)
    rng = np.random.default_rng(0)
    for split, pictures in PICTURES.items():
        (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in pictures))
        for name, shown in pictures.items():
            picture = rng.integers(0, 256, (10, 12, 3), np.uint8)
            Image.fromarray(picture).save(devkit / "JPEGImages" / f"{name}.jpg")
            mask = np.zeros((10, 12), np.uint8)
            mask[2:8, 2:10] = 255
            mask[3:7, 3:9] = np.resize(shown, 6)
            image = Image.fromarray(mask)
            image.putpalette(palette.tobytes())
            image.save(devkit / "SegmentationClass" / f"{name}.png")
    return tmp_path / "root"


def convert(root: Path, *options: str, out: str = "out") -> Path:
    target = root.parent / out
    run_here(prepare, "--VOC=2012", f"--VOC_ROOT={root}", f"--OUT={target}", *options)
    return target


def names(target: Path) -> dict[str, list[str]]:
    """The pictures of every split, each with its mask."""
    splits = {}
    for split in (folder for folder in target.iterdir() if folder.is_dir()):
        splits[split.name] = sorted(file.stem for file in (split / "images").iterdir())
        assert splits[split.name] == sorted(file.stem for file in (split / "masks").iterdir())
    return splits


def values(file: Path) -> np.ndarray:
    return np.array(Image.open(file))


def test_all_classes_keep_their_ids_and_val_becomes_test(root, capsys):
    target = convert(root)
    assert names(target) == {"train": ["2007_01", "2007_02", "2007_03"], "test": ["2007_04", "2007_05"]}
    classes = (target / "classes.txt").read_text().splitlines()
    assert len(classes) == 21
    assert [classes[index] for index in (0, 8, 12)] == ["background 0,0,0", "cat 64,0,0", "dog 64,0,128"]
    devkit = root / "VOCdevkit" / "VOC2012"
    for file in target.glob("*/masks/*.png"):
        assert np.array_equal(values(file), values(devkit / "SegmentationClass" / file.name))
        assert Image.open(file).convert("RGB").getpixel((2, 2)) == (255, 255, 255)
    for file in target.glob("*/images/*"):
        assert file.read_bytes() == (devkit / "JPEGImages" / file.name).read_bytes()
    assert json.loads((target / "data.json").read_text())["name"] == "VOC 2012"
    assert "3 pictures for training, 2 pictures for testing; 21 classes" in capsys.readouterr().out


def test_categories_are_numbered_in_their_order_and_all_else_is_background(root):
    target = convert(root, "--CATEGORIES=dog,cat", "--NAME=pets of VOC")
    assert names(target) == {"train": ["2007_01", "2007_02"], "test": ["2007_04"]}
    assert (target / "classes.txt").read_text() == "background 0,0,0\ndog 128,0,0\ncat 0,128,0\n"
    cat, both = (values(target / "train" / "masks" / f"2007_0{number}.png") for number in (1, 2))
    assert (cat[3:7, 3:9] == 2).all() and both[4, 3:9].tolist() == [1, 0] * 3
    assert (cat == 255).sum() == (both == 255).sum() == 6 * 8 - 4 * 6
    assert json.loads((target / "data.json").read_text())["name"] == "pets of VOC"


@pytest.mark.parametrize("option", ["--CATEGORIES=cat,lion", "--CATEGORIES=background", "--VOC=2013"])
def test_unknown_class_or_year_is_refused(root, option):
    with pytest.raises(UserError, match=option[2:].partition("=")[0]):
        convert(root, option)
    assert not (root.parent / "out").exists()


@pytest.mark.parametrize(
    "file, values",
    [
        ("SegmentationClass/2007_02.png", None),
        ("JPEGImages/2007_05.jpg", None),
        ("ImageSets/Segmentation/val.txt", None),
        ("SegmentationClass/2007_02.png", np.full((10, 12), 77, np.uint8)),
        ("SegmentationClass/2007_02.png", np.zeros((10, 12, 3), np.uint8)),
    ],
)
def test_missing_file_or_other_mask_is_named_and_nothing_is_written(root, file, values):
    path = root / "VOCdevkit" / "VOC2012" / file
    path.unlink()
    if values is not None:
        Image.fromarray(values).save(path)
    with pytest.raises(UserError, match=path.name if values is None else f"{path.name} is no mask of VOC"):
        convert(root)
    assert [entry.name for entry in root.parent.iterdir()] == ["root"]


def test_devkit_itself_for_the_folder_around_it_is_pointed_out(root):
    with pytest.raises(UserError, match="VOC_ROOT = .*VOCdevkit holds VOC2012 itself"):
        convert(root, f"--VOC_ROOT={root / 'VOCdevkit'}")


# -------------------------------------------------------------------------------------------- download


@pytest.fixture
def archive(root, tmp_path, monkeypatch):
    """The devkit as an archive on this machine's own server, in place of the official one: its file, the requests."""
    file = tmp_path / "served" / "voc.tar"
    file.parent.mkdir()
    with tarfile.open(file, "w") as tar:
        tar.add(root / "VOCdevkit", "VOCdevkit")
    shutil.rmtree(root)
    with serving(file.parent) as (address, requests):
        source = {"url": f"{address}/{file.name}", "filename": file.name}
        source["md5"] = hashlib.md5(file.read_bytes()).hexdigest()
        monkeypatch.setitem(DATASET_YEAR_DICT, "2012", {**DATASET_YEAR_DICT["2012"], **source})
        yield file, requests


def test_download_arrives_whole_and_is_used_again(root, archive):
    target = convert(root)
    assert len(names(target)["train"]) == 3 and [entry.name for entry in (root / "VOCdevkit").iterdir()] == ["VOC2012"]
    archive[1].clear()
    convert(root, "--CATEGORIES=cat,dog", out="pets")
    assert not archive[1]


def test_corrupted_download_is_an_error_and_the_next_run_repairs_it(root, archive):
    whole = archive[0].read_bytes()
    archive[0].write_bytes(whole[:5000])
    with pytest.raises(UserError, match="by hand: fetch http.*voc.tar"):
        convert(root)
    assert not (root / "VOCdevkit" / "VOC2012").exists() and not (root.parent / "out").exists()
    archive[0].write_bytes(whole)
    assert len(names(convert(root))["train"]) == 3


def test_the_road_goes_on_with_training_scoring_and_predicting(root, train_and_use):
    line, text = train_and_use(convert(root))
    assert line["data"] == "VOC 2012" and line["images"] == "2"  # VOC's val
    assert len([key for key in line if key[:4] == "iou_"]) == 21 and "iou_pottedplant" in line
    assert " -> predictions/masks/" in text
