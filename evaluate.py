"""Score every trained row on a split: table on screen, results/results.csv, images/*.png.

    python evaluate.py                                  # all rows, official test split
    python evaluate.py --SPLIT=val --ROWS=UNET          # one row, validation split
    python evaluate.py --FLIP=True                      # a second line with flip at test time
    python evaluate.py --README=README.md,results/README.md   # also write the tables of these files anew
    python evaluate.py --CLICKS="PointCLIP,CLIP look-up,disk,everything"   # also IoU against clicks, and baselines
    python evaluate.py --ROBUSTNESS=True --PICTURES=500 # on corrupted pictures, 8 kinds at 10 levels each
    python evaluate.py --SPEED=True --PICTURES=64       # measure the table's img/s again, while nothing else runs
    torchrun --nproc_per_node=2 evaluate.py             # the same numbers, shared work

A row without a checkpoint is printed as "–" with the command that makes it. The protocol is in README.md.
"""

import math
import time
from collections.abc import Sequence
from pathlib import Path

from utils.config import DATA, parse_numbers, require_between, require_choice, require_positive, run_script

import numpy as np
import torch

from models.clipseg import HUB_ID
from utils.classes import require_same
from utils.device import PRECISIONS, pick_device
from utils.distributed import distributed, is_main
from utils.errors import UserError
from utils.figures.grids import centre_of_thing, draw_corrupted, draw_examples
from utils.figures.overlays import save_mask
from utils.figures.plots import plot_clicks, plot_confusions, plot_robustness, plot_scores
from utils.files import read_csv
from utils.inputs.dataset import SegmentationDataset
from utils.inputs.layouts import SPLITS, Sample, data_name, list_samples
from utils.inputs.perturbations import PERTURBATIONS
from utils.inputs.pictures import read_sample, unreadable
from utils.rows import ZOOM_OPTIONS, find_rows, load_rows
from utils.scoring.click_baselines import baselines
from utils.scoring.click_curves import click_table, score_clicks
from utils.scoring.error_analysis import confusions_of, error_table, per_image_lines
from utils.scoring.results import merge_lines, result_line, result_table, scales_of
from utils.scoring.robustness import robustness_table, score_robustness
from utils.scoring.row import Row
from utils.scoring.speed import images_per_second
from utils.tables import markdown_table, write_between_markers

# data
DATA_ROOT = DATA  # any layout of data/README.md
SPLIT = "test"  # "val" while you choose, "test" once at the end
SKIP_BAD = False  # True leaves out pictures that cannot be read; the table then says how many of how many were scored
# what
ROWS = ()  # e.g. --ROWS=UNET,CLIP; empty: all that are declared in utils/rows.py or have a checkpoint
FLIP = False  # a second line per row: averaged over the picture and its mirror image
SCALES = "own"  # at which rows by class see a picture, of their training's size: "1", "1,1.4"; own: as in utils/rows.py
ZOOM = "own"  # "on", "off": whether rows look closer at what they find; own: as utils/rows.py or the checkpoint says
CLIPSEG = HUB_ID  # hub id or folder of its weights; its prompts are in utils/scoring/by_text.py
CLICKS = ()  # PointCLIP,CLIP look-up,disk,everything: up to 20 clicks a picture; takes many minutes
# instead: the rows on corrupted pictures, results/robustness.csv; goes on where it was stopped
ROBUSTNESS = False
PERTURB = tuple(PERTURBATIONS)  # some of utils/inputs/perturbations.py
LEVELS = tuple(range(10))  # 0 is the picture as it is
# instead: time every line that results.csv has of this split again, in three rounds; the median becomes its img/s
SPEED = False
PICTURES = 0  # with CLICKS, ROBUSTNESS or SPEED: a random subset of so many, always the same; 0: the whole split
# run
BATCH_SIZE = 16  # changes no number
PRECISION = "fp32"  # "bf16"; "auto" is bf16 where the hardware multiplies it, and numbers that differ by machine
DEVICE = "auto"  # "cpu", "cuda", "cuda:1"
CHECKPOINTS = "checkpoints"  # where the training scripts wrote
# output
RESULTS = "results"  # folder of results.csv; lines of other rows, data and splits in it are kept
IMAGES = "images"  # folder of results.png, confusion.png and clicks.png
EXAMPLES = "predictions"  # folder of examples.png, some pictures with every row's masks
SAVE_MASKS = ""  # folder: every prediction as an index PNG at the mask's own size
README = ()  # files whose tables between markers are written anew, e.g. README.md,results/README.md


