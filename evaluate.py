"""Score every trained row on a split: table on screen, results/results.csv, images/*.png.

    python evaluate.py                                  # all rows, official test split
    python evaluate.py --SPLIT=val --ROWS=UNET          # one row, validation split
    python evaluate.py --FLIP=True --README=README.md   # a second line with flip at test time; README's table
    python evaluate.py --CLICKS="PointCLIP,CLIP look-up,disk,everything"   # also IoU against clicks, and baselines
    python evaluate.py --ROBUSTNESS=True --PICTURES=500 # on spoiled pictures, 8 kinds at 10 levels each
    torchrun --nproc_per_node=2 evaluate.py             # the same numbers, shared work

A row without a checkpoint is printed as "–" with the command that makes it. The protocol is in README.md.
"""

import math
import os
import time
from collections.abc import Collection
from pathlib import Path

import numpy as np
import torch

from models.clipseg import HUB_ID
from utils.classes import CLASSES
from utils.click_protocol import CLICK_MODELS, click_confusions, click_models, score_click_model
from utils.config import require_between, require_choice, require_positive, run_script
from utils.dataset import SPLITS, PetDataset, Sample, list_samples, read_sample, unreadable
from utils.distributed import distributed, is_main, pick_device
from utils.errors import UserError
from utils.evaluation import evaluate
from utils.examples import centre_of_animal, draw_examples, draw_spoiled
from utils.files import read_csv, write_csv
from utils.metrics import scores
from utils.per_image import error_table, per_image_lines
from utils.perturbations import PERTURBATIONS
from utils.pictures import save_mask
from utils.plots import plot_clicks, plot_confusions, plot_robustness, plot_scores
from utils.robustness import score_robustness
from utils.rows import ROWS as ALL_ROWS
from utils.rows import Row, load_row
from utils.tables import markdown_table, write_between_markers
from utils.zeroshot import choose_threshold, sweep_thresholds

# data
DATA_ROOT = os.environ.get("PETS_ROOT", "data/pets")  # any layout of data/README.md
SPLIT = "test"  # "val" while you choose, "test" once at the end
SKIP_BAD = False  # True leaves out pictures that cannot be read; the table then says how many of how many were scored
# what
ROWS = tuple(ALL_ROWS)  # e.g. --ROWS=UNET,CLIP
FLIP = False  # a second line per row: averaged over the picture and its mirror image
CLIPSEG = HUB_ID  # hub id or folder; its prompts are in utils/zeroshot.py
THRESHOLDS = (0.1, 0.2, 0.3, 0.5)  # reported beside the one chosen on the validation split
CLICKS = ()  # PointCLIP,CLIP look-up,disk,everything: up to 20 clicks a picture; takes many minutes
# instead: the rows on spoiled pictures, results/robustness.csv; goes on where it was stopped
ROBUSTNESS = False
PERTURB = tuple(PERTURBATIONS)  # some of utils/perturbations.py
LEVELS = tuple(range(10))  # 0 is the picture as it is
PICTURES = 0  # a random subset of so many, always the same; 0: the whole split
# run
BATCH_SIZE = 16  # changes no number
DEVICE = "auto"  # "cpu", "cuda", "cuda:1"
CHECKPOINTS = "checkpoints"  # where the training scripts wrote
# output
RESULTS = "results"  # folder of results.csv; lines of other rows and splits in it are kept
IMAGES = "images"  # folder of results.png, confusion.png and clicks.png
EXAMPLES = "predictions/examples.png"  # some pictures with every row's masks
SAVE_MASKS = ""  # folder: every prediction as an index PNG at the mask's own size
README = ""  # file whose tables between markers are written anew

