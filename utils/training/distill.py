"""Distillation: a network also predicts the tokens of a trained encoder (FitNets, Romero et al., ICLR 2015)."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from utils.checkpoint import load, save
from utils.inputs.augment import normalise

HEADS = "teacher_heads."  # the layers that predict the teacher's tokens: what their weights' names start with


class Teacher:
    """Pictures (N, 3, H, W), float in 0..1 -> an encoder's tokens (N, C, h, w) and embedding (N, C), no gradient.

    encoder: an ImageEncoder (models/clip.py) that taps its last block alone. scale: of the pictures' size, at which
    it sees them, to the next multiple of its patches.
    """

    def __init__(self, encoder: nn.Module, scale: float):
        self.encoder = encoder.eval().requires_grad_(False)
        self.scale = scale

    @torch.no_grad()
    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        patch = self.encoder.patch_size
        size = [max(round(side * self.scale / patch), 1) * patch for side in images.shape[-2:]]
        images = F.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=True)
        return self.encoder.encode(normalise(images, self.encoder.mean, self.encoder.std))


def distillation_loss(predicted: list[torch.Tensor], tokens: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
    """Mean squared error of what a network predicts of its teacher, a mean over its maps; scalar.

    predicted: maps (N, C, h, w): the first, of one place, for the embedding (N, C), the others for the tokens
    (N, C, H, W), which are averaged to their size. The teacher's vectors are normalised to mean 0 and variance 1.
    """
    embedding, tokens = (F.layer_norm(x.float(), x.shape[-1:]) for x in (embedding, tokens.movedim(1, -1)))
    tokens = tokens.movedim(-1, 1)
    targets = [embedding[:, :, None, None], *(F.adaptive_avg_pool2d(tokens, x.shape[-2:]) for x in predicted[1:])]
    return sum(F.mse_loss(x.float(), target) for x, target in zip(predicted, targets, strict=True)) / len(predicted)


def drop_heads(path: Path) -> None:
    """Take the layers that predict the teacher's tokens out of a checkpoint: they are of use in training alone."""
    content = load(path)
    content["arguments"].pop("teacher_channels", None)
    content["weights"] = {name: value for name, value in content["weights"].items() if not name.startswith(HEADS)}
    save(content, path)
