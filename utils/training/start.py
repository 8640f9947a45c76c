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


def load_start(model: nn.Module, start: str, classes: Classes, frozen: bool = False) -> bool:
    """Copy the weights in START into a model: of the same family, or the decoder of a row by class into one by click.

    Of the last layer, the weights of classes with the same name are copied; other classes start from random weights. A
    frozen encoder is not loaded, as the checkpoint will not hold it; the layer that names parts is fitted anew.
    Returns whether the weights are of another family. Raises UserError if they do not fit.
    """
    content, own = load(start), model.state_dict()
    left_out = ("name_layer.", "encoder.") if frozen else ("name_layer.",)
    weights = {key: value for key, value in content["weights"].items() if not key.startswith(left_out)}
    then, line = classes_of(content).names, f"start: {start}"
    of_other_family = "head.weight" in weights and "head.weight" not in own
    if of_other_family:
        weights = own | {key: value for key, value in weights.items() if not key.startswith("head.")}
        line += "; the last layer is new"
    elif "head.weight" in own and then != classes.names:
        for key in ("head.weight", "head.bias"):
            known, weights[key] = weights[key], own[key].clone()
            for index, name in enumerate(classes.names):
                if name in then:
                    weights[key][index] = known[then.index(name)]
        kept, new = ([name for name in classes.names if (name in then) == old] for old in (True, False))
        line += "; its last layer: " + ", ".join(
            f"{' and '.join(names)} {what}" for names, what in ((kept, "kept"), (new, "new")) if names
        )
    load_state(model, weights, start, ignore="encoder.")
    print(line, flush=True)
    return of_other_family