_COLUMNS = (
    "model,encoder,checkpoint,split,images,miou,mdice,pixel_accuracy,iou_background,iou_cat,iou_dog,"
    "dice_background,dice_cat,dice_dog,miou_per_image,params_m,images_per_second"
).split(",")
_CLICK_COUNTS = (1, 2, 3, 5, 10)  # of results/clicks.csv
_TITLES = {  # of the table's columns; the others are in the CSV only
    "model": "model",
    "encoder": "encoder",
    "images": "images",
    "miou": "mIoU",
    "mdice": "mDice",
    "pixel_accuracy": "accuracy",
    "iou_background": "IoU bg",
    "iou_cat": "IoU cat",
    "iou_dog": "IoU dog",
    "params_m": "params (M)",
    "images_per_second": "img/s",
}


def main() -> None:
    require_choice("SPLIT", SPLIT, SPLITS)
    require_positive(globals(), "BATCH_SIZE")
    for name in ROWS:
        require_choice("ROWS", name, tuple(ALL_ROWS))
    for name in CLICKS:
        require_choice("CLICKS", name, CLICK_MODELS)
    for name in PERTURB:
        require_choice("PERTURB", name, tuple(PERTURBATIONS))
    for level in LEVELS:
        require_choice("LEVELS", level, range(10))
    require_between(globals(), 0, math.inf, "PICTURES")
    device = pick_device(DEVICE)
    with distributed(device):
        samples = list_samples(DATA_ROOT, SPLIT)
        bad = unreadable(samples) if SKIP_BAD else {}
        samples = [sample for sample in samples if sample.name not in bad]
        if bad and is_main():
            print(f"left out of {SPLIT}: {'; '.join(bad.values())}")
        rows, missing = load_rows(device)
        if ROBUSTNESS:
            spoil(rows, missing, samples, device)
            return
        lines, confusions, per_image = [], {}, []
        for row in rows:
            for flip in (False, True) if FLIP else (False,):
                line, of_pictures = score_row(row, flip, bad, device)
                lines.append(line)
                if row.name != "PointCLIP":  # its classes are others
                    confusions[line["model"]] = of_pictures.sum(0)
                if not flip:
                    per_image += per_image_lines(row.name, samples, of_pictures)
        if is_main():
            report(lines, confusions, per_image, missing)
        if not lines:
            raise UserError("no row could be scored")
        if is_main():
            draw_examples(rows, samples, Path(EXAMPLES), device)
        if CLICKS:
            score_clicks(rows, samples, device)


def load_rows(device: torch.device) -> tuple[list[Row], dict[str, str]]:
    """The rows of ROWS whose weights are here, and why the others are not."""
    rows, missing = [], {}
    for name in ROWS:
        try:
            rows.append(load_row(name, CHECKPOINTS, device, CLIPSEG))
        except UserError as error:
            missing[name] = str(error)
    return rows, missing


def score_row(row: Row, flip: bool, bad: Collection[str], device: torch.device) -> tuple[dict, torch.Tensor]:
    """One line of results.csv, and the confusion matrices of all pictures."""
    name = f"{row.name} + flip" if flip else row.name
    dataset = PetDataset(DATA_ROOT, SPLIT, row.image_size, bad)
    folder = Path(SAVE_MASKS) / name.replace(" ", "") if SAVE_MASKS else None

    def on_prediction(index: int, mask: np.ndarray, subfolder: str = "") -> None:
        if folder:
            save_mask(mask, folder / subfolder / f"{dataset.samples[index].name}.png")

    if row.name == "CLIPSeg":
        set_threshold(row, flip, device)
    started = time.perf_counter()
    class_names = CLASSES
    if row.name == "CLIPSeg":
        thresholds = tuple(dict.fromkeys((row.threshold, *THRESHOLDS)))
        swept = sweep_thresholds(row.model, dataset, thresholds, flip, device, BATCH_SIZE, on_prediction)
        confusions = swept[row.threshold]
        if is_main():
            write_thresholds(name, swept, row.threshold)
    elif row.name == "PointCLIP":
        class_names = ("rest", "thing")
        confusions = click_confusions(row.predictor(flip), dataset, name, on_prediction)
    else:
        confusions = evaluate(row.predictor(flip), dataset, device, BATCH_SIZE, name, on_prediction)
    seconds = time.perf_counter() - started
    line = {
        "model": name,
        "encoder": row.encoder,
        "checkpoint": row.checkpoint,
        "split": SPLIT,
        "images": f"{len(dataset)} of {len(dataset) + len(bad)}" if bad else len(dataset),
        **scores(confusions, class_names),
        "params_m": row.params_m,
        "images_per_second": len(dataset) / seconds,
    }
    return line, confusions


