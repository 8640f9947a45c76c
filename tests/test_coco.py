"""data/prepare.py --COCO: outlines to pixels, the folder it writes, and damaged input."""

import copy
import json
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import run_here
from PIL import Image
from pycocotools import mask as masks

from data import coco, outlines, prepare
from utils.errors import UserError

HEIGHT, WIDTH = 30, 40  # of the drawn pictures

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # in pycocotools


def square(x: float, y: float, side: float) -> list[float]:
    return [x, y, x + side, y, x + side, y + side, x, y + side]


def pixels(segmentation: list | dict, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    return masks.decode(outlines.to_rle(outlines.parts_of({"segmentation": segmentation}), height, width))


def uncompressed(mask: np.ndarray) -> list[int]:
    """The run lengths of a mask (H, W), background first."""
    values = np.concatenate([[0], mask.T.ravel()])
    starts = np.concatenate([[0], np.flatnonzero(np.diff(values)), [mask.size]])
    return np.diff(starts).tolist()


# ------------------------------------------------------------------------------------ outlines to pixels


def test_run_lengths_in_both_spellings_are_the_mask():
    rng = np.random.default_rng(0)
    for number in range(100):
        height, width = rng.integers(1, 200, 2).tolist()
        mask = (rng.random((height, width)) < rng.choice([0, 0.001, 0.1, 0.5, 0.999, 1])).astype(np.uint8)
        if number % 2:  # long runs
            mask = mask.repeat(20, 0)[:height]
        text = masks.encode(np.asfortranarray(mask))["counts"].decode()
        for counts in (text, uncompressed(mask)):
            assert np.array_equal(pixels({"size": [height, width], "counts": counts}, height, width), mask)


def paint(*objects: tuple[int, list], height: int, width: int) -> list[str]:
    rles = [(label, outlines.to_rle([np.array(polygon)], height, width)) for label, polygon in objects]
    mask = coco.paint(rles, height, width)
    return ["".join("." if value == 0 else str(value) for value in line) for line in mask.tolist()]


def test_parts_that_overlap_are_one_object_and_a_smaller_object_lies_on_top():
    assert pixels([square(2, 2, 10), square(6, 6, 10)]).sum() == 100 + 100 - 36
    objects, expected = [(1, square(1, 1, 2)), (2, square(0, 0, 4))], ["2222..", "2112..", "2112..", "2222..", "......"]
    for order in (objects, objects[::-1]):
        assert paint(*order, height=5, width=6) == expected


# ---------------------------------------------------------------------------------------- the data set


@pytest.fixture
def data(tmp_path) -> dict:
    """The JSON of twelve pictures in tmp_path/pics: a cat in each (category 7), in every third also a dog (3)."""
    folder = tmp_path / "pics"
    folder.mkdir()
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for number in range(12):
        name = f"{number:02d}.jpg"
        Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)).save(folder / name)
        images.append({"id": 100 + number, "file_name": name, "width": WIDTH, "height": HEIGHT})
        for category, polygon in [(7, square(2, 2, 8)), (3, square(20, number, 10))][: 1 if number % 3 else 2]:
            key = 1000 + len(annotations)
            annotations.append(
                {"id": key, "image_id": 100 + number, "category_id": category, "segmentation": [polygon], "iscrowd": 0}
            )
    categories = [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}, {"id": 9, "name": "traffic  light"}]
    return {"images": images, "annotations": annotations, "categories": categories}


def convert(tmp_path: Path, data: dict | bytes, *options: str, out: str = "mine") -> Path:
    """Run prepare.py on the JSON; returns the folder OUT."""
    file = tmp_path / "instances.json"
    file.write_bytes(data if isinstance(data, bytes) else json.dumps(data).encode())
    target = tmp_path / out
    run_here(prepare, f"--COCO={file}", f"--PICTURES={tmp_path / 'pics'}", f"--OUT={target}", *options)
    return target


def names(target: Path, kind: str = "images") -> dict[str, list[str]]:
    """The files of every split."""
    splits = sorted(folder for folder in target.iterdir() if folder.is_dir())
    return {split.name: sorted(file.stem for file in (split / kind).iterdir()) for split in splits}


