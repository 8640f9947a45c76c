"""label.py: what is saved and when, GrabCut in a box, COCO JSON; and from the page to a trained row, in a browser."""

import io
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import redirect_stdout, suppress
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY, run_here, script_environment
from PIL import Image

import label
from data.drawing.dataset import draw_picture
from data.folder_layout import write_classes
from data.labelling import Labels
from data.marking import Session
from utils.classes import PETS, VOID, named, voc_colour
from utils.errors import UserError
from utils.figures.overlays import save_mask
from utils.inputs.clicks import next_click
from utils.inputs.layouts import list_samples
from utils.inputs.pictures import read_mask
from utils.rows.row import Segmentation

RED, GREEN = (slice(5, 15), slice(5, 15)), (slice(5, 15), slice(15, 30))  # touching squares


@pytest.fixture
def photos(tmp_path):
    """Twelve pictures of 40 x 30 pixels: a red and a green square on noise."""
    folder, generator = tmp_path / "photos", np.random.default_rng(0)
    folder.mkdir()
    for number in range(12):
        picture = generator.integers(90, 110, (30, 40, 3), np.uint8)
        picture[RED], picture[GREEN] = (200, 40, 40), (40, 200, 40)
        Image.fromarray(picture).save(folder / f"{number:02d}.png")
    return folder


@pytest.fixture
def opened(photos, tmp_path):
    """opened(): the folder's labels as a new start of label.py finds them, in OUT = mine."""
    return lambda **options: Labels(photos, tmp_path / "mine", **{"names": ("cat", "dog", "rabbit"), **options})


PERMUTED = [voc_colour(index) for index in (0, 3, 1, 2)]  # a class has another one's usual colour


def square(place):
    mask = np.zeros((30, 40), bool)
    mask[place] = True
    return mask


def label_one(labels, index, place=RED, class_id=1):
    canvas = labels.load(index)
    canvas.add(square(place), class_id)
    labels.save(canvas)
    return canvas


# ------------------------------------------------------------------------------------------ the folder


def test_saved_pictures_are_a_data_set_and_every_10th_is_for_validation(opened, photos, tmp_path):
    labels = opened()
    for index in range(11, 0, -1):
        label_one(labels, index, class_id=index % 3 + 1)
    assert labels.progress() == "saved 11 of 12"
    root = tmp_path / "mine"
    names = {split: [sample.name for sample in list_samples(root, split)] for split in ("train", "val")}
    assert names["val"] == ["01", "11"] and names["train"] == [f"{number:02d}" for number in range(2, 11)]
    for sample in list_samples(root, "trainval"):
        expected = np.where(square(RED), int(sample.name) % 3 + 1, 0)
        assert np.array_equal(read_mask(sample), expected) and sample.classes.names == (
            "background",
            *labels.classes.things,
        )
        assert os.path.samefile(sample.image, photos / sample.image.name)


def test_pictures_are_copied_where_they_cannot_be_linked(opened, photos, tmp_path, monkeypatch):
    def refuse(*files):
        raise OSError("another disk")

    monkeypatch.setattr(os, "link", refuse)
    labels = opened()
    for _ in range(2):
        label_one(labels, 0)
    copy = tmp_path / "mine" / "val" / "images" / "00.png"
    assert copy.read_bytes() == (photos / "00.png").read_bytes() and not copy.samefile(photos / "00.png")
    assert (tmp_path / "mine" / "val" / "old_masks" / "00_1.png").exists()
    labels.load(0)  # a copy counts as the same picture


def test_a_new_start_goes_on_where_the_last_one_was(opened):
    labels = opened()
    canvas = label_one(labels, 0)
    canvas.add(square(GREEN), 1)
    canvas.add(square((slice(20, 25), slice(0, 40))), VOID)
    labels.save(canvas)
    labels.remember(1, skip=True)
    labels.remember(2)
    again = opened(names=())
    assert again.start == 2 and again.progress() == "saved 1 of 12, skipped 1"
    kept = again.load(0)
    assert np.array_equal(kept.ids, canvas.ids) and set(np.unique(kept.ids)) == {0, 1, VOID}
    label_one(again, 1)
    assert again.progress() == "saved 2 of 12"


