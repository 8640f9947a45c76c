"""IoU against the number of clicks, and NoC, of rows by click and their baselines."""

from collections.abc import Sequence

import numpy as np
import torch

from utils.classes import VOID
from utils.distributed import sum_over_processes
from utils.inputs.clicks import next_click, random_click, thing_mask
from utils.inputs.layouts import Sample
from utils.inputs.pictures import read_sample, rng_of
from utils.scoring.by_click import ByClick, my_pictures
from utils.tables import markdown_table

MOST = 20  # clicks at most, as in the literature on NoC
COUNTS = (1, 2, 3, 5, 10)  # after which the IoU is reported


def score_clicks(row: ByClick, samples: Sequence[Sample], **about: str) -> list[dict[str, str]]:
    """Lines of results/clicks.csv: mean IoU of the animal after each of COUNTS clicks, and NoC.

    about: further columns, for example the data set's name.
    """
    lines = []
    for first_click in ("central", "random"):
        ious = click_curves(row, samples, first_click == "central", f"{row.name}, first click {first_click}")
        noc = {f"noc{percent}": f"{number_of_clicks(ious, percent / 100):.3f}" for percent in (85, 90)}
        for clicks in COUNTS:
            line = {"model": row.name, **about, "zoom": str(int(row.zoom)), "first_click": first_click}
            line |= {"clicks": str(clicks), "miou_animal": f"{ious[:, clicks - 1].nanmean():.4f}", **noc}
            lines.append(line | {"images": str(len(samples))})
    return lines


def click_curves(row: ByClick, samples: Sequence[Sample], central: bool, label: str) -> torch.Tensor:
    """IoU of the animal after each of MOST clicks, float64 (N, MOST); NaN for a picture without an animal.

    The first click is the centre of the animal (or random by the file's name), every further one the centre of
    the largest wrong region. A picture is left alone when a click has changed nothing, for the next would be the same
    one, and from the tenth click on once it has reached .9.
    """
    ious = torch.zeros(len(samples), MOST, dtype=torch.float64)
    for index in my_pictures(len(samples), label):
        image, mask = read_sample(samples[index])
        found = random_click(mask, True, rng_of(samples[index].name))
        if not found:
            ious[index] = np.nan
            continue
        click, thing = found
        truth = thing_mask(mask, thing)
        if central:
            click = next_click(truth, np.zeros(truth.shape, bool))
        segment, clicks, before = row.open(image), [], None
        for number in range(MOST):
            clicks.append(click)
            predicted = segment(clicks, "").ids > 0
            ious[index, number:] = binary_iou(truth, predicted)
            stuck = before is not None and np.array_equal(predicted, before)
            if stuck or (number >= 9 and ious[index].max() >= 0.9):
                break
            click, before = next_click(truth, predicted), predicted
            if click is None:
                break
    return sum_over_processes(ious)


def binary_iou(truth: np.ndarray, predicted: np.ndarray) -> float:
    """IoU of the thing; truth (H, W) with 1, 0, VOID, predicted bool (H, W)."""
    thing, known = truth == 1, truth != VOID
    return float((thing & predicted).sum() / ((thing | predicted) & known).sum())


def number_of_clicks(ious: torch.Tensor, threshold: float) -> float:
    """NoC: the mean number of clicks until the IoU reaches the threshold, MOST where it never does."""
    ious = ious[~ious.isnan().any(1)]
    reached = ious >= threshold
    first = reached.double().argmax(1) + 1
    return float(torch.where(reached.any(1), first, MOST).double().mean())


def click_table(lines: Sequence[dict[str, str]]) -> str:
    """The lines of clicks.csv with the numbers of clicks side by side."""
    titles = {"model": "model", "zoom": "zoom", "first_click": "first click"}
    titles |= {f"{clicks}": f"IoU, {clicks} click{'s' * (clicks > 1)}" for clicks in COUNTS}
    titles |= {"noc85": "NoC@85", "noc90": "NoC@90", "images": "images"}
    merged = {}
    for line in lines:
        row = merged.setdefault((line["model"], line["first_click"]), dict(line, zoom="zoom" * (line["zoom"] == "1")))
        row[str(line["clicks"])] = line["miou_animal"]
    return markdown_table(titles, list(merged.values()), 3)
