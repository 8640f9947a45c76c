"""Data sets as people have them: black and white masks, ids of any depth, other names, flat folders, hidden files."""

import shutil
import struct
import unicodedata
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import predict
from utils.classes import PETS, VOID, named
from utils.errors import UserError
from utils.inputs.dataset import SegmentationDataset
from utils.inputs.layouts import Sample, list_pictures, list_samples, skipped
from utils.inputs.pictures import read_image, read_mask

FOX = named(("background", "fox"))
IDS = np.zeros((12, 16), np.uint8)
IDS[3:9, 4:10] = 1
MASK = Image.fromarray(IDS)


def write_pair(folder: Path, name: str, mask: Image.Image) -> Path:
    """A picture folder/images/NAME.png and its mask; returns the mask's path."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(len(name)).integers(0, 256, (*IDS.shape, 3), np.uint8)
    Image.fromarray(noise).save(folder / "images" / f"{name}.png")
    file = folder / "masks" / f"{name}.png"
    mask.save(file)
    return file


@pytest.fixture
def foxes(tmp_path) -> Callable[..., Path]:
    """foxes(to_mask, train=IDS, val=IDS, test=IDS): a folder of two classes, a picture or several per split."""

    def build(to_mask: Callable = Image.fromarray, names: str = "background\nfox\n", **splits) -> Path:
        root = tmp_path / "foxes"
        for split, masks in (splits or dict.fromkeys(("train", "val", "test"), [IDS, IDS])).items():
            for index, mask in enumerate(masks):
                write_pair(root / split, f"{split}{index}", to_mask(mask))
        (root / "classes.txt").write_text(names)
        return root

    return build


def masks_of(root: Path, split: str = "train") -> list[np.ndarray]:
    return [read_mask(sample) for sample in list_samples(root, split)]


# ------------------------------------------------------------------------------------------- black and white


def palette(colours: list[int]) -> Callable[[np.ndarray], Image.Image]:
    def convert(mask: np.ndarray) -> Image.Image:
        image = Image.fromarray(mask, mode="P")
        image.putpalette(colours)
        return image

    return convert


BLACK_AND_WHITE = {
    "8 bits": lambda mask: Image.fromarray(mask * 255),
    "1 bit": lambda mask: Image.fromarray(mask.astype(bool)),
    "RGB": lambda mask: Image.fromarray(mask * 255).convert("RGB"),
    "RGBA": lambda mask: Image.fromarray(mask * 255).convert("RGBA"),
    "palette": palette([0, 0, 0, 255, 255, 255]),
    "16 bits": lambda mask: Image.fromarray(mask.astype(np.uint16) * 65535),
    "16 bits, 255": lambda mask: Image.fromarray(mask.astype(np.uint16) * 255),
}


@pytest.mark.parametrize("kind", BLACK_AND_WHITE)
def test_white_is_the_thing_where_two_classes_have_black_and_white_masks(foxes, capsys, kind):
    root = foxes(BLACK_AND_WHITE[kind])
    for split in ("train", "val", "test", "trainval"):
        for mask in masks_of(root, split):
            np.testing.assert_array_equal(mask, IDS)
    text = capsys.readouterr().out
    assert text.count("black and white") == 1 and "is fox" in text
    assert SegmentationDataset(root, "train", 16)[0][1].max() == 1


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_what_white_means_is_decided_over_all_splits(foxes, split):
    white = np.where(IDS, VOID, 0).astype(np.uint8)
    splits = dict.fromkeys(("train", "val", "test"), [white, white]) | {split: [white, np.where(IDS, IDS, white)]}
    root = foxes(**splits)
    for each in splits:
        assert VOID in masks_of(root, each)[0], "with an id in any split, 255 is void in all"
    Image.fromarray(white).save(root / split / "masks" / f"{split}1.png")
    assert masks_of(root, "val")[0].max() == 1, "a mask was changed"


def test_white_is_the_thing_in_a_test_split_alone(foxes):
    root = foxes(BLACK_AND_WHITE["8 bits"])
    for part in ("train", "val"):
        shutil.rmtree(root / part)
    assert masks_of(root, "test")[0].max() == 1


@pytest.mark.parametrize(
    ("kind", "values"), [("8 bits", "0 and 255"), ("1 bit", "0 and 255"), ("16 bits", "0 and 255"), ("empty", "0")]
)
def test_masks_of_background_and_void_alone_are_refused_with_their_values(foxes, kind, values):
    root = foxes(BLACK_AND_WHITE.get(kind, lambda mask: Image.fromarray(mask * 0)), "background\nfox\nhare\n")
    for split in ("train", "test"):
        with pytest.raises(UserError, match=f"hold only {values};.*no pixel is fox or hare.*classes.txt"):
            list_samples(root, split)


def test_a_class_without_a_pixel_in_training_is_named(foxes, capsys):
    root = foxes(names="background\nfox\nhare\n")
    SegmentationDataset(root, "train", 16)
    assert "no pixel is hare in the training masks" in capsys.readouterr().out
    SegmentationDataset(root, "test", 16)
    assert "hare" not in capsys.readouterr().out


def test_a_first_class_of_another_name_is_announced(foxes, capsys):
    list_samples(foxes(names="hare\nfox\n"), "train")
    assert "id 0 is hare: there is no background" in capsys.readouterr().out


# ------------------------------------------------------------------------------------------- ids of any depth


def read_one(tmp_path: Path, image: Image.Image, classes=FOX, suffix: str = ".png", **options) -> np.ndarray:
    file = tmp_path / f"mask{suffix}"
    image.save(file, **options)
    return read_mask(Sample("mask", file, file, classes=classes))


ID_MASKS = {
    "16 bits": (lambda mask: Image.fromarray(mask.astype(np.uint16)), ".png"),
    "16 bits, white": (lambda mask: Image.fromarray(np.where(mask == VOID, 65535, mask).astype(np.uint16)), ".png"),
    "32 bits": (lambda mask: Image.fromarray(mask.astype(np.int32)), ".tif"),
    "floating point": (lambda mask: Image.fromarray(mask.astype(np.float32)), ".tif"),
    "RGB": (lambda mask: Image.fromarray(mask).convert("RGB"), ".png"),
}


@pytest.mark.parametrize("kind", ID_MASKS)
def test_ids_may_be_stored_in_any_depth(tmp_path, kind):
    classes = named([f"c{i}" for i in range(8)])
    mask = np.array([[0, 7, 7], [5, VOID, 2]], np.uint8)
    to_image, suffix = ID_MASKS[kind]
    np.testing.assert_array_equal(read_one(tmp_path, to_image(mask), classes, suffix), mask)


@pytest.mark.parametrize(("bits", "white"), [(4, 15), (2, 3)])
def test_ids_of_4_and_2_bits_are_not_multiplied(tmp_path, bits, white):
    mask = np.array([[0, 1, 2, white], [2, 2, 1, 0]], np.uint8)
    texts = ["".join(f"{value:0{bits}b}" for value in row) for row in mask]  # 4 values: a whole number of bytes
    file = tmp_path / "mask.png"
    write_png(file, 4, bits, 0, [int(text, 2).to_bytes(len(text) // 8, "big") for text in texts])
    found = read_mask(Sample("mask", file, file, classes=named([f"c{i}" for i in range(20)])))
    np.testing.assert_array_equal(found, np.where(mask == white, VOID, mask))


def write_png(path: Path, width: int, bits: int, colour_type: int, rows: list[bytes]) -> None:
    """A PNG of a kind that Pillow does not write. colour_type: 0 grey, 2 RGB."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, len(rows), bits, colour_type, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b""))


