"""results/per_image.csv: the errors in every picture, and the confusion matrices of a split."""

import math
from collections.abc import Sequence

import torch

from utils.inputs.layouts import Sample
from utils.metrics import iou_per_class, mean_over_present


def per_image_lines(
    model: str, counted: Sequence[str], samples: Sequence[Sample], confusions: torch.Tensor, **about: str
) -> list[dict[str, str]]:
    """Lines of results/per_image.csv; confusions: int64 (N, C, C), counted: names of the C classes.

    confused and missed: share of the foreground pixels predicted as another foreground class (empty if there is only
    one) and as background; false_positive: share of the background pixels predicted as foreground. class: the
    animal, else the foreground class with most pixels. confusion: the matrix, row by row. about: the first columns.
    """
    lines = []
    means = mean_over_present(iou_per_class(confusions))
    for sample, counts, miou in zip(samples, confusions, means, strict=True):
        things, background = counts[1:].double(), counts[0].double()
        shares = {
            "confused": (things[:, 1:].sum() - things[:, 1:].trace()) / things.sum() if len(things) > 1 else math.nan,
            "missed": things[:, 0].sum() / things.sum(),
            "false_positive": background[1:].sum() / background.sum(),
        }
        line = {**about, "image": sample.name, "class": _main_class(counted, sample, counts), "breed": sample.breed}
        line |= {"model": model, "miou": f"{miou:.4f}"}
        # empty if there is no pixel to take a share of
        line |= {key: "" if math.isnan(share) else f"{share:.4f}" for key, share in shares.items()}
        lines.append(line | {"confusion": " ".join(map(str, counts.flatten().tolist()))})
    return lines


def _main_class(counted: Sequence[str], sample: Sample, counts: torch.Tensor) -> str:
    """The animal of an Oxford picture, else the foreground class with most pixels; "" for a row by click."""
    if sample.species:
        return sample.classes.names[sample.species]
    return counted[1 + int(counts[1:].sum(1).argmax())] if counted == sample.classes.names else ""


def confusions_of(
    lines: Sequence[dict[str, str]], classes: Sequence[str]
) -> dict[str, tuple[Sequence[str], torch.Tensor]]:
    """Row -> names of the C classes that it counts, and the sum of its confusion matrices (C, C).

    lines: of results/per_image.csv. classes: names of the data's classes.
    """
    sums: dict[str, torch.Tensor] = {}
    for line in lines:
        if counts := line["confusion"].split():
            matrix = torch.tensor([int(count) for count in counts]).view(2 * [math.isqrt(len(counts))])
            sums[line["model"]] = sums.get(line["model"], 0) + matrix
    # a row that does not count the data's classes is one by click
    return {row: (classes if len(total) == len(classes) else ("rest", "thing"), total) for row, total in sums.items()}
