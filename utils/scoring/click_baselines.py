"""Baselines for rows by click, with the same face: what the same clicks are worth without a model of clicks."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from utils.classes import VOID, Classes
from utils.inputs.clicks import Click
from utils.inputs.dataset import SegmentationDataset
from utils.inputs.pictures import read_image
from utils.scoring.by_click import CLICKED, ByClick
from utils.scoring.row import Row, Segment, Segmentation

# picture uint8 (H, W, 3) -> (clicks so far -> mask of the thing, bool (H, W))
Answer = Callable[[np.ndarray], Callable[[Sequence[Click]], np.ndarray]]


class Baseline(ByClick):
    """A rule that answers clicks."""

    def __init__(self, name: str, answer: Answer, classes: Classes, device: torch.device):
        super().__init__(name, nn.Identity(), device, 1, (), (), classes)
        self.answer = answer

    def open(self, image: np.ndarray, flip: bool = False) -> Segment:
        masks = self.answer(image)

        def segment(clicks: Sequence[Click] = (), text: str = "") -> Segmentation:
            return Segmentation(masks(clicks).astype(np.uint8), CLICKED)

        return segment

    def _open_sample(self, dataset: SegmentationDataset, index: int, size: tuple[int, int], flip: bool) -> Segment:
        return self.open(read_image(dataset.samples[index].image))


def baselines(rows: Sequence[Row], root: str | Path, classes: Classes, device: torch.device) -> list[Baseline]:
    """A look-up in the class map of every row by class, disks of the mean thing's size, and the whole picture.

    root: the data set whose training split says what the mean size is.
    """
    answers = {f"{row.name} look-up": look_up(row) for row in rows if not row.prompt}
    answers |= {"disk": disks(root), "everything": everything}
    return [Baseline(name, answer, classes, device) for name, answer in answers.items()]


def everything(image: np.ndarray) -> Callable[[Sequence[Click]], np.ndarray]:
    """The whole picture is the thing."""
    return lambda clicks: np.ones(image.shape[:2], bool)


def look_up(row: Row) -> Answer:
    """Everything of the class that a row's class map has at the first click.

    Corrections change nothing. To look them up too would make it far worse: where the map is wrong, a click on what is
    missing adds the whole background, one on what is superfluous takes the whole animal away.
    """

    def answer(image: np.ndarray) -> Callable[[Sequence[Click]], np.ndarray]:
        ids = row.segment(image).ids
        return lambda clicks: ids == ids[clicks[0][1], clicks[0][0]]

    return answer


def disks(root: str | Path) -> Answer:
    """Disks that cover the share of the picture that the things cover in the mean of the training split."""
    shares = []  # one, once it is known

    def answer(image: np.ndarray) -> Callable[[Sequence[Click]], np.ndarray]:
        if not shares:
            masks = SegmentationDataset(root, "train", 128).arrays["masks"]
            shares.append(np.mean([((mask != 0) & (mask != VOID)).sum() / (mask != VOID).sum() for mask in masks]))
        return disks_of(image.shape[:2], float(shares[0]))

    return answer


def disks_of(size: tuple[int, int], share: float) -> Callable[[Sequence[Click]], np.ndarray]:
    """A disk that covers `share` of a picture (H, W) about every click on the thing; the nearest click wins."""
    height, width = size
    rows, columns = np.ogrid[:height, :width]
    nearest = np.full(size, share * height * width / np.pi)  # squared distance; at first the disk's radius
    positive = np.zeros(size, bool)
    done = []

    def masks(clicks: Sequence[Click]) -> np.ndarray:
        for x, y, label in clicks[len(done) :]:
            distance = (columns - x) ** 2 + (rows - y) ** 2
            positive[distance <= nearest] = label
            np.minimum(nearest, distance, out=nearest)
        done[:] = clicks
        return positive.copy()

    return masks
