"""The rows of the table, each declared in one line, and how they are rebuilt from their checkpoints.

A further model is a file in models/, a training script, and a line in ROWS (README, "Add a model").
"""

import importlib
import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from utils.config import REPOSITORY

import torch
from torch import nn

from models.clipseg import HUB_ID
from utils.checkpoint import borrowed_encoder, classes_of, load, load_state, weights_file
from utils.classes import PETS, Classes, require_same
from utils.errors import UserError
from utils.rows.by_class import ByClass
from utils.rows.by_click import ByClick
from utils.rows.by_text import ByText
from utils.rows.row import Row
from utils.terminal import say_once


@dataclass(frozen=True)
class Declared:
    """What is known about a row before its weights are loaded."""

    name: str  # in tables and figures
    file: str  # the model's file in models/; also the row's folder in CHECKPOINTS, and "model" in its checkpoint
    model_class: str  # in that file
    kind: type[Row]  # ByClass, ByText, ByClick
    script: str  # makes the weights; with its options
    colour: str = ""  # in figures
    scales: tuple[float, ...] = (1.0,)  # the model sees a picture at these multiples of its training's size
    zoom: bool = False  # look closer at what was found; a checkpoint may turn it on too
    own_folder: str = ""  # in place of `file`: for a second row with the same model, and for a user's own row

    @property
    def folder(self) -> str:
        return self.own_folder or self.file

    @property
    def model(self) -> type[nn.Module]:
        return getattr(importlib.import_module(f"models.{self.file}"), self.model_class)


TWO = (1.0, 1.4)  # scales: what a convolutional encoder misses at one size it often finds at the other
TUNE = "train_clip.py recipes/clip_finetuned.py"

ROWS = (
    Declared("UNET", "unet", "UNet", ByClass, "train_unet.py", "#0072B2", TWO),
    Declared("Autoencoder", "autoencoder", "AutoencoderSegmenter", ByClass, "train_autoencoder.py", "#E69F00", TWO),
    Declared("CLIP", "clip", "CLIPCNN", ByClass, "train_clip.py", "#009E73"),
    Declared("CLIP fine-tuned", "clip", "CLIPCNN", ByClass, TUNE, "#D55E00", own_folder="clip_finetuned"),
    Declared("CLIPSeg", "clipseg", "CLIPSeg", ByText, "evaluate.py --ROWS=CLIPSeg", "#999999"),
    Declared("PointCLIP", "pointclip", "PointCLIP", ByClick, "train_pointclip.py", "#CC79A7", zoom=True),
)


def find_rows(checkpoints: str | Path) -> dict[str, Declared]:
    """Name -> row: those of ROWS, then a user's own that have a checkpoint (`train_clip.py --ROW=NAME`)."""
    found = {row.name: row for row in ROWS}
    models = {row.file: row for row in reversed(ROWS)}  # the first row of each model
    folders = {row.folder for row in ROWS}
    for name in sorted({path.parent.name for path in Path(checkpoints).glob("*/best.safetensors")}):
        if name in folders or name in found:
            continue
        try:
            base = models.get(load(weights_file(Path(checkpoints) / name))["model"])
        except UserError as error:
            say_once(str(error))
            continue
        if base:
            found[name] = replace(base, name=name, own_folder=name, script=f'{base.script} --ROW="{name}"', colour="")
    return found


def row_named(text: str, checkpoints: str | Path) -> str:
    """Name of the row that MODEL means: its name in the table or its folder, in any case. Raises UserError."""
    rows = find_rows(checkpoints)
    named = [name for name, row in rows.items() if text.lower() in (name.lower(), row.folder.lower())]
    if not named:
        raise UserError(f"MODEL = {text!r}: must be one of {', '.join(name.lower() for name in rows)}")
    return named[0]


def best_row(checkpoints: str | Path) -> str:
    """Row by class with the best validation score, rounded to .01; the last of several. Raises UserError."""
    by_class = {name: row for name, row in find_rows(checkpoints).items() if not row.kind.prompt}
    scores = {}
    for name, row in by_class.items():
        if (path := weights_file(Path(checkpoints) / row.folder)).exists():
            try:
                scores[name] = load(path).get("score", 0.0)
            except UserError as error:
                say_once(str(error))
    if not scores:
        raise UserError(f"no row in {checkpoints} has a checkpoint; `python {ROWS[0].script}` makes one")
    return max(reversed(scores), key=lambda name: round(scores[name], 2))


