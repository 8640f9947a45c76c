"""Classes come from the data: classes.txt, masks in its colours, and the whole road with two, three and six classes."""

import json
from types import ModuleType

import numpy as np
import pytest
from conftest import run_here
from PIL import Image

import evaluate
import predict
import train_autoencoder
import train_clip
import train_pointclip
import train_unet
from data import prepare
from data.folder_layout import write_classes
from experiments import clicks, errors, figures, robustness
from utils import checkpoint
from utils.classes import PETS, VOID, named, read_classes, require_same, voc_colour
from utils.errors import UserError
from utils.files import read_csv
from utils.inputs.layouts import Sample, data_name, list_samples
from utils.inputs.pictures import read_mask


def test_names_may_have_spaces_colours_are_optional_and_without_a_file_it_is_the_pets(tmp_path):
    assert read_classes(tmp_path) == PETS == named(("background", "cat", "dog"), ((0, 0, 0), (128, 0, 0), (0, 128, 0)))
    (tmp_path / "classes.txt").write_text("background\n\npotted plant 10, 20,30 \nhare\n")
    classes = read_classes(tmp_path)
    assert classes.names == ("background", "potted plant", "hare") and classes.things == ("potted plant", "hare")
    assert classes.colours == ((0, 0, 0), (10, 20, 30), (0, 128, 0))
    assert classes.palette[np.array([[1, 2, VOID]])].tolist() == [[[10, 20, 30], [0, 128, 0], [255, 255, 255]]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("background\n", "lists 1 classes"),
        ("\n".join(f"c{i}" for i in range(256)), "lists 256 classes"),
        ("background\ncat\ncat\n", "'cat': a class before it has this name"),
        ("k\u00e4t\nka\u0308t\n", "'k\u00e4t': a class before it has this name"),
        ("background\na 1,2,3\nb 1,2,3\n", "'b 1,2,3': a class before it has this .*colour"),
        ("background\na 255,255,255\n", "it is void's white"),
    ],
)
def test_a_list_that_makes_no_sense_is_refused_with_its_line(tmp_path, text, message):
    (tmp_path / "classes.txt").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=f"classes.txt.*{message}"):
        read_classes(tmp_path)


ODD = "a 300,0,0 / 0,0,7 / #1 / cat # comment / cat // comment / - cat / cat,dog / cat: / cat: 1 / cat 128 / 2 cat"
ODD += ' / cat 0 9 9 255 / cat,0,9,9,255 / cat 0.5 0 0 / cat|9|8|7 / "cat",9,8,7 / cat: 9,8,7 / 1 -> cat / cat 9 8 7'


@pytest.mark.parametrize("line", ODD.split(" / "))
def test_a_line_of_another_form_is_refused_and_never_guessed(tmp_path, line):
    for first in ("background", "0 background"):
        (tmp_path / "classes.txt").write_text(f"{first}\n{line}\n")
        with pytest.raises(UserError, match="classes.txt: .* is no class; write its name, or name and colour"):
            read_classes(tmp_path)


HEADER = "# label:color_rgb:parts:actions\n"


@pytest.mark.parametrize(
    "text",
    [
        "# my classes\n#\nbackground\n\ncat 9,8,7\n",
        "background,0,0,0\ncat,9,8,7\n",
        "background\t0,0,0\ncat\t9,8,7\n",
        HEADER + "background:0,0,0::\ncat:9,8,7:head,tail:walks\n",
        HEADER + "background:::\ncat:9,8,7::\n",
        "0: background\n1: cat 9,8,7\n",
        "0 background\n1 cat 9,8,7\n",
        "0,background,0,0,0\n1,cat,9,8,7\n",
    ],
)
@pytest.mark.parametrize("file", ["classes.txt", "labelmap.txt", "Classes.txt"])
def test_lists_of_classes_are_read_in_every_form_with_one_meaning(tmp_path, text, file):
    (tmp_path / file).write_text(text)
    assert read_classes(tmp_path) == named(("background", "cat"), ((0, 0, 0), (9, 8, 7)))


def test_written_names_are_read_again_or_refused(tmp_path):
    names = ("background", "0", "1", "boeing 747", "cat, tame", "cat # 2", "vehicle:car", "3 legged stool")
    write_classes(names, tmp_path)
    assert read_classes(tmp_path).names == names
    for odd in ("# 1", "'cat'", "- x", "cat:"):
        with pytest.raises(UserError, match=f"classes.txt cannot hold .*: {odd}$"):
            write_classes(("background", "dog", odd), tmp_path)
    with pytest.raises(UserError, match="classes.txt cannot hold .*: 0 background, 1 cat$"):
        write_classes(("0 background", "1 cat"), tmp_path)
    assert read_classes(tmp_path).names == names


