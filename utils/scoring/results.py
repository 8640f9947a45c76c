"""Lines of results.csv (a row, flip, data set and split each) and of per_image.csv, and the table of results."""

from collections.abc import Sequence
from pathlib import Path

import torch

from utils.checkpoint import file_digest
from utils.classes import is_background
from utils.device import in_force
from utils.files import locked, read_csv, write_csv
from utils.inputs.layouts import Sample
from utils.metrics import iou_per_class, mean_over_present, miou_interval, scores
from utils.rows.row import Row
from utils.tables import markdown_table, row_place

_DIGITS = {"params_m": ".2f", "images_per_second": ".1f"}
KEY = ("model", "flip", "data", "split")  # columns by which a line is replaced


def result_line(row: Row, about: dict[str, str], confusions: torch.Tensor, seconds: float) -> dict[str, str]:
    """A line of results.csv, as text; about: data and split; confusions: int64 (N, C, C) of row.counted.

    For a row by click, which does not count the data's classes, the numbers of single classes are empty.
    """
    found = scores(confusions, row.counted)
    low, high = miou_interval(confusions)
    if row.counted != row.classes.names:
        found = {key: value for key, value in found.items() if not key.startswith(("iou_", "dice_"))}
        found |= {f"{kind}_{name}": "" for kind in ("iou", "dice") for name in row.classes.names}
    numbers = {"miou": found.pop("miou"), "miou_low": low, "miou_high": high, **found}
    numbers |= {"params_m": row.params_m, "images_per_second": len(confusions) / seconds}
    line = {"model": row.name, "flip": str(int(row.flip)), "encoder": row.encoder, "checkpoint": row.checkpoint}
    line |= {"sha256": file_digest(row.checkpoint), **about, "images": str(len(confusions))}
    texts = {key: format(x, _DIGITS.get(key, ".4f")) if isinstance(x, float) else x for key, x in numbers.items()}
    minutes = "" if row.minutes is None else f"{row.minutes:.0f}"
    bf16 = in_force(row.device, row.precision) == "bf16"
    scales = " ".join([f"{scale:g}" for scale in row.scales] + ["zoom"] * row.zoom + ["bf16"] * bf16)  # "1 1.4 zoom"
    return line | texts | {"scales": scales, "minutes": minutes}


def per_image_lines(
    model: str, samples: Sequence[Sample], confusions: torch.Tensor, **about: str
) -> list[dict[str, str]]:
    """Lines of results/per_image.csv; confusions: int64 (N, C, C), written row by row; about: the first columns."""
    lines = []
    for sample, counts, miou in zip(samples, confusions, mean_over_present(iou_per_class(confusions)), strict=True):
        line = {**about, "image": sample.name, "breed": sample.breed, "model": model, "miou": f"{miou:.4f}"}
        lines.append(line | {"confusion": " ".join(map(str, counts.flatten().tolist()))})
    return lines


def merge_lines(
    lines: Sequence[dict[str, str]], path: Path, order: Sequence[str], key: Sequence[str] = KEY
) -> list[dict[str, str]]:
    """Add lines to a CSV, in place of those with the same values in the columns `key`; returns all lines.

    order: of the models, in the file and in the returned lines. Columns that a line lacks are empty.
    """
    new, place = {tuple(line[name] for name in key) for line in lines}, row_place(order)
    with locked(path):
        kept = [line for line in read_csv(path) if tuple(line.get(name, "") for name in key) not in new]
        merged = sorted([*kept, *lines], key=lambda line: (*place(line), *(line.get(name, "") for name in key)))
        write_csv(merged, path)
        return read_csv(path)


def result_table(lines: Sequence[dict[str, str]], without: Sequence[str]) -> str:
    """Lines of results.csv as the table on screen and in README; a line of dashes for each model in `without`.

    Of the numbers per class it has the IoU only, without background; those of more than four classes are a second
    table, with a line per class.
    """
    names = classes_of(lines)
    background = next(filter(is_background, names), "")  # another class may be called other
    classes = {f"iou_{name}": name for name in names if name != background}
    titles = {"model": "model", "views": "views", "encoder": "encoder", "images": "images", "miou": "mIoU"}
    titles |= {"interval": "95 %", "mdice": "mDice"}
    titles |= {key: f"IoU {name}" for key, name in classes.items() if len(classes) <= 4}
    titles |= {"params_m": "params (M)", "images_per_second": "img/s"}
    views = [line["scales"] + " flip" * (line["flip"] == "1") for line in lines]  # "1 1.4 flip": scales, zoom, flip
    shown = [line | {"views": of, "interval": interval_of(line)} for line, of in zip(lines, views, strict=True)]
    table = markdown_table(titles, [*shown, *({"model": name} for name in without)], 3)
    if len(classes) <= 4:
        return table
    columns = {"class": "IoU"} | {str(number): line["model"] for number, line in enumerate(lines)}
    per_class = [
        {"class": name} | {str(number): line.get(key) or "–" for number, line in enumerate(lines)}
        for key, name in classes.items()
    ]
    return f"{table}\n\n{markdown_table(columns, per_class)}"


def classes_of(lines: Sequence[dict[str, str]]) -> list[str]:
    """Names of the classes that lines of results.csv have an IoU of."""
    return list(dict.fromkeys(key[4:] for line in lines for key in line if key.startswith("iou_") and line[key]))


def interval_of(line: dict[str, str]) -> str:
    """ ".8912–.8975", "1.0000–1.0000"; empty where it was not measured."""
    low, high = (line[key].removeprefix("0") for key in ("miou_low", "miou_high"))
    return f"{low}–{high}" if low else ""
