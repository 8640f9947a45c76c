"""Weights of an earlier training to start from, whatever their classes are: the constant START."""

from pathlib import Path

from torch import nn

from utils.checkpoint import classes_of, load, load_state
from utils.classes import Classes
from utils.errors import UserError


def find_start(start: str, checkpoints: str, *models: str) -> str:
    """A file or folder, or that of a row in CHECKPOINTS; "" for none.

    models: their files in models/. Raises UserError if the weights are of none of them.
    """
    if not start:
        return ""
    found = start if Path(start).exists() else str(Path(checkpoints) / start)
    if (model := load(found)["model"]) not in models:
        raise UserError(f"START = {found} holds a model {model!r}: give weights of a model {' or '.join(models)}")
    return found


def load_start(model: nn.Module, start: str, classes: Classes, frozen: bool = False) -> None:
    """Copy the weights in START into a model of the same family.

    The last layer keeps what it knows of classes with the same name; other classes start from random weights. A frozen
    encoder stays as it is, for the checkpoint will not hold it; the layer that names parts is fitted anew. Raises
    UserError if the weights do not fit.
    """
    content = load(start)
    left_out = ("name_layer.", "encoder.") if frozen else ("name_layer.",)
    weights = {key: value for key, value in content["weights"].items() if not key.startswith(left_out)}
    then, heads = classes_of(content).names, ()
    if then != classes.names and content["model"] != "pointclip":  # which knows no classes
        heads = ("head.weight", "head.bias")
    for key in heads:
        fresh = model.state_dict()[key].clone()
        for index, class_name in enumerate(classes.names):
            if class_name in then:
                fresh[index] = weights[key][then.index(class_name)]
        weights[key] = fresh
    load_state(model, weights, start, ignore="encoder.")
    groups = {"kept": [c for c in classes.names if c in then], "new": [c for c in classes.names if c not in then]}
    head = ", ".join(f"{' and '.join(names)} {what}" for what, names in groups.items() if names) if heads else "kept"
    print(f"start: {start}; its last layer: {head}", flush=True)
