"""Reproduce the table: train every row by its recipe, evaluate it, measure clicks and robustness, draw the figures.

    bash run.sh table                                   # sets up, then calls this script
    python -m experiments.table --ROWS=UNET             # one row
    python -m experiments.table --VOC=                  # on Oxford-IIIT Pet alone

Trained rows are kept if their checkpoint comes from the same recipe and data; an interrupted training is resumed.
Training all rows takes about nine hours on two CPU cores without bf16; the experiments come on top.
"""

import importlib
import json
import subprocess
import sys
from pathlib import Path

from utils.config import DATA, REPOSITORY, parse, read_recipe, require_choice, run_script, script_constants

import torch

from utils.checkpoint import borrowed_encoder, load
from utils.errors import UserError
from utils.inputs.layouts import data_name
from utils.rows import find_rows, load_row

DATA_ROOT = DATA  # Oxford-IIIT Pet
VOC = "data/voc2012"  # written by `python data/prepare.py --VOC=2012 --CATEGORIES=cat,dog`; empty: skip VOC
ROWS = ()  # e.g. --ROWS=UNET,CLIP; empty: all in RECIPES
CLOSER = True  # False: only the table, without clicks, corrupted pictures and figures
OPTIONS = []  # passed to training scripts with this constant, e.g. --OPTIONS=EPOCHS=1; may be repeated
CHECKPOINTS = "checkpoints"  # folder of all rows
RESULTS = "results"  # folder of the CSVs
IMAGES = "images"  # folder of the figures
README = ()  # files whose tables between markers are updated, e.g. README.md,results/README.md


# Row -> its recipe (empty: the script's own constants), and about how many minutes it takes on two cores without bf16
RECIPES = {
    "UNET": ("", 110),
    "Autoencoder": ("", 130),
    "CLIP": ("recipes/deit_tiny.py", 85),
    "CLIP fine-tuned": ("recipes/clip_finetuned.py", 75),
    "PointCLIP": ("", 120),
}
# Constants that do not change the weights
ELSEWHERE = ("DATA_ROOT", "CHECKPOINTS", "DEVICE", "PRECISION", "RESUME", "RECIPE")


def main() -> None:
    for name in ROWS:
        require_choice("ROWS", name, tuple(RECIPES))
    if VOC and not Path(VOC).is_dir():
        command = "`python data/prepare.py --VOC=2012 --CATEGORIES=cat,dog`"
        raise UserError(f"VOC = {VOC} is missing: {command} makes it; --VOC= skips it")
    known = set().union(*(known_constants(name) for name in RECIPES)) - {"DATA_ROOT", "CHECKPOINTS", "RESUME"}
    if unknown := [option for option in OPTIONS if "=" not in option or option.split("=")[0] not in known]:
        raise UserError(f"OPTIONS = {','.join(unknown)}: must be KEY=value with a constant of a training script")
    names = list(ROWS or RECIPES)
    for number, name in enumerate(names):
        if is_made(name):
            print(f"--- {name} is kept", flush=True)
            continue
        left = sum(RECIPES[later][1] for later in names[number:] if not is_made(later))
        print(f"--- {name}; about {left} minutes of training left", flush=True)
        train(name)
    places = [f"--CHECKPOINTS={CHECKPOINTS}", f"--RESULTS={RESULTS}", f"--IMAGES={IMAGES}"]
    tables, rows = [f"--README={','.join(README)}"] if README else [], f"--ROWS={','.join(ROWS)}"
    for data in filter(None, (VOC, DATA_ROOT)):  # clicks.png shows the last one
        run("evaluate.py", f"--DATA_ROOT={data}", *places[:2], rows)
        if CLOSER and any(find_rows(CHECKPOINTS)[name].kind.prompt == "click" for name in names):
            few = "--PICTURES=200" if data == DATA_ROOT else "--PICTURES=0"
            run("experiments.clicks", f"--DATA_ROOT={data}", *places, *tables, few)
    run("experiments.errors", *places[1:], *tables)
    if CLOSER:
        own = f"--DATA_ROOT={DATA_ROOT}"
        run("experiments.robustness", own, *places, *tables, rows, "--PICTURES=1000", "--LEVELS=0,5,9")
        run("experiments.figures", own, f"--CHECKPOINTS={CHECKPOINTS}", f"--IMAGES={IMAGES}")


