"""Why old numbers look so low: trained rows scored with the metric of the report that this project started from.

    python -m utils.scoring.old_metric --README=results/README.md

That metric takes the mean over batches of 64 pictures, counts a class that a batch lacks as IoU 0, and counts every
pixel of the outline as wrong. It depends on the order of the files: sorted by name, all cats come first, so that most
batches lack a species. Writes results/old_metric.csv; the metric of this project is in utils/scoring/metrics.py.
"""

from pathlib import Path

from utils.config import DATA, require_positive, run_script

import numpy as np

from utils.classes import VOID
from utils.device import pick_device
from utils.errors import UserError
from utils.files import write_csv
from utils.inputs.dataset import SegmentationDataset
from utils.inputs.pictures import read_mask
from utils.rows import load_row
from utils.scoring.metrics import scores
from utils.scoring.row import Row
from utils.tables import markdown_table, write_between_markers

DATA_ROOT = DATA  # any layout of data/README.md
SPLIT = "test"
ROWS = ("UNET", "Autoencoder", "CLIP")
BATCH = 64  # pictures that the old metric takes together
CHECKPOINTS = "checkpoints"  # where the training scripts wrote
RESULTS = "results"
README = ""  # file whose table between the markers is written anew
DEVICE = "auto"  # "cpu", "cuda", "cuda:1"


def main() -> None:
    require_positive(globals(), "BATCH")
    device = pick_device(DEVICE)
    lines = [line_of(load_row(name, CHECKPOINTS, device, scales=(1.0,), zoom=False)) for name in ROWS]
    write_csv(lines, Path(RESULTS) / "old_metric.csv")
    table = markdown_table({key: "mIoU" if key == "miou" else key for key in lines[0]}, lines)
    if README:
        write_between_markers(README, {"old metric": table})
    print(table)


def line_of(row: Row) -> dict[str, str]:
    """A line of results/old_metric.csv."""
    if row.prompt:
        raise UserError(f"ROWS: {row.name} needs a {row.prompt}; the old metric is one of rows by class")
    dataset, classes = SegmentationDataset(DATA_ROOT, SPLIT, row.view_size), len(row.classes)
    with_outline = np.zeros((len(dataset), classes + 1, classes), np.int64)

    def count(index: int, prediction: np.ndarray, part: str) -> None:
        with_outline[index] = count_with_outline(read_mask(dataset.samples[index]), prediction, classes)

    result = scores(row.score(dataset, on_prediction=count), row.counted)
    names = [sample.name for sample in dataset.samples]
    orders = {"by name": np.argsort(names), "shuffled": np.random.default_rng(0).permutation(len(names))}
    line = {"model": row.name, "miou": f"{result['miou']:.4f}"}
    line |= {f"old, {order}": f"{old_miou(with_outline[indices], BATCH):.4f}" for order, indices in orders.items()}
    return {**line, "images": str(len(dataset))}


def count_with_outline(truth: np.ndarray, prediction: np.ndarray, classes: int) -> np.ndarray:
    """Pixels of a true class, or of the outline in the last row, predicted as each class: int64 (C + 1, C)."""
    rows = np.where(truth == VOID, classes, truth).astype(np.int64)
    cells = rows * classes + prediction
    return np.bincount(cells.ravel(), minlength=(classes + 1) * classes).reshape(-1, classes)


def old_miou(counts: np.ndarray, batch: int) -> float:
    """The old metric from counts (N, C + 1, C) of pictures in their order: mean over batches and over all classes."""
    means = []
    for start in range(0, len(counts), batch):
        total = counts[start : start + batch].sum(0)
        hits = np.diagonal(total)
        union = total[:-1].sum(1) + total.sum(0) - hits  # a pixel of the outline is a false positive of its class
        means.append(np.where(total[:-1].sum(1) > 0, hits / np.maximum(union, 1), 0.0).mean())
    return float(np.mean(means))


if __name__ == "__main__":
    run_script(main)
