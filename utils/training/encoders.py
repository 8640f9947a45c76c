"""Models on a pretrained encoder: from the hub, from another row, or a tiny one"""

from collections.abc import Callable
from pathlib import Path

from torch import nn

from models.clip import encoder_title
from utils.checkpoint import digest, encoder_weights, load, weights_file
from utils.errors import UserError

WEIGHTS = (".safetensors", ".pt")  # suffixes of files of weights
SAME = ("encoder", "encoder_config", "layers", "widths")  # arguments that decide whether weights fit


def build_model(
    make: Callable[..., nn.Module], arguments: dict, start: str = "", share_with: str = ""
) -> tuple[nn.Module, dict, dict]:
    """A model, the arguments it was made with, and what its checkpoint says of the encoder.

    arguments["encoder"] is the constant ENCODER; start: weights whose encoder and widths are used in place of the
    constants'. A frozen encoder that another row fine-tuned is stored with the model, or, if that row lies in the
    folder share_with (CHECKPOINTS), by a reference to its file. Raises UserError if the encoder cannot be had.
    """
    if start:
        content = load(start)
        arguments = arguments | {key: content["arguments"][key] for key in SAME if key in content["arguments"]}
        if "encoder_config" in content["arguments"]:  # a fine-tuned one, in this file or in that of another row
            file = weights_file(start) if Path(start).is_dir() else Path(start)
            other = content.get("encoder_from")
            arguments["encoder"] = str(weights_file(file.parent.parent / other) if other else file)
    if arguments["encoder"] == "tiny":
        arguments = arguments | {"freeze_encoder": False}  # random weights have to learn
    try:
        if arguments["encoder"].endswith(WEIGHTS):
            return _take_encoder(make, arguments, share_with)
        model = make(**arguments)
    except ValueError as error:  # no such layer
        raise UserError(f"LAYERS = {arguments['layers']}: {error}") from error
    except OSError as error:
        raise UserError(f"ENCODER = {error}") from error
    if not arguments["freeze_encoder"] and arguments["encoder"] != "tiny":  # the checkpoint needs no other file
        arguments = arguments | {"encoder_config": model.encoder.config()}
    return model, arguments, _describe(arguments)


def _take_encoder(make: Callable[..., nn.Module], arguments: dict, share_with: str) -> tuple[nn.Module, dict, dict]:
    file = Path(arguments["encoder"])
    content = load(file)
    weights = encoder_weights(content, file)
    arguments = arguments | {key: content["arguments"][key] for key in ("encoder", "encoder_config")}
    model = make(**arguments)
    model.load_state_dict(weights, strict=False)
    where = {"holds_encoder": True}
    if share_with and weights_file(Path(share_with) / file.parent.name).resolve() == file.resolve():
        where = {"encoder_from": file.parent.name, "encoder_digest": digest(weights)}
    return model, arguments, _describe(arguments) | where


def _describe(arguments: dict) -> dict:
    return {"encoder": encoder_title(arguments["encoder"], "encoder_config" in arguments)}


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