def test_the_hidden_colour_of_transparent_pixels_is_no_class(tmp_path):
    mask = np.zeros((4, 6, 4), np.uint8)
    mask[:2] = (*PETS.colours[1], 255)
    np.testing.assert_array_equal(read_one(tmp_path, Image.fromarray(mask), PETS)[:, 0], [1, 1, 0, 0])
    for hidden in ((255, 255, 255), PETS.colours[2]):
        mask[2:] = (*hidden, 0)
        with pytest.raises(UserError, match="mask.png has transparent pixels"):
            read_one(tmp_path, Image.fromarray(mask), PETS)


def test_a_palette_of_other_classes_is_not_read_by_those_colours_that_happen_to_fit(tmp_path):
    camvid = palette([128, 128, 128, 128, 0, 0, 192, 192, 128, 128, 64, 128, 128, 128, 0])  # sky, building, ..., tree
    classes = named([f"c{i}" for i in range(11)])  # with VOC's colours, among them those of sky, building and tree
    with pytest.raises(UserError, match="mask.png: its palette has colours of other classes.*in classes.txt"):
        read_one(tmp_path, camvid(np.array([[0, 1, 4]], np.uint8)), classes)
    everything = np.array([[0, 1, 2, 3, 4]], np.uint8)
    np.testing.assert_array_equal(read_one(tmp_path, camvid(everything), classes), everything)


def test_white_in_a_palette_of_ids_is_an_id_in_every_mask(tmp_path):
    draw = palette([0, 0, 0, 255, 255, 255, 255, 0, 0])
    for mask in (np.where(np.eye(12, 16, dtype=bool), 2, IDS).astype(np.uint8), IDS):  # red is not in the second
        draw(mask).save(tmp_path / "a.png")
        assert np.array_equal(read_mask(Sample("a", None, tmp_path / "a.png")), mask)


