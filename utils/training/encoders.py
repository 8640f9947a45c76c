"""Models on a pretrained encoder: from the hub, from another row, or a tiny one."""

from collections.abc import Callable
from pathlib import Path

from torch import nn

from models.clip import encoder_title
from utils.checkpoint import borrowed_encoder, digest, encoder_weights, load, load_state, weights_file
from utils.errors import UserError

WEIGHTS = (".safetensors", ".pt")  # suffixes of files of weights
SAME = ("encoder", "encoder_config", "layers", "widths")  # arguments that decide whether weights fit


def build_model(
    make: Callable[..., nn.Module], arguments: dict, start: dict, sizes: dict[str, int], share_with: str = ""
) -> tuple[nn.Module, dict, dict]:
    """A model, the arguments it was made with, and what its checkpoint says of the encoder.

    arguments["encoder"] is the constant ENCODER; start: what find_start() returned, whose encoder and widths are used
    in place of the constants'. A frozen encoder that another row fine-tuned is stored with the model, or, if that row
    lies in the folder share_with (CHECKPOINTS), by a reference to its file. Raises UserError if the encoder cannot be
    had, or if one of the constants in sizes is no multiple of its patch size.
    """
    if start:
        arguments = arguments | {key: start["arguments"][key] for key in SAME if key in start["arguments"]}
        if "encoder_config" in arguments:  # fine-tuned: its weights are in this file or in that of another row
            other = start.get("encoder_from")
            borrowed_encoder(start, start["file"])  # it has not changed
            arguments["encoder"] = str(weights_file(start["file"].parent.parent / other) if other else start["file"])
    if arguments["encoder"] == "tiny":
        arguments = arguments | {"freeze_encoder": False}  # random weights have to learn
    elif weights_file(arguments["encoder"]).is_file():  # a row's folder
        arguments = arguments | {"encoder": str(weights_file(arguments["encoder"]))}
    where = {}
    try:
        if arguments["encoder"].endswith(WEIGHTS):
            file = Path(arguments["encoder"])
            content = load(file)
            weights = encoder_weights(content, file)
            arguments = arguments | {key: content["arguments"][key] for key in ("encoder", "encoder_config")}
            shared = share_with and weights_file(Path(share_with) / file.parent.name).resolve() == file.resolve()
            shared = shared and "classes" in content["arguments"]  # of a row by class
            reference = {"encoder_from": file.parent.name, "encoder_digest": digest(weights)}
            where = reference if shared else {"holds_encoder": True}
        model = make(**arguments)
    except ValueError as error:  # no such layer
        raise UserError(f"LAYERS = {arguments['layers']}: {error}") from error
    except OSError as error:
        raise UserError(f"ENCODER = {error}") from error
    if where:
        load_state(model, model.state_dict() | weights, file)
    elif not arguments["freeze_encoder"] and arguments["encoder"] != "tiny":  # the checkpoint needs no other file
        arguments = arguments | {"encoder_config": model.encoder.config()}
    for name, size in sizes.items():
        if size % model.encoder.patch_size:
            raise UserError(f"{name} = {size}: must be a multiple of the patch size {model.encoder.patch_size}")
    title = encoder_title(arguments["encoder"], "encoder_config" in arguments)
    print(f"encoder: {title}", flush=True)
    return model, arguments, {"encoder": title, **where} | ({"start": digest(start["weights"])} if start else {})