def folder_of(row: str, model: str) -> str:
    """Folder in CHECKPOINTS of the row that a script trains; a new row's folder has its name. Raises UserError.

    row: the constant ROW, "" for the script's own row; model: file of the model in models/.
    """
    for declared in ROWS:
        if declared.file == model and row in ("", declared.name):
            return declared.folder
    if not re.fullmatch(r"\w[\w .+-]*", row) or row.lower() in {x for d in ROWS for x in (d.name.lower(), d.folder)}:
        raise UserError(f"ROW = {row!r}: choose a name of letters, digits, spaces and .+- that no other row has")
    return row


def load_row(
    name: str,
    checkpoints: str | Path,
    device: torch.device,
    classes: Classes | None = None,
    *,
    zoom: bool = True,
    flip: bool = False,
    precision: str = "fp32",
    hub_id: str = HUB_ID,
    threshold: float = 0.3,
) -> Row:
    """The row `name`, one of find_rows(), rebuilt from its weights. Raises UserError with the command that makes them.

    zoom: False turns the closer look off. flip, precision: see Row. For a row by text: classes of the data, which are
    its prompts (None: background, cat and dog); hub_id or folder of its weights; threshold of its scores.
    """
    rows = find_rows(checkpoints)
    if name not in rows:
        raise UserError(f"there is no row {name!r} in {checkpoints}; there are {', '.join(rows)}")
    row = rows[name]
    if row.kind is ByText:
        try:
            model = row.model.from_pretrained(hub_id).to(device)
        except OSError as error:
            raise UserError(str(error)) from error
        about = (model.image_size, model.mean, model.std, classes or PETS, model.title, hub_id)
        return ByText(name, model, device, *about, flip=flip, precision=precision, threshold=threshold)
    path = weights_file(Path(checkpoints) / row.folder)
    if not path.exists():
        shipped = REPOSITORY / "checkpoints"
        there = f"; there is one in CHECKPOINTS = {shipped}" if weights_file(shipped / row.folder).exists() else ""
        raise UserError(f"{path} is missing; `python {row.script}` makes it{there}")
    model, content = load_model(path, row.file, device)
    if lost := [key for key in ("image_size", "mean", "std") if key not in content]:
        raise UserError(f"{path} does not say its {' and '.join(lost)}: train it again")
    about = (content["image_size"], content["mean"], content["std"], classes_of(content), content.get("encoder", ""))
    zoom = zoom and (row.zoom or content.get("zoom", False))
    made = row.kind(name, model, device, *about, str(path), row.scales, zoom, flip, precision)
    made.minutes = content.get("minutes")
    if row.kind is ByClick and zoom:
        source = content.get("encoder_from")
        for other in (x.name for x in rows.values() if x.folder == source and x.kind is ByClass):
            class_row = load_row(other, checkpoints, device, precision=precision)
            if class_row.classes == made.classes and made.classes.first:
                class_row.model.encoder.vit = model.encoder.vit  # in memory once
                made.class_row = class_row
    return made


def load_rows(
    names: Collection[str],
    checkpoints: str | Path,
    device: torch.device,
    classes: Classes | None = None,
    root: str | Path = "the data",
    **options,
) -> tuple[list[Row], dict[str, str]]:
    """The rows that can be loaded, in the order of the table, and for the others the reason why not.

    classes: of the data in root; rows with other classes are not loaded. None: any classes. options: see load_row().
    """
    rows, missing = [], {}
    for name in find_rows(checkpoints):
        if name not in names:
            continue
        try:
            row = load_row(name, checkpoints, device, classes, **options)
            if classes:
                require_same(row.classes, classes, row.checkpoint, root)
            rows.append(row)
        except UserError as error:
            missing[name] = str(error)
    return rows, missing


def load_model(path: str | Path, name: str, device: torch.device) -> tuple[nn.Module, dict]:
    """The trained model in CHECKPOINTS/ROW/best.safetensors, in evaluation mode, and the content of the file.

    name: the model's file in models/. Raises UserError if the checkpoint holds another model or cannot be used.
    """
    path, content = Path(path), load(path)
    if content.get("model") != name:
        raise UserError(f"{path} holds a model {content.get('model')!r}, not {name!r}")
    try:
        model = next(row.model for row in ROWS if row.file == name)(**content["arguments"])
    except OSError as error:  # its pretrained encoder cannot be loaded
        raise UserError(f"{path} needs its encoder: {error}") from error
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"{path} was written by another version of {name}: {error}; train it again") from error
    weights = content["weights"] | borrowed_encoder(content, path)
    load_state(model, weights, path, ignore="encoder." if content["arguments"].get("freeze_encoder") else "")
    return model.to(device, memory_format=torch.channels_last).eval(), content
