"""Distillation: a network also predicts what a trained one makes of the same pictures, tokens and classes."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from utils.checkpoint import load, save
from utils.inputs.augment import normalise

HEADS = "teacher_heads."  # the layers that predict the teacher's tokens: what their weights' names start with


class Teacher:
    """Pictures (N, 3, H, W), float in 0..1 -> what a CLIPCNN (models/clip.py) makes of them, without gradient.

    scale: of the pictures' size, at which it sees them, to the next multiple of its patches.
    """

    def __init__(self, model: nn.Module, scale: float):
        self.model = model.eval().requires_grad_(False)
        self.channels = model.encoder.vit.config.hidden_size
        self.scale = scale

    @torch.no_grad()
    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The last block's tokens (N, C, h, w), the embedding (N, C) and the logits (N, classes, 8 h, 8 w)."""
        encoder = self.model.encoder
        size = [max(round(side * self.scale / encoder.patch_size), 1) * encoder.patch_size for side in images.shape[-2:]]
        images = F.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=True)
        images = normalise(images, encoder.mean, encoder.std)
        tokens, embedding = encoder.encode(images)
        return tokens[:, -self.channels :], embedding, self.model(images, tokens)


def distillation_loss(
    logits: torch.Tensor, predicted: list[torch.Tensor], taught: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
) -> torch.Tensor:
    """What a network's logits (N, classes, H, W) and predicted tokens lack of its teacher's, `taught`; scalar.

    The Kullback-Leibler divergence of the classes, mean over the pixels (Hinton et al., 2015), and the mean squared
    error of the tokens, mean over the maps (FitNets, Romero et al., ICLR 2015). predicted: maps (N, C, h, w): the
    first, of one place, for the embedding, the others for the tokens, which are averaged to their size. The teacher's
    vectors are normalised to mean 0 and variance 1.
    """
    tokens, embedding, teacher_logits = taught
    embedding, tokens = (F.layer_norm(x.float(), x.shape[-1:]) for x in (embedding, tokens.movedim(1, -1)))
    tokens = tokens.movedim(-1, 1)
    targets = [embedding[:, :, None, None], *(F.adaptive_avg_pool2d(tokens, x.shape[-2:]) for x in predicted[1:])]
    errors = sum(F.mse_loss(x.float(), target) for x, target in zip(predicted, targets, strict=True)) / len(predicted)
    teacher_logits = F.interpolate(
        teacher_logits.float(), size=logits.shape[-2:], mode="bilinear", align_corners=False
    )
    own, others = (x.float().contiguous().log_softmax(1) for x in (logits, teacher_logits))
    return errors + F.kl_div(own, others, reduction="none", log_target=True).sum(1).mean()


def drop_heads(path: Path) -> None:
    """Take the layers that predict the teacher's tokens out of a checkpoint: they are of use in training alone."""
    content = load(path)
    content["arguments"].pop("teacher_channels", None)
    content["weights"] = {name: value for name, value in content["weights"].items() if not name.startswith(HEADS)}
    save(content, path)
