"""Error analysis: what went wrong in which picture, from the confusion matrices of a split."""

import math
from collections.abc import Sequence

import numpy as np
import torch

from utils.inputs.layouts import Sample
from utils.scoring.metrics import iou_per_class, mean_over_present


def per_image_lines(
    model: str, counted: Sequence[str], samples: Sequence[Sample], confusions: torch.Tensor, **about: str
) -> list[dict[str, str]]:
    """Lines of results/per_image.csv; confusions: int64 (N, C, C), counted: names of the C classes.

    confused: share of the things' pixels that were predicted as another thing (empty where only one is counted);
    missed: predicted as background; false_positive: share of the background's pixels predicted as a thing. class: of
    the thing that covers most of the mask. confusion: the matrix, row by row. about: first columns of every line.
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
        # empty where there is no such pixel
        line |= {key: "" if math.isnan(share) else f"{share:.4f}" for key, share in shares.items()}
        lines.append(line | {"confusion": " ".join(map(str, counts.flatten().tolist()))})
    return lines


def _main_class(counted: Sequence[str], sample: Sample, counts: torch.Tensor) -> str:
    """The animal of an Oxford picture; else the thing that covers most of the mask, if the matrix tells."""
    if sample.species:
        return sample.classes.names[sample.species]
    return counted[1 + int(counts[1:].sum(1).argmax())] if counted == sample.classes.names else ""


def confusions_of(
    lines: Sequence[dict[str, str]], classes: Sequence[str]
) -> dict[str, tuple[Sequence[str], torch.Tensor]]:
    """Row -> names of the C classes that it counts, and its confusion matrix (C, C) over all lines.

    lines: of results/per_image.csv. classes: names of the data's; a row that counts others counts two, by click.
    """
    sums: dict[str, torch.Tensor] = {}
    for line in lines:
        if counts := line["confusion"].split():
            matrix = torch.tensor([int(count) for count in counts]).view(2 * [math.isqrt(len(counts))])
            sums[line["model"]] = sums.get(line["model"], 0) + matrix
    return {row: (classes if len(total) == len(classes) else ("rest", "thing"), total) for row, total in sums.items()}


# Of Oxford-IIIT Pet's test split: seven masks without an animal, three with animal and background exchanged.
WRONG_MASKS = (
    *("Egyptian_Mau_20", "japanese_chin_199", "keeshond_7", "Persian_259", "saint_bernard_60", "saint_bernard_78"),
    *("wheaten_terrier_195", "Maine_Coon_268", "Persian_268", "Persian_273"),
)


def error_table(lines: Sequence[dict[str, str]]) -> tuple[dict[str, str], list[dict[str, str]]]:
    """Titles and lines of a table: per row the pictures' mean shares, and how many pictures are below .75.

    lines: of results/per_image.csv, of one split. Where it has pictures of WRONG_MASKS, a last column is the mIoU
    without them.
    """
    titles = {
        "model": "model",
        "miou": "mIoU per image",
        "confused": "another class",
        "missed": "missed",
        "false_positive": "false positive",
        "bad": "pictures below .75",
        "swapped": "of these, class swapped",
    }
    right = [line for line in lines if line["image"] not in WRONG_MASKS]
    totals = confusions_of(right, ()) if len(right) < len(lines) else {}
    if totals:
        titles["right"] = "mIoU without wrong masks"
    table = []
    for model in dict.fromkeys(line["model"] for line in lines):
        mine = [line for line in lines if line["model"] == model]
        row = {"model": model}
        for key in ("miou", "confused", "missed", "false_positive"):
            values = np.array([float(line[key] or "nan") for line in mine])
            if not np.isnan(values).all():
                row[key] = f"{np.nanmean(values):.4f}" if key == "miou" else f"{np.nanmean(values):.2%}"
        bad = [line for line in mine if float(line["miou"]) < 0.75]
        row["bad"] = str(len(bad))
        if any(line["confused"] for line in mine):
            row["swapped"] = str(sum(float(line["confused"] or 0) > 0.5 for line in bad))
        if model in totals:
            row["right"] = f"{mean_over_present(iou_per_class(totals[model][1])):.4f}"
        table.append(row)
    return titles, table


SHARES = (0.05, 0.1, 0.2, 0.4)  # of a picture that its things cover: the bounds of five bins


def miou_by_share(lines: Sequence[dict[str, str]]) -> dict[tuple[str, str], list[float]]:
    """(data, row) -> mean mIoU of the test pictures in each of five bins, by the share that their things cover.

    lines: of results/per_image.csv. The bins are those of SHARES; NaN where a bin is empty.
    """
    lines = [line for line in lines if line["split"] == "test" and line["confusion"]]
    counts = [np.array(line["confusion"].split(), float) for line in lines]
    most = max(map(len, counts), default=0)  # a row by click counts the clicked thing against the rest, twice
    shares = {}
    for line, matrix in zip(lines, counts, strict=True):
        if len(matrix) == most:
            truth = matrix.reshape(math.isqrt(most), -1).sum(1)
            shares[line["data"], line["image"]] = truth[1:].sum() / truth.sum()
    bins: dict[tuple[str, str], list[list[float]]] = {}
    for line in lines:
        share = shares.get((line["data"], line["image"]), 0)
        if share:
            of_row = bins.setdefault((line["data"], line["model"]), [[] for _ in range(len(SHARES) + 1)])
            of_row[int(np.digitize(share, SHARES))].append(float(line["miou"]))
    return {key: [float(np.mean(group)) if group else math.nan for group in of_row] for key, of_row in bins.items()}
