"""Reproduce the table: train every row by its recipe, evaluate it, measure clicks and robustness, draw the figures.

    bash run.sh table                                   # sets up, then calls this script
    python -m experiments.table --ROWS=UNET             # one row
    python -m experiments.table --VOC=                  # on Oxford-IIIT Pet alone

Trained rows are kept if their checkpoint comes from the same recipe and data; an interrupted training is resumed.
Numbers of other weights are removed from the CSVs. results/table.json lists what is measured already: delete it to
measure again. Training all rows takes about nine hours on two CPU cores without bf16; the measurements come on top.
CLIPSeg needs no training: `python evaluate.py --ROWS=CLIPSeg`.
"""

import importlib
import json
import subprocess
import sys
from pathlib import Path

from utils.config import DATA, REPOSITORY, expand, parse, read_recipe, require_choice, run_script, script_constants

import torch

from utils.checkpoint import borrowed_encoder, digest, file_digest, load, weights_file
from utils.errors import UserError
from utils.files import read_csv, write_csv, write_text
from utils.inputs.layouts import data_name
from utils.rows import find_rows, load_row
from utils.training.start import find_start

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
    names = [name for name in RECIPES if name in (ROWS or RECIPES)]
    for number, name in enumerate(names):
        if is_made(name):
            print(f"--- {name} is kept", flush=True)
            continue
        left = sum(RECIPES[later][1] for later in names[number:] if not is_made(later))
        print(f"--- {name}; about {left} minutes of training left", flush=True)
        train(name)
    for name in names:
        forget_old(name)
    measure(names)


def measure(names: list[str]) -> None:
    """Scores, clicks and corrupted pictures, each once per weights; tables and figures."""
    places = [f"--CHECKPOINTS={CHECKPOINTS}", f"--RESULTS={RESULTS}", f"--IMAGES={IMAGES}"]
    tables = [f"--README={','.join(README)}"] if README else []
    if README and data_name(DATA_ROOT) != "Oxford-IIIT Pet":
        tables = []
        print(f"{', '.join(README)}: left as they are, for their tables are those of Oxford-IIIT Pet", flush=True)
    for data in filter(None, (VOC, DATA_ROOT)):  # clicks.png shows the last one
        own, is_pet = f"--DATA_ROOT={data}", data == DATA_ROOT
        for name in names:
            flip = is_pet and not prompt_of(name)
            run_once([name], "evaluate.py", own, *places[:2], f"--ROWS={name}", f"--FLIP={flip}")
        if CLOSER and any(map(prompt_of, names)):
            run_once(names, "experiments.clicks", own, *places, *tables, f"--PICTURES={200 if is_pet else 0}")
    run("experiments.errors", *places[1:], *tables)
    if CLOSER:
        for name in names:
            few = [f"--ROWS={name}", "--PICTURES=1000", "--LEVELS=0,5,9"]
            run_once([name], "experiments.robustness", own, *places, *tables, *few)
        run("experiments.figures", own, places[0], places[2])


def run_once(names: list[str], script: str, *arguments: str) -> None:
    """Run a script unless RESULTS/table.json says that it has measured the present weights of these rows."""
    record = Path(RESULTS) / "table.json"
    done = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
    step, weights = " ".join([script, *arguments]), {name: sha256_of(name) for name in names}
    if done.get(step) != weights:
        run(script, *arguments)
        write_text(json.dumps(done | {step: weights}, indent=1) + "\n", record)


def forget_old(name: str) -> None:
    """Remove a row's numbers of other weights from the CSVs, one data set at a time."""
    folder, results = Path(CHECKPOINTS) / find_rows(CHECKPOINTS)[name].folder, read_csv(Path(RESULTS) / "results.csv")
    mine, now = [line for line in results if Path(line["checkpoint"]).parent == folder], sha256_of(name)
    old = {line["data"] for line in mine if line.get("sha256") != now}
    for file in ("results.csv", "per_image.csv", "clicks.csv", "robustness.csv"):
        lines = read_csv(Path(RESULTS) / file)
        kept = [line for line in lines if line["data"] not in old or line["model"] not in (name, f"{name} look-up")]
        if len(kept) < len(lines):
            write_csv(kept, Path(RESULTS) / file)