def test_a_mask_on_disk_is_kept_beside_the_one_that_replaces_it(opened, tmp_path):
    first = label_one(opened(), 0)
    mask, old = (tmp_path / "mine" / "val" / folder for folder in ("masks/00.png", "old_masks"))
    before = mask.read_bytes()
    labels = opened()
    one, other = labels.load(0), labels.load(0)  # two tabs
    for place in (GREEN, RED):
        one.add(square(place), 2)
        labels.save(one)
    assert [file.read_bytes() for file in old.iterdir()] == [before]  # what a tab wrote itself is not kept
    of_one = mask.read_bytes()
    other.add(square(GREEN), 3)
    for change in (labels.save, labels.withdraw):
        with pytest.raises(UserError, match="00.png was changed by another tab or program: reload the page"):
            change(other)
    assert mask.read_bytes() == of_one and len(list(old.iterdir())) == 1
    while one.undo():
        pass
    assert np.array_equal(one.ids, first.ids)
    assert list_samples(tmp_path / "mine", "val")  # the loader does not mind the old masks


def test_a_write_that_fails_loses_nothing_and_is_tried_again(opened, photos, tmp_path, monkeypatch):
    labels, tab = opened(), Session(way="brush")
    tab.go(labels, 0)
    tab.add(labels, 1, square(RED))
    mask = tmp_path / "mine" / "val" / "masks" / "00.png"
    before = mask.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda self, target: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(UserError, match="disk full"):
            tab.add(labels, 2, square(GREEN))
        with pytest.raises(UserError, match="disk full"):
            tab.go(labels, 1)
    assert mask.read_bytes() == before and not list((tmp_path / "mine").rglob("*.tmp"))
    tab.go(labels, 1)
    assert set(np.unique(labels.load(0).ids)) == {0, 1, 2}


def test_a_first_thing_that_could_not_be_saved_and_is_undone_leaves_nothing(opened, tmp_path, monkeypatch):
    labels, tab = opened(), Session(way="brush")
    tab.go(labels, 0)
    with monkeypatch.context() as patch:
        patch.setattr("data.labelling.link", lambda *files: (_ for _ in ()).throw(OSError(28, "disk full", "00.png")))
        with pytest.raises(UserError, match="00.png: disk full; 00 is not saved"):
            tab.add(labels, 1, square(RED))
    tab.undo(labels, 1, None)
    tab.go(labels, 1)
    assert labels.progress() == "saved 0 of 12" and not list((tmp_path / "mine").rglob("*.png"))


def test_a_mask_in_the_data_set_gets_its_picture_and_is_opened(opened, photos, tmp_path):
    opened()
    save_mask(2 * square(RED), tmp_path / "mine" / "train" / "masks" / "03.png", named(("background", "cat", "dog")))
    labels = opened()
    assert labels.progress() == "saved 1 of 12" and np.array_equal(labels.load(3).ids, 2 * square(RED))
    assert (tmp_path / "mine" / "train" / "images" / "03.png").samefile(photos / "03.png")
    other = tmp_path / "mine" / "train" / "masks" / "04.png"
    save_mask(square(RED), other, named(("background", "dog", "cat")))  # ids mean something else there
    with pytest.raises(UserError, match="04.png says that its classes are background, dog, cat, not background, cat, "):
        opened().load(4)


def test_masks_of_predict_py_become_a_data_set_by_name_and_hand_made_ones_stay(photos, tmp_path, capsys):
    from data import prepare

    masks, mine = tmp_path / "masks", tmp_path / "mine"
    for number in range(3):
        save_mask(np.where(square(RED), 2, 0), masks / f"0{number}.png", named(("background", "fox", "cat")))
    arguments = (f"--MASKS={masks}", f"--PICTURES={photos}", f"--OUT={mine}")
    run_here(prepare, *arguments)
    assert "3 pictures added, with those before 3; classes background, fox, cat" in capsys.readouterr().out
    assert Labels(photos, mine).classes.names == ("background", "fox", "cat")
    shutil.rmtree(mine)
    label_one(Labels(photos, mine, ("cat", "dog")), 1, GREEN, 2)
    run_here(prepare, *arguments)
    assert "2 pictures added, with those before 3; classes background, cat, dog; made background: fox" in (
        capsys.readouterr().out
    )
    labels = Labels(photos, mine)
    assert np.array_equal(labels.load(1).ids, 2 * square(GREEN)) and np.array_equal(labels.load(2).ids, square(RED))
    Image.fromarray(np.uint8(255 * square(RED))).save(masks / "05.png")  # white is the thing
    write_classes(("background", "dog"), masks)
    run_here(prepare, *arguments)
    assert np.array_equal(Labels(photos, mine).load(5).ids, 2 * square(RED))
    save_mask(square(RED), masks / "06.png", named(("background", "the thing clicked")))
    with pytest.raises(UserError, match="06.png has the classes the thing clicked, of which .*mine has none"):
        run_here(prepare, *arguments)
    with pytest.raises(UserError, match="no mask in .*none has the name of a picture in .*photos"):
        run_here(prepare, f"--MASKS={photos / 'none'}", f"--PICTURES={photos}", f"--OUT={tmp_path / 'new'}")
    assert not (tmp_path / "new").exists()
    with pytest.raises(UserError, match="MASKS needs --PICTURES=FOLDER and --OUT=data/mine"):
        run_here(prepare, f"--MASKS={masks}")


