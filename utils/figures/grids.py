"""Grids of pictures with what every row makes of them."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from utils.classes import VOID
from utils.figures.overlays import draw_points, overlay, save_picture
from utils.figures.plots import plot_curves, plot_examples
from utils.inputs.clicks import next_click, thing_mask, to_tensor
from utils.inputs.dataset import SegmentationDataset
from utils.inputs.layouts import Sample
from utils.inputs.pictures import read_sample
from utils.rows.row import Row

# (log, a line per validation; averaged model; folder of the run)
Report = Callable[[list[dict], nn.Module, Path], None]


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


def training_report(
    dataset: SegmentationDataset,
    device: torch.device,
    predict: Callable[[nn.Module], Callable[..., torch.Tensor]],
    clicked: bool = False,
) -> Report:
    """What fit() calls after a validation: draws curves.png and progress.png.

    predict(model) -> function of uint8 pictures (N, 3, S, S) that returns logits; with clicked it takes clicks
    (N, 1, 3) too, in the middle of the animal.
    """

    def report(log: list[dict], model: nn.Module, folder: Path) -> None:
        plot_curves(log, folder / "curves.png")
        draw_progress(predict(model), dataset, device, folder / "progress.png", clicked)

    return report


@torch.inference_mode()
def draw_progress(
    predict: Callable[..., torch.Tensor],
    dataset: SegmentationDataset,
    device: torch.device,
    path: Path,
    clicked: bool = False,
) -> None:
    """Four squashed pictures of a split; beside each its mask and what is predicted now."""
    images, masks = dataset[[len(dataset) * part // 4 for part in range(4)]]
    inputs = [images]
    if clicked:
        points = (centre_of_thing(mask)[0] for mask in masks.numpy())
        inputs.append(torch.stack([to_tensor([(*point, 1)], masks.shape[-2:]) for point in points]))
    logits = predict(*(x.to(device) for x in inputs)).float()
    ids = F.interpolate(logits, size=masks.shape[-2:], mode="bilinear").argmax(1).byte().cpu()
    lines = []
    for image, mask, found in zip(images.movedim(1, -1).numpy(), masks.numpy(), ids.numpy(), strict=True):
        lines.append(np.hstack([image, dataset.classes.colourise(mask), overlay(image, found, dataset.classes)]))
    save_picture(np.vstack(lines), path)


def draw_prediction(row: Row, image: np.ndarray, click: tuple[int, int], thing: int) -> np.ndarray:
    """The picture (H, W, 3) under a row's prediction; by click, that of a click on a thing of this class."""
    if row.prompt != "click":
        return overlay(image, row.segment(image).ids, row.classes)
    ids = row.segment(image, clicks=[(*click, 1)]).ids
    return draw_points(overlay(image, ids * thing, row.classes), [click], [1])


def centre_of_thing(mask: np.ndarray) -> tuple[tuple[int, int], int]:
    """A click (x, y) on the centre of one of a mask's things, and its class; 0 if there is none."""
    thing = int(mask[mask != VOID].max(initial=0))
    truth = thing_mask(mask, thing)
    x, y, _ = next_click(truth, np.zeros(truth.shape, bool)) or (0, 0, 1)
    return (x, y), thing
