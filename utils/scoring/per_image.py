"""results/per_image.csv: the confusion matrix of every picture."""

from collections.abc import Sequence

import torch

from utils.inputs.layouts import Sample
from utils.metrics import iou_per_class, mean_over_present


def per_image_lines(
    model: str, counted: Sequence[str], samples: Sequence[Sample], confusions: torch.Tensor, **about: str
) -> list[dict[str, str]]:
    """Lines of results/per_image.csv; confusions: int64 (N, C, C), counted: names of the C classes.

    class: the animal, else the foreground class with most pixels. confusion: the matrix, row by row. about: the first
    columns.
    """
    lines = []
    for sample, counts, miou in zip(samples, confusions, mean_over_present(iou_per_class(confusions)), strict=True):
        line = {**about, "image": sample.name, "class": _main_class(counted, sample, counts), "breed": sample.breed}
        matrix = " ".join(map(str, counts.flatten().tolist()))
        lines.append(line | {"model": model, "miou": f"{miou:.4f}", "confusion": matrix})
    return lines


def _main_class(counted: Sequence[str], sample: Sample, counts: torch.Tensor) -> str:
    """The animal of an Oxford picture, else the foreground class with most pixels; "" for a row by click."""
    if sample.species:
        return sample.classes.names[sample.species]
    first = sample.classes.first
    return counted[first + int(counts[first:].sum(1).argmax())] if counted == sample.classes.names else ""
