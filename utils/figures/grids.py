"""Grids of pictures with what every row makes of them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from utils.classes import VOID
from utils.figures.overlays import draw_points, overlay, save_picture
from utils.figures.plots import plot_examples
from utils.inputs.clicks import next_click, thing_mask, to_tensor
from utils.inputs.dataset import SegmentationDataset
from utils.inputs.layouts import Sample
from utils.inputs.perturbations import PERTURBATIONS
from utils.inputs.pictures import read_sample, rng_of
from utils.scoring.by_class import Predict
from utils.scoring.row import Row


def draw_examples(rows: Sequence[Row], samples: Sequence[Sample], path: Path, count: int = 4) -> None:
    """Pictures spread over the split: as they are, their masks, and every row's prediction."""
    samples = samples[:: max(len(samples) // count, 1)][:count]
    columns = {"picture": [], "mask": []} | {row.name: [] for row in rows}
    for sample in samples:
        image, mask = read_sample(sample)
        columns["picture"].append(image)
        columns["mask"].append(sample.classes.colourise(mask))
        for row in rows:
            columns[row.name].append(draw_prediction(row, image, *centre_of_thing(mask)))
    plot_examples(columns, path)


def draw_corrupted(
    rows: Sequence[Row], image: np.ndarray, click: tuple[int, int], thing: int, names: Sequence[str], path: Path
) -> None:
    """A picture as it is and at the last level of every perturbation in `names`, and every row's prediction below.

    click: (x, y) for rows by click, on a thing of this class.
    """
    corrupted = {"as it is": image}
    for name in names:
        _, levels, perturb = PERTURBATIONS[name]
        corrupted[f"{name}\n{levels[-1]}"] = perturb(image, levels[-1], rng_of(name))
    columns = {
        title: [picture, *(draw_prediction(row, picture, click, thing) for row in rows)]
        for title, picture in corrupted.items()
    }
    plot_examples(columns, path, ["picture", *(row.name for row in rows)])


@torch.inference_mode()
def draw_progress(
    predict: Predict, dataset: SegmentationDataset, device: torch.device, path: Path, clicked: bool = False
) -> None:
    """Four pictures of a split as a training sees them, squashed; beside each its mask and what is predicted now.

    clicked: predict() takes a click after the pictures, (4, 1, 3), which is in the middle of the animal.
    """
    images, masks, *features = dataset[[len(dataset) * part // 4 for part in range(4)]]
    if clicked:
        points = (centre_of_thing(mask)[0] for mask in masks.numpy())
        features.insert(0, torch.stack([to_tensor([(*point, 1)], masks.shape[-2:]) for point in points]))
    logits = predict(*(x.to(device) for x in (images, *features)))
    ids = F.interpolate(logits, size=masks.shape[-2:], mode="bilinear").argmax(1).byte().cpu()
    lines = []
    for image, mask, found in zip(images.movedim(1, -1).numpy(), masks.numpy(), ids.numpy(), strict=True):
        lines.append(np.hstack([image, dataset.classes.colourise(mask), overlay(image, found, dataset.classes)]))
    save_picture(np.vstack(lines), path)


def draw_prediction(row: Row, image: np.ndarray, click: tuple[int, int], thing: int) -> np.ndarray:
    """The picture (H, W, 3) under a row's prediction; by click, that of a click on a thing of this class."""
    ids = row.segment(image, clicks=[(*click, 1)]).ids
    if row.prompt == "click":
        return draw_points(overlay(image, ids * thing, row.classes), [click], [1])
    return overlay(image, ids, row.classes)


def centre_of_thing(mask: np.ndarray) -> tuple[tuple[int, int], int]:
    """A click (x, y) on the centre of one of a mask's things, and its class; 0 if there is none."""
    thing = int(mask[mask != VOID].max(initial=0))
    truth = thing_mask(mask, thing)
    x, y, _ = next_click(truth, np.zeros(truth.shape, bool)) or (0, 0, 1)
    return (x, y), thing
