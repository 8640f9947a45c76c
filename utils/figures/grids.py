"""Grids of pictures and every row's predictions."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from utils.classes import VOID, named
from utils.figures.overlays import draw_points, overlay
from utils.figures.plots import plot_curves, plot_examples
from utils.inputs.clicks import next_click, thing_mask
from utils.inputs.layouts import Sample
from utils.inputs.pictures import read_sample
from utils.rows.row import Row


def draw_examples(rows: Sequence[Row], samples: Sequence[Sample], path: Path, count: int = 4) -> None:
    """Pictures spread over the split, their masks, and every row's prediction."""
    samples = samples[:: max(len(samples) // count, 1)][:count]
    columns = {"picture": [], "mask": []} | {row.name: [] for row in rows}
    for sample in samples:
        image, mask = read_sample(sample)
        columns["picture"].append(image)
        columns["mask"].append(sample.classes.palette[mask])
        for row in rows:
            columns[row.name].append(draw_prediction(row, image, *centre_of_thing(mask)))
    plot_examples(columns, path)


def draw_progress(log: list[dict], row: Row, samples: Sequence[Sample], folder: Path) -> None:
    """curves.png and progress.png of a training."""
    plot_curves(log, folder / "curves.png")
    draw_examples([row], samples, folder / "progress.png")


def draw_prediction(row: Row, image: np.ndarray, click: tuple[int, int], thing: int) -> np.ndarray:
    """The picture (H, W, 3) under a row's prediction; a row by click gets one on a thing of this class."""
    if row.prompt != "click":
        return overlay(image, row.segment(image).ids, row.classes)
    ids, colours = row.segment(image, clicks=[(*click, 1)]).ids, row.classes.palette[[0, thing]].tolist()
    return draw_points(overlay(image, ids, named(("background", "thing"), colours)), [click], [1])


def centre_of_thing(mask: np.ndarray) -> tuple[tuple[int, int], int]:
    """The centre (x, y) of a thing of the mask's highest class, and the class; 0 if there is none."""
    thing = int(mask[mask != VOID].max(initial=0))
    truth = thing_mask(mask, thing)
    x, y, _ = next_click(truth, np.zeros(truth.shape, bool)) or (0, 0, 1)
    return (x, y), thing
