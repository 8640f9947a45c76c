"""Reproduce the table: train every row by its recipe, evaluate it, run the other experiments, draw the figures.

    bash run.sh table                                   # sets up, then calls this script
    python -m experiments.table --ROWS=UNET             # one row
    python -m experiments.table --VOC=                  # on Oxford-IIIT Pet alone

Trained rows are kept if their checkpoint comes from the same recipe; an interrupted training is resumed. Training all
rows takes about nine hours on two CPU cores without bf16; the experiments come on top.
"""

import importlib
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from utils.config import DATA, REPOSITORY, parse, read_recipe, require_choice, run_script, script_constants

from utils.checkpoint import load, weights_file
from utils.errors import UserError

DATA_ROOT = DATA  # Oxford-IIIT Pet
VOC = "data/voc2012"  # written by `python data/prepare.py --VOC=2012 --CATEGORIES=cat,dog`; empty: skip VOC
ROWS = ()  # e.g. --ROWS=UNET,CLIP; empty: all in RECIPES
CLOSER = True  # False: only the table, without clicks, corrupted pictures and figures
OPTIONS = []  # passed to training scripts with this constant, e.g. --OPTIONS=EPOCHS=1; may be repeated
CHECKPOINTS = "checkpoints"  # folder of all rows
RESULTS = "results"  # folder of the CSVs
IMAGES = "images"  # folder of the figures
README = ()  # files whose tables between markers are updated, e.g. README.md,results/README.md


@dataclass(frozen=True)
class Recipe:
    """How a row is trained: `python script recipe`; an empty recipe means the script's defaults."""

    script: str
    recipe: str
    folder: str  # below CHECKPOINTS


RECIPES = {
    "UNET": Recipe("train_unet.py", "", "unet"),
    "Autoencoder": Recipe("train_autoencoder.py", "", "autoencoder"),
    "CLIP": Recipe("train_clip.py", "recipes/deit_tiny.py", "clip"),
    "CLIP fine-tuned": Recipe("train_clip.py", "recipes/clip_finetuned.py", "clip_finetuned"),
    "PointCLIP": Recipe("train_pointclip.py", "", "pointclip"),
}
# Constants that do not change the weights
ELSEWHERE = ("DATA_ROOT", "CHECKPOINTS", "DEVICE", "PRECISION", "RESUME", "RECIPE")


def main() -> None:
    for name in ROWS:
        require_choice("ROWS", name, tuple(RECIPES))
    if VOC and not Path(VOC).is_dir():
        command = "`python data/prepare.py --VOC=2012 --CATEGORIES=cat,dog`"
        raise UserError(f"VOC = {VOC} is missing: {command} makes it; --VOC= skips it")
    todo = [name for name in ROWS or RECIPES if not is_made(RECIPES[name])]
    for number, name in enumerate(todo, 1):
        print(f"--- {name}, training {number} of {len(todo)}", flush=True)
        train(RECIPES[name])
    places = [f"--CHECKPOINTS={CHECKPOINTS}", f"--RESULTS={RESULTS}", f"--IMAGES={IMAGES}"]
    tables = [f"--README={','.join(README)}"] if README else []
    for data in filter(None, (VOC, DATA_ROOT)):  # the figures in IMAGES show the last one
        run("evaluate.py", f"--DATA_ROOT={data}", *places, *tables, f"--ROWS={','.join(ROWS)}")
        if CLOSER:
            few = "--PICTURES=200" if data == DATA_ROOT else "--PICTURES=0"
            run("experiments.clicks", f"--DATA_ROOT={data}", *places, *tables, few)
    if CLOSER:
        own = f"--DATA_ROOT={DATA_ROOT}"
        run("experiments.robustness", own, *places, *tables, "--PICTURES=1000", "--LEVELS=0,5,9")
        run("experiments.errors", *places[1:], *tables)
        run("experiments.figures", own, *places)


def constants_of(recipe: Recipe) -> dict:
    """The training constants of a recipe, with OPTIONS applied."""
    known = script_constants(importlib.import_module(Path(recipe.script).stem).main)
    values = known | (read_recipe(REPOSITORY / recipe.recipe, known) if recipe.recipe else {})
    for key, text in (option.split("=", 1) for option in OPTIONS):
        if key in values:
            values[key] = parse(key, text, values[key])
    return {key: value for key, value in values.items() if key not in ELSEWHERE}


def is_made(recipe: Recipe) -> bool:
    """Whether the row's checkpoint comes from a complete training by this recipe."""
    folder, wanted = Path(CHECKPOINTS) / recipe.folder, constants_of(recipe)
    if not weights_file(folder).exists():
        return False
    content = load(folder)
    if content.get("zoom", False) != wanted.get("ZOOM", False):  # the last step of a training
        return False
    last = folder / "last.pt"
    complete = not last.exists() or load(last)["epoch"] == wanted["EPOCHS"]
    return complete and all(content["constants"].get(key) == value for key, value in wanted.items())


def train(recipe: Recipe) -> None:
    """Train by a recipe; resume if it was interrupted."""
    folder, wanted = Path(CHECKPOINTS) / recipe.folder, constants_of(recipe)
    begun = [path for path in (folder / "last.pt", folder / "pretraining" / "last.pt") if path.exists()]
    known = load(max(begun, key=lambda path: path.stat().st_mtime))["constants"] if begun else {}
    resume = ["--RESUME=True"] if begun and all(known.get(key) == value for key, value in wanted.items()) else []
    options = [f"--{option}" for option in OPTIONS if option.split("=")[0] in wanted]
    places = (f"--DATA_ROOT={DATA_ROOT}", f"--CHECKPOINTS={CHECKPOINTS}")
    run(recipe.script, *([str(REPOSITORY / recipe.recipe)] if recipe.recipe else []), *places, *options, *resume)


def run(script: str, *arguments: str) -> None:
    """Run a script or module of this repository in a process of its own. Raises UserError if it fails."""
    command = [str(REPOSITORY / script)] if script.endswith(".py") else ["-m", script]
    print(f"--- {script} {' '.join(arguments)}", flush=True)
    if subprocess.run([sys.executable, *command, *arguments]).returncode:
        raise UserError(f"{script} stopped; run the same command again to continue")


if __name__ == "__main__":
    run_script(main, reads=("DATA_ROOT", "CHECKPOINTS"))
