"""Score every trained row on a split: table on screen, results/results.csv, images/*.png.

    python evaluate.py                                  # all rows, official test split
    python evaluate.py --SPLIT=val --ROWS=UNET          # one row, validation split
    python evaluate.py --FLIP=True --README=README.md   # a second line with flip at test time; README's table
    torchrun --nproc_per_node=2 evaluate.py             # the same numbers, shared work

A row without a checkpoint is printed as "–" with the command that makes it. The protocol is in README.md.
"""

import csv
import io
import os
import time
from pathlib import Path

import numpy as np
import torch

from models.clipseg import HUB_ID
from utils.checkpoint import write_text
from utils.classes import colourise
from utils.config import require_choice, require_positive, run_script
from utils.dataset import SPLITS, PetDataset, list_samples, read_sample
from utils.distributed import distributed, is_main, pick_device
from utils.errors import UserError
from utils.evaluation import evaluate
from utils.metrics import scores
from utils.pictures import overlay, save_mask
from utils.plots import plot_confusions, plot_examples, plot_scores
from utils.rows import ROWS as ALL_ROWS
from utils.rows import Row, load_row, segment
from utils.zeroshot import choose_threshold, sweep_thresholds

# data
DATA_ROOT = os.environ.get("PETS_ROOT", "data/pets")  # any layout of data/README.md
SPLIT = "test"  # "val" while you choose, "test" once at the end
# what
ROWS = tuple(ALL_ROWS)  # e.g. --ROWS=UNET,CLIP
FLIP = False  # a second line per row: averaged over the picture and its mirror image
CLIPSEG = HUB_ID  # hub id or folder; its prompts are in utils/zeroshot.py
THRESHOLDS = (0.1, 0.2, 0.3, 0.5)  # reported beside the one chosen on the validation split
# run
BATCH_SIZE = 16  # changes no number
DEVICE = "auto"  # "cpu", "cuda", "cuda:1"
CHECKPOINTS = "checkpoints"  # where the training scripts wrote
# output
RESULTS = "results"  # folder of results.csv; lines of other rows and splits in it are kept
IMAGES = "images"  # folder of results.png and confusion.png
EXAMPLES = "predictions/examples.png"  # some pictures with every row's masks
SAVE_MASKS = ""  # folder: every prediction as an index PNG at the mask's own size
README = ""  # file whose table between the results markers is written anew

COLUMNS = (
    "model,encoder,checkpoint,split,images,miou,mdice,pixel_accuracy,iou_background,iou_cat,iou_dog,"
    "dice_background,dice_cat,dice_dog,miou_per_image,params_m,images_per_second"
).split(",")


def main() -> None:
    require_choice("SPLIT", SPLIT, SPLITS)
    require_positive(globals(), "BATCH_SIZE")
    for name in ROWS:
        require_choice("ROWS", name, tuple(ALL_ROWS))
    device = pick_device(DEVICE)
    with distributed(device):
        rows, lines, confusions, missing = [], [], {}, {}
        for name in ROWS:
            try:
                row = load_row(name, CHECKPOINTS, device, CLIPSEG)
            except UserError as error:
                missing[name] = str(error)
                continue
            rows.append(row)
            for flip in (False, True) if FLIP else (False,):
                line, confusion = score_row(row, flip, device)
                lines.append(line)
                confusions[line["model"]] = confusion
        if is_main():
            report(lines, confusions, missing)
            draw_examples(rows, device)
    if not lines:
        raise UserError("no row could be scored")


def score_row(row: Row, flip: bool, device: torch.device) -> tuple[dict, torch.Tensor]:
    """One line of results.csv, and the confusion matrix of the whole split."""
    name = f"{row.name} + flip" if flip else row.name
    dataset = PetDataset(DATA_ROOT, SPLIT, row.image_size)
    on_prediction = None
    if SAVE_MASKS:
        folder = Path(SAVE_MASKS) / name.replace(" ", "")

        def on_prediction(index: int, mask: np.ndarray) -> None:
            save_mask(mask, folder / f"{dataset.samples[index].name}.png")

    if row.name == "CLIPSeg":
        stored = Path(CHECKPOINTS) / "clipseg" / f"threshold{'_flip' * flip}.json"
        row.threshold = choose_threshold(row.model, DATA_ROOT, row.image_size, flip, device, BATCH_SIZE, stored)
    started = time.perf_counter()
    if row.name == "CLIPSeg":
        thresholds = tuple(dict.fromkeys((row.threshold, *THRESHOLDS)))
        swept = sweep_thresholds(row.model, dataset, thresholds, flip, device, BATCH_SIZE, on_prediction)
        confusions = swept[row.threshold]
        if is_main():
            write_thresholds(name, swept, row.threshold)
    else:
        confusions = evaluate(row.predictor(flip), dataset, device, BATCH_SIZE, name, on_prediction)
    seconds = time.perf_counter() - started
    line = {
        "model": name,
        "encoder": row.encoder,
        "checkpoint": row.checkpoint,
        "split": SPLIT,
        "images": len(dataset),
        **scores(confusions),
        "params_m": row.params_m,
        "images_per_second": len(dataset) / seconds,
    }
    return line, confusions.sum(0)


