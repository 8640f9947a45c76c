"""Make the table anew: train every row by its recipe, score the rows, measure them more closely, draw the figures.

    bash run.sh table                                   # sets up, then calls this script
    python -m experiments.table --ROWS=UNET             # one row
    python -m experiments.table --VOC=                  # on Oxford-IIIT Pet alone

A row whose checkpoint its recipe made is not trained again; a training that was interrupted goes on. It takes hours:
the minutes in RECIPES are estimates for two CPU cores without bf16, and the closer measurements come on top.
"""

import importlib
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from utils.config import DATA, REPOSITORY, parse, read_recipe, require_choice, run_script, script_constants

from utils.checkpoint import load, weights_file
from utils.errors import UserError

DATA_ROOT = DATA  # Oxford-IIIT Pet
VOC = "data/voc2012"  # what `python data/prepare.py --VOC=2012 --CATEGORIES=cat,dog` writes; empty: without
ROWS = ()  # e.g. --ROWS=UNET,CLIP; empty: all that are trained
CLOSER = True  # False: the table alone, without clicks, corrupted pictures and img/s
OPTIONS = []  # for the trainings that have this constant, e.g. --OPTIONS=EPOCHS=1; may be given several times
CHECKPOINTS = "checkpoints"  # folder of all rows
RESULTS = "results"  # folder of the CSVs
IMAGES = "images"  # folder of the figures
README = ()  # files whose tables between markers are written anew, e.g. README.md,results/README.md


@dataclass(frozen=True)
class Recipe:
    """How a row is trained: `python script recipe`; without a recipe, by the script's own constants."""

    script: str
    recipe: str
    folder: str  # below CHECKPOINTS
    minutes: int  # about, on two CPU cores without bf16


RECIPES = {
    "UNET": Recipe("train_unet.py", "", "unet", 110),
    "Autoencoder": Recipe("train_autoencoder.py", "", "autoencoder", 130),
    "CLIP": Recipe("train_clip.py", "recipes/deit_tiny.py", "clip", 85),
    "CLIP fine-tuned": Recipe("train_clip.py", "recipes/clip_finetuned.py", "clip_finetuned", 75),
    "PointCLIP": Recipe("train_pointclip.py", "", "pointclip", 120),
}
# Constants that say where and on what a training ran, not how
ELSEWHERE = ("DATA_ROOT", "CHECKPOINTS", "DEVICE", "PRECISION", "RESUME", "RECIPE")


def main() -> None:
    for name in ROWS:
        require_choice("ROWS", name, tuple(RECIPES))
    if VOC and not Path(VOC).is_dir():
        made = "`python data/prepare.py --VOC=2012 --CATEGORIES=cat,dog` makes it"
        raise UserError(f"VOC = {VOC} is missing: {made}, or --VOC= does without")
    todo = [name for name in ROWS or RECIPES if not is_made(RECIPES[name])]
    for number, name in enumerate(todo):
        left = sum(RECIPES[later].minutes for later in todo[number:])
        print(
            f"--- {name}, training {number + 1} of {len(todo)}; about {left} minutes of training are left", flush=True
        )
        train(RECIPES[name])
    places = [f"--CHECKPOINTS={CHECKPOINTS}", f"--RESULTS={RESULTS}", f"--IMAGES={IMAGES}"]
    tables = [f"--README={','.join(README)}"] if README else []
    for data in filter(None, (VOC, DATA_ROOT)):  # the figures in IMAGES are those of the last one
        run("evaluate.py", f"--DATA_ROOT={data}", *places, *tables, f"--ROWS={','.join(ROWS)}")
        if CLOSER:
            few = "--PICTURES=200" if data == DATA_ROOT else "--PICTURES=0"
            run("experiments.clicks", f"--DATA_ROOT={data}", *places, *tables, few)
    if CLOSER:
        own = f"--DATA_ROOT={DATA_ROOT}"
        run("experiments.robustness", own, *places, *tables, "--PICTURES=1000", "--LEVELS=0,5,9")
        for data in filter(None, (VOC, DATA_ROOT)):
            run("experiments.speed", f"--DATA_ROOT={data}", *places[:2], *tables)
        run("experiments.errors", *places[1:], *tables)
        run("experiments.figures", own, *places)


def constants_of(recipe: Recipe) -> dict:
    """The constants that a training by this recipe has, OPTIONS included."""
    known = script_constants(importlib.import_module(Path(recipe.script).stem).main)
    values = known | (read_recipe(REPOSITORY / recipe.recipe, known) if recipe.recipe else {})
    for key, text in (option.split("=", 1) for option in OPTIONS):
        if key in values:
            values[key] = parse(key, text, values[key])
    return {key: value for key, value in values.items() if key not in ELSEWHERE}


def is_made(recipe: Recipe) -> bool:
    """Whether the row's weights are those of a whole training by its recipe."""
    folder, wanted = Path(CHECKPOINTS) / recipe.folder, constants_of(recipe)
    if not weights_file(folder).exists():
        return False
    content = load(folder)
    last = load(folder / "last.pt") if (folder / "last.pt").exists() else None
    whole = (last is None or last["epoch"] == wanted["EPOCHS"]) and content.get("zoom", False) == wanted.get(
        "ZOOM", False
    )
    return whole and all(content["constants"].get(key) == value for key, value in wanted.items())


def train(recipe: Recipe) -> None:
    """A training by a recipe, from where it was interrupted."""
    folder, wanted = Path(CHECKPOINTS) / recipe.folder, constants_of(recipe)
    begun = [path for path in (folder / "last.pt", folder / "pretraining" / "last.pt") if path.exists()]
    known = load(max(begun, key=lambda path: path.stat().st_mtime))["constants"] if begun else {}
    resume = ["--RESUME=True"] if begun and all(known.get(key) == value for key, value in wanted.items()) else []
    options = [f"--{option}" for option in OPTIONS if option.split("=")[0] in wanted]
    places = (f"--DATA_ROOT={DATA_ROOT}", f"--CHECKPOINTS={CHECKPOINTS}")
    run(recipe.script, *([str(REPOSITORY / recipe.recipe)] if recipe.recipe else []), *places, *options, *resume)


def run(script: str, *arguments: str) -> None:
    """Run a script of this repository, or a module, as a user would. Raises UserError if it fails."""
    command = [str(REPOSITORY / script)] if script.endswith(".py") else ["-m", script]
    started = time.perf_counter()
    print(f"--- {script} {' '.join(arguments)}", flush=True)
    if subprocess.run([sys.executable, *command, *arguments]).returncode:
        raise UserError(f"{script} stopped; start the same command again to go on")
    print(f"--- {script}: {(time.perf_counter() - started) / 60:.0f} minutes", flush=True)


if __name__ == "__main__":
    run_script(main, reads=("DATA_ROOT", "CHECKPOINTS"))