def test_masks_are_ids_palettes_or_the_colours_of_the_file(tmp_path):
    classes = named([f"c{i}" for i in range(255)])
    ids = np.array([[0, 38, 254], [5, VOID, 1]], np.uint8)
    palette = Image.fromarray(ids)
    palette.putpalette(classes.palette.flatten().tolist())
    pictures = {"ids": Image.fromarray(ids), "palette": palette, "colours": Image.fromarray(classes.palette[ids])}
    for name, picture in pictures.items():
        picture.save(tmp_path / f"{name}.png")
        assert np.array_equal(read_mask(Sample(name, None, tmp_path / f"{name}.png", classes=classes)), ids)
    few = named(("background", "a"))
    with pytest.raises(UserError, match=r"ids.png: unknown mask values \[5, 38, 254\]; known are \[0, 1, 255\]"):
        read_mask(Sample("ids", None, tmp_path / "ids.png", classes=few))
    with pytest.raises(UserError, match=r"colours.png: .*0,128,192.* known are those of background, a"):
        read_mask(Sample("colours", None, tmp_path / "colours.png", classes=few))


def test_a_data_set_is_called_what_its_record_says(oxford_root, tmp_path):
    assert data_name(oxford_root) == "Oxford-IIIT Pet"
    (tmp_path / "mine" / "train").mkdir(parents=True)
    assert data_name(tmp_path / "mine") == "mine"
    (tmp_path / "mine" / "data.json").write_text(json.dumps({"name": "VOC 2012"}))
    assert data_name(tmp_path / "mine") == "VOC 2012"
    (tmp_path / "mine" / "data.json").write_text("[]")
    with pytest.raises(UserError, match="data.json"):
        data_name(tmp_path / "mine")


def test_species_need_three_classes(oxford_copy):
    (oxford_copy / "classes.txt").write_text("background\nfox\n")
    with pytest.raises(UserError, match="trimaps with species have three classes"):
        list_samples(oxford_copy, "test")


def test_checkpoints_keep_their_classes_and_older_ones_have_the_usual_colours():
    assert checkpoint.classes_of({"classes": ("background", "cat", "dog")}) == PETS
    foxes = named(("background", "fox"), ((0, 0, 0), (9, 9, 9)))
    assert checkpoint.classes_of({"classes": foxes.names, "colours": foxes.colours}) == foxes
    with pytest.raises(UserError, match="(?s)best.pt was trained on other.*background, fox.*background, cat, dog"):
        require_same(foxes, PETS, "best.pt", "data/pets")
    require_same(named(PETS.names, ((0, 0, 0), (1, 1, 1), (2, 2, 2))), PETS, "best.pt", "data/pets")  # other colours


# ------------------------------------------------------------------------------------------------ the whole road

UNET = ("--IMAGE_SIZE=64", "--SMALL_SIZE=64", "--WIDTH=8", "--DEPTH=4", "--EPOCHS=2", "--BATCH_SIZE=8")
CLIP = ("--ENCODER=tiny", "--IMAGE_SIZE=64", "--VIEW_SIZE=64", "--WIDTHS=8,8,8,16", "--EPOCHS=2")


