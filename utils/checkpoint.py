"""Checkpoint files: written whole or not at all, read without running anything that they hold."""

import hashlib
from pathlib import Path

import torch
from torch import nn

from utils.classes import PETS, Classes, named
from utils.errors import UserError
from utils.files import replacing

FORMAT = 1  # raised when a reader of the old files would misread new ones


def save(content: dict, path: str | Path) -> None:
    """Write a checkpoint. Raises UserError, loses nothing."""
    with replacing(path) as temporary:
        torch.save({"format": FORMAT, **content}, temporary)


def halve(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights to ship, in half the space: float16, but for biases and norms, whose range it could not hold."""
    return {name: value.half() if value.ndim > 1 else value for name, value in weights.items()}


def load(path: str | Path) -> dict:
    """Read a checkpoint onto the CPU, tensors and plain values only. Raises UserError naming the file."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} is missing")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        version = int(content["format"])
    except Exception as error:  # what it is depends on the byte that is damaged
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise UserError(f"{path} is no checkpoint of this project, or is damaged ({reason}); train it again") from error
    if version > FORMAT:
        raise UserError(f"{path} was written by a newer version (format {version}, this one reads {FORMAT}): update")
    return content


def digest(weights: dict[str, torch.Tensor]) -> str:
    """A checksum of weights and their names."""
    total = hashlib.sha256()
    for name, value in sorted(weights.items()):
        total.update(name.encode() + value.contiguous().numpy().tobytes())
    return total.hexdigest()


def load_state(model: nn.Module, state: dict, path: str | Path, ignore: str = "") -> None:
    """Copy weights into a model; parameters whose names start with `ignore` may be missing. Raises UserError."""
    try:
        missing, unexpected = model.load_state_dict(state, strict=False)
    except RuntimeError as error:  # shapes differ
        raise UserError(f"{path} holds another architecture: {str(error).splitlines()[-1].strip()}") from error
    missing = [name for name in missing if not (ignore and name.startswith(ignore))]
    if missing or unexpected:
        odd = f"it lacks {missing[0]}" if missing else f"it has {unexpected[0]}, which the model lacks"
        raise UserError(f"{path} holds another architecture: {odd}")


def classes_of(content: dict) -> Classes:
    """The classes that a checkpoint was trained on; files from before colours were kept have the usual ones."""
    return named(content.get("classes", PETS.names), content.get("colours", ()))