# ---------------------------------------------------------------------------------------------- output


def report(lines: list[dict], confusions: dict[str, torch.Tensor], missing: dict[str, str]) -> None:
    """Print the table; write results.csv, the figures, and README's table if asked."""
    formatted = [format_line(line) for line in lines]
    print(table([*formatted, *({"model": name} for name in missing)]))
    for name, reason in missing.items():
        print(f"{name}: {reason}")
    if not lines:
        return
    results = Path(RESULTS) / "results.csv"
    everything = write_results(formatted, results)
    plot_scores(lines, Path(IMAGES) / "results.png")
    plot_confusions(confusions, Path(IMAGES) / "confusion.png")
    if README:
        rows = [line for line in everything if line["split"] == SPLIT]
        write_between_markers(Path(README), "results", table([*rows, *({"model": n} for n in missing)]))
    print(f"wrote {results}, {IMAGES}/results.png, {IMAGES}/confusion.png, {EXAMPLES}")


def format_line(line: dict) -> dict[str, str]:
    """Numbers as they stand in the CSV and in the table; empty where a column has no meaning."""
    digits = {"params_m": ".2f", "images_per_second": ".1f"}

    def text(column: str) -> str:
        value = line.get(column, "")
        return format(value, digits.get(column, ".4f")) if isinstance(value, float) else str(value)

    return {column: text(column) for column in COLUMNS}


def table(lines: list[dict[str, str]]) -> str:
    """A Markdown table with aligned columns that reads well in a terminal too."""
    columns = {
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
    # "–" for a row that was not scored, an empty cell where a column has no meaning
    cells = [list(columns.values())] + [[line.get(column, "–") for column in columns] for line in lines]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, ["-" * width if i < 2 else "-" * (width - 1) + ":" for i, width in enumerate(widths)])

    def align(number: int, cell: str) -> str:
        return cell.ljust(widths[number]) if number < 2 else cell.rjust(widths[number])

    return "\n".join(f"| {' | '.join(align(i, cell) for i, cell in enumerate(row))} |" for row in cells)


def write_results(lines: list[dict[str, str]], path: Path) -> list[dict[str, str]]:
    """Replace the lines of the same model and split in the CSV, keep the others; returns all lines, in table order."""
    kept = []
    if path.exists():
        with open(path, newline="") as file:
            kept = list(csv.DictReader(file))
    new = {(line["model"], line["split"]) for line in lines}
    merged = [line for line in kept if (line["model"], line["split"]) not in new] + lines
    order = list(ALL_ROWS)
    merged.sort(key=lambda line: (order.index(line["model"].partition(" ")[0]), line["model"], line["split"]))
    write_text(as_csv(merged), path)
    return merged


def write_thresholds(name: str, swept: dict[float, torch.Tensor], chosen: float) -> None:
    """results/clipseg.csv: CLIPSeg's scores at the chosen threshold and at fixed ones."""
    lines = []
    for threshold, confusions in sorted(swept.items()):
        result = scores(confusions)
        numbers = {key: f"{result[key]:.4f}" for key in ("miou", "mdice", "pixel_accuracy", "iou_cat", "iou_dog")}
        chosen_on = "val" if threshold == chosen else ""
        lines.append({"model": name, "split": SPLIT, "threshold": threshold, "chosen_on": chosen_on, **numbers})
    write_text(as_csv(lines), Path(RESULTS) / f"{name.lower().replace(' + ', '_')}.csv")


def as_csv(lines: list[dict]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, lines[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def draw_examples(rows: list[Row], device: torch.device, count: int = 4) -> None:
    """Pictures spread over the split: as they are, their masks, and every row's prediction."""
    samples = list_samples(DATA_ROOT, SPLIT)
    samples = samples[:: max(len(samples) // count, 1)][:count]
    columns = {"picture": [], "mask": []} | {row.name: [] for row in rows}
    for sample in samples:
        image, mask = read_sample(sample)
        columns["picture"].append(image)
        columns["mask"].append(colourise(mask))
        for row in rows:
            columns[row.name].append(overlay(image, segment(row, image, device)))
    plot_examples(columns, Path(EXAMPLES))


def write_between_markers(path: Path, marker: str, text: str) -> None:
    """Replace what stands between `<!-- marker -->` and `<!-- /marker -->` in a Markdown file."""
    start, end = f"<!-- {marker} -->", f"<!-- /{marker} -->"
    content = path.read_text(encoding="utf-8")
    if start not in content or end not in content:
        raise UserError(f"README = {path} has no lines {start} and {end}")
    before, after = content.partition(start)[0], content.partition(end)[2]
    write_text(f"{before}{start}\n{text}\n{end}{after}", path)


if __name__ == "__main__":
    run_script(main)
