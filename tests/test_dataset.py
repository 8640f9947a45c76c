"""From files to arrays: layouts, splits, every kind of picture, messages about damaged files, the cache."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import script_environment
from PIL import Image

import utils.inputs.cache
import utils.inputs.dataset
from utils.classes import PETS, VOID
from utils.errors import UserError
from utils.inputs.cache import cached_arrays
from utils.inputs.dataset import SegmentationDataset
from utils.inputs.layouts import list_samples, take_split
from utils.inputs.pictures import read_image, read_mask, read_sample

GREYS = np.zeros(256, np.uint8)
GREYS[[0, 1, 2, VOID]] = 0, 38, 75, 255  # the luma of the colours


def palette_image(mask: np.ndarray) -> Image.Image:
    """A palette picture of an index mask in the classes' colours, stored in another order."""
    order, positions = [2, 0, 1, VOID], np.zeros(256, np.uint8)
    positions[order] = range(len(order))
    image = Image.fromarray(positions[mask], mode="P")
    image.putpalette(PETS.palette[order].flatten().tolist())
    return image


LABELS = {
    "colour": lambda mask: Image.fromarray(PETS.palette[mask]),
    "palette": palette_image,
    "grey": lambda mask: Image.fromarray(GREYS[mask]),
    "index": Image.fromarray,
}


def convert(oxford: Path, target: Path, splits: dict[str, str], images: str, masks: str, label: str) -> Path:
    """The pictures of an Oxford data set in target/<folder>/{images,masks}; splits: split -> folder."""
    for split, folder in splits.items():
        for name in (images, masks):
            (target / folder / name).mkdir(parents=True)
        for sample in list_samples(oxford, split):
            shutil.copy(sample.image, target / folder / images)
            LABELS[label](read_mask(sample)).save(target / folder / masks / f"{sample.name}.png")
    return target


def names(root: Path, split: str) -> list[str]:
    return [sample.name for sample in list_samples(root, split)]


def assert_same_arrays(left: SegmentationDataset, right: SegmentationDataset) -> None:
    for key in ("images", "masks"):
        np.testing.assert_array_equal(left.arrays[key], right.arrays[key])


# ---------------------------------------------------------------------------------------------- splits


def test_validation_is_every_tenth_line_and_training_is_all_the_others(oxford_root):
    assert take_split(list(range(25)), "val") == [0, 10, 20]
    assert take_split(list(range(12)), "train") == [1, 2, 3, 4, 5, 6, 7, 8, 9, 11]
    train, val, trainval = (names(oxford_root, split) for split in ("train", "val", "trainval"))
    assert len(trainval) == 24 and val == [trainval[0], trainval[10], trainval[20]]
    assert sorted(train + val) == sorted(trainval)
    assert not set(trainval) & set(names(oxford_root, "test"))


def test_the_official_splits_have_their_published_sizes_and_a_real_mask_its_species(pets_root):
    assert [len(list_samples(pets_root, split)) for split in ("train", "val", "test")] == [3312, 368, 3669]
    mask = read_sample(list_samples(pets_root, "test")[0])[1]
    assert set(np.unique(mask)) == {0, 1, VOID}  # the first of the list is an Abyssinian cat


# --------------------------------------------------------------------------------------------- layouts


def test_oxford_masks_are_trimap_times_species(oxford_root):
    samples = list_samples(oxford_root, "test")
    for sample, species in ((samples[0], 1), (samples[-1], 2)):
        trimap = np.array(Image.open(sample.mask))
        np.testing.assert_array_equal(read_mask(sample), np.select([trimap == 1, trimap == 2], [species, 0], VOID))


def test_oxford_species_comes_from_the_capital_letter_where_the_list_has_names_only(oxford_copy):
    file = oxford_copy / "annotations" / "test.txt"
    file.write_text("# names\n\n" + "".join(line.split()[0] + "\n" for line in file.read_text().splitlines()))
    assert [sample.species for sample in list_samples(oxford_copy, "test")] == [1] * 4 + [2] * 4


