"""Grids of pictures with what every row makes of them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from utils.classes import VOID, colourise
from utils.clicks import next_click, thing_mask
from utils.dataset import Sample, read_sample, rng_of
from utils.perturbations import PERTURBATIONS
from utils.pictures import draw_points, overlay
from utils.plots import plot_examples
from utils.rows import Row, segment


def draw_examples(
    rows: Sequence[Row], samples: Sequence[Sample], path: Path, device: torch.device, count: int = 4
) -> None:
    """Pictures spread over the split: as they are, their masks, and every row's prediction."""
    samples = samples[:: max(len(samples) // count, 1)][:count]
    columns = {"picture": [], "mask": []} | {row.name: [] for row in rows}
    for sample in samples:
        image, mask = read_sample(sample)
        columns["picture"].append(image)
        columns["mask"].append(colourise(mask))
        for row in rows:
            columns[row.name].append(draw_prediction(row, image, *centre_of_animal(mask), device))
    plot_examples(columns, path)


def draw_spoiled(
    rows: Sequence[Row],
    image: np.ndarray,
    click: tuple[int, int],
    thing: int,
    names: Sequence[str],
    path: Path,
    device: torch.device,
) -> None:
    """A picture as it is and at the last level of every perturbation in `names`, and every row's prediction below.

    click: (x, y) for PointCLIP, on a thing of this class.
    """
    spoiled = {"as it is": image}
    for name in names:
        _, levels, perturb = PERTURBATIONS[name]
        spoiled[f"{name}\n{levels[-1]}"] = perturb(image, levels[-1], rng_of(name))
    columns = {
        title: [picture, *(draw_prediction(row, picture, click, thing, device) for row in rows)]
        for title, picture in spoiled.items()
    }
    plot_examples(columns, path, ["picture", *(row.name for row in rows)])


def draw_prediction(
    row: Row, image: np.ndarray, click: tuple[int, int], thing: int, device: torch.device
) -> np.ndarray:
    """The picture (H, W, 3) under a row's prediction; PointCLIP's of a click on a thing of this class."""
    if row.name != "PointCLIP":
        return overlay(image, segment(row, image, device))
    predictor = row.predictor(False)
    predictor.set_image(image)
    predicted, _ = predictor.predict([click], [1])
    return draw_points(overlay(image, predicted.astype(np.uint8) * thing), [click], [1])


def centre_of_animal(mask: np.ndarray) -> tuple[tuple[int, int], int]:
    """A click (x, y) on the centre of a mask's animal, and its class."""
    thing = int(mask[mask != VOID].max(initial=0))
    truth = thing_mask(mask, thing)
    x, y, _ = next_click(truth, np.zeros(truth.shape, bool)) or (0, 0, 1)
    return (x, y), thing
