"""Rows by text: prompts instead of training; one number, the threshold, is chosen on the validation split."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from utils.classes import named
from utils.device import autocast
from utils.files import read_csv, write_csv
from utils.inputs.augment import normalise
from utils.inputs.clicks import Click
from utils.inputs.dataset import scored_samples
from utils.inputs.pictures import Sample
from utils.metrics import confusion_matrix, scores
from utils.rows.row import Predictions, Row, Segment, Segmentation, resized, squash

# Every class behind background in every template; a class's embeddings are averaged.
TEMPLATES = ("a photo of a {}.", "a photograph of a {}.", "an image of a {}.", "{}.")
THRESHOLDS = tuple(n / 20 for n in range(1, 16))  # .05 to .75: the validation split chooses one


@dataclass(eq=False)
class ByText(Row):
    """A model that maps normalised pictures and the embeddings of P prompts to logits (N, P, S, S), one per prompt.

    The prompts are the classes' names. A pixel gets the class with the highest score, the sigmoid of its logit, or
    background where no score exceeds the threshold.
    """

    threshold: float = 0.3  # of a score, 0 to 1, until prepare() chooses one
    # threshold -> sum of the last confusion matrices
    swept: dict[float, torch.Tensor] = field(default_factory=dict, repr=False)

    prompt: ClassVar[str] = "text"

    @property
    def prompts(self) -> list[list[str]]:
        """The filled-in templates of every class behind background."""
        return [[template.format(name) for template in TEMPLATES] for name in self.classes.things]

    def prepare(self, root: str) -> None:
        """Choose the threshold with the best mIoU on the validation split."""
        self.score(scored_samples(root))
        self.threshold = max(THRESHOLDS, key=lambda threshold: self._scores(threshold)["miou"])

    def score(self, *about: object, **options: object) -> torch.Tensor:
        self.swept = {x: torch.zeros(2 * [len(self.classes)], dtype=torch.int64) for x in THRESHOLDS}
        return super().score(*about, **options)

    def _predict(
        self, samples: Sequence[Sample], images: Sequence[np.ndarray], masks: Sequence[np.ndarray]
    ) -> Predictions:
        logits = self._logits(squash(images, self.image_size, self.device), self.prompts)
        for mask, of_picture in zip(masks, logits, strict=True):
            highest, ids = highest_score(of_picture, mask.shape)
            truth = torch.from_numpy(mask)
            for threshold, total in self.swept.items():
                total += confusion_matrix(truth, torch.from_numpy(self._ids(highest, ids, threshold)), len(total))
            yield [(mask, self._ids(highest, ids, self.threshold), "")]

    def _scores(self, threshold: float) -> dict[str, float]:
        return scores(self.swept[threshold][None], self.counted)

    def write_details(self, folder: str, **about: str) -> None:
        """The results at all THRESHOLDS, in a CSV named after the row, in place of those of this data and split."""
        path = Path(folder) / f"{self.name.lower()}{'_flip' * self.flip}.csv"
        lines = [line for line in read_csv(path) if any(line[key] != value for key, value in about.items())]
        for threshold in self.swept:
            result = self._scores(threshold)
            keys = ("miou", "mdice", "pixel_accuracy", *(f"iou_{name}" for name in self.classes.things))
            chosen = {"threshold": threshold, "chosen_on": "val" if threshold == self.threshold else ""}
            line = {"model": self.name, "flip": str(int(self.flip)), **about, **chosen}
            lines.append(line | {key: f"{result[key]:.4f}" for key in keys})
        write_csv(lines, path)

    def _open(self, image: np.ndarray) -> Segment:
        small = squash([image], self.image_size, self.device)

        def segment(clicks: Sequence[Click], text: str) -> Segmentation:
            text = text.strip()
            logits = self._logits(small, [[text]] if text else self.prompts)[0]
            highest, ids = highest_score(logits, image.shape[:2])
            if text:
                return Segmentation(ids * (highest > self.threshold), named(("background", text)))
            return Segmentation(self._ids(highest, ids, self.threshold), self.classes)

        return segment

    def _ids(self, highest: np.ndarray, ids: np.ndarray, threshold: float) -> np.ndarray:
        """Class ids of highest_score(); background, if there is one, where no score exceeds the threshold."""
        return ids * (highest > threshold) if self.classes.first else ids - 1

    @torch.inference_mode()
    def _logits(self, images: torch.Tensor, prompts: Sequence[Sequence[str]]) -> torch.Tensor:
        """uint8 pictures (N, 3, S, S) -> logits (N, P, S, S) of P prompts, each a list of filled-in templates.

        With flip the logits of the mean score of the picture and its mirror image.
        """
        images = normalise(images, self.mean, self.std)
        with autocast(self.device, self.precision):
            conditionals = self.model.encode_prompts(prompts)
            logits = self.model(images, conditionals)
            if self.flip:
                mirrored = self.model(images.flip(-1), conditionals).flip(-1)
                logits = ((logits.sigmoid() + mirrored.sigmoid()) / 2).logit(eps=1e-6)
        return logits


def highest_score(logits: torch.Tensor, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Logits of P prompts (P, h, w) -> the highest score, float32 (H, W) in 0..1, and its id from 1, uint8 (H, W).

    Logits are resized to (H, W), then compared; of equal scores the first prompt's counts.
    """
    highest, ids = resized(logits, size).max(0)
    return highest.sigmoid().cpu().numpy(), (ids + 1).byte().cpu().numpy()
