"""Models on a pretrained encoder: from the hub, from another row, or a tiny one; weights to start from."""

from collections.abc import Callable
from pathlib import Path

from torch import nn

from models.clip import encoder_title
from utils.checkpoint import digest, encoder_weights, load, load_state, weights_file
from utils.errors import UserError

WEIGHTS = (".safetensors", ".pt")  # suffixes of files of weights
SAME = ("encoder", "encoder_config", "layers", "widths")  # arguments that decide whether weights fit


def build_model(
    make: Callable[..., nn.Module], arguments: dict, checkpoints: str, start: str = ""
) -> tuple[nn.Module, dict, dict]:
    """A model, the arguments it was made with, and what its checkpoint says of the encoder.

    arguments["encoder"] is the constant ENCODER; checkpoints: the folder of the rows, one of which may share its
    encoder; start: weights whose encoder and widths are used in place of the constants'. Raises UserError if the
    encoder cannot be had.
    """
    if start:
        content = load(start)
        arguments = arguments | {key: content["arguments"][key] for key in SAME if key in content["arguments"]}
        print(f"encoder and decoder of {start}", flush=True)
        if arguments["freeze_encoder"] and "encoder_config" in content["arguments"]:  # it stays in its file
            source = Path(checkpoints) / content["encoder_from"] if "encoder_from" in content else Path(start)
            arguments["encoder"] = str(weights_file(source) if source.is_dir() else source)
    if arguments["encoder"] == "tiny":
        arguments = arguments | {"freeze_encoder": False}  # random weights have to learn
    try:
        if arguments["encoder"].endswith(WEIGHTS):
            return _share_encoder(make, arguments, checkpoints)
        model = make(**arguments)
    except ValueError as error:  # no such layer
        raise UserError(f"LAYERS = {arguments['layers']}: {error}") from error
    except OSError as error:
        raise UserError(f"ENCODER = {error}") from error
    if not arguments["freeze_encoder"] and arguments["encoder"] != "tiny":  # the checkpoint needs no other file
        arguments = arguments | {"encoder_config": model.encoder.config()}
    return model, arguments, _describe(arguments)


def _share_encoder(make: Callable[..., nn.Module], arguments: dict, checkpoints: str) -> tuple[nn.Module, dict, dict]:
    """A model on the encoder that another row fine-tuned; its checkpoint refers to that row's."""
    file = Path(arguments["encoder"])
    used = weights_file(Path(checkpoints) / file.parent.name)
    if not arguments["freeze_encoder"] or file.resolve() != used.resolve():
        raise UserError(f"ENCODER = {file}: give the weights of a row, like {used}, and leave it frozen")
    weights, source = encoder_weights(file), load(file)["arguments"]
    arguments = arguments | {key: source[key] for key in ("encoder", "encoder_config")}
    model = make(**arguments)
    model.load_state_dict(weights, strict=False)
    shared = {"encoder_from": file.parent.name, "encoder_digest": digest(weights)}
    return model, arguments, _describe(arguments) | shared


def _describe(arguments: dict) -> dict:
    return {"encoder": encoder_title(arguments["encoder"], "encoder_config" in arguments)}


def find_start(start: str, checkpoints: str) -> str:
    """The constant START: a file or folder, or that of a row in CHECKPOINTS."""
    beside = Path(checkpoints) / start
    return str(beside) if start and not Path(start).exists() else start


def load_start(model: nn.Module, frozen: bool, start: str) -> None:
    """Copy the weights in START into a model of the same family.

    A frozen encoder stays as it is, for the checkpoint will not hold it; the layer that names parts is fitted anew.
    Raises UserError if they do not fit.
    """
    left_out = ("name_layer.", "encoder.") if frozen else ("name_layer.",)
    weights = {name: value for name, value in load(start)["weights"].items() if not name.startswith(left_out)}
    load_state(model, weights, start, ignore="encoder.")


def load_decoder(model: nn.Module, frozen: bool, start: str) -> None:
    """Copy the decoder of a row by class, and a trained encoder, into a model that takes clicks."""
    parts = ("decoder.",) if frozen else ("decoder.", "encoder.")
    weights = {name: value for name, value in load(start)["weights"].items() if name.startswith(parts)}
    load_state(model, model.state_dict() | weights, start)


def require_multiple(encoder: nn.Module, **sizes: int) -> None:
    """Raise UserError unless the constants are multiples of the encoder's patch size."""
    for name, size in sizes.items():
        if size % encoder.patch_size:
            raise UserError(f"{name} = {size}: must be a multiple of the patch size {encoder.patch_size}")


def parameter_groups(model: nn.Module, **rates: float) -> list[dict]:
    """The trained parameters by their fraction of the learning rate: of the modules named in rates; the others 1."""
    groups = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault(rates.get(name.partition(".")[0], 1.0), []).append(parameter)
    return [{"params": parameters, "lr": rate} for rate, parameters in groups.items()]