def test_trimaps_give_the_species_their_ids_whatever_classes_txt_calls_them(oxford_copy):
    (oxford_copy / "classes.txt").write_text("background\ndog\ncat\n")
    with pytest.raises(UserError, match="classes.txt lists background, dog, cat, but trimaps .* background, cat, dog"):
        list_samples(oxford_copy, "test")


@pytest.mark.parametrize("label", ["colour", "palette", "grey"])
def test_the_course_layout_gives_the_same_arrays_as_the_oxford_layout(oxford_root, tmp_path, label):
    course = convert(oxford_root, tmp_path, {"trainval": "TrainVal", "test": "Test"}, "color", "label", label)
    for split in ("train", "val", "test"):
        assert names(course, split) == names(oxford_root, split)
        assert_same_arrays(SegmentationDataset(course, split, 24), SegmentationDataset(oxford_root, split, 24))


def test_the_folder_layout_gives_the_same_arrays_as_the_oxford_layout(oxford_root, tmp_path):
    splits = {split: split for split in ("train", "val", "test")}
    folder = convert(oxford_root, tmp_path, splits, "images", "masks", "index")
    for split in ("train", "val", "test"):
        assert_same_arrays(SegmentationDataset(folder, split, 24), SegmentationDataset(oxford_root, split, 24))
    assert names(folder, "trainval") == names(folder, "train") + names(folder, "val")
    shutil.rmtree(folder / "val")  # without it every tenth training picture is for validation
    everything = names(folder, "trainval")
    assert names(folder, "val") == everything[::10] == [x for x in everything if x not in names(folder, "train")]


def test_an_unknown_layout_says_what_was_looked_for_and_what_was_found(tmp_path):
    with pytest.raises(UserError, match="found: nothing"):
        list_samples(tmp_path, "train")
    with pytest.raises(UserError, match="found: no such folder"):
        list_samples(tmp_path / "nowhere", "train")
    (tmp_path / "Photos").mkdir()
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UserError) as error:
        list_samples(tmp_path, "train")
    for text in (str(tmp_path), "TrainVal/{color,label}", "prepare.py", "found: Photos/, notes.txt"):
        assert text in str(error.value)


def test_a_layout_that_lacks_a_part_or_has_an_empty_list_names_it(oxford_copy, tmp_path):
    (oxford_copy / "annotations" / "test.txt").write_text("\n")
    with pytest.raises(UserError, match="test split of .* is empty"):
        SegmentationDataset(oxford_copy, "test", 16)
    (oxford_copy / "annotations" / "test.txt").unlink()
    with pytest.raises(UserError, match="test.txt: cannot be read as the pictures of a split"):
        list_samples(oxford_copy, "test")
    (tmp_path / "course" / "TrainVal" / "color").mkdir(parents=True)
    with pytest.raises(UserError, match="label is missing"):
        list_samples(tmp_path / "course", "train")


# ------------------------------------------------------------------------------------- kinds of picture

