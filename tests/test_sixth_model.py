"""A row of one's own: README's "Add a model" to the letter, and an encoder of one's own with train_clip.py --ROW."""

import csv
import re
import shutil
import subprocess

import numpy as np
import pytest
from conftest import REPOSITORY, readme_code, script_environment, start
from PIL import Image

pytestmark = pytest.mark.slow
SMALL = ("--IMAGE_SIZE=32", "--SMALL_SIZE=32", "--WIDTH=8", "--EPOCHS=15", "--BATCH_SIZE=7", "--EMA_DECAY=0.9")


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the repository in which the section was followed."""
    target = tmp_path_factory.mktemp("clone") / "repository"
    left_out = (".git", ".venv", "cache", "synthetic", "checkpoints", "results", "images", "predictions")
    shutil.copytree(REPOSITORY, target, ignore=shutil.ignore_patterns(*left_out))
    model, training_script, line = readme_code("Add a model")
    (target / "models" / "tinynet.py").write_text(model)
    subprocess.run(["bash", "-c", training_script], cwd=target, check=True)
    rows = target / "utils" / "rows" / "__init__.py"
    before, declared, after = re.fullmatch(r"(.*\nROWS = \(\n)(.*?)(\n\)\n.*)", rows.read_text(), re.DOTALL).groups()
    rows.write_text(f"{before}{declared}\n{line.rstrip()}{after}")
    return target


@pytest.fixture(scope="module")
def run(copy, oxford_root):
    def run(script: str, *options: str) -> str:
        environment = script_environment(PYTHONPATH=str(copy), HF_HUB_OFFLINE="1", PETS_ROOT=str(oxford_root))
        done = start(script, options, copy, environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="module")
def trained(run):
    run("train_tinynet.py", *SMALL)
    run("train_unet.py", *SMALL, "--DEPTH=3", "--EPOCHS=2")


def test_a_sixth_model_is_trained_scored_drawn_and_predicts(copy, run, trained, oxford_root):
    table = run("evaluate.py", "--FLIP=True")
    assert table.count("| TinyNet ") == 2 and "train_autoencoder.py" in table
    with open(copy / "results" / "results.csv") as file:
        lines = [line for line in csv.DictReader(file) if line["model"] == "TinyNet"]
    assert [line["flip"] for line in lines] == ["0", "1"] and float(lines[0]["miou"]) > 0.35
    run("experiments.clicks", "--ROWS=TinyNet look-up", "--PICTURES=3")
    assert "wrote images/curves.png" in run("experiments.figures", "--ONLY=curves")
    run("experiments.errors")
    for name in ("results", "confusion", "clicks", "curves", "breeds"):
        assert np.array(Image.open(copy / "images" / f"{name}.png").convert("L")).std() > 10, name
    picture = next((oxford_root / "images").glob("*.jpg"))
    assert "predictions/masks" in run("predict.py", str(picture), "--MODEL=tinynet")


def test_an_encoder_of_ones_own_is_a_row_beside_clips(copy, run, trained, tiny_clip_folder, oxford_root):
    small = ("--IMAGE_SIZE=32", "--VIEW_SIZE=32", "--WIDTHS=8,8,8,16", "--EPOCHS=1", "--BATCH_SIZE=8")
    run("train_clip.py", *small, f"--ENCODER={tiny_clip_folder}", "--ROW=My DINOv2")
    run("train_pointclip.py", *small, "--ROW=Pointed DINOv2", "--START=My DINOv2")
    assert not (copy / "checkpoints" / "clip").exists()
    table = run("evaluate.py", "--RESULTS=own")
    assert all(f"| {name} " in table for name in ("My DINOv2", "Pointed DINOv2", "CLIP"))
    with open(copy / "own" / "results.csv") as file:
        names = [line["model"] for line in csv.DictReader(file)]
    assert names == ["UNET", "TinyNet", "My DINOv2", "Pointed DINOv2"]
    picture = str(next((oxford_root / "images").glob("*.jpg")))
    run("predict.py", picture, "--MODEL=my dinov2")
    assert "expected IoU" in run("predict.py", picture, "--MODEL=Pointed DINOv2", "--POINT=20,20")
    with pytest.raises(AssertionError, match="ROW = 'unet'"):
        run("train_clip.py", *small, "--ROW=unet")