def find_mask(target: Path, name: str) -> np.ndarray:
    (file,) = target.glob(f"*/masks/{name}.png")
    return np.array(Image.open(file))


def test_folder_layout_is_written_whole(tmp_path, data, capsys):
    target = convert(tmp_path, data)
    classes = "background 0,0,0\ndog 128,0,0\ncat 0,128,0\ntraffic light 128,128,0\n"  # by the ids of the JSON
    assert (target / "classes.txt").read_text() == classes
    assert json.loads((target / "data.json").read_text())["SPLIT"] == [0.8, 0.1, 0.1]
    splits = names(target)
    assert {split: len(files) for split, files in splits.items()} == {"train": 10, "val": 1, "test": 1}
    assert splits == names(target, "masks")
    assert sorted(sum(splits.values(), [])) == [f"{number:02d}" for number in range(12)]
    for picture in target.glob("*/images/*"):
        assert picture.read_bytes() == (tmp_path / "pics" / picture.name).read_bytes()
    mask = find_mask(target, "03")
    assert mask.shape == (HEIGHT, WIDTH) and set(np.unique(mask)) == {0, 1, 2}
    assert (mask[2:10, 2:10] == 2).all() and (mask[3:13, 20:30] == 1).all() and (mask > 0).sum() == 164
    output = capsys.readouterr().out
    assert "10 pictures for training" in output and "4 classes" in output and "left out" not in output
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["instances.json", "mine", "pics"]


def test_categories_keep_their_order_and_their_pictures(tmp_path, data):
    target = convert(tmp_path, data, "--CATEGORIES=traffic light,dog", "--SPLIT=0.5,0.25,0.25")
    assert (target / "classes.txt").read_text() == "background 0,0,0\ntraffic light 128,0,0\ndog 0,128,0\n"
    assert sorted(sum(names(target).values(), [])) == ["00", "03", "06", "09"]
    assert set(np.unique(find_mask(target, "06"))) == {0, 2}


def test_category_called_background_is_class_0(tmp_path, data):
    data["categories"].append({"id": 0, "name": "Background"})
    hole = {"id": 1, "image_id": 101, "category_id": 0, "segmentation": [square(4, 4, 2)]}
    data["annotations"].append(hole)
    target = convert(tmp_path, data)
    assert len((target / "classes.txt").read_text().splitlines()) == 4
    assert (find_mask(target, "01") > 0).sum() == 64 - 4


def test_seed_decides_the_split_and_the_order_of_the_json_does_not(tmp_path, data):
    first = names(convert(tmp_path, data, "--SPLIT=0.75,0,0.25", out="a"))
    assert {split: len(files) for split, files in first.items()} == {"test": 3, "train": 9}
    data["images"].reverse()
    assert names(convert(tmp_path, data, "--SPLIT=0.75,0,0.25", out="b")) == first
    assert names(convert(tmp_path, data, "--SPLIT=0.75,0,0.25", "--SEED=1", out="c")) != first


@pytest.mark.parametrize("roles", [("train", "test"), ("train", "val", "test")])
def test_several_jsons_are_the_splits(tmp_path, data, roles):
    files, folders = [tmp_path / f"{role}.json" for role in roles], [tmp_path / role for role in roles]
    for number, (file, folder) in enumerate(zip(files, folders, strict=True)):
        part = copy.deepcopy(data)
        part["images"] = data["images"][number * 4 : number * 4 + 4]
        ids = {image["id"] for image in part["images"]}
        part["annotations"] = [entry for entry in part["annotations"] if entry["image_id"] in ids]
        for category in part["categories"]:
            category["id"] += number  # the ids of a category may differ
        for annotation in part["annotations"]:
            annotation["category_id"] += number
        file.write_text(json.dumps(part))
        folder.mkdir()
        for image in part["images"]:
            (tmp_path / "pics" / image["file_name"]).rename(folder / image["file_name"])
    target = tmp_path / "mine"
    options = f"--COCO={','.join(map(str, files))}", f"--PICTURES={','.join(map(str, folders))}", f"--OUT={target}"
    run_here(prepare, *options, "--NAME=My pets")
    expected = {role: [f"{number * 4 + i:02d}" for i in range(4)] for number, role in enumerate(roles)}
    assert names(target) == expected and find_mask(target, "04")[5, 5] == 2
    about = json.loads((target / "data.json").read_text())
    assert about["name"] == "My pets" and "SPLIT" not in about