@pytest.mark.slow
@pytest.mark.parametrize("things", [("bird",), ("cat", "dog", "rabbit", "bird")])
def test_the_whole_road_with_other_classes(oxford_root, tmp_path, monkeypatch, capsys, things):
    root, names = tmp_path / "drawn", ("background", *things)
    monkeypatch.chdir(tmp_path)

    def run(script: ModuleType, *options: object) -> str:
        run_here(script, *map(str, options))
        return capsys.readouterr().out

    drawn = f"--CLASSES={','.join(things)}", f"--SYNTHETIC_ROOT={root}", "--TRAIN_PICTURES=30", "--TEST_PICTURES=10"
    run(prepare, "--SYNTHETIC=True", *drawn)
    data = f"--DATA_ROOT={root}"
    line = next(line for line in run(train_unet, data, *UNET).splitlines() if line.startswith("epoch 1/"))
    assert all(f"  iou_{name} " in line for name in things)
    run(train_autoencoder, data, *UNET, "--PRETRAIN_EPOCHS=1")
    run(train_clip, data, *CLIP)
    run(train_pointclip, data, *CLIP)

    table = run(evaluate, data)
    assert all(f"IoU {name}" in table for name in things) and "IoU background" not in table
    lines = read_csv("results/results.csv")
    assert [line["model"] for line in lines] == ["UNET", "Autoencoder", "CLIP", "PointCLIP"]
    assert [key for key in lines[0] if key[:4] == "iou_"] == [f"iou_{name}" for name in names]
    pictures = [line for line in read_csv("results/per_image.csv") if line["model"] == "UNET"]
    assert len(pictures) == 10
    run_here(errors)
    run(robustness, data, "--PICTURES=3", "--LEVELS=0,9")
    run(clicks, data, "--ROWS=PointCLIP,UNET look-up,disk", "--PICTURES=3")
    run(figures, data)
    for name in ("results", "confusion", "clicks", "robustness", "data", "curves"):
        assert np.array(Image.open(tmp_path / "images" / f"{name}.png").convert("L")).std() > 5, name

    picture = next((root / "test" / "images").iterdir())
    run(predict, picture)
    assert set(np.unique(Image.open(f"predictions/masks/{picture.stem}.png"))) <= set(range(len(names)))
    assert "expected IoU" in run(predict, picture, "--POINT=30,30")
    content = checkpoint.load(tmp_path / "checkpoints" / "unet" / "best.safetensors")
    assert tuple(content["classes"]) == names
    assert checkpoint.classes_of(content).colours == tuple(map(voc_colour, range(len(names))))

    with pytest.raises(UserError, match="no row in .* could be scored"):
        run_here(evaluate, f"--DATA_ROOT={oxford_root}", "--ROWS=UNET")
    printed = capsys.readouterr().out
    assert str(named(names)) in printed and str(PETS) in printed


@pytest.mark.slow
def test_six_classes_without_background_are_classes_like_any_other(oxford_root, tmp_path, monkeypatch, capsys):
    """As in CamVid: id 0 is counted, shown and drawn, a table has a line per class, an epoch names the lowest."""
    monkeypatch.chdir(tmp_path)
    root, names = tmp_path / "street", ("sky", "road", "car", "tree", "pole", "sign")
    rng = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for kind in ("images", "masks"):
            (root / split / kind).mkdir(parents=True)
        for number in range(8):
            mask = rng.integers(0, 6, (4, 5), np.uint8).repeat(12, 0).repeat(12, 1)
            Image.fromarray(mask).save(root / split / "masks" / f"{number}.png")
            Image.fromarray(np.stack([mask * 40] * 3, -1)).save(root / split / "images" / f"{number}.png")
    (root / "classes.txt").write_text("\n".join(names))
    run_here(train_unet, f"--DATA_ROOT={root}", *UNET)
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch 1/"))
    assert sum(f"  iou_{name} " in line for name in names) == 1  # the lowest
    run_here(evaluate, f"--DATA_ROOT={root}")
    table = capsys.readouterr().out
    assert all(f"| {name} " in table for name in names) and "IoU sky" not in table
    (tmp_path / "README.md").write_text("<!-- errors street -->\n<!-- /errors street -->\n")
    run_here(errors, "--README=README.md")
    titles, _, cells = (line.split("|")[1:-1] for line in (tmp_path / "README.md").read_text().splitlines()[1:4])
    row = {title.strip(): cell.strip() for title, cell in zip(titles, cells, strict=True)}
    wrong = 1 - float(read_csv("results/results.csv")[0]["pixel_accuracy"])
    assert float(row["another class"].rstrip("%")) == pytest.approx(100 * wrong, abs=0.02)
    assert row["missed"] == row["false positive"] == "–"
    run_here(predict, root / "test" / "images" / "0.png", "--PRECISION=fp32")
    ids = np.array(Image.open("predictions/masks/0.png"))
    tinted, plain = (
        np.array(Image.open(path).convert("RGB"))
        for path in ("predictions/overlays/0.png", root / "test" / "images" / "0.png")
    )
    assert (tinted != plain).any(-1)[ids > 0].mean() > 0.9 and "nothing found" not in capsys.readouterr().out
    for option in ("--ZOOM=True", "--PASTE=0.5"):
        with pytest.raises(UserError, match="id 0 is sky, not background: set ZOOM = False and PASTE = 0"):
            run_here(train_clip, f"--DATA_ROOT={root}", *CLIP, option)