def set_threshold(row: Row, flip: bool, device: torch.device) -> None:
    """CLIPSeg's threshold, as it is best on the validation split."""
    stored = Path(CHECKPOINTS) / "clipseg" / f"threshold{'_flip' * flip}.json"
    row.threshold = choose_threshold(row.model, DATA_ROOT, row.image_size, flip, device, BATCH_SIZE, stored)


def spoil(rows: list[Row], missing: dict[str, str], samples: list[Sample], device: torch.device) -> None:
    """results/robustness.csv and its figures: every row that has a checkpoint on spoiled pictures."""
    if is_main():
        for name, reason in missing.items():
            print(f"{name} is left out: {reason}", flush=True)
    for row in rows:
        if row.name == "CLIPSeg":
            set_threshold(row, False, device)
    if not rows:
        raise UserError("no row could be scored")
    if 0 < PICTURES < len(samples):
        chosen = np.random.default_rng(0).choice(len(samples), PICTURES, replace=False)
        samples = [samples[index] for index in sorted(chosen)]
    path = Path(RESULTS) / "robustness.csv"
    lines = score_robustness(rows, samples, PERTURB, LEVELS, path, device, BATCH_SIZE)
    if is_main():
        figure, examples = Path(IMAGES) / "robustness.png", Path(EXAMPLES).with_name("robustness.png")
        plot_robustness(lines, {name: PERTURBATIONS[name][0] for name in PERTURB}, figure)
        image, mask = read_sample(samples[0])
        draw_spoiled(rows, image, *centre_of_animal(mask), PERTURB, examples, device)
        if README:
            write_between_markers(README, "robustness", robustness_table(lines))
        print(f"wrote {path}, {figure}, {examples}")


def robustness_table(lines: list[dict[str, str]]) -> str:
    """Mean Dice of every row on the pictures as they are, and under each perturbation at its last level."""
    models = list(dict.fromkeys(line["model"] for line in lines))
    titles = {"perturbation": "perturbation", "level": "level"} | {model: model for model in models}
    table = [{"perturbation": "none", "level": ""}]
    for name in PERTURB:
        first, last = PERTURBATIONS[name][1][0], PERTURBATIONS[name][1][-1]
        table.append({"perturbation": name, "level": f"{last}"})
        for line in lines:
            if line["perturbation"] == name and line["level"] == str(first):
                table[0][line["model"]] = line["mdice"]
            if line["perturbation"] == name and line["level"] == str(last):
                table[-1][line["model"]] = line["mdice"]
    return markdown_table(titles, table, 1)


def score_clicks(rows: list[Row], samples: list[Sample], device: torch.device) -> None:
    """results/clicks.csv, its figure and README's table: the models of CLICKS with more and more clicks."""
    models = click_models({row.name: row for row in rows}, DATA_ROOT, device)
    for name in CLICKS:
        if name not in models:
            raise UserError(
                f"CLICKS: {name} needs its checkpoint, the reason is above; {', '.join(models)} can be scored"
            )
    path = Path(RESULTS) / "clicks.csv"
    for name in CLICKS:
        new = score_click_model(name, models[name], samples, _CLICK_COUNTS, device)
        if is_main():  # after every model, for they take long
            lines = [line for line in read_csv(path) if line["model"] != name] + new
            lines.sort(key=lambda line: CLICK_MODELS.index(line["model"]))
            write_csv(lines, path)
    if is_main():
        plot_clicks(lines, Path(IMAGES) / "clicks.png")
        if README:
            write_between_markers(README, "clicks", click_table(lines))
        print(f"wrote {path}, {IMAGES}/clicks.png")