def test_undoing_the_first_thing_takes_the_picture_out_again(opened, tmp_path):
    labels, tab = opened(coco=tmp_path / "mine.json"), Session(way="brush")
    tab.go(labels, 0)
    tab.add(labels, 1, square(RED))
    tab.add(labels, 2, square(GREEN))
    tab.undo(labels, 1, None)
    assert labels.progress() == "saved 1 of 12" and not (tab.canvas.ids == 2).any()
    tab.undo(labels, 1, None)
    assert labels.progress() == "saved 0 of 12" and not list((tmp_path / "mine" / "val" / "images").iterdir())
    assert json.loads((tmp_path / "mine.json").read_text())["images"] == []
    assert "nothing to undo" in tab.undo(labels, 1, None)
    assert len(list((tmp_path / "mine" / "val" / "old_masks").iterdir())) == 1
    tab.add_nothing(labels)  # all background, and on to the next picture
    assert tab.index == 1 and labels.progress() == "saved 1 of 12" and not labels.load(0).ids.any()


def test_a_folder_of_the_data_set_itself_is_corrected_in_place(opened, tmp_path):
    label_one(opened(), 0)
    label_one(opened(), 1)
    images = tmp_path / "mine" / "train" / "images"
    Image.new("RGB", (40, 30)).save(images / "alone.png")
    labels = Labels(images, tmp_path / "mine")
    assert labels.progress() == "saved 1 of 2"
    canvas = label_one(labels, 1)
    canvas.undo()
    assert labels.split_of("alone") == "train"
    labels.withdraw(canvas)
    assert (images / "alone.png").exists() and labels.progress() == "saved 1 of 2"


def test_bad_folders_and_constants_are_refused_by_name(opened, photos, tmp_path):
    def refused(text, **options):
        with pytest.raises(UserError, match=text):
            opened(**options)

    refused("--CLASSES=cat", names=())
    (tmp_path / "notes.json").write_text('{"images": []}')
    refused("notes.json was not made by label.py", coco=tmp_path / "notes.json")
    label_one(opened(), 0)
    refused("CLASSES = dog,cat, but .*classes.txt lists background, cat, dog, rabbit", names=("dog", "cat"))
    (tmp_path / "mine" / "label.json").write_text("[]")
    refused("label.json is damaged")
    (tmp_path / "mine" / "label.json").unlink()
    Image.new("RGB", (40, 30)).save(photos / "new.png")
    (photos / "new.png").replace(photos / "00.png")
    with pytest.raises(UserError, match=r"00.png is another picture than .*00.png"):
        opened().load(0)
    Image.new("RGB", (40, 30)).save(photos / "01.jpg")
    refused(r"01.jpg and .*01.png would have the same mask")
    (photos / "01.jpg").unlink()
    (tmp_path / "mine" / "images").mkdir()
    refused("mine holds images/")
    with pytest.raises(UserError, match="no pictures in .*nowhere, which holds no such folder"):
        Labels(tmp_path / "nowhere", tmp_path / "mine")


