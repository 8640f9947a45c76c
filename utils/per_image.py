"""Error analysis: what went wrong in which picture, from the confusion matrices of a split."""

import math
from collections.abc import Sequence

import numpy as np
import torch

from utils.classes import CLASSES
from utils.dataset import Sample
from utils.metrics import iou_per_class, mean_over_present

COLUMNS = ("image", "species", "breed", "model", "miou", "confused", "missed", "invented")


def per_image_lines(model: str, samples: Sequence[Sample], confusions: torch.Tensor) -> list[dict[str, str]]:
    """Lines of results/per_image.csv; confusions: int64 (N, C, C), for PointCLIP of rest and clicked thing.

    confused: share of the animal's pixels that were taken for the other species (empty for PointCLIP, which names
    none); missed: taken for background; invented: share of the background's pixels taken for an animal.
    """
    lines = []
    means = mean_over_present(iou_per_class(confusions))
    for sample, counts, miou in zip(samples, confusions.double(), means, strict=True):
        animals, background = counts[1:], counts[0]
        shares = {
            "confused": (animals[:, 1:].sum() - animals[:, 1:].trace()) / animals.sum(),
            "missed": animals[:, 0].sum() / animals.sum(),
            "invented": background[1:].sum() / background.sum(),
        }
        if len(counts) < len(CLASSES):
            shares["confused"] = math.nan
        line = {"image": sample.name, "species": species_of(sample, counts), "breed": sample.breed, "model": model}
        line["miou"] = f"{miou:.4f}"
        # empty where there is no such pixel
        lines.append(line | {key: "" if math.isnan(share) else f"{share:.4f}" for key, share in shares.items()})
    return lines


def species_of(sample: Sample, counts: torch.Tensor) -> str:
    """The animal that covers most of the mask; by the name's capital letter where only clicks were counted."""
    if sample.species:
        return CLASSES[sample.species]
    return CLASSES[1 + int(counts[1:].sum(1).argmax())] if len(counts) == len(CLASSES) else ""


def error_table(lines: Sequence[dict[str, str]]) -> tuple[dict[str, str], list[dict[str, str]]]:
    """Titles and lines of README's table: per row the pictures' mean shares, and where the worst tenth comes from."""
    titles = {
        "model": "model",
        "miou": "mIoU per image",
        "confused": "other species",
        "missed": "missed",
        "invented": "invented",
        "bad": "pictures below .75",
        "swapped": "of these, species swapped",
    }
    table = []
    for model in dict.fromkeys(line["model"] for line in lines):
        mine = [line for line in lines if line["model"] == model]
        row = {"model": model}
        for key in ("miou", "confused", "missed", "invented"):
            values = np.array([float(line[key] or "nan") for line in mine])
            if not np.isnan(values).all():
                row[key] = f"{np.nanmean(values):.4f}" if key == "miou" else f"{np.nanmean(values):.2%}"
        bad = [line for line in mine if float(line["miou"]) < 0.75]
        row["bad"] = str(len(bad))
        if any(line["confused"] for line in mine):
            row["swapped"] = str(sum(float(line["confused"] or 0) > 0.5 for line in bad))
        table.append(row)
    return titles, table
