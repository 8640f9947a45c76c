"""Rows by text: prompts instead of training, and the one number that is chosen, the threshold."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F

from utils.classes import named
from utils.device import autocast
from utils.files import write_csv
from utils.inputs.augment import normalise
from utils.inputs.clicks import Click
from utils.inputs.layouts import list_samples
from utils.inputs.pictures import Sample, read_sample
from utils.metrics import confusion_matrix, scores
from utils.rows.by_class import to_size
from utils.rows.row import OnPrediction, Read, Row, Segment, Segmentation, read_batches, squash

# Every class behind background in every template; a class's embeddings are averaged.
TEMPLATES = ("a photo of a {}.", "a photograph of a {}.", "an image of a {}.", "{}.")
CANDIDATES = tuple(n / 20 for n in range(1, 16))  # thresholds tried on the validation split: .05 to .75
REPORTED = (0.1, 0.2, 0.3, 0.5)  # thresholds whose scores are written beside those of the chosen one


@dataclass(eq=False)
class ByText(Row):
    """A model that maps normalised pictures and the embeddings of P prompts to logits (N, P, S, S), one per prompt.

    The classes' names are its prompts; a pixel is background where no prompt's score passes the threshold.
    """

    threshold: float = 0.3  # of a score, 0 to 1, until prepare() chooses one
    swept: dict[float, torch.Tensor] = field(default_factory=dict, repr=False)  # threshold -> the last confusions

    prompt: ClassVar[str] = "text"

    @property
    def prompts(self) -> list[list[str]]:
        """The filled-in templates of every class behind background."""
        return [[template.format(name) for template in TEMPLATES] for name in self.classes.things]

    def prepare(self, root: str | Path, batch_size: int = 16) -> None:
        """Choose the threshold with the best mIoU on the validation split."""
        tried = self._sweep(list_samples(root, "val"), CANDIDATES, batch_size)
        self.threshold = max(CANDIDATES, key=lambda threshold: scores(tried[threshold], self.counted)["miou"])

    def score(
        self,
        samples: Sequence[Sample],
        on_prediction: OnPrediction | None = None,
        batch_size: int = 16,
        read: Read = read_sample,
    ) -> torch.Tensor:
        thresholds = tuple(dict.fromkeys((self.threshold, *REPORTED)))
        self.swept = self._sweep(samples, thresholds, batch_size, on_prediction, read)
        return self.swept[self.threshold]

    def write_details(self, folder: str | Path, **about: str) -> None:
        """The scores at the chosen threshold and at REPORTED, a CSV named after the row."""
        lines = []
        for threshold, confusions in sorted(self.swept.items()):
            result = scores(confusions, self.counted)
            keys = ("miou", "mdice", "pixel_accuracy", *(f"iou_{name}" for name in self.classes.things))
            numbers = {key: f"{result[key]:.4f}" for key in keys}
            chosen_on = "val" if threshold == self.threshold else ""
            line = {"model": self.name, "flip": str(int(self.flip)), **about, "threshold": threshold}
            lines.append(line | {"chosen_on": chosen_on, **numbers})
        write_csv(lines, Path(folder) / f"{self.name.lower()}{'_flip' * self.flip}.csv")

    def open(self, image: np.ndarray) -> Segment:
        small = squash([image], self.image_size, self.device)

        def segment(clicks: Sequence[Click] = (), text: str = "") -> Segmentation:
            self.refuse_other_prompts(clicks, "")
            text = text.strip()
            logits = self._logits(small, [[text]] if text else self.prompts)[0]
            if not text:
                ids = to_size(add_background(logits[None], self.threshold)[0], image.shape[:2])
                return Segmentation(ids.cpu().numpy(), self.classes)
            logits = F.interpolate(logits[None], size=image.shape[:2], mode="bilinear", align_corners=False)
            heat = logits[0, 0].sigmoid().cpu().numpy()
            ids = (heat > self.threshold).astype(np.uint8)
            return Segmentation(ids, named((self.classes.names[0], text)), heat=heat)

        return segment

    @torch.inference_mode()
    def _logits(self, images: torch.Tensor, prompts: Sequence[Sequence[str]]) -> torch.Tensor:
        """uint8 pictures (N, 3, S, S) -> logits (N, P, S, S) of P prompts, each a list of filled-in templates."""
        with autocast(self.device, self.precision):
            return self.model(normalise(images, self.mean, self.std), self.model.encode_prompts(prompts), self.flip)

    def _sweep(
        self,
        samples: Sequence[Sample],
        thresholds: Sequence[float],
        batch_size: int,
        on_prediction: OnPrediction | None = None,
        read: Read = read_sample,
    ) -> dict[float, torch.Tensor]:
        """Confusion matrices (N, C, C) at every threshold, from one pass over the pictures.

        on_prediction is called with the predictions at the first threshold.
        """
        count = len(self.classes)
        confusions = torch.zeros(len(thresholds), len(samples), count, count, dtype=torch.int64)
        for indices, images, masks in read_batches(samples, batch_size, self.name, read):
            logits = self._logits(squash(images, self.image_size, self.device), self.prompts)
            for index, mask, of_picture in zip(indices, masks, logits, strict=True):
                resized = F.interpolate(of_picture[None].float(), mask.shape, mode="bilinear", align_corners=False)
                for number, threshold in enumerate(thresholds):
                    ids = class_scores_to_ids(resized, threshold)[0].cpu()
                    confusions[number, index] = confusion_matrix(torch.from_numpy(mask), ids, count)
                    if on_prediction and number == 0:
                        on_prediction(index, ids.byte().numpy(), "")
        return dict(zip(thresholds, confusions, strict=True))


def add_background(logits: torch.Tensor, threshold: float) -> torch.Tensor:
    """Logits of the prompts (N, P, H, W) -> logits of background and prompts (N, 1 + P, H, W).

    Background's is constant, the logit of `threshold`: argmax over channels is 0 where no prompt's score (the
    sigmoid of its logit) exceeds the threshold, else 1 + the prompt with the highest one. Raises ValueError
    unless 0 < threshold < 1.
    """
    if not 0 < threshold < 1:
        raise ValueError(f"threshold {threshold}: must lie between 0 and 1")
    background = torch.full_like(logits[:, :1], math.log(threshold / (1 - threshold)))
    return torch.cat([background, logits], 1)


def class_scores_to_ids(logits: torch.Tensor, threshold: float) -> torch.Tensor:
    """Logits of the prompts (N, P, H, W) -> class ids (N, H, W) int64 by the rule of add_background."""
    return add_background(logits, threshold).argmax(1)