def test_the_grey_of_a_palette_counts_where_it_is_an_id(tmp_path):
    image = palette([0, 0, 0, 1, 1, 1, 255, 255, 255])(IDS * 2)  # 0, 1 and void
    assert read_one(tmp_path, image, named(("a", "b", "c"))).max() == VOID


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([[0, 256]], np.uint16), "unknown mask values 256"),
        (np.array([[-1, 1]], np.int32), "unknown mask values -1"),
        (np.array([[0, np.nan, np.inf]], np.float32), "unknown mask values inf, nan"),
    ],
)
def test_values_that_are_no_ids_are_never_cut_to_fit(tmp_path, values, message):
    with pytest.raises(UserError, match=f"mask.tif: {message}"):
        read_one(tmp_path, Image.fromarray(values), suffix=".tif")


def test_a_jpeg_is_no_mask(tmp_path):
    with pytest.raises(UserError, match="mask.png is a JPEG.*PNG"):
        read_one(tmp_path, Image.fromarray(IDS * 255), format="JPEG")


# ------------------------------------------------------------------------------------------- pictures of any range

RAMP = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
RANGES = {
    "0..1": RAMP,
    "-1..1": RAMP * 2 - 1,
    "beyond 16 bits": RAMP * 1e6,
    "12 of 16 bits": (RAMP * 4095).astype(np.uint16),
    "16 bits, the other way round": (RAMP * 65535).astype(">u2"),
    "negative integers": (RAMP * 3000).astype(np.int32) - 1000,
}


@pytest.mark.parametrize("kind", RANGES)
def test_pictures_of_any_number_type_keep_their_shades(tmp_path, kind):
    Image.fromarray(RANGES[kind]).save(tmp_path / "a.tif")
    assert np.abs(read_image(tmp_path / "a.tif")[..., 0] - np.floor(RAMP * 255)).max() <= 1.5


def test_pixels_that_are_no_number_are_black_and_do_not_darken_the_others(tmp_path):
    values = RAMP.copy()
    values[0, 0], values[0, 1], values[1, 1] = np.nan, -np.inf, np.inf
    Image.fromarray(values).save(tmp_path / "a.tif")
    image = read_image(tmp_path / "a.tif")[..., 0]
    assert image[0, :2].tolist() == [0, 0] and image[1, 1] == image[2, 3] == 255


# ------------------------------------------------------------------------------------------- names


def test_what_pillow_opens_is_a_picture_and_what_a_system_hides_is_nothing(tmp_path):
    hidden = ["._a.jpg", ".DS_Store", "Thumbs.db", "desktop.ini"]
    pictures = ["a.JFIF", "b.avif", "c.mpo", "d.jp2", "e.jpe", "f.jpg", "g.tga", "h.webp"]
    others = ["i.heic", "j.txt", "k.pdf", "l.mpg", "m.eps", "n.h5", "o"]
    for name in hidden + pictures + others:
        (tmp_path / name).touch()
    (tmp_path / "folder.jpg").mkdir()
    assert [file.name for file in list_pictures(tmp_path)] == pictures
    assert skipped(tmp_path) == f"skipped in {tmp_path}: i.heic, j.txt, k.pdf, l.mpg, m.eps and 2 more"