def main() -> None:
    check_constants()
    device = pick_device(DEVICE)
    with distributed(device):
        samples = list_samples(DATA_ROOT, SPLIT)
        bad = unreadable(samples) if SKIP_BAD else {}
        samples = [sample for sample in samples if sample.name not in bad]
        if bad and is_main():
            print(f"left out of {SPLIT}: {'; '.join(bad.values())}")
        if not samples:
            raise UserError(f"no picture of the {SPLIT} split of {DATA_ROOT} can be read")
        rows, missing = rows_for(samples, device)
        if ROBUSTNESS:
            score_corrupted(rows, missing, some_of(samples))
            return
        if SPEED:
            time_again(rows, some_of(samples))
            return
        lines = []
        for row in rows:
            for flip in (False, True) if FLIP else (False,):
                line, of_pictures = score(row, flip, samples, len(bad))
                lines.append(line)
                if is_main():  # nothing is lost if a later row or a figure fails
                    keep(line, per_image_lines(row.name, row.counted, samples, of_pictures, **about_split()))
        if is_main():
            report(lines, samples[0].classes.names, missing)
        if not lines:
            raise UserError(f"no row could be scored with what is in {CHECKPOINTS}")
        if is_main():
            draw_examples(rows, samples, Path(EXAMPLES) / "examples.png")
        if CLICKS:
            score_by_clicks(rows, some_of(samples), device)


def check_constants() -> None:
    require_choice("SPLIT", SPLIT, SPLITS)
    require_choice("ZOOM", ZOOM, tuple(ZOOM_OPTIONS))
    require_choice("PRECISION", PRECISION, PRECISIONS)
    require_positive(globals(), "BATCH_SIZE")
    require_between(globals(), 0, math.inf, "PICTURES")
    known = tuple(find_rows(CHECKPOINTS)) if ROWS else ()
    for name in ROWS:
        require_choice("ROWS", name, known)
    for name in PERTURB:
        require_choice("PERTURB", name, tuple(PERTURBATIONS))
    for level in LEVELS:
        require_choice("LEVELS", level, range(10))


def rows_for(samples: Sequence[Sample], device: torch.device) -> tuple[list[Row], dict[str, str]]:
    """The rows of ROWS that know the data's classes and whose weights are here, and why the others are left out."""
    classes = samples[0].classes
    options = {"scales": () if SCALES == "own" else parse_numbers("SCALES", SCALES), "hub_id": CLIPSEG}
    options |= {"zoom": ZOOM_OPTIONS[ZOOM], "precision": PRECISION}
    if ROBUSTNESS:
        options["zoom"] = False  # what is corrupted is the squashed picture
    loaded, missing = load_rows(ROWS or find_rows(CHECKPOINTS), CHECKPOINTS, device, classes, **options)
    rows = []
    for row in loaded:
        try:
            require_same(row.classes, classes, row.checkpoint, DATA_ROOT)
            rows.append(row)
        except UserError as error:
            missing[row.name] = str(error)
    return rows, missing


def score(row: Row, flip: bool, samples: Sequence[Sample], left_out: int) -> tuple[dict[str, str], torch.Tensor]:
    """One line of results.csv, and the confusion matrices of all pictures."""
    names = {sample.name for sample in samples}
    dataset = SegmentationDataset(DATA_ROOT, SPLIT, row.view_size, keep=names if left_out else None)
    folder = Path(SAVE_MASKS) / f"{row.name}{'_flip' * flip}" if SAVE_MASKS else None

    def on_prediction(index: int, ids: np.ndarray, part: str) -> None:
        if folder:
            save_mask(ids, folder / part / f"{samples[index].name}.png", row.classes)

    row.prepare(DATA_ROOT, flip, BATCH_SIZE)
    started = time.perf_counter()
    confusions = row.score(dataset, flip, on_prediction, BATCH_SIZE)
    seconds = time.perf_counter() - started
    images = f"{len(dataset)} of {len(dataset) + left_out}" if left_out else str(len(dataset))
    if is_main():
        row.write_details(RESULTS, flip, data=data_name(DATA_ROOT), split=SPLIT)
    return result_line(row, flip, data_name(DATA_ROOT), SPLIT, images, confusions, seconds), confusions


def keep(line: dict[str, str], of_pictures: Sequence[dict[str, str]]) -> None:
    """Write a row's line into results.csv, and those of its pictures into per_image.csv, which has none with flip."""
    order = list(find_rows(CHECKPOINTS))
    merge_lines([line], Path(RESULTS) / "results.csv", order)
    if line["flip"] == "0":
        merge_lines(of_pictures, Path(RESULTS) / "per_image.csv", order, ("model", *about_split()))


def report(lines: list[dict[str, str]], classes: Sequence[str], missing: dict[str, str]) -> None:
    """Print the table; draw the figures, and write README's tables if asked."""
    # "–" for a row that was not scored, an empty cell where a column has no meaning
    print(result_table(lines, list(missing)))
    for name, reason in missing.items():
        print(f"{name}: {reason}", flush=True)
    if not lines:
        return
    results, of_pictures = Path(RESULTS) / "results.csv", Path(RESULTS) / "per_image.csv"
    bars, matrices = Path(IMAGES) / "results.png", Path(IMAGES) / "confusion.png"
    known, errors = of_this_split(read_csv(results)), of_this_split(read_csv(of_pictures))  # earlier ones too
    if README:
        data, tables = data_name(DATA_ROOT), result_table(known, unscored(known))
        tables = {f"results {data}": tables, f"errors {data}": markdown_table(*error_table(errors))}
        write_between_markers(README, tables)
    plot_scores(known, bars)
    plot_confusions(confusions_of(errors, classes), matrices)
    print(f"wrote {results}, {of_pictures}, {bars}, {matrices}")