COLOUR = (204, 102, 51)  # in the web palette, so that no dithering is needed
FLAT = Image.new("RGB", (6, 4), COLOUR)
BLUE = Image.new("RGB", (6, 4), (0, 0, 255))
KINDS = {
    "grey.png": (FLAT.convert("L"), {}, (127,) * 3),
    "rgba.png": (FLAT.convert("RGBA"), {}, COLOUR),
    "palette.png": (FLAT.convert("P"), {}, COLOUR),
    "cmyk.jpg": (FLAT.convert("CMYK"), {}, COLOUR),
    "really_a_png.jpg": (FLAT, {"format": "PNG"}, COLOUR),
    "animated.gif": (FLAT, {"save_all": True, "append_images": [BLUE]}, COLOUR),
    "black_or_white.png": (Image.new("1", (6, 4), 1), {}, (255, 255, 255)),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_picture_becomes_rgb_of_the_right_colour(tmp_path, name):
    image, options, colour = KINDS[name]
    image.save(tmp_path / name, **options)
    image = read_image(tmp_path / name)
    assert image.shape == (4, 6, 3) and image.dtype == np.uint8
    assert np.abs(image.astype(int) - colour).max() <= (4 if name == "cmyk.jpg" else 0)


def test_a_picture_is_turned_as_its_exif_entry_says(tmp_path):
    stored = np.zeros((4, 6, 3), np.uint8)
    stored[:, :3] = 255  # left half white
    exif = Image.Exif()
    exif[0x0112] = 6  # show it turned by 90 degrees clockwise: left becomes up
    Image.fromarray(stored).save(tmp_path / "turned.png", exif=exif)
    image = read_image(tmp_path / "turned.png")
    assert image.shape == (6, 4, 3)
    assert (image[:3] == 255).all() and (image[3:] == 0).all()


# ------------------------------------------------------------------------------------- damaged data sets


def enlarge(path: Path) -> None:
    with Image.open(path) as image:
        image.resize((image.width + 3, image.height)).save(path)


def write_seven(path: Path) -> None:
    values = np.array(Image.open(path))
    values[3, 5] = 7
    Image.fromarray(values).save(path)


DAMAGE = {
    "a picture of zero length": ("images", lambda path: path.write_bytes(b""), "cannot be read"),
    "a picture that is missing": ("images", Path.unlink, "missing"),
    "a mask that is missing": ("annotations/trimaps", Path.unlink, "missing"),
    "a mask of another size": ("annotations/trimaps", enlarge, "but its picture"),
    "a mask with the value 7": ("annotations/trimaps", write_seven, re.escape("unknown mask values [7]")),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_the_message_about_damaged_data_names_the_file(oxford_copy, damage):
    folder, break_file, reason = DAMAGE[damage]
    culprit = next(file for file in (oxford_copy / folder).iterdir() if file.stem == "pug_test_01")
    break_file(culprit)
    with pytest.raises(UserError, match=f"{re.escape(str(culprit))}.*{reason}"):
        SegmentationDataset(oxford_copy, "test", 16)


# ------------------------------------------------------------------------------------- the tensors of a split


def test_one_index_gives_a_picture_and_a_mask_and_a_list_a_batch(oxford_root):
    dataset = SegmentationDataset(oxford_root, "train", 24)
    image, mask = dataset[4]
    assert image.shape == (3, 24, 24) and mask.shape == (24, 24) and image.dtype == mask.dtype == torch.uint8
    images, masks = dataset[[7, 4, 0]]
    assert torch.equal(images[1], image) and torch.equal(masks[1], mask)
    assert isinstance(dataset.arrays["images"], np.memmap)


# -------------------------------------------------------------------------------------------- the cache

ROWS = 10
SPECS = {"squares": ((ROWS, 3), "int64"), "bytes": ((ROWS, 2, 5), "uint8")}


def fill(start: int, stop: int) -> dict[str, np.ndarray]:
    numbers = np.arange(start, stop)
    return {"squares": (numbers**2)[:, None] + np.arange(3), "bytes": np.tile(numbers[:, None, None], (1, 2, 5))}


def build(folder: Path, fill=fill, key="key") -> dict[str, np.ndarray]:
    return cached_arrays(folder, key, SPECS, (fill(start, start + 2) for start in range(0, ROWS, 2)))


def test_a_build_computes_every_chunk_once_and_a_second_opening_none(tmp_path):
    starts = []
    for expected in ([0, 2, 4, 6, 8], []):
        starts.clear()
        arrays = build(tmp_path, lambda start, stop: starts.append(start) or fill(start, stop))
        assert starts == expected
        for name, rows in fill(0, ROWS).items():
            np.testing.assert_array_equal(arrays[name], rows)
            assert arrays[name].dtype == SPECS[name][1]
    with pytest.raises(ValueError, match="read-only"):
        arrays["squares"][0] = 1
    other = build(tmp_path, lambda start, stop: {k: v + 1 for k, v in fill(start, stop).items()}, key="other")
    assert other["squares"][0].tolist() == [1, 2, 3] and arrays["squares"][0].tolist() == [0, 1, 2]


def test_a_build_that_fails_leaves_nothing_and_one_that_was_killed_starts_again(tmp_path):
    def full(start: int, stop: int) -> dict[str, np.ndarray]:
        if start == 4:
            raise OSError(28, "No space left on device")
        return fill(start, stop)

    with pytest.raises(UserError, match="No space left.*free some space"):
        build(tmp_path, full)
    assert not list(tmp_path.glob("*.partial"))
    build(tmp_path / "other")
    partial = tmp_path / f"{next((tmp_path / 'other').glob('*/bytes.npy')).parent.name}.partial"
    partial.mkdir()
    for name in SPECS:
        (partial / f"{name}.npy").write_bytes(b"\xff" * 1000)  # more than is written now
    np.testing.assert_array_equal(build(tmp_path)["bytes"], fill(0, ROWS)["bytes"])
    assert not partial.exists()


BUILDER = """
import sys, time
from pathlib import Path
import numpy as np
from utils.inputs.cache import cached_arrays

def chunks():
    for row in range(10):
        time.sleep(0.05)
        print("fill", row)
        yield {"numbers": np.array([row])}

print("sum", cached_arrays(Path(sys.argv[1]), "key", {"numbers": ((10,), "int64")}, chunks())["numbers"].sum())
"""


def test_of_two_processes_one_builds_and_both_read_the_same(tmp_path):
    options = {"stdout": subprocess.PIPE, "text": True, "env": script_environment()}
    processes = [subprocess.Popen([sys.executable, "-c", BUILDER, str(tmp_path)], **options) for _ in range(2)]
    outputs = [process.communicate(timeout=600)[0].splitlines() for process in processes]
    assert [output[-1] for output in outputs] == ["sum 45", "sum 45"]
    filled = [line for output in outputs for line in output if line.startswith("fill")]
    assert filled == [f"fill {row}" for row in range(10)]


def test_pictures_are_read_again_only_if_a_file_has_changed_be_it_its_date_alone(oxford_copy, monkeypatch):
    reads = []
    monkeypatch.setattr(utils.inputs.dataset, "read_sample", lambda sample: reads.append(sample) or read_sample(sample))
    before = SegmentationDataset(oxford_copy, "test", 16)
    sample = before.samples[2]
    assert any((oxford_copy / ".cache").glob("*/images.npy")) and len(reads) == 8
    SegmentationDataset(oxford_copy, "test", 16)
    assert len(reads) == 8
    Image.fromarray(np.full_like(read_mask(sample), 2)).save(sample.mask)  # trimap value 2: background everywhere
    after = SegmentationDataset(oxford_copy, "test", 16)
    assert (before[2][1] == 1).any() and (after[2][1] == 0).all() and len(reads) == 16
    os.utime(sample.image, (1, 1))
    SegmentationDataset(oxford_copy, "test", 16)
    assert len(reads) == 24


def test_the_cache_of_a_read_only_data_folder_is_in_the_repository(oxford_copy, tmp_path, monkeypatch):
    monkeypatch.setattr(utils.inputs.cache, "FALLBACK", tmp_path / "fallback")
    oxford_copy.chmod(0o555)
    try:
        dataset = SegmentationDataset(oxford_copy, "test", 16)
    finally:
        oxford_copy.chmod(0o755)
    assert len(dataset) == 8
    assert any((tmp_path / "fallback").glob("*/images.npy"))
    assert not (oxford_copy / ".cache").exists()