def test_masks_of_a_data_set_that_label_py_would_read_otherwise_are_refused(photos, tmp_path):
    def refused(text, file, ids, classes=("background", "cat"), **options):
        shutil.rmtree(out := tmp_path / "other", ignore_errors=True)
        for folder in ("images", "masks"):
            (out / "train" / folder).mkdir(parents=True)
        write_classes(classes, out)
        shutil.copy(photos / "00.png", out / "train" / "images")
        Image.fromarray(np.uint8(ids)).save(out / "train" / "masks" / file)
        with pytest.raises(UserError, match=text):
            Labels(photos, out, **options)

    ids = square(RED)
    refused("masks in .*other are black and white: write 1 in place of 255", "00.png", 255 * ids)
    refused("00_mask.png is no mask of a picture in .*: masks are called PICTURE.png", "00_mask.png", ids)
    refused("id 0 is road, but what is not labelled must be background", "00.png", ids, ("road", "cat"))
    refused("CLASSES = dog, but .* lists background, cat", "00.png", ids, names=("dog",))


def test_a_picture_of_the_test_split_keeps_its_place_and_no_second_split_appears(photos, tmp_path):
    root = tmp_path / "mine"
    (root / "test" / "images").mkdir(parents=True)
    write_classes(("background", "cat"), root)
    shutil.copy(photos / "00.png", root / "test" / "images")
    save_mask(square(RED), root / "test" / "masks" / "00.png", named(("background", "cat")))
    labels = Labels(photos, root)
    assert labels.progress() == "saved 1 of 12" and labels.load(0).ids.sum() == square(RED).sum()
    for index in range(12):
        label_one(labels, index)
    assert labels.split_of("00") == "test" and not (root / "val").exists()
    assert len(list((root / "train" / "images").iterdir())) == 11


def test_a_picture_without_a_mask_is_never_taken_for_another_of_its_name(photos, tmp_path, opened):
    (tmp_path / "mine" / "train" / "images").mkdir(parents=True)
    shutil.copy(photos / "01.png", own := tmp_path / "mine" / "train" / "images" / "00.png")
    before = own.read_bytes()
    with pytest.raises(UserError, match=r"train.images.00.png is another picture than"):
        opened().load(0)
    assert own.read_bytes() == before


def test_the_coco_json_says_what_pycocotools_reads_in_the_masks(opened, tmp_path):
    coco_tools = pytest.importorskip("pycocotools.coco")
    from pycocotools import mask as masks

    file = tmp_path / "mine.json"
    labels = opened(coco=file)
    canvas = labels.load(3)
    ring = square((slice(0, 30), slice(0, 40))) & ~square(RED) & ~square(GREEN)
    canvas.add(ring, 3)  # touches all four edges and has a hole
    canvas.add(square(RED), 1)
    canvas.add(square((slice(20, 24), slice(3, 9))) | square((slice(20, 24), slice(20, 39))), 2)  # two parts
    canvas.add(square((slice(25, 26), slice(0, 40))), VOID)
    labels.save(canvas)
    label_one(labels, 4, GREEN, 2)
    written = file.read_text()
    for source in (written, opened(coco=file) and file.read_text()):  # at a new start it is made from the masks
        assert json.loads(source) == json.loads(written)
        with redirect_stdout(io.StringIO()):
            coco = coco_tools.COCO(file)
        assert [category["name"] for category in coco.dataset["categories"]] == ["cat", "dog", "rabbit"]
        assert len(coco.anns) == 6 and {image["file_name"] for image in coco.imgs.values()} == {
            "val/images/03.png",
            "train/images/04.png",
        }
        for annotation in coco.anns.values():
            name = Path(coco.imgs[annotation["image_id"]]["file_name"]).stem
            region = coco.annToMask(annotation) > 0
            assert (labels.load(int(name)).ids[region] == annotation["category_id"]).all() and region.any()
            rle = coco.annToRLE(annotation)
            assert annotation["area"] == masks.area(rle) and annotation["bbox"] == masks.toBbox(rle).tolist()

    import data.prepare as prepare

    run_here(
        prepare, f"--COCO={file}", f"--PICTURES={tmp_path / 'mine'}", f"--OUT={tmp_path / 'back'}", "--SPLIT=.5,.5,0"
    )
    for sample in list_samples(tmp_path / "back", "trainval"):
        ids = labels.load(int(Path(sample.image).stem)).ids
        assert np.array_equal(read_mask(sample)[ids != VOID], ids[ids != VOID])


# ------------------------------------------------------------------------------------ finding a thing