def test_predict_names_what_it_skips_in_a_folder(tmp_path, monkeypatch, capsys):
    for name in ("a.jpg", "b.heic", "._a.jpg"):
        (tmp_path / name).touch()
    for name in ("find_row", "load_row"):
        monkeypatch.setattr(predict, name, lambda *arguments, **options: None)
    monkeypatch.setattr(predict, "segment_files", lambda row, names, *rest: print(*names.values()) or [])
    assert predict.main([str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines() == ["a", f"skipped in {tmp_path}: b.heic"]


def test_a_data_set_passes_over_hidden_files_and_names_what_else_it_skips(foxes, capsys):
    root = foxes()
    for folder in ("images", "masks"):
        for name in ("._train0.png", ".DS_Store"):
            (root / "train" / folder / name).write_bytes(b"\0\5\x16\7")
    assert len(list_samples(root, "train")) == 2 and capsys.readouterr().out == ""
    (root / "train" / "images" / "train1.png").rename(root / "train" / "images" / "train1.heic")
    assert len(list_samples(root, "train")) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "skipped" in line and "train1.heic" in line]
    assert [line for line in lines if "without a picture" in line and "train1.png" in line]


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_may_be_written_in_two_ways(foxes, forms):
    picture, mask = (unicodedata.normalize(form, "é") for form in forms)
    root = foxes()
    for folder, name in (("images", picture), ("masks", mask)):
        (root / "train" / folder / "train0.png").rename(root / "train" / folder / f"{name}.png")
    assert {sample.mask.stem for sample in list_samples(root, "train")} == {mask, "train1"}


@pytest.mark.parametrize(
    "name", ["a.PNG", "a.tif", "a.gif", "a.png.png", "a_mask.png", "mask_a.png", "a_Label.PNG", "A.png", "a_seg.tif"]
)
def test_a_mask_of_a_similar_name_is_taken(tmp_path, name):
    folder = tmp_path / "test"
    write_pair(folder, "b", MASK)
    mask = write_pair(folder, "a", MASK)
    Image.open(mask).save(folder / "masks" / "new.tmp", format=Image.registered_extensions()[Path(name).suffix.lower()])
    mask.unlink()
    (folder / "masks" / "new.tmp").rename(folder / "masks" / name)
    samples = list_samples(tmp_path, "test")
    assert [sample.mask.name for sample in samples] == [name, "b.png"]


def test_of_several_masks_none_is_taken(tmp_path):
    mask = write_pair(tmp_path / "test", "a", MASK)
    shutil.copy(mask, mask.with_name("a_mask.png"))
    shutil.copy(mask, mask.with_name("a.tif"))
    assert list_samples(tmp_path, "test")[0].mask == mask, "the name itself"
    mask.rename(mask.with_name("a_label.png"))
    mask.with_name("a.tif").unlink()
    with pytest.raises(UserError, match="a.png has several masks.*a_label.png.*a_mask.png"):
        list_samples(tmp_path, "test")


def test_a_mask_belongs_to_one_picture(tmp_path):
    write_pair(tmp_path / "test", "a", MASK)
    images = tmp_path / "test" / "images"
    Image.open(images / "a.png").save(images / "a.jpg")
    with pytest.raises(UserError, match="a.png is the mask of .*a.jpg and of .*a.png"):
        list_samples(tmp_path, "test")


def test_where_a_mask_is_missing_the_message_says_what_is_there(tmp_path):
    for name in ("a", "b"):
        write_pair(tmp_path / "test", name, MASK).rename(tmp_path / "test" / "masks" / f"{name}_final2.png")
    with pytest.raises(UserError, match="a.png is missing.*a_final2.png, b_final2.png"):
        list_samples(tmp_path, "test")


# ------------------------------------------------------------------------------------------- layouts


def test_images_and_masks_alone_are_a_data_set_without_a_test_split(tmp_path):
    for index in range(12):
        write_pair(tmp_path, f"{index:02}", MASK)
    names = {split: [s.name for s in list_samples(tmp_path, split)] for split in ("train", "val", "trainval")}
    assert names["val"] == ["00", "10"] and len(names["train"]) == 10 and len(names["trainval"]) == 12
    with pytest.raises(UserError, match="no test split.*test/images.*test/masks"):
        list_samples(tmp_path, "test")
    write_pair(tmp_path / "test", "a", MASK)
    assert len(list_samples(tmp_path, "test")) == 1 and len(list_samples(tmp_path, "trainval")) == 12


def test_validation_may_have_a_longer_name(foxes):
    root = foxes()
    (root / "val").rename(root / "valid")
    assert [sample.name for sample in list_samples(root, "val")] == ["val0", "val1"]


@pytest.mark.parametrize(
    ("pictures", "masks"), [("images", "labels"), ("img", "mask"), ("train", "train"), ("images/train", "masks")]
)
def test_other_layouts_are_refused_with_what_is_there_and_the_layout_to_make(tmp_path, pictures, masks):
    for folder, suffix in ((pictures, "jpg"), (masks, "png")):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        Image.fromarray(IDS).save(tmp_path / folder / f"a.{suffix}")
    with pytest.raises(UserError) as error:
        list_samples(tmp_path, "train")
    text = str(error.value)
    assert "train/" in text if "/" in pictures else "a.jpg" in text and "a.png" in text
    assert "images" in text and "masks" in text


def deep_png(path: Path, values: np.ndarray) -> None:
    """A PNG with colours of 16 bits; values: (H, W, 3)."""
    write_png(path, values.shape[1], 16, 2, [row.astype(">u2").tobytes() for row in values])


def test_colours_of_16_bits_are_read_if_they_fill_their_range_and_refused_in_masks(tmp_path):
    file = tmp_path / "deep.png"
    deep_png(file, np.full((2, 3, 3), 128 * 257))
    assert (read_image(file) == 128).all()
    with pytest.raises(UserError, match="deep.png has colours of 16 bits"):
        read_mask(Sample("deep", file, file, classes=FOX))
    deep_png(file, np.full((2, 3, 3), 200))
    with pytest.raises(UserError, match="deep.png.*values below 4096"):
        read_image(file)
