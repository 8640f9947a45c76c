"""The table in one command: every row by its recipe, from where it was stopped."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY, run_here, script_environment

import train_clip
import train_pointclip
from data.drawing.dataset import write_drawings
from experiments import table
from utils.checkpoint import load
from utils.errors import UserError
from utils.files import read_csv

SMALL = ("--IMAGE_SIZE=32", "--VIEW_SIZE=32", "--EPOCHS=1", "--WIDTHS=4,8,8,16")


def test_every_recipe_trains_and_its_row_is_known_as_made_by_it(oxford_root, tiny_clip_folder, tmp_path, monkeypatch):
    places = (f"--DATA_ROOT={oxford_root}", f"--CHECKPOINTS={tmp_path}", *SMALL)
    recipes = sorted(path.name for path in (REPOSITORY / "recipes").glob("*.py"))
    of_rows = [Path(recipe).name for recipe, _ in table.RECIPES.values() if recipe]
    assert recipes == sorted([*of_rows, "own_classes.py"])
    monkeypatch.setattr(table, "CHECKPOINTS", str(tmp_path))
    monkeypatch.setattr(table, "OPTIONS", [*(option[2:] for option in SMALL), f"ENCODER={tiny_clip_folder}"])
    run_here(train_clip, str(REPOSITORY / "recipes/deit_tiny.py"), f"--ENCODER={tiny_clip_folder}", *places)
    monkeypatch.setattr(table, "DATA_ROOT", str(oxford_root))
    assert table.is_made("CLIP") and not table.is_made("CLIP fine-tuned")
    write_drawings(tmp_path / "drawn", '{"name": "drawn"}', ("cat", "dog"), 2, 1, (64, 80), 0)
    monkeypatch.setattr(table, "DATA_ROOT", str(tmp_path / "drawn"))
    assert not table.is_made("CLIP")  # trained on other data
    monkeypatch.setattr(table, "DATA_ROOT", str(oxford_root))
    again = (str(REPOSITORY / "recipes/clip_finetuned.py"), f"--ENCODER={tiny_clip_folder}", *places)
    run_here(train_clip, *again, "--ZOOM=False")
    assert not table.is_made("CLIP fine-tuned")  # its last step is missing
    run_here(train_clip, *again)
    assert table.is_made("CLIP fine-tuned")
    own = (str(REPOSITORY / "recipes/own_classes.py"), "--START=clip_finetuned", "--EPOCH_STEPS=2", "--ROW=Own")
    run_here(train_clip, *own, *places)
    run_here(train_pointclip, *places)
    assert load(tmp_path / "Own")["constants"]["RECIPE"] == "own_classes"
    content = load(tmp_path / "clip_finetuned")
    assert content["constants"]["RECIPE"] == "clip_finetuned" and content["constants"]["PASTE"] == 0.3
    assert content["minutes"] > 0 and load(tmp_path / "pointclip")["encoder_from"] == "clip_finetuned"
    monkeypatch.setattr(table, "OPTIONS", [option[2:] for option in SMALL])
    assert table.is_made("PointCLIP")
    run_here(train_clip, *again, "--SEED=1")
    assert not table.is_made("PointCLIP")  # its encoder was trained again
    monkeypatch.setattr(table, "run", lambda script, *options: commands.append(options))
    commands = []
    table.train("PointCLIP")
    assert "--RESUME=True" not in commands[0]
    with pytest.raises(UserError, match="OPTIONS = EPOCH=1: must be KEY=value"):
        run_here(table, "--VOC=", "--OPTIONS=EPOCH=1")


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_the_table_is_made_by_one_command_that_goes_on_where_it_was_stopped(oxford_root, tmp_path):
    left_out = shutil.ignore_patterns(".*", "__pycache__", "checkpoints", "results", "images", "predictions", "pets")
    copy = shutil.copytree(REPOSITORY, tmp_path / "copy", ignore=left_out)
    (copy / "README.md").write_text("<!-- results Oxford-IIIT Pet -->\n<!-- /results Oxford-IIIT Pet -->\n")
    small = "IMAGE_SIZE=32 SMALL_SIZE=32 WIDTH=4 DEPTH=2 BATCH_SIZE=8 EPOCHS=8".split()
    options = ["--ROWS=UNET", "--VOC=", "--CLOSER=False", f"--DATA_ROOT={oxford_root}", "--README=README.md"]
    command = ["bash", "run.sh", "table", *options, *(f"--OPTIONS={option}" for option in small)]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    run = {"cwd": copy, "env": script_environment(VIRTUAL_ENV=sys.prefix, PATH=path, PYTHONPATH=""), "text": True}
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True, **run) as process:
        assert next(line for line in process.stdout if line.startswith("epoch 2/8"))
        os.killpg(process.pid, signal.SIGTERM)
        assert "epoch 8/8" not in process.stdout.read()
    assert process.returncode == 128 + signal.SIGTERM
    second = subprocess.run(command, capture_output=True, check=True, **run).stdout
    assert "epoch 1/8" not in second and "epoch 2/8" not in second and "epoch 8/8" in second
    (line,) = read_csv(copy / "results" / "results.csv")
    assert line["model"] == "UNET" and line["miou"] in (copy / "README.md").read_text()
    third = subprocess.run(command, capture_output=True, check=True, **run).stdout
    assert "epoch" not in third and line["miou"] in third