def drawn(number, sides):
    """A drawn picture, its mask, and two corners of a box around the thing."""
    animal = ("cat", "dog", "rabbit", "bird")[number % 4]
    subject = (animal, "plain", 1)
    image, mask = map(np.array, draw_picture(np.random.default_rng((5, number)), subject, subject, sides))
    rows, columns = np.where(mask == 1)
    return image, mask, [(columns.min(), rows.min()), (columns.max(), rows.max())]


def iou(found, mask):
    known = mask != VOID
    return (found & (mask == 1) & known).sum() / ((found | (mask == 1)) & known).sum()


def test_a_box_finds_a_thing_by_its_colours_and_dabs_correct_it():
    pytest.importorskip("cv2", reason="boxes need requirements-demo.txt")
    from data.grabcut import find_in_box

    for number, box_alone, corrected in ((3, 0.98, 0.99), (5, 0.9, 0.98), (9, 0.95, 0.97), (4, 0.5, 0.7)):  # measured
        image, mask, corners = drawn(number, (300, 400))
        found, dabs = find_in_box(image, corners), []
        assert found.dtype == bool and iou(found, mask) > box_alone, number
        for _ in range(3):
            dabs.append(next_click(mask, found))
            found = find_in_box(image, corners, dabs)
            x, y, label = dabs[-1]
            assert found[y, x] == label
        assert iou(found, mask) > corrected, number
        far = [*dabs, (0, 0, 0), (image.shape[1] - 1, image.shape[0] - 1, 0)]  # beside it anyway
        assert (find_in_box(image, corners[::-1], far) != found).mean() < 0.02
    with pytest.raises(UserError, match="the box is empty"):
        find_in_box(image, [(5, 5), (6, 60)])
    for length in ((1, 50), (50, 2), (3, 3)):  # nothing breaks on tiny pictures
        assert find_in_box(np.zeros((*length, 3), np.uint8), [(0, 0), (9, 9)]).shape == length


def test_a_thing_in_a_large_picture_is_found_at_its_full_size():
    pytest.importorskip("cv2", reason="boxes need requirements-demo.txt")
    from data.grabcut import find_in_box

    image, mask, corners = drawn(6, (1500, 2000))
    assert iou(find_in_box(image, corners), mask) > 0.96  # measured: .98


class SameColour:
    """Stands in for PointCLIP: what has exactly the colour under the last click."""

    classes = PETS

    def open(self, image):
        def segment(clicks, text=""):
            x, y, _ = clicks[-1]
            return Segmentation((image == image[y, x]).all(-1).astype(np.uint8), PETS)

        return segment


@pytest.fixture
def tab(opened, monkeypatch):
    """A tab with the first picture, and stand-ins for the rows; tab.labels is the folder."""
    monkeypatch.setattr(label, "clicker", SameColour)
    tab = Session(clicker=SameColour)
    tab.labels = opened()
    tab.go(tab.labels, 0)
    return tab


def test_the_way_fits_the_class_and_undo_goes_back_click_by_click(tab, monkeypatch):
    assert [label.way_for(tab.labels, index) for index in (1, 2, 3, 0, VOID)] == [
        "click",
        "click",
        "box",
        "brush",
        "brush",
    ]
    tab.find([(7, 7, 1)], "click", 1)
    assert np.array_equal(tab.mask, square(RED))
    tab.find([*tab.clicks, (20, 7, 1)], "click", 1)
    assert np.array_equal(tab.mask, square(GREEN))
    tab.undo(tab.labels, 1, None)
    tab.change(tab.labels, 2, "click", None)  # another class for the same clicks
    assert "saved" in tab.add(tab.labels, 2, None) and np.array_equal(tab.canvas.ids == 2, square(RED))
    view = tab.view(tab.labels.classes)
    assert view.shape == (768, 1024, 3) and view[256, 256, 1] > 100 > view[256, 256, 2]  # tinted green
    tab.way = "box"
    assert "opposite corner" in tab.find([(3, 3, 1)], "box", 3) and tab.mask is None
    with pytest.raises(UserError, match="the box is empty"):
        tab.find([(3, 3, 1), (4, 4, 1)], "box", 3)
    assert len(tab.clicks) == 1  # the second corner is asked for again
    tab.find([(3, 3, 1), (17, 17, 1)], "box", 3)
    assert tab.mask[8:12, 8:12].all() and not tab.mask[:, 20:].any()
    monkeypatch.setattr(label, "clicker", lambda: None)
    assert label.way_for(tab.labels, 1) == "box"