def test_pictures_of_one_name_in_two_folders_are_kept_apart(tmp_path, data):
    places = ["a/x.jpg", "b/x.jpg", "b/X.png", "x.jpg", "a_x.jpg"]
    for image, place in zip(data["images"], places, strict=False):
        file = tmp_path / "pics" / place
        file.parent.mkdir(exist_ok=True)
        (tmp_path / "pics" / image["file_name"]).rename(file)
        image["file_name"] = place.replace("/", "\\")  # as Label Studio writes it on Windows
    target = convert(tmp_path, data, "--SPLIT=1,0,0")
    assert len({stem.lower() for stem in names(target)["train"]}) == 12
    sources = {"a_x": "a/x.jpg", "a_x_2": "a_x.jpg", "b_X": "b/X.png", "b_x_2": "b/x.jpg", "x": "x.jpg"}
    for stem, source in sources.items():
        copied = target / "train" / "images" / f"{stem}{Path(source).suffix}"
        assert copied.read_bytes() == (tmp_path / "pics" / source).read_bytes()


# ------------------------------------------------------------------------------------- other spellings

SQUARE = np.zeros((HEIGHT, WIDTH), np.uint8)
SQUARE[2:10, 2:10] = 1  # as square(2, 2, 8)
RLE = {"size": [HEIGHT, WIDTH], "counts": uncompressed(SQUARE)}


def test_numbers_of_run_lengths_may_be_written_as_floats():
    assert np.array_equal(pixels({"size": [30.0, 40.0], "counts": [float(count) for count in RLE["counts"]]}), SQUARE)


# file_name in the JSON -> the file below PICTURES
PLACES = {
    "my%20photo.jpg": "my photo.jpg",
    "data\\train\\sub\\x.jpg": "sub/x.jpg",
    "C:\\photos\\x.jpg": "x.jpg",
    "https://example.org/bucket/my%20photo.jpg?width=640#top": "my photo.jpg",
    "cafe\u0301/x.jpg": "cafe\u0301/x.jpg",
}


@pytest.mark.parametrize("name", PLACES)
def test_picture_is_found_by_another_spelling_of_its_name(tmp_path, name):
    file = tmp_path / PLACES[name]
    file.parent.mkdir(exist_ok=True)
    file.touch()
    assert coco.find_picture(tmp_path, coco.relative_path(name)) == file


def test_categories_may_be_written_with_spaces_and_other_accents(tmp_path, data):
    data["categories"][0]["name"] = "cha\u0302t"
    lines = (convert(tmp_path, data, "--CATEGORIES= ch\u00e2t, dog") / "classes.txt").read_text(encoding="utf-8")
    assert lines == "background 0,0,0\nch\u00e2t 128,0,0\ndog 0,128,0\n"


ATTRIBUTES = {"attributes": {"occluded": False}}  # CVAT's


@pytest.mark.parametrize(
    "option, numbers, values, kind",
    [
        ("auto", range(16), ATTRIBUTES, "objects"),
        ("auto", range(0, 16, 2), {}, "objects"),  # too many for groups
        ("auto", range(2), {}, "void"),
        ("objects", range(1), {}, "objects"),
    ],
)
def test_crowds_of_coco_become_void_and_painted_masks_objects(tmp_path, data, capsys, option, numbers, values, kind):
    for number in numbers:
        data["annotations"][number].update(segmentation=RLE, iscrowd=1, **values)
    target = convert(tmp_path, data, f"--CROWDS={option}")
    assert (find_mask(target, "00")[5, 5] == 255) == (kind == "void")
    line = f"{len(numbers)} crowd{'s' * (len(numbers) > 1)} taken as {kind} (with --CROWDS="
    assert line in capsys.readouterr().out


# -------------------------------------------------------------------------------- run again, break off


def snapshot(root: Path) -> dict:
    return {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in root.rglob("*") if file.is_file()}


