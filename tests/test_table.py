"""The table in one command: every row by its recipe, from where it was stopped."""

import importlib
import os
import shutil
import signal
import subprocess
import sys
from itertools import product
from pathlib import Path

from utils.config import script_constants

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
def test_all_rows_are_trained_and_measured_once_and_a_row_trained_again_is_measured_again(
    tiny_clip_folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    for name in ("drawn", "other"):
        write_drawings(Path(name), f'{{"name": "{name}"}}', ("cat", "dog"), 20, 5, (64, 80), 0)
    Path("README.md").write_text("nothing to replace\n")
    options = "IMAGE_SIZE=32 VIEW_SIZE=32 SMALL_SIZE=32 PATCH=8 WIDTH=4 DEPTH=2 EPOCHS=1 PRETRAIN_EPOCHS=1".split()
    options += ["BATCH_SIZE=4", "WIDTHS=4,8,8,16", f"ENCODER={tiny_clip_folder}"]
    steps = []

    def run(script, *arguments):  # in this process
        steps.append(" ".join([script, *(argument for argument in arguments if argument.startswith("--ROWS="))]))
        run_here(importlib.import_module(script.removesuffix(".py")), *arguments)

    def make(*more):
        steps.clear()
        run_here(table, "--DATA_ROOT=drawn", "--VOC=other", "--README=README.md", *more, *asked)
        return [line for line in capsys.readouterr().out.splitlines() if line.endswith(" is kept")]

    monkeypatch.setattr(table, "run", run)
    asked = [f"--OPTIONS={option}" for option in options]
    assert make() == [] and steps[-1] == "experiments.figures"
    lines = read_csv("results/results.csv")
    scored = {(line["model"], line["data"], line["flip"]) for line in lines}
    by_class = {"UNET", "Autoencoder", "CLIP", "CLIP fine-tuned"}
    expected = {*product(by_class, ("drawn",), "01"), *product(by_class, ("other",), "0")}
    assert scored == expected | {("PointCLIP", "drawn", "0"), ("PointCLIP", "other", "0")}
    assert {line["data"] for line in read_csv("results/clicks.csv")} == {"drawn", "other"}
    assert Path("README.md").read_text() == "nothing to replace\n"

    again = list(table.RECIPES)[:2]
    shutil.rmtree("checkpoints/unet")
    Path("checkpoints/autoencoder/last.pt").unlink()
    log = Path("checkpoints/autoencoder/log.csv")
    log.write_text(log.read_text().replace("\n1,", "\n0,"))  # stopped between best.safetensors and last.pt
    assert make("--VOC=") == [f"--- {name} is kept" for name in table.RECIPES if name not in again]
    scripts = ("evaluate.py", "experiments.robustness")
    evaluations, robust = ([f"{script} --ROWS={name}" for name in again] for script in scripts)
    measured = [*evaluations, "experiments.clicks", "experiments.errors", *robust, "experiments.figures"]
    assert steps == ["train_unet.py", "train_autoencoder.py", *measured]
    gone = {(name, "other", "0") for name in again}  # numbers of the old weights
    lines = read_csv("results/results.csv")
    assert {(line["model"], line["data"], line["flip"]) for line in lines} == scored - gone

    monkeypatch.setattr(table, "DATA_ROOT", "drawn")
    monkeypatch.setattr(table, "OPTIONS", options)
    assert table.is_made("CLIP fine-tuned") and table.is_made("PointCLIP")
    own = [f"--{option}" for option in options if option.split("=")[0] in script_constants(train_clip.main)]
    run_here(train_clip, str(REPOSITORY / "recipes/deit_tiny.py"), *own, "--DATA_ROOT=drawn", "--SEED=1")
    assert not table.is_made("CLIP fine-tuned")  # START was trained again

    commands = []
    monkeypatch.setattr(table, "run", lambda script, *options: commands.append("--RESUME=True" in options))
    stage_2, stage_1 = Path("checkpoints/autoencoder"), Path("checkpoints/autoencoder/pretraining")
    for file in (stage_2 / "best.safetensors", stage_1 / "last.pt"):
        table.train("Autoencoder")
        file.unlink()
    table.train("Autoencoder")
    assert commands == [True, True, False]


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
    line, _ = read_csv(copy / "results" / "results.csv")  # without and with flip
    assert line["model"] == "UNET" and line["miou"] in (copy / "README.md").read_text()
    third = subprocess.run(command, capture_output=True, check=True, **run).stdout
    assert "epoch" not in third and line["miou"] in third
