"""Checkpoint files: written whole or not at all, read without running anything that they hold."""

import hashlib
import json
import math
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save as to_bytes
from torch import nn

from utils.classes import PETS, Classes, named
from utils.errors import UserError
from utils.files import replacing

FORMAT = 1  # raised when a reader of the old files would misread new ones
ABOUT = "about"  # key of the header's metadata: everything but the weights, as JSON
DTYPES = (torch.float16, torch.float32, torch.int64)  # of weights
REQUIRED = ("model", "arguments", "weights")
# Of the values that a file may hold.
TYPES = {
    str: ("model", "encoder", "encoder_from", "encoder_digest"),
    dict: ("arguments", "weights", "constants"),
    tuple: ("mean", "std", "classes", "colours"),
    int: ("image_size", "epoch"),
    (int, float): ("minutes", "score"),
    bool: ("zoom", "holds_encoder"),
}


def weights_file(folder: str | Path, stem: str = "best") -> Path:
    """The weights in a row's folder: best.safetensors, or the best.pt of an older training if that is missing."""
    files = [Path(folder) / f"{stem}{suffix}" for suffix in (".safetensors", ".pt")]
    return next((file for file in files if file.exists()), files[0])


def save(content: dict, path: str | Path) -> None:
    """Write a checkpoint: NAME.safetensors, weights to use, or NAME.pt, which also holds the state of a run.

    Raises UserError, loses nothing.
    """
    path, content = Path(path), {"format": FORMAT, **content}
    if path.suffix != ".safetensors":
        with replacing(path) as temporary:
            torch.save(content, temporary)
        return
    try:
        _check(content)
    except (TypeError, ValueError) as error:
        raise UserError(f"cannot write {path}: {error}; what was there before is untouched") from error
    # Copies: safetensors takes neither channels_last nor shared memory.
    weights = {name: x.clone(memory_format=torch.contiguous_format) for name, x in content.pop("weights").items()}
    with replacing(path) as temporary:
        temporary.write_bytes(to_bytes(weights, {ABOUT: json.dumps(_without_tuples(content))}))


def halve(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights to ship, in half the space: float16, but for biases and norms, whose range it could not hold."""
    return {name: value.half() if value.ndim > 1 else value for name, value in weights.items()}


def load(path: str | Path) -> dict:
    """Read a checkpoint, or the weights in a row's folder, onto the CPU. Raises UserError naming the file."""
    path = weights_file(path) if Path(path).is_dir() else Path(path)
    if not path.is_file():
        raise UserError(f"{path} is {'a folder' if path.is_dir() else 'missing'}")
    try:
        tensors = path.suffix == ".safetensors"
        content = _read_safetensors(path) if tensors else torch.load(path, map_location="cpu", weights_only=True)
        version = int(content["format"])
        if version <= FORMAT:
            _check(content)
    except Exception as error:  # what it is depends on the byte that is damaged
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise UserError(f"{path} is no checkpoint of this project, or is damaged ({reason}); train it again") from error
    if version > FORMAT:
        raise UserError(f"{path} was written by a newer version (format {version}, this one reads {FORMAT}): update")
    return content


def _read_safetensors(path: Path) -> dict:
    with safe_open(path, framework="pt") as file:  # checks the header, sizes and offsets
        about = file.metadata()[ABOUT]
        about = json.loads(about, object_hook=lambda x: tuple(x["tuple"]) if x.keys() == {"tuple"} else x)
        # Copies: a tensor of safe_open's is a part of the file, which may change.
        return {**about, "weights": {name: file.get_tensor(name).clone() for name in file.keys()}}  # noqa: SIM118


def _without_tuples(value: object) -> object:
    """JSON has no tuples: (1, 2) becomes {"tuple": [1, 2]}."""
    if isinstance(value, dict):
        return {key: _without_tuples(x) for key, x in value.items()}
    if isinstance(value, (list, tuple)):
        values = [_without_tuples(x) for x in value]
        return {"tuple": values} if isinstance(value, tuple) else values
    return value


def _check(content: dict) -> None:
    """Raise ValueError or TypeError unless the content is complete, makes sense, and its weights are finite numbers."""
    if missing := [key for key in REQUIRED if key not in content]:
        raise ValueError(f"{missing[0]} is missing")
    for kind, keys in TYPES.items():
        if odd := [key for key in keys if key in content and not isinstance(content[key], kind)]:
            raise ValueError(f"{odd[0]} is {str(content[odd[0]])[:60]}")
    size, mean, std = content.get("image_size", 1), content.get("mean", (0, 0, 0)), content.get("std", (1, 1, 1))
    if not 0 < size < 1 << 16 or not all(map(math.isfinite, mean + std)) or min(std) <= 0 or len(mean + std) != 6:
        raise ValueError(f"image_size is {size}, mean {mean}, std {std}")
    names, colours = content.get("classes", PETS.names), content.get("colours", ())
    listed = ", ".join(names)  # TypeError if they are no text
    if content["arguments"].get("classes", len(names)) != len(names) or len(colours) not in (0, len(names)):
        raise ValueError(f"its classes are {listed}, which are too many or too few")
    if not all(len(colour) == 3 and min(colour) >= 0 and max(colour) <= 255 for colour in colours):
        raise ValueError(f"colours is {str(colours)[:60]}")
    for name, value in content["weights"].items():
        if not isinstance(value, torch.Tensor) or value.dtype not in DTYPES:
            raise ValueError(f"{name} is of type {getattr(value, 'dtype', type(value).__name__)}")
        if not value.isfinite().all():
            raise ValueError(f"{name} holds NaN or infinity")


def digest(weights: dict[str, torch.Tensor]) -> str:
    """A checksum of weights and their names."""
    total = hashlib.sha256()
    for name, value in sorted(weights.items()):
        total.update(name.encode() + value.contiguous().numpy().tobytes())
    return total.hexdigest()


def load_state(model: nn.Module, state: dict, path: str | Path, ignore: str = "") -> None:
    """Copy weights into a model; parameters whose names start with `ignore` may be missing. Raises UserError."""
    own = model.state_dict()
    for name, value in state.items():  # copying would cast
        if name in own and value.dtype.is_floating_point != own[name].dtype.is_floating_point:
            raise UserError(f"{path} holds another architecture: {name} is {value.dtype}")
    ignored = {name: value for name, value in own.items() if ignore and name.startswith(ignore)}
    try:
        model.load_state_dict(ignored | state)
    except RuntimeError as error:  # its lines: a title, what is missing, what is too much, what has another shape
        raise UserError(f"{path} holds another architecture: {str(error).splitlines()[1].strip()[:200]}") from error


def classes_of(content: dict) -> Classes:
    """The classes that a checkpoint was trained on; files from before colours were kept have the usual ones."""
    return named(content.get("classes", PETS.names), content.get("colours", ()))


def encoder_weights(content: dict, path: str | Path) -> dict[str, torch.Tensor]:
    """The weights of the encoder that a row fine-tuned, by their names in a model; content: of the file path.

    Raises UserError if it has none.
    """
    weights = {name: value for name, value in content["weights"].items() if name.startswith("encoder.")}
    if "encoder_config" not in content["arguments"] or not weights:
        raise UserError(f"{path} holds no pretrained encoder that was fine-tuned (FREEZE_ENCODER = False)")
    return weights