def test_second_run_does_nothing_and_other_data_are_refused_untouched(tmp_path, data, capsys):
    before = snapshot(convert(tmp_path, data))
    capsys.readouterr()
    target = convert(tmp_path, data)
    assert "nothing to do" in capsys.readouterr().out and snapshot(target) == before
    with pytest.raises(UserError, match="other files or constants.*--OUT"):
        convert(tmp_path, data, "--CROWDS=void")
    data["annotations"].pop()
    with pytest.raises(UserError, match="other files or constants.*--OUT"):
        convert(tmp_path, data)
    assert snapshot(target) == before


# -------------------------------------------------------------------------------------- damaged input


def change(key: str, number: int, **values):
    """A fault: entries of the JSON with other values; None takes a value away."""

    def apply(data: dict) -> None:
        data[key][number] = {k: v for k, v in {**data[key][number], **values}.items() if v is not None}

    return apply


def each(key: str, **values):
    """A fault: the same change of all entries."""
    return lambda data: [entry.update(values) for entry in data[key]]


NO_IMAGE, NO_CATEGORY = "103.*needs a number as id, a file_name", "needs a number as id and a name"
STRUCTURE = {
    "cut off": (lambda data: json.dumps(data).encode()[:500], "is no JSON, or is damaged"),
    "no annotations": (lambda data: data.update(annotations=[]), 'no list "annotations"'),
    "no file name": (change("images", 3, file_name=None), NO_IMAGE),
    "a picture twice": (change("images", 3, file_name="./00.jpg"), "2 images have the file_name 00.jpg"),
    "category with a word for an id": (change("categories", 1, id="dog"), NO_CATEGORY),
    "255 categories": (
        lambda data: data.update(categories=[{"id": n, "name": f"class {n}"} for n in range(255)]),
        "255 categories, a mask holds 254.*--CATEGORIES",
    ),
    "no picture": (
        lambda data: [image.update(file_name=f"{image['id']}.jpg") for image in data["images"]],
        "12 missing",
    ),
    "other ids": (each("annotations", image_id=1), "16 annotations left out: 16 of no picture in the JSON"),
    "boxes only": (
        each("annotations", segmentation=[]),
        "12 pictures left out: 12 with an annotation that has no outline",
    ),
    "shares of the picture": (each("annotations", segmentation=[square(0.1, 0.2, 0.5)]), "as fractions"),
}


@pytest.mark.parametrize("fault", STRUCTURE)
def test_json_that_cannot_be_used_is_named_and_nothing_is_written(tmp_path, data, fault):
    apply, message = STRUCTURE[fault]
    damaged = apply(data)
    with pytest.raises(UserError, match=message) as caught:
        convert(tmp_path, damaged if isinstance(damaged, bytes) else data)
    assert "instances.json" in str(caught.value)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["instances.json", "pics"]


def outline(segmentation, **values):
    return change("annotations", 0, segmentation=segmentation, **values)


def rle(counts, size=(HEIGHT, WIDTH)):
    return outline({"size": list(size), "counts": counts})


FEW, RINGS = (
    "left out: 1 of fewer than three points .*annotation 1000 in instances.json",
    [[square(2, 2, 8), square(4, 4, 2)]],
)
# fault -> what is changed, a line of the report, and how many of the twelve pictures are left
COUNTED = {
    "picture missing": (change("images", 0, file_name="x.jpg"), "1 picture left out: 1 missing .*x.jpg", 11),
    "another size": (change("images", 0, width=41), "1 of another size .*00.jpg is 40 x 30, not 41 x 30", 11),
    "unknown picture": (change("annotations", 0, image_id=5), "1 annotation left out: 1 of no picture in the JSON", 12),
    "two points": (outline([[1, 1, 9, 9]]), FEW, 12),
    "outside": (outline([square(90, 90, 9)]), "1 without a pixel in the picture", 12),
    "no outline": (outline([]), "1 with an annotation that has no outline", 11),
    "NaN": (outline([[float("nan")] * 6]), "a polygon that is not one list of coordinates", 11),
    "far away": (outline([[2e5] * 6]), "or is far outside", 11),
    "two rings": (outline(RINGS), "1 with a polygon that is not one list .*annotation 1000", 11),
    "no list around a polygon": (outline(square(2, 2, 8)), "1 with a polygon that is not one list", 11),
    "a box as outline": (outline([[2, 2, 8, 8]], bbox=[2, 2, 8, 8]), "has a box, but no outline", 11),
    "damaged picture": (change("images", 0, file_name="damaged.jpg"), "1 picture left out: 1 unreadable", 11),
    "another suffix": (change("images", 0, file_name="photo.raw"), "1 hidden, or with a suffix of no known", 11),
    "hidden": (change("images", 0, file_name="._00.jpg"), "1 hidden", 11),
    "same file": (change("images", 0, file_name="a/01.jpg"), "1 missing; another folder has a file", 11),
    "RLE too short": (rle([10, 20]), "that do not add up to the picture", 11),
    "RLE of another size": (rle([1200], (40, 30)), "of another size than the picture", 11),
    "RLE string cut off": (rle("PPPP"), "in an unknown or damaged encoding", 11),
}