def sha256_of(name: str) -> str:
    """The digest of a row's weights, as in results.csv."""
    return file_digest(weights_file(Path(CHECKPOINTS) / find_rows(CHECKPOINTS)[name].folder))


def prompt_of(name: str) -> str:
    return find_rows(CHECKPOINTS)[name].kind.prompt


def script_of(name: str) -> str:
    return find_rows(CHECKPOINTS)[name].script.split()[0]


def known_constants(name: str) -> dict:
    """The constants of a row's script."""
    return script_constants(importlib.import_module(Path(script_of(name)).stem).main)


def by_recipe(name: str) -> dict:
    """The constants of a row's recipe, or of its script."""
    known, (recipe, _) = known_constants(name), RECIPES[name]
    return known | (read_recipe(REPOSITORY / recipe, known) if recipe else {})


def constants_of(name: str) -> dict:
    """The constants of a row's training, with OPTIONS applied."""
    values = by_recipe(name)
    for key, text in (option.split("=", 1) for option in options_of(name)):
        values[key] = parse(key, text, values[key])
    left_out = (*ELSEWHERE, "ENCODER") if values.get("START") else ELSEWHERE  # START brings its encoder
    return {key: expand(value) for key, value in values.items() if key not in left_out}


def options_of(name: str) -> list[str]:
    """The OPTIONS that are the row's; not ENCODER for one that starts from another row, whose encoder it has."""
    known = by_recipe(name)
    keys = known.keys() - ({"ENCODER"} if known.get("START") else set())
    return [option for option in OPTIONS if option.split("=")[0] in keys]


def is_made(name: str) -> bool:
    """Whether the row has usable weights of a complete training with these constants on this data."""
    folder, wanted = Path(CHECKPOINTS) / find_rows(CHECKPOINTS)[name].folder, constants_of(name)
    try:
        load_row(name, CHECKPOINTS, torch.device("cpu"))
    except UserError:  # missing, or its encoder was trained again
        return False
    content, last, log = load(folder), folder / "last.pt", read_csv(folder / "log.csv")
    epoch = load(last)["epoch"] if last.exists() else int(log[-1]["epoch"]) if log else wanted["EPOCHS"]
    fitted = content.get("zoom", False) == wanted.get("ZOOM", False)  # the last step of a training
    return epoch == wanted["EPOCHS"] and fitted and agree(content, wanted)


def agree(content: dict, wanted: dict) -> bool:
    """Whether a checkpoint has these constants (newer ones may be missing, lists are tuples), this data and START."""
    known, wanted = json.loads(json.dumps([content["constants"], wanted]))
    root = known["DATA_ROOT"]
    if (data_name(root) if Path(root).is_dir() else "Oxford-IIIT Pet") != data_name(DATA_ROOT):  # no folder: shipped
        return False
    if "start" in content:  # the digest of START's weights
        try:
            start = find_start(wanted["START"], CHECKPOINTS, content["model"], "clip")
        except UserError:
            return False
        if content["start"] != digest(start.get("weights", {})):  # that row was trained again
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
    stages = [folder / "pretraining"] * ("PRETRAIN_EPOCHS" in wanted) + [folder]
    whole = [stage for stage in stages if (stage / "last.pt").exists() and (stage / "best.safetensors").exists()]
    begun = whole and whole == stages[: len(whole)]  # no stage before the last one was deleted
    last = max((stage / "last.pt" for stage in whole), key=lambda path: path.stat().st_mtime, default=None)
    resume = ["--RESUME=True"] if begun and can_go_on(last, wanted) else []
    options = [f"--{option}" for option in options_of(name)]
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