def about_split() -> dict[str, str]:
    """The columns of a CSV that say what was scored."""
    return {"data": data_name(DATA_ROOT), "split": SPLIT}


def of_this_split(lines: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    about = about_split()
    return [line for line in lines if {key: line.get(key) for key in about} == about]


def unscored(known: Sequence[dict[str, str]]) -> list[str]:
    """The rows without a line."""
    return [name for name in find_rows(CHECKPOINTS) if name not in {line["model"] for line in known}]


def time_again(rows: Sequence[Row], samples: Sequence[Sample]) -> None:
    """The column img/s of results.csv and of README's table, of all lines of these rows in one run."""
    path, by_name = Path(RESULTS) / "results.csv", {row.name: row for row in rows}
    lines = [line for line in of_this_split(read_csv(path)) if line["model"] in by_name]
    if not lines:
        raise UserError(f"{path} has no line of these rows on {data_name(DATA_ROOT)}, {SPLIT}: score them first")
    contest, names = [], {sample.name for sample in samples}
    for line in lines:
        row = by_name[line["model"]]
        if line["scales"] != scales_of(row):
            raise UserError(f"{path}: {row.name} was scored at {line['scales']}, here it is set to {scales_of(row)}")
        row.prepare(DATA_ROOT, line["flip"] == "1", BATCH_SIZE)
        dataset = SegmentationDataset(DATA_ROOT, SPLIT, row.view_size, keep=names)
        contest.append((row, line["flip"] == "1", dataset))
    speeds = images_per_second(contest, BATCH_SIZE)
    if not is_main():
        return
    for line, speed in zip(lines, speeds, strict=True):
        line["images_per_second"] = f"{speed:.1f}"
    known = of_this_split(merge_lines(lines, path, list(find_rows(CHECKPOINTS))))
    table = result_table(known, unscored(known))
    if README:
        write_between_markers(README, {f"results {data_name(DATA_ROOT)}": table})
    print(f"{table}\nwrote {path}")


def some_of(samples: Sequence[Sample]) -> Sequence[Sample]:
    """PICTURES of them, always the same."""
    if not 0 < PICTURES < len(samples):
        return samples
    chosen = np.random.default_rng(0).choice(len(samples), PICTURES, replace=False)
    return [samples[index] for index in sorted(chosen)]


def score_corrupted(rows: Sequence[Row], missing: dict[str, str], samples: Sequence[Sample]) -> None:
    """results/robustness.csv and its figures: every row that has a checkpoint on corrupted pictures."""
    if is_main():
        for name, reason in missing.items():
            print(f"{name} is left out: {reason}", flush=True)
    if not rows:
        raise UserError(f"no row could be scored with what is in {CHECKPOINTS}")
    for row in rows:
        row.prepare(DATA_ROOT, batch_size=BATCH_SIZE)
    path, order = Path(RESULTS) / "robustness.csv", list(find_rows(CHECKPOINTS))
    lines = score_robustness(rows, samples, PERTURB, LEVELS, path, data_name(DATA_ROOT), order, BATCH_SIZE)
    if is_main():
        figure, examples = Path(IMAGES) / "robustness.png", Path(EXAMPLES) / "robustness.png"
        plot_robustness(lines, {name: PERTURBATIONS[name][0] for name in PERTURB}, figure)
        image, mask = read_sample(samples[0])
        draw_corrupted(rows, image, *centre_of_thing(mask), PERTURB, examples)
        if README:
            write_between_markers(README, {"robustness": robustness_table(lines, PERTURB)})
        print(f"wrote {path}, {figure}, {examples}")


def score_by_clicks(rows: Sequence[Row], samples: Sequence[Sample], device: torch.device) -> None:
    """results/clicks.csv, its figure and README's table: the rows and baselines of CLICKS with more and more clicks."""
    takers = [row for row in rows if row.prompt == "click"]
    takers = {row.name: row for row in [*takers, *baselines(rows, DATA_ROOT, samples[0].classes, device)]}
    for name in CLICKS:
        if name not in takers:
            raise UserError(f"CLICKS: there is no {name} here; {', '.join(takers)} can be scored, others need weights")
    path, about = Path(RESULTS) / "clicks.csv", about_split()
    for name in CLICKS:
        new = score_clicks(takers[name], samples, **about)
        if is_main():  # after every model, for they take long
            lines = merge_lines(new, path, list(takers), ("model", *about))
    if is_main():
        lines = of_this_split(lines)
        plot_clicks(lines, Path(IMAGES) / "clicks.png")
        if README:
            write_between_markers(README, {f"clicks {about['data']}": click_table(lines)})
        print(f"wrote {path}, {IMAGES}/clicks.png")


if __name__ == "__main__":
    run_script(main)