def click_table(lines: list[dict[str, str]]) -> str:
    """The lines of clicks.csv with the numbers of clicks side by side."""
    titles = {"model": "model", "first_click": "first click"}
    titles |= {f"{clicks}": f"IoU, {clicks} click{'s' * (clicks > 1)}" for clicks in _CLICK_COUNTS}
    titles |= {"noc85": "NoC@85", "noc90": "NoC@90"}
    merged = {}
    for line in lines:
        row = merged.setdefault((line["model"], line["first_click"]), dict(line))
        row[str(line["clicks"])] = line["miou_animal"]
    return markdown_table(titles, list(merged.values()), 2)


# ---------------------------------------------------------------------------------------------- output


def report(
    lines: list[dict], confusions: dict[str, torch.Tensor], per_image: list[dict], missing: dict[str, str]
) -> None:
    """Print the table; write results.csv, per_image.csv, the figures, and README's tables if asked."""
    formatted = [format_line(line) for line in lines]
    # "–" for a row that was not scored, an empty cell where a column has no meaning
    unscored = [{"model": name} for name in missing]
    print(markdown_table(_TITLES, [*formatted, *unscored], 2))
    for name, reason in missing.items():
        print(f"{name}: {reason}")
    if not lines:
        return
    results = Path(RESULTS) / "results.csv"
    rows = [line for line in write_results(formatted, results) if line["split"] == SPLIT]  # with those scored earlier
    written = [results, Path(IMAGES) / "results.png", Path(EXAMPLES)]
    plot_scores(rows, written[1])
    if confusions:
        written.append(Path(IMAGES) / "confusion.png")
        plot_confusions(confusions, written[-1])
    written.append(Path(RESULTS) / ("per_image.csv" if SPLIT == "test" else f"per_image_{SPLIT}.csv"))
    scored = {line["model"] for line in per_image}
    per_image = [line for line in read_csv(written[-1]) if line["model"] not in scored] + per_image
    per_image.sort(key=lambda line: list(ALL_ROWS).index(line["model"]))
    write_csv(per_image, written[-1])
    if README:
        known = {line["model"] for line in rows}
        unscored = [{"model": name} for name in ALL_ROWS if name not in known]  # also rows that were not asked for
        write_between_markers(README, "results", markdown_table(_TITLES, [*rows, *unscored], 2))
        write_between_markers(README, "errors", markdown_table(*error_table(per_image)))
    print(f"wrote {', '.join(map(str, written))}")


def format_line(line: dict) -> dict[str, str]:
    """Numbers as they stand in the CSV and in the table; empty where a column has no meaning."""
    digits = {"params_m": ".2f", "images_per_second": ".1f"}

    def text(column: str) -> str:
        value = line.get(column, "")
        return format(value, digits.get(column, ".4f")) if isinstance(value, float) else str(value)

    return {column: text(column) for column in _COLUMNS}


def write_results(lines: list[dict[str, str]], path: Path) -> list[dict[str, str]]:
    """Replace the lines of the same model and split in the CSV, keep the others; returns all lines, in table order."""
    kept = read_csv(path)
    new = {(line["model"], line["split"]) for line in lines}
    merged = [line for line in kept if (line["model"], line["split"]) not in new] + lines
    order = list(ALL_ROWS)
    merged.sort(key=lambda line: (order.index(line["model"].partition(" ")[0]), line["model"], line["split"]))
    write_csv(merged, path)
    return merged


def write_thresholds(name: str, swept: dict[float, torch.Tensor], chosen: float) -> None:
    """results/clipseg.csv: CLIPSeg's scores at the chosen threshold and at fixed ones."""
    lines = []
    for threshold, confusions in sorted(swept.items()):
        result = scores(confusions)
        numbers = {key: f"{result[key]:.4f}" for key in ("miou", "mdice", "pixel_accuracy", "iou_cat", "iou_dog")}
        chosen_on = "val" if threshold == chosen else ""
        lines.append({"model": name, "split": SPLIT, "threshold": threshold, "chosen_on": chosen_on, **numbers})
    write_csv(lines, Path(RESULTS) / f"{name.lower().replace(' + ', '_')}.csv")


if __name__ == "__main__":
    run_script(main)