@pytest.mark.parametrize("fault", COUNTED)
def test_fault_of_one_entry_is_counted_and_the_rest_is_written(tmp_path, data, capsys, fault):
    apply, line, left = COUNTED[fault]
    for name in ("._00.jpg", "damaged.jpg", "photo.raw"):
        (tmp_path / "pics" / name).write_bytes(b"no picture")
    apply(data)
    target = convert(tmp_path, data)
    output = capsys.readouterr().out
    assert re.search(line, output), output
    assert sum(map(len, names(target).values())) == sum(map(len, names(target, "masks").values())) == left


@pytest.mark.parametrize("width, height, kept", [(HEIGHT, WIDTH, True), (WIDTH, HEIGHT, False)])
def test_photo_turned_by_exif_has_the_size_that_one_sees(tmp_path, data, capsys, width, height, kept):
    file = tmp_path / "pics" / "00.jpg"
    image = Image.open(file)
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(file, exif=exif)
    data["images"][0].update(width=width, height=height)
    stems = sum(names(convert(tmp_path, data)).values(), [])
    assert ("00" in stems) == kept and ("turned by EXIF" in capsys.readouterr().out) != kept


def test_split_of_which_no_picture_is_left_is_an_error(tmp_path, data):
    for number in range(1, 12):
        data["images"][number]["width"] += 1
    with pytest.raises(UserError, match=r"no picture is left for \w+\n11 pictures left out: 11 of another size"):
        convert(tmp_path, data, "--SPLIT=0.5,0.25,0.25")
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize(
    "option, message",
    [
        ("--SPLIT=0.5,0.1,0.1", "SPLIT = 0.5,0.1,0.1: must be the shares"),
        ("--SPLIT=0.98,0.01,0.01", "too few for SPLIT"),
        ("--CATEGORIES=cat,bird", "CATEGORIES = cat,bird: .*dog, cat, traffic light"),
        ("--CATEGORIES=background", "must name different classes of .*, without background"),
        ("--PICTURES=a,b", "PICTURES names 2 folders"),
        ("--COCO=absent.json", "cannot be read .*absent.json"),
        ("--VOC=2012", "SYNTHETIC, COCO, MASKS and VOC"),
    ],
)
def test_senseless_constant_is_named(tmp_path, data, option, message):
    with pytest.raises(UserError, match=message):
        convert(tmp_path, data, option)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["instances.json", "pics"]


def test_jsons_of_other_categories_are_refused(tmp_path, data):
    file = tmp_path / "test.json"
    file.write_text(json.dumps({**data, "categories": data["categories"][:2]}))
    with pytest.raises(UserError, match="test.json has other categories than .*instances.json: cat, dog; not cat, dog"):
        convert(tmp_path, data, f"--COCO={tmp_path / 'instances.json'},{file}")


def test_the_road_goes_on_with_training_scoring_and_predicting(tmp_path, data, train_and_use):
    target = convert(tmp_path, data, "--CATEGORIES=dog,cat", "--SPLIT=0.5,0.25,0.25")
    line, text = train_and_use(target)
    assert line["data"] == "mine" and line["split"] == "test"
    assert [key for key in line if key[:4] == "iou_"] == ["iou_background", "iou_dog", "iou_cat"]
    assert " -> predictions/masks/" in text
