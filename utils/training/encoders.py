"""Models on a pretrained encoder: from the hub, from another row's weights, or a tiny one where there is none."""

from collections.abc import Callable
from pathlib import Path

from utils.config import require_choice

from torch import nn

from models.clip import encoder_title
from utils.checkpoint import digest, encoder_weights, load, load_state, weights_file
from utils.errors import UserError

WEIGHTS = (".safetensors", ".pt")  # suffixes of files of weights
SAME = ("encoder", "encoder_config", "layers", "widths")  # arguments that decide whether weights fit


def build_model(
    make: Callable[..., nn.Module], arguments: dict, fallback: str, checkpoints: str, start: str = ""
) -> tuple[nn.Module, dict, dict]:
    """A model, the arguments it was made with, and what its checkpoint says of the encoder.

    arguments["encoder"] is the constant ENCODER; fallback: the constant FALLBACK; checkpoints: the folder of the rows,
    one of which may share its encoder; start: the constant START, weights whose encoder and widths are used in place of
    the constants'. Raises UserError if the encoder cannot be had.
    """
    require_choice("FALLBACK", fallback, ("", "tiny"))
    if start:
        saved = load(start)["arguments"]
        arguments = arguments | {key: saved[key] for key in SAME if key in saved}
        if arguments["freeze_encoder"] and "encoder_config" in saved:  # START's encoder stays in its file
            arguments["encoder"] = str(weights_file(start) if Path(start).is_dir() else start)
    try:
        if arguments["encoder"].endswith(WEIGHTS):
            return _share_encoder(make, arguments, checkpoints)
        model = None if arguments["encoder"] == "tiny" else make(**arguments)
    except ValueError as error:  # no such layer
        raise UserError(f"LAYERS = {arguments['layers']}: {error}") from error
    except OSError as error:
        if fallback != "tiny":
            raise UserError(f"ENCODER = {error}") from error
        print(f"{arguments['encoder']} cannot be had here; FALLBACK trains a tiny encoder from scratch in its place")
        model = None
    if model is None:
        arguments = arguments | {"encoder": "tiny", "layers": (), "freeze_encoder": False}
        model = make(**arguments)
    elif not arguments["freeze_encoder"]:  # the checkpoint holds it, and needs no other file
        arguments = arguments | {"encoder_config": model.encoder.config()}
    return model, arguments, _describe(arguments)


def _share_encoder(make: Callable[..., nn.Module], arguments: dict, checkpoints: str) -> tuple[nn.Module, dict, dict]:
    """A model on the encoder that another row fine-tuned; its checkpoint refers to that row's."""
    file = Path(arguments["encoder"])
    used = weights_file(Path(checkpoints) / file.parent.name)
    if not arguments["freeze_encoder"] or file != used:
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
    return str(beside) if start and not Path(start).exists() and beside.exists() else start


def load_start(model: nn.Module, frozen: bool, start: str) -> None:
    """Copy the weights of an earlier training, the constant START, into a model. Raises UserError if they do not fit.

    A frozen encoder stays as it is, for the checkpoint will not hold it; the layer that names parts is fitted anew.
    """
    left_out = ("name_layer.", "encoder.") if frozen else ("name_layer.",)
    weights = {name: value for name, value in load(start)["weights"].items() if not name.startswith(left_out)}
    load_state(model, weights, start, ignore="encoder.")


def load_decoder(model: nn.Module, arguments: dict, path: Path) -> bool:
    """Copy encoder and decoder of a row by class into a model that takes clicks; False, with a line, if they differ."""
    saved = load(path) if path.exists() else {"arguments": {}}
    if any(saved["arguments"].get(key) != arguments.get(key) for key in SAME):
        print(f"the decoder starts from random weights: {path} is missing or was trained on another encoder")
        return False
    weights = {name: value for name, value in saved["weights"].items() if name.startswith(("encoder.", "decoder."))}
    model.load_state_dict(weights, strict=False)  # clicks are new
    print(f"the decoder starts from {path}")
    return True


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