def test_strokes_are_a_mask_of_the_picture_and_background_erases(tab):
    layer = np.zeros((60, 80, 4), np.uint8)  # at another size than the picture
    assert tab.painted(None) is None and tab.painted({"layers": [layer]}) is None
    layer[10:30, 10:30, 3] = 255
    assert np.array_equal(tab.painted({"layers": [layer]}), square(RED))
    tab.add(tab.labels, 1, square(RED))
    tab.add(tab.labels, 2, square(GREEN))
    tab.add(tab.labels, 0, square((slice(0, 30), slice(0, 15))))
    assert np.array_equal(tab.labels.load(0).ids > 0, square(GREEN))
    tab.chosen = 3  # as the page sets it
    assert "Added and saved" in tab.change(tab.labels, VOID, "brush", square(RED))  # as the class until now
    assert np.array_equal(tab.labels.load(0).ids == 3, square(RED))


def test_masks_of_predict_py_are_the_start_and_their_ids_follow_the_names(tab, tmp_path, monkeypatch):
    masks, theirs = tmp_path / "masks", named(("background", "dog", "fox", "cat"), PERMUTED)
    ids = np.select([square(RED), square(GREEN)], [1, 3], 0).astype(np.uint8)
    ids[25:] = 2
    save_mask(ids, masks / "00.png", theirs)
    monkeypatch.setattr(label, "MASKS", str(masks))
    tab.add(tab.labels, 3, square((slice(5, 15), slice(5, 10))))
    tab.suggest(*label.suggest(tab.labels, tab.canvas))
    tab.add(tab.labels, 1, None)
    expected = np.select([square((slice(5, 15), slice(5, 10))), square(RED), square(GREEN)], [3, 2, 1], 0)
    assert np.array_equal(tab.labels.load(0).ids, expected)  # what was labelled stays; the fox is background
    Image.fromarray(ids[:20]).save(masks / "00.png")  # by another program
    with pytest.raises(UserError, match="00.png does not name its classes"):
        label.suggest(tab.labels, tab.canvas)
    write_classes(theirs.names, masks)
    with pytest.raises(UserError, match="00.png has another size than the picture"):
        label.suggest(tab.labels, tab.canvas)


# ---------------------------------------------------------------------------------------- the browser


