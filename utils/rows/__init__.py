"""The rows of the table, each declared in one line, and checkpoints turned back into rows.

A further model is a file in models/, a training script, and a line in ROWS (README, "Add a model").
"""

import importlib
import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from models.clipseg import HUB_ID
from utils.checkpoint import classes_of, digest, encoder_weights, load, load_state, weights_file
from utils.classes import PETS, Classes, require_same
from utils.errors import UserError
from utils.rows.by_class import ByClass
from utils.rows.by_click import ByClick
from utils.rows.by_text import ByText
from utils.rows.row import Row


@dataclass(frozen=True)
class Declared:
    """What is known of a row before its weights are loaded."""

    name: str  # in tables and figures
    file: str  # of its model in models/; also its folder below CHECKPOINTS, and "model" in its checkpoints
    model_class: str  # in that file
    kind: type[Row]  # ByClass, ByText, ByClick
    script: str  # that makes its weights, with its options
    colour: str = ""  # in figures
    scales: tuple[float, ...] = (1.0,)  # of its training's size, at which a picture is seen
    zoom: bool = False  # it looks closer at what it found; a checkpoint may say so too
    hub_id: str = ""  # of weights that are used as they are; "": a checkpoint of its own
    own_folder: str = ""  # instead of `file`: of a second row with the same model, and of the user's own

    @property
    def command(self) -> str:
        return f"python {self.script}"

    @property
    def folder(self) -> str:
        return self.own_folder or self.file

    @property
    def model(self) -> type[nn.Module]:
        return getattr(importlib.import_module(f"models.{self.file}"), self.model_class)


TWO = (1.0, 1.4)  # scales; what a convolutional encoder misses at one size it often finds at the other
TUNE = "train_clip.py recipes/clip_finetuned.py"

ROWS = (
    Declared("UNET", "unet", "UNet", ByClass, "train_unet.py", "#0072B2", TWO),
    Declared("Autoencoder", "autoencoder", "AutoencoderSegmenter", ByClass, "train_autoencoder.py", "#E69F00", TWO),
    Declared("CLIP", "clip", "CLIPCNN", ByClass, "train_clip.py", "#009E73"),
    Declared("CLIP fine-tuned", "clip", "CLIPCNN", ByClass, TUNE, "#D55E00", own_folder="clip_finetuned"),
    Declared("CLIPSeg", "clipseg", "CLIPSeg", ByText, "evaluate.py --ROWS=CLIPSeg", "#999999", hub_id=HUB_ID),
    Declared("PointCLIP", "pointclip", "PointCLIP", ByClick, "train_pointclip.py", "#CC79A7", zoom=True),
)


def find_rows(checkpoints: str | Path) -> dict[str, Declared]:
    """Name -> row: those of ROWS, then the user's own that have a checkpoint (`train_clip.py --ROW=NAME`)."""
    found = {row.name: row for row in ROWS}
    models = {row.file: row for row in reversed(ROWS)}  # of several with one model the first
    folders = {row.folder for row in ROWS}
    for name in sorted({path.parent.name for path in Path(checkpoints).glob("*/best.*")}):
        if name in folders or name in found:
            continue
        try:
            base = models.get(load(weights_file(Path(checkpoints) / name))["model"])
        except UserError:  # not one of ours
            continue
        if base:
            found[name] = replace(base, name=name, own_folder=name, script=f'{base.script} --ROW="{name}"', colour="")
    return found


def row_named(text: str, checkpoints: str | Path) -> str:
    """The row with this name in the table or this folder, in any case: the constant MODEL. Raises UserError."""
    rows = find_rows(checkpoints)
    named = [name for name, row in rows.items() if text.lower() in (name.lower(), row.folder.lower())]
    if not named:
        raise UserError(f"MODEL = {text!r}: must be one of {', '.join(name.lower() for name in rows)}")
    return named[0]


def best_row(checkpoints: str | Path) -> str:
    """The row by class that was best on its validation split. Raises UserError if none has a checkpoint."""
    by_class = {name: row for name, row in find_rows(checkpoints).items() if not row.kind.prompt}
    files = {name: weights_file(Path(checkpoints) / row.folder) for name, row in by_class.items()}
    scores = {name: load(path).get("score", 0.0) for name, path in files.items() if path.exists()}
    if not scores:
        raise UserError(f"no row in {checkpoints} has a checkpoint; `{ROWS[0].command}` makes one")
    return max(scores, key=scores.get)


