"""Weights of an earlier training to start from, whatever their classes are: the constant START."""

from pathlib import Path

from torch import nn

from utils.checkpoint import classes_of, load, load_state, weights_file
from utils.classes import Classes
from utils.errors import UserError


def find_start(start: str, checkpoints: str, *models: str) -> dict:
    """Content and "file" of START: a file, a folder, or the folder of a row in CHECKPOINTS; {} for none.

    models: their files in models/. Raises UserError if the weights are of none of them.
    """
    if not start:
        return {}
    found = Path(start) if Path(start).exists() else Path(checkpoints) / start
    file = weights_file(found) if found.is_dir() else found
    content = load(file)
    if content["model"] not in models:
        wanted = " or ".join(models)
        raise UserError(f"START = {file} holds a model {content['model']!r}: give weights of a model {wanted}")
    return content | {"file": file}


def load_start(model: nn.Module, start: dict, classes: Classes, frozen: bool = False) -> None:
    """Copy what find_start() returned into a model: weights of its family, or all but the last layer of a related one.

    Of the last layer, the weights of classes with the same name are copied; other classes start from random weights. A
    frozen encoder is not loaded: the checkpoint will not hold it. The layer that names parts is fitted anew.
    Raises UserError if they do not fit.
    """
    own, names = model.state_dict(), classes_of(start).names
    left_out = ("name_layer.", "encoder.") if frozen else ("name_layer.",)
    weights = {key: value for key, value in start["weights"].items() if not key.startswith(left_out)}
    line = f"start: {start['file']}"
    by_class = "head.weight" in own
    if by_class != ("classes" in start["arguments"]):  # of a related model
        kept = {key: value for key, value in weights.items() if not key.startswith("head.")}
        weights = {key: own[key] for key in own if key.startswith("head.") or not by_class} | kept
        line += "; the last layer is new" if by_class else "; the last layer and the click layers are new"
    elif by_class and names != classes.names:
        for key in ("head.weight", "head.bias"):
            known, weights[key] = weights[key], own[key].clone()
            for index, name in enumerate(classes.names):
                if name in names:
                    weights[key][index] = known[names.index(name)]
        kept = [name for name in classes.names if name in names]
        new = [name for name in classes.names if name not in names]
        line += f"; its last layer: kept {', '.join(kept) or 'nothing'}; new {', '.join(new) or 'nothing'}"
    load_state(model, weights, start["file"], ignore="encoder.vit.")
    print(line, flush=True)