def script_of(name: str) -> str:
    return find_rows(CHECKPOINTS)[name].script.split()[0]


def known_constants(name: str) -> dict:
    """The constants of a row's script."""
    return script_constants(importlib.import_module(Path(script_of(name)).stem).main)


def constants_of(name: str) -> dict:
    """The constants of a row's training, with OPTIONS applied."""
    known = known_constants(name)
    recipe, _ = RECIPES[name]
    values = known | (read_recipe(REPOSITORY / recipe, known) if recipe else {})
    for key, text in (option.split("=", 1) for option in OPTIONS):
        if key in values:
            values[key] = parse(key, text, values[key])
    return {key: value for key, value in values.items() if key not in ELSEWHERE}


def is_made(name: str) -> bool:
    """Whether the row has usable weights of a complete training with these constants on this data."""
    folder, wanted = Path(CHECKPOINTS) / find_rows(CHECKPOINTS)[name].folder, constants_of(name)
    if not (folder / "best.safetensors").exists():  # best.pt: of earlier scripts
        return False
    try:
        load_row(name, CHECKPOINTS, torch.device("cpu"))
    except UserError:  # its encoder was trained again, for example
        return False
    content, last = load(folder), folder / "last.pt"
    trained = not last.exists() or load(last)["epoch"] == wanted["EPOCHS"]
    fitted = content.get("zoom", False) == wanted.get("ZOOM", False)  # the last step of a training
    return trained and fitted and agree(content, wanted)


def agree(content: dict, wanted: dict) -> bool:
    """Whether a checkpoint has these constants and this data; newer constants may be missing, lists are tuples."""
    known, wanted = json.loads(json.dumps([content["constants"], wanted]))
    if Path(known["DATA_ROOT"]).is_dir() and data_name(known["DATA_ROOT"]) != data_name(DATA_ROOT):
        return False
    return all(known.get(key, value) == value for key, value in wanted.items())


def can_go_on(last: Path, wanted: dict) -> bool:
    """Whether an interrupted training has these constants, this data, and still its encoder."""
    content = load(last)
    if content["model"] == "autoencoder stage 1":  # its EPOCHS are PRETRAIN_EPOCHS
        content["constants"]["EPOCHS"] = wanted["EPOCHS"]
    try:
        borrowed_encoder(content, last)
    except UserError:
        return False
    return agree(content, wanted)


def train(name: str) -> None:
    """Train a row; resume if it was interrupted."""
    folder, wanted = Path(CHECKPOINTS) / find_rows(CHECKPOINTS)[name].folder, constants_of(name)
    begun = [path for path in (folder / "last.pt", folder / "pretraining" / "last.pt") if path.exists()]
    resume = ["--RESUME=True"] if begun and can_go_on(max(begun, key=lambda path: path.stat().st_mtime), wanted) else []
    known = known_constants(name)
    options = [f"--{option}" for option in OPTIONS if option.split("=")[0] in known]
    recipe, _ = RECIPES[name]
    recipe = [str(REPOSITORY / recipe)] if recipe else []
    run(script_of(name), *recipe, f"--DATA_ROOT={DATA_ROOT}", f"--CHECKPOINTS={CHECKPOINTS}", *options, *resume)


def run(script: str, *arguments: str) -> None:
    """Run a script or module of this repository in a process of its own. Raises UserError if it fails."""
    command = [str(REPOSITORY / script)] if script.endswith(".py") else ["-m", script]
    print(f"--- {script} {' '.join(arguments)}", flush=True)
    if subprocess.run([sys.executable, *command, *arguments]).returncode:
        raise UserError(f"{script} stopped; run the same command again to continue")


if __name__ == "__main__":
    run_script(main)