@pytest.fixture
def served(tmp_path):
    """Four drawn pictures, their masks, and the page as `python label.py` serves it."""
    for package in ("gradio", "cv2"):
        pytest.importorskip(package, reason="the page needs requirements-demo.txt")
    photos, masks = tmp_path / "photos", {}
    photos.mkdir()
    animals = (("dog", 19), ("rabbit", 7), ("cat", 7), ("cat", 7))  # and seeds: a click finds this dog in one piece
    for number, (animal, seed) in enumerate(animals):
        subject = (animal, "plain", 1)
        image, mask = draw_picture(np.random.default_rng((seed, number)), subject, subject, (200, 240))
        image.save(photos / f"{number}_{animal}.jpg", quality=92)
        masks[f"{number}_{animal}"] = np.array(mask)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = (f"--OUT={tmp_path / 'mine'}", "--CLASSES=cat,dog,rabbit", f"--PORT={port}", "--DEVICE=cpu")
    command = [sys.executable, "label.py", str(photos), *options, f"--COCO={tmp_path / 'mine.json'}"]
    with (tmp_path / "label.log").open("w") as log:
        process = subprocess.Popen(command, cwd=REPOSITORY, env=script_environment(), stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    for _ in range(600):
        with suppress(OSError), urllib.request.urlopen(url):
            break
        assert process.poll() is None, (tmp_path / "label.log").read_text()
        time.sleep(0.2)
    yield url, masks
    process.terminate()
    assert process.wait(30) == 143, (tmp_path / "label.log").read_text()


@pytest.mark.slow
def test_three_pictures_are_labelled_in_the_browser_and_a_row_is_trained_on_them(browser, served, tmp_path, capsys):
    url, masks = served
    page, faults = browser.new_page(viewport={"width": 390, "height": 844}), []
    page.set_default_timeout(60_000)
    page.on("request", lambda request: request.url.startswith((url, "data:", "blob:")) or faults.append(request.url))
    page.on("pageerror", lambda error: faults.append(error))
    page.goto(url)

    def wait(text, where="#message"):
        page.wait_for_selector(f"{where} >> text={text}")

    def click(name, x, y):
        view = page.locator("#picture img")
        box, (height, width) = view.bounding_box(), masks[name].shape
        view.click(position={"x": (x + 0.5) * box["width"] / width, "y": (y + 0.5) * box["height"] / height})

    # By click, on a phone: on the dog's middle; whatever PointCLIP finds in a drawing is taken.
    wait("Click on a thing of the class.")
    page.keyboard.press("2")
    wait("picture 1", "#progress")
    click("0_dog", *next_click(masks["0_dog"], np.zeros(masks["0_dog"].shape, bool))[:2])
    wait("take it with Add")
    page.keyboard.press("Enter")
    wait("saved 1 of 4", "#progress")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.set_viewport_size({"width": 1280, "height": 900})

    # By box: the rabbit, and one dab.
    page.keyboard.press("ArrowRight")
    wait("picture 2", "#progress")
    page.keyboard.press("3")
    wait("two opposite corners")
    rows, columns = np.where(masks["1_rabbit"] == 1)
    click("1_rabbit", columns.min(), rows.min())
    wait("Click on the opposite corner.")
    click("1_rabbit", columns.max(), rows.max())
    wait("take it with Add")
    page.get_by_role("button", name="Add").click()
    wait("saved 2 of 4", "#progress")

    # Skip one, come back, paint it by brush: a stroke of cat, then one of void.
    page.keyboard.press("ArrowRight")
    wait("picture 3", "#progress")
    page.get_by_role("button", name="Skip").click()
    wait("skipped 1", "#progress")
    page.keyboard.press("ArrowLeft")
    wait("picture 3", "#progress")
    page.keyboard.press("1")
    page.wait_for_selector("input[value=click]:checked", state="attached")  # the way that fits a cat
    page.get_by_label("by brush").check()
    for key, height in (("", 0.4), ("v", 0.6)):
        if key:
            page.keyboard.press(key)
        wait("Paint, then")
        page.wait_for_timeout(3000)  # the editor draws its picture
        box = page.locator("#editor canvas").first.bounding_box()
        page.mouse.move(box["x"] + 0.4 * box["width"], box["y"] + height * box["height"])
        page.mouse.down()
        page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + height * box["height"], steps=10)
        page.mouse.up()
        page.keyboard.press("Enter")
        wait("Added and saved.")
    wait("saved 3 of 4", "#progress")
    page.close()
    assert not faults

    root = tmp_path / "mine"
    saved = {sample.name: read_mask(sample) for sample in list_samples(root, "trainval")}
    assert list(saved) == ["1_rabbit", "2_cat", "0_dog"]  # the first one saved is in val
    assert set(np.unique(saved["0_dog"])) == {0, 2} and set(np.unique(saved["2_cat"])) == {0, 1, VOID}
    assert iou(saved["1_rabbit"] == 3, masks["1_rabbit"]) > 0.5
    coco = json.loads((tmp_path / "mine.json").read_text())
    assert [annotation["category_id"] for annotation in coco["annotations"]] == [2, 3, 1]

    # Five steps on them, from the shipped weights; the row predicts the fourth picture.
    import predict
    import train_clip

    new = (f"--CHECKPOINTS={tmp_path / 'new'}", "--DEVICE=cpu")
    small = ("--IMAGE_SIZE=64", "--EPOCHS=1", "--EPOCH_STEPS=5", "--BATCH_SIZE=2", f"--DATA_ROOT={root}")
    start = f"--START={REPOSITORY / 'checkpoints' / 'clip_finetuned'}"
    run_here(train_clip, REPOSITORY / "recipes" / "own_classes.py", start, *small, *new)
    assert "kept background, cat, dog; new rabbit" in capsys.readouterr().out
    assert not run_here(predict, tmp_path / "photos" / "3_cat.jpg", f"--OUT={tmp_path / 'out'}", *new)
    predicted = np.array(Image.open(tmp_path / "out" / "masks" / "3_cat.png"))
    assert predicted.shape == masks["3_cat"].shape and predicted.max() <= 3
