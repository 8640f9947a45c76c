"""Score every row on a split: table on screen, results/*.csv, and a picture with every row's masks.

    python evaluate.py                                  # all rows, official test split
    python evaluate.py --SPLIT=val --ROWS=UNET          # one row, validation split
    python evaluate.py --FLIP=True                      # a second line with flip at test time

A row without a checkpoint is printed as "–" with the command that makes it. The protocol is in README.md;
experiments/errors.py draws figures of the CSVs.
"""

import time
from collections.abc import Sequence
from pathlib import Path

from utils.config import DATA, require_choice, run_script

import numpy as np
import torch

from models.clipseg import HUB_ID
from utils.device import PRECISIONS, pick_device
from utils.errors import UserError
from utils.figures.grids import draw_examples
from utils.figures.overlays import save_mask
from utils.inputs.dataset import scored_samples
from utils.inputs.layouts import SPLITS, Sample, data_name
from utils.rows import find_rows, load_rows
from utils.rows.by_click import CLICKED
from utils.rows.row import Row
from utils.scoring.results import merge_lines, per_image_lines, result_line, result_table

# data
DATA_ROOT = DATA  # any layout of data/README.md
SPLIT = "test"  # "val" while you choose, "test" once at the end
# what
ROWS = ()  # e.g. --ROWS=UNET,CLIP; empty: those of utils/rows and all others in CHECKPOINTS
FLIP = False  # a second line per row: averaged over the picture and its mirror image
ZOOM = True  # False: no closer look at what was found
CLIPSEG = HUB_ID  # hub id or folder of its weights; its prompts are in utils/rows/by_text.py
# run
PRECISION = "fp32"  # the same numbers on every machine; "bf16" or "auto" is faster where bf16 is native
DEVICE = "auto"  # "cpu", "cuda", "cuda:1"
CHECKPOINTS = "checkpoints"  # folder of all rows
# output
RESULTS = "results"  # folder of results.csv; lines of other rows, data and splits in it are kept
EXAMPLES = "predictions"  # folder of examples.png, some pictures with every row's masks
SAVE_MASKS = ""  # folder: every prediction as an index PNG at the mask's own size


def main() -> None:
    require_choice("SPLIT", SPLIT, SPLITS)
    require_choice("PRECISION", PRECISION, PRECISIONS)
    known = find_rows(CHECKPOINTS)
    for name in ROWS:
        require_choice("ROWS", name, tuple(known))
    device = pick_device(DEVICE)
    # 1. Pictures.
    samples = scored_samples(DATA_ROOT, SPLIT)
    if SAVE_MASKS and len({sample.name for sample in samples}) < len(samples):
        raise UserError(f"SAVE_MASKS: pictures of train and val in {DATA_ROOT} have the same name: score one of them")
    classes, about = samples[0].classes, {"data": data_name(DATA_ROOT), "split": SPLIT}

    # 2. Rows that have weights and the data's classes.
    options = {"zoom": ZOOM, "precision": PRECISION, "hub_id": CLIPSEG}
    rows, missing = load_rows(ROWS or known, CHECKPOINTS, device, classes, DATA_ROOT, **options)

    # 3. Scores; those of each row are written before the next one begins.
    lines = []
    for row in rows:
        for row.flip in (False, True) if FLIP else (False,):
            try:
                row.prepare(DATA_ROOT)
            except UserError as error:  # no validation split to tune on
                missing[row.name] = str(error)
                break
            line, confusions = score(row, samples, about)
            lines.append(line)
            merge_lines([line], Path(RESULTS) / "results.csv", list(known))
            if not row.flip:
                of_pictures = per_image_lines(row.name, samples, confusions, **about)
                merge_lines(of_pictures, Path(RESULTS) / "per_image.csv", list(known), ("model", *about))

    # 4. Table and examples.
    print(result_table(lines, list(missing)))
    for name, reason in missing.items():
        print(f"{name}: {reason}", flush=True)
    if not lines:
        raise UserError(f"no row in {CHECKPOINTS} could be scored")
    examples = Path(EXAMPLES) / "examples.png"
    draw_examples(rows, samples, examples)
    print(f"wrote {Path(RESULTS) / 'results.csv'}, {Path(RESULTS) / 'per_image.csv'}, {examples}")


def score(row: Row, samples: Sequence[Sample], about: dict[str, str]) -> tuple[dict[str, str], torch.Tensor]:
    """A line of results.csv, and the confusion matrices of all pictures, int64 (N, C, C); about: data and split."""
    folder = Path(SAVE_MASKS) / f"{row.name}{'_flip' * row.flip}" if SAVE_MASKS else None

    def on_prediction(index: int, ids: np.ndarray, part: str) -> None:
        if folder:
            classes = CLICKED if row.prompt == "click" else row.classes
            save_mask(ids, folder / part / f"{samples[index].name}.png", classes)

    started = time.perf_counter()
    confusions = row.score(samples, on_prediction)
    seconds = time.perf_counter() - started
    line = result_line(row, about, confusions, seconds)
    print(f"{row.name}{' (flip)' * row.flip}: mIoU {line['miou']}", flush=True)  # first: a file may not be writable
    row.write_details(RESULTS, **about)
    return line, confusions


if __name__ == "__main__":
    run_script(main)
