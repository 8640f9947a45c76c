"""The checkpoints that come with the repository: they are what they should be, and know a cat when they see one."""

import hashlib
import os
import subprocess

import numpy as np
import pytest
import torch
from conftest import REPOSITORY, run_here
from PIL import Image, ImageDraw

import predict
from utils import checkpoint
from utils.classes import PETS
from utils.errors import UserError
from utils.inputs.pictures import read_image
from utils.rows import load_row
from utils.rows.row import Row

CPU = torch.device("cpu")
FOLDER = REPOSITORY / "checkpoints"
CAT = REPOSITORY / "images" / "examples" / "cat.jpg"  # a cat's face, 300 x 451 pixels
# of the cat, x and y in pixels, drawn by hand
OUTLINE = [(40, 0), (33, 30), (31, 90), (28, 108), (12, 120), (0, 125), (0, 300), (385, 300), (383, 270), (370, 240)]
OUTLINE += [(345, 215), (325, 205), (345, 190), (358, 150), (362, 125), (354, 95), (357, 75), (375, 50), (398, 0)]
SHIPPED = {name: name for name in ("unet", "autoencoder", "clip", "pointclip")} | {"clip_finetuned": "clip"}
SUMS = dict(reversed(line.split("  ")) for line in (FOLDER / "SHA256SUMS").read_text().splitlines())


def committed(name: str) -> bytes:
    """A file of checkpoints/ as it is in the repository, for a new training replaces the one in the folder."""
    show = ["git", "-C", str(REPOSITORY), "show"]
    if (first := subprocess.run([*show, ":checkpoints/SHA256SUMS"], capture_output=True)).returncode:
        pytest.skip(f"not a clone: {first.stderr.decode().strip()}")
    return subprocess.run([*show, f":checkpoints/{name}"], capture_output=True, check=True).stdout


def row(name: str) -> Row:
    """The row from its shipped checkpoint, with an encoder that lies on this machine."""
    try:
        return load_row(name, FOLDER, CPU)
    except UserError as error:
        assert name == "CLIP", error
        pytest.skip(f"its encoder is not on this machine: {error}")


def test_the_checksum_file_names_every_checkpoint_and_its_content():
    assert sorted(os.path.dirname(name) for name in SUMS) == sorted(SHIPPED)
    contents = {name: committed(name) for name in SUMS}
    assert {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()} == SUMS
    sizes = [len(content) / 2**20 for content in contents.values()]
    assert max(sizes) <= 25 and sum(sizes) <= 64


@pytest.mark.parametrize("name", SHIPPED)
def test_a_checkpoint_holds_half_precision_weights_and_no_path_of_the_machine_that_made_it(name, tmp_path):
    (file,) = (file for file in SUMS if os.path.dirname(file) == name)
    copy = tmp_path / os.path.basename(file)
    copy.write_bytes(committed(file))
    content = checkpoint.load(copy)
    assert content["model"] == SHIPPED[name] and checkpoint.classes_of(content) == PETS
    floats = [value for value in content["weights"].values() if value.is_floating_point() and value.ndim > 1]
    assert {value.dtype for value in floats} == {torch.float16}
    texts = map(str, content["constants"].values())
    assert not any(os.sep == text[:1] or ".." in text for text in texts)
    assert any(key.startswith("encoder.") for key in content["weights"]) == (name not in ("clip", "pointclip"))


@pytest.mark.parametrize(
    ("name", "iou"), [("UNET", 0.93), ("Autoencoder", 0.93), ("CLIP", 0.95), ("CLIP fine-tuned", 0.96)]
)
def test_the_cat_is_a_cat_where_an_outline_drawn_by_hand_has_it(name, iou):
    truth = Image.new("1", (451, 300))
    ImageDraw.Draw(truth).polygon(OUTLINE, fill=1)
    cat, ids = np.array(truth), row(name).segment(read_image(CAT)).ids
    assert (cat & (ids == 1)).sum() / (cat | (ids == 1)).sum() > iou
    assert (ids[60:260, 140:320] == 1).mean() > 0.9  # the face
    assert (ids == 2).mean() < 0.01
    assert (ids[:, 410:] == 0).mean() > 0.9  # the right edge


def test_one_click_on_the_face_gives_the_cat_and_one_beside_it_the_rest():
    segment = row("PointCLIP").open(read_image(CAT))
    cat, rest = (segment([click], "").ids for click in ((230, 170, 1), (430, 60, 1)))
    assert cat[60:260, 140:320].mean() > 0.9 and cat[:, 410:].mean() < 0.1
    assert rest[:, 410:].mean() > 0.9 and rest[60:260, 140:320].mean() < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("question", [(), ("--POINT=230,170",)], ids=["class", "click"])
def test_predict_needs_neither_network_nor_cache(tmp_path, monkeypatch, question):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    run_here(predict, str(CAT), f"--CHECKPOINTS={FOLDER}", *question)
    mask = np.array(Image.open(tmp_path / "predictions" / "masks" / "cat.png"))
    assert (mask[60:260, 140:320] == 1).mean() > 0.9 and (mask[:, 410:] == 0).mean() > 0.9
