"""Models on a pretrained encoder: from the hub, from another row's weights, or a tiny one where there is none."""

import re
from collections.abc import Callable
from pathlib import Path

from utils.config import require_choice

from torch import nn

from utils.checkpoint import digest, encoder_weights, load, load_state, weights_file
from utils.errors import UserError

WEIGHTS = (".safetensors", ".pt")  # suffixes of files of weights


def build_model(make: Callable[..., nn.Module], arguments: dict, fallback: str, checkpoints: str) -> tuple:
    """A model and the arguments it was made with: arguments["encoder"] is the constant ENCODER.

    fallback: the constant FALLBACK; checkpoints: the folder of the rows, one of which may share its encoder. Raises
    UserError if the encoder cannot be had.
    """
    require_choice("FALLBACK", fallback, ("", "tiny"))
    encoder, frozen = arguments["encoder"], arguments["freeze_encoder"]
    tiny = arguments | {"encoder": "tiny", "layers": (), "freeze_encoder": False}
    if encoder == "tiny":
        return make(**tiny), tiny
    try:
        if encoder.endswith(WEIGHTS):
            return _share_encoder(make, arguments, checkpoints)
        model = make(**arguments)
    except ValueError as error:  # no such layer
        raise UserError(f"LAYERS = {arguments['layers']}: {error}") from error
    except OSError as error:
        if fallback != "tiny":
            raise UserError(f"ENCODER = {error}") from error
        print(f"{encoder} cannot be had here; FALLBACK trains a tiny encoder from scratch in its place", flush=True)
        return make(**tiny), tiny
    if not frozen:  # the checkpoint holds it, and needs no other file
        arguments = arguments | {"encoder_config": model.encoder.config()}
    return model, arguments


def _share_encoder(make: Callable[..., nn.Module], arguments: dict, checkpoints: str) -> tuple[nn.Module, dict]:
    """A model on the encoder that another row fine-tuned, and its arguments."""
    file = Path(arguments["encoder"])
    used = weights_file(Path(checkpoints) / file.parent.name)
    if not arguments["freeze_encoder"] or file != used:
        raise UserError(f"ENCODER = {file}: give the weights of a row, like {used}, and leave it frozen")
    weights, source = encoder_weights(file), load(file)["arguments"]
    arguments = arguments | {key: source[key] for key in ("encoder", "encoder_config")}
    model = make(**arguments)
    model.load_state_dict(weights, strict=False)
    return model, arguments


def describe_encoder(arguments: dict, given: str) -> dict:
    """What a checkpoint says of its encoder; an encoder that another row's file holds is stored by reference.

    given: the constant ENCODER.
    """
    if "encoder_config" in arguments and arguments["freeze_encoder"]:
        return {"encoder_from": Path(given).parent.name, "encoder_digest": digest(encoder_weights(given))}
    return {}


def load_start(model: nn.Module, frozen: bool, start: str) -> None:
    """Copy the weights of an earlier training, the constant START, into a model. Raises UserError if they do not fit.

    A frozen encoder stays as it is, for the checkpoint will not hold it; the layer that names parts is fitted anew.
    """
    left_out = ("name_layer.", "encoder.") if frozen else ("name_layer.",)
    weights = {name: value for name, value in load(start)["weights"].items() if not name.startswith(left_out)}
    load_state(model, weights, start, ignore="encoder.")


def load_decoder(model: nn.Module, arguments: dict, path: Path) -> bool:
    """Copy encoder and decoder of a row by class into a model that takes clicks; False, with a line, if they differ."""
    same = ("encoder", "encoder_config", "layers", "widths")
    saved = load(path) if path.exists() else {"arguments": {}}
    if any(saved["arguments"].get(key) != arguments.get(key) for key in same):
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


def parameter_groups(model: nn.Module, encoder: float, decay: float = 1.0, decoder: float = 1.0) -> list[dict]:
    """The trained parameters of models.clip or models.pointclip, by their share of the learning rate.

    encoder, decoder: shares of what lies in model.encoder and in model.decoder; the rest has 1. The encoder's falls by
    `decay` per block towards its input.
    """
    depth = model.encoder.vit.config.num_hidden_layers
    groups = {}
    for name, parameter in model.named_parameters():
        rate = decoder if name.startswith("decoder.") else 1.0
        if name.startswith("encoder."):
            block = re.search(r"layers?\.(\d+)\.", name)
            below = depth - 1 - int(block[1]) if block else depth if "embeddings" in name else 0
            rate = encoder * decay**below
        if parameter.requires_grad:
            groups.setdefault(rate, []).append(parameter)
    return [{"params": parameters, "lr": rate} for rate, parameters in groups.items()]
