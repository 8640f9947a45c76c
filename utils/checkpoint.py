"""Checkpoint files: written whole or not at all, read without running code from the file."""

import hashlib
import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save as to_bytes
from torch import nn

from utils.classes import PETS, Classes, named
from utils.errors import UserError
from utils.files import replacing

FORMAT = 1  # increased when older versions of this code would misread new files
ABOUT = "about"  # key in the header's metadata: everything but the weights, as JSON
REQUIRED = ("model", "arguments", "weights")


def weights_file(folder: str | Path) -> Path:
    """The weights in a row's folder."""
    return Path(folder) / "best.safetensors"


def save(content: dict, path: str | Path) -> None:
    """Write a checkpoint: NAME.safetensors with weights to use, or NAME.pt, which also holds the state of a run.

    Raises UserError; a file that was there before is then untouched.
    """
    path, content = Path(path), {"format": FORMAT, **content}
    if path.suffix != ".safetensors":
        with replacing(path) as temporary:
            torch.save(content, temporary)
        return
    with replacing(path) as temporary:
        _check(content)
        # Copied: safetensors takes neither channels_last nor shared memory.
        weights = {name: x.clone(memory_format=torch.contiguous_format) for name, x in content.pop("weights").items()}
        temporary.write_bytes(to_bytes(weights, {ABOUT: json.dumps(content)}))


def halve(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights to ship, in half the space: float16, except biases and norms, which may exceed its range."""
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
    except Exception as error:  # its type depends on the byte that is damaged
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise UserError(f"{path} is no checkpoint of this project, or is damaged ({reason}); train it again") from error
    if version > FORMAT:
        raise UserError(f"{path} was written by a newer version (format {version}, this one reads {FORMAT}): update")
    return content


def _read_safetensors(path: Path) -> dict:
    with safe_open(path, framework="pt") as file:  # checks the header, sizes and offsets
        about = json.loads(file.metadata()[ABOUT])
        # Copied: safe_open's tensors are memory maps of the file, which may change.
        return {**about, "weights": {name: file.get_tensor(name).clone() for name in file.keys()}}  # noqa: SIM118


def _check(content: dict) -> None:
    """Raise RuntimeError unless everything required is there and all weights are finite."""
    for key in REQUIRED:
        if key not in content:
            raise RuntimeError(f"{key} is missing")
    names = content.get("classes", PETS.names)
    if content["arguments"].get("classes", len(names)) != len(names):
        raise RuntimeError(f"its classes are {', '.join(names)}, which are too many or too few")
    for name, value in content["weights"].items():
        if not isinstance(value, torch.Tensor):
            raise RuntimeError(f"{name} is no tensor")
        if not value.isfinite().all():
            raise RuntimeError(f"{name} holds NaN or infinity")


def digest(weights: dict[str, torch.Tensor]) -> str:
    """SHA-256 of weights and their names."""
    total = hashlib.sha256()
    for name, value in sorted(weights.items()):
        total.update(name.encode() + value.contiguous().numpy().tobytes())
    return total.hexdigest()


def file_digest(path: str | Path) -> str:
    """The first 12 digits of a file's SHA-256; "" for what is no file, such as an id of the hub."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12] if Path(path).is_file() else ""


def load_state(model: nn.Module, state: dict, path: str | Path, ignore: str = "") -> None:
    """Copy weights into a model; names that start with `ignore` may be missing in state. Raises UserError."""
    ignored = {name: value for name, value in model.state_dict().items() if ignore and name.startswith(ignore)}
    try:
        model.load_state_dict(ignored | state)
    except RuntimeError as error:  # its second line is the first missing, unexpected or differently shaped weight
        raise UserError(f"{path} holds another architecture: {str(error).splitlines()[1].strip()[:200]}") from error


def classes_of(content: dict) -> Classes:
    """The classes of a checkpoint, in PASCAL VOC's colours if it stores none."""
    return named(content.get("classes", PETS.names), content.get("colours", ()))


def encoder_weights(content: dict, path: str | Path) -> dict[str, torch.Tensor]:
    """The fine-tuned encoder's weights in content = load(path), by their names in the model. Raises UserError."""
    weights = {name: value for name, value in content["weights"].items() if name.startswith("encoder.")}
    if "encoder_config" not in content["arguments"] or not weights:
        raise UserError(f"{path} holds no pretrained encoder that was fine-tuned (FREEZE_ENCODER = False)")
    return weights


def borrowed_encoder(content: dict, path: str | Path) -> dict[str, torch.Tensor]:
    """Weights of the encoder that a checkpoint takes from another row, or {}. Raises UserError if they changed."""
    if "encoder_from" not in content:
        return {}
    source = weights_file(Path(path).parent.parent / content["encoder_from"])
    weights = encoder_weights(load(source), source)
    if digest(weights) != content.get("encoder_digest"):
        raise UserError(f"{path} was trained on another encoder than {source} holds now: train it again")
    return weights
