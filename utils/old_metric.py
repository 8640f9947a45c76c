"""Why old numbers look so low: trained rows scored with the metric of the report that this project started from.

    python -m utils.old_metric --README=README.md

That metric takes the mean over batches of 64 pictures, counts a class that a batch lacks as IoU 0, and counts every
pixel of the outline as wrong. It depends on the order of the files: sorted by name, all cats come first, so that most
batches lack a species. Writes results/old_metric.csv; the metric of this project is in utils/metrics.py.
"""

import os
from pathlib import Path

import numpy as np

from utils.classes import CLASSES, VOID
from utils.config import require_choice, require_positive, run_script
from utils.dataset import PetDataset, read_mask
from utils.distributed import pick_device
from utils.evaluation import evaluate
from utils.files import write_csv
from utils.metrics import scores
from utils.rows import ROWS as ALL_ROWS
from utils.rows import load_row
from utils.tables import markdown_table, write_between_markers

DATA_ROOT = os.environ.get("PETS_ROOT", "data/pets")  # any layout of data/README.md
SPLIT = "test"
ROWS = ("UNET", "Autoencoder", "CLIP")
BATCH = 64  # pictures that the old metric takes together
CHECKPOINTS = "checkpoints"  # where the training scripts wrote
RESULTS = "results"
README = ""  # file whose table between the markers is written anew
DEVICE = "auto"  # "cpu", "cuda", "cuda:1"


def main() -> None:
    require_positive(globals(), "BATCH")
    for name in ROWS:
        require_choice("ROWS", name, [row for row in ALL_ROWS if row != "PointCLIP"])
    device = pick_device(DEVICE)
    lines = []
    for name in ROWS:
        row = load_row(name, CHECKPOINTS, device)
        dataset = PetDataset(DATA_ROOT, SPLIT, row.image_size)
        with_outline = np.zeros((len(dataset), len(CLASSES) + 1, len(CLASSES)), np.int64)

        def count(index: int, prediction: np.ndarray, dataset=dataset, with_outline=with_outline) -> None:
            with_outline[index] = count_with_outline(read_mask(dataset.samples[index]), prediction)

        confusions = evaluate(row.predictor(False), dataset, device, label=name, on_prediction=count)
        names = [sample.name for sample in dataset.samples]
        orders = {"by name": np.argsort(names), "shuffled": np.random.default_rng(0).permutation(len(names))}
        line = {"model": name, "miou": f"{scores(confusions)['miou']:.4f}"}
        line |= {f"old, {order}": f"{old_miou(with_outline[indices], BATCH):.4f}" for order, indices in orders.items()}
        lines.append({**line, "images": str(len(dataset))})
    write_csv(lines, Path(RESULTS) / "old_metric.csv")
    table = markdown_table({key: "mIoU" if key == "miou" else key for key in lines[0]}, lines)
    print(table)
    if README:
        write_between_markers(README, "old metric", table)


def count_with_outline(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Pixels of a true class, or of the outline in the last row, predicted as each class: int64 (C + 1, C)."""
    rows = np.where(truth == VOID, len(CLASSES), truth).astype(np.int64)
    cells = rows * len(CLASSES) + prediction
    return np.bincount(cells.ravel(), minlength=(len(CLASSES) + 1) * len(CLASSES)).reshape(-1, len(CLASSES))


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