def folder_of(row: str, model: str) -> str:
    """Folder below CHECKPOINTS of a training's row: a new row's name is its folder's. Raises UserError.

    row: the constant ROW, "" for the row that the script trains by itself; model: that row's file.
    """
    for declared in ROWS:
        if declared.file == model and row in ("", declared.name):
            return declared.folder
    if not re.fullmatch(r"\w[\w .+-]*", row) or row.lower() in {x for d in ROWS for x in (d.name.lower(), d.folder)}:
        raise UserError(f"ROW = {row!r}: choose a name of letters, digits, spaces and .+- that no other row has")
    return row


def load_row(
    name: str, checkpoints: str | Path, device: torch.device, classes: Classes | None = None, **options
) -> Row:
    """The row `name`, one of find_rows(), rebuilt from its weights. Raises UserError with the command that makes them.

    classes: those of the data, the prompts of a row by text; None: background, cat and dog. options: `zoom`, False for
    no closer look; `precision`, like the constant PRECISION, instead of fp32; of a row by text `hub_id`, its weights by
    id or folder, and the `threshold` of its scores; `flip`, see Row.
    """
    rows = find_rows(checkpoints)
    if name not in rows:
        raise UserError(f"there is no row {name!r} in {checkpoints}; there are {', '.join(rows)}")
    return _load(rows[name], checkpoints, device, classes, **options)


def _load(
    row: Declared,
    checkpoints: str | Path,
    device: torch.device,
    classes: Classes | None,
    *,
    zoom: bool = True,
    flip: bool = False,
    precision: str = "fp32",
    hub_id: str = "",
    threshold: float = 0.3,
) -> Row:
    folder = Path(checkpoints) / row.folder
    if row.hub_id:
        hub_id = hub_id or row.hub_id
        try:
            model = row.model.from_pretrained(hub_id).to(device)
        except OSError as error:
            raise UserError(str(error)) from error
        about = (model.image_size, model.mean, model.std, classes or PETS, model.title, hub_id)
        return row.kind(row.name, model, device, *about, flip=flip, precision=precision, threshold=threshold)
    path = weights_file(folder)
    if not path.exists():
        raise UserError(f"{path} is missing; `{row.command}` makes it")
    model, content = load_model(path, row.file, device)
    if lost := [key for key in ("image_size", "mean", "std") if key not in content]:
        raise UserError(f"{path} does not say its {' and '.join(lost)}: train it again")
    about = (content["image_size"], content["mean"], content["std"], classes_of(content), content.get("encoder", ""))
    zoom = zoom and (row.zoom or content.get("zoom", False))
    made = row.kind(row.name, model, device, *about, str(path), row.scales, zoom, flip, precision)
    if row.kind is ByClick and zoom and "encoder_from" in content:
        rows = (x for x in find_rows(checkpoints).values() if x.folder == content["encoder_from"])
        source = next((x for x in rows if x.kind is ByClass), None)
        class_row = _load(source, checkpoints, device, classes, precision=precision) if source else None
        if class_row and class_row.classes == made.classes:
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
    """The rows whose weights are here, in the order of the table, and why the others are not.

    classes: of the data in root, None: any. options: those of load_row().
    """
    rows, missing = [], {}
    for name, declared in find_rows(checkpoints).items():
        if name not in names:
            continue
        try:
            row = _load(declared, checkpoints, device, classes, **options)
            if classes:
                require_same(row.classes, classes, row.checkpoint, root)
            rows.append(row)
        except UserError as error:
            missing[name] = str(error)
    return rows, missing


def load_model(path: str | Path, name: str, device: torch.device) -> tuple[nn.Module, dict]:
    """The trained model in a file CHECKPOINTS/ROW/best.safetensors, in evaluation mode, and the file's other content.

    The model is rebuilt from the file alone. Raises UserError if it is not a `name`, one of the files in ROWS.
    """
    path, content = Path(path), load(path)
    if content.get("model") != name:
        raise UserError(f"{path} holds a model {content.get('model')!r}, not {name!r}")
    for option in ("skips", "click_shape"):  # of older files; what they said is the rule now
        content["arguments"].pop(option, None)
    try:
        model = next(row.model for row in ROWS if row.file == name)(**content["arguments"])
    except OSError as error:  # its pretrained encoder is not here
        raise UserError(f"{path} needs its encoder: {error}") from error
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"{path} was written by another version of {name}: {error}; train it again") from error
    weights = content["weights"]
    if "encoder_from" in content:  # a row that this one shares its encoder with
        source = weights_file(path.parent.parent / content["encoder_from"])
        encoder = encoder_weights(load(source), source)
        if digest(encoder) != content.get("encoder_digest"):
            raise UserError(f"{path} was trained on another encoder than {source} holds now: train it again")
        weights = weights | encoder
    load_state(model, weights, path, ignore="encoder." if content["arguments"].get("freeze_encoder") else "")
    return model.to(device, memory_format=torch.channels_last).eval(), content
