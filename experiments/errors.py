"""Tables and figures of results.csv and per_image.csv, which evaluate.py writes.

    python -m experiments.errors --README=README.md,results/README.md,checkpoints/README.md   # seconds

Writes the tables of scores and of errors into README files, and draws images/data_sets.png and, of the first data set,
images/results.png, images/confusion.png and images/breeds.png (Oxford-IIIT Pet).
"""

import math
from collections.abc import Collection, Sequence
from itertools import pairwise
from pathlib import Path

from utils.config import require_choice, run_script

import numpy as np
import torch
from matplotlib import pyplot as plt

from experiments.looks import looks
from experiments.readme import write_between_markers
from utils.classes import is_background
from utils.errors import UserError
from utils.figures.plots import save_figure
from utils.files import read_csv
from utils.inputs.layouts import SPLITS
from utils.metrics import iou_per_class, mean_over_present
from utils.rows import ROWS
from utils.scoring.results import classes_of, interval_of, result_table
from utils.tables import markdown_table, row_place

RESULTS = "results"  # folder of per_image.csv and results.csv
SPLIT = "test"
IMAGES = "images"  # folder of the figures
README = ()  # files whose tables between markers are updated


def main() -> None:
    require_choice("SPLIT", SPLIT, SPLITS)
    lines, results = (
        [line for line in read_csv(Path(RESULTS) / name) if line["split"] == SPLIT]
        for name in ("per_image.csv", "results.csv")
    )
    if not lines or not results:
        raise UserError(f"{RESULTS} has no line of the {SPLIT} split: run evaluate.py first")
    single = [line for line in results if line["flip"] == "0"]
    tables, data_sets = {"summary": summary_table(single)}, list(dict.fromkeys(line["data"] for line in lines))
    without = set()  # data sets without background
    for data in data_sets:
        scored = [line for line in results if line["data"] == data]
        unscored = [row.name for row in ROWS if row.name not in {line["model"] for line in scored}]
        tables[f"results {data}"] = result_table(scored, unscored)
        names = classes_of(scored)
        by_class = {line["model"] for line in scored if counts_classes(line)}
        without |= set() if any(map(is_background, names)) else {data}
        own = [line for line in lines if line["data"] == data]
        tables[f"errors {data}"] = error_table(own, by_class if data in without else ())
    by_share = miou_by_share([line for line in lines if line["data"] not in without])
    plot_data_sets(single, by_share, Path(IMAGES) / "data_sets.png")
    results, lines = ([line for line in of_all if line["data"] == data_sets[0]] for of_all in (results, lines))
    plot_scores([line for line in results if line["flip"] == "0"], Path(IMAGES) / "results.png")
    draw_confusions(lines, classes_of(results), Path(IMAGES) / "confusion.png")
    if any(line["breed"] for line in lines):
        draw_breeds(lines, Path(IMAGES) / "breeds.png")
    if README:
        write_between_markers(README, tables)
    print(f"{tables['summary']}\nwrote the figures in {IMAGES}")


def summary_table(lines: Sequence[dict[str, str]]) -> str:
    """One line per row: its mIoU and interval on each data set, what it costs. lines: of results.csv, of test splits.

    A row that counts other classes than the data's, by click, has its mIoU in columns of their own.
    """
    rows, titles, clicked = {}, {"model": "model", "encoder": "encoder"}, {}
    for line in lines:
        column = line["data"] if counts_classes(line) else f"{line['data']}, one click"
        (titles if counts_classes(line) else clicked)[column] = f"mIoU, {column}"
        rows.setdefault(line["model"], dict(line))[column] = f"{line['miou']} ({interval_of(line)})"
        rows[line["model"]]["images_per_second"] = line["images_per_second"]  # on the last data set
    titles |= clicked
    titles |= {"params_m": "params (M)", "images_per_second": "pictures/s", "minutes": "minutes"}
    missing = [row for row in ROWS if row.name not in rows]
    missing = [{"model": row.name, "encoder": f"not measured here: `python {row.script}`"} for row in missing]
    table = [{key: value for key, value in row.items() if value} for row in rows.values()]
    titles = {key: title for key, title in titles.items() if any(key in row for row in (*table, *missing))}
    return markdown_table(titles, sorted([*table, *missing], key=row_place([row.name for row in ROWS])), 2)


# In Oxford-IIIT Pet's test split: seven empty masks, three with animal and background swapped.
WRONG_MASKS: tuple[str, ...] = (
    *("Egyptian_Mau_20", "japanese_chin_199", "keeshond_7", "Persian_259", "saint_bernard_60", "saint_bernard_78"),
    *("wheaten_terrier_195", "Maine_Coon_268", "Persian_268", "Persian_273"),
)


def error_table(lines: Sequence[dict[str, str]], without: Collection[str] = ()) -> str:
    """A table with, per row, mean shares of wrong pixels and the number of pictures below .75.

    lines: of per_image.csv, of one split; without: models whose id 0 is no background. If the split contains
    WRONG_MASKS, the last column is the mIoU without them.
    """
    titles = {"model": "model", "miou": "mIoU per image", "confused": "another class", "missed": "missed"}
    titles |= {"false_positive": "false positive", "bad": "pictures below .75", "swapped": "of these, class swapped"}
    if any(line["image"] in WRONG_MASKS for line in lines):
        titles["right"] = "mIoU without wrong masks"
    table = []
    for model in dict.fromkeys(line["model"] for line in lines):
        mine = [line for line in lines if line["model"] == model]
        mious, counts = np.array([float(line["miou"]) for line in mine]), np.stack([matrix_of(line) for line in mine])
        row = {"model": model, "miou": f"{np.nanmean(mious):.4f}", "bad": str((mious < 0.75).sum())}
        shares = shares_of(counts, model not in without)
        if counts.shape[1] == 2 and model not in without:  # one thing, confused with no other
            del shares["confused"]
        else:
            row["swapped"] = str(((shares["confused"] > 0.5) & (mious < 0.75)).sum())
        row |= {key: f"{np.nanmean(values):.2%}" for key, values in shares.items()}
        right = counts[[line["image"] not in WRONG_MASKS for line in mine]].sum(0)
        if "right" in titles and right.any():
            row["right"] = f"{mean_over_present(iou_per_class(torch.from_numpy(right))):.4f}"
        table.append(row)
    return markdown_table(titles, table)


def matrix_of(line: dict[str, str]) -> np.ndarray:
    """The confusion matrix of a line of per_image.csv, int64 (C, C)."""
    counts = np.array(line["confusion"].split(), np.int64)
    return counts.reshape(math.isqrt(len(counts)), -1)


def shares_of(counts: np.ndarray, background: bool = True) -> dict[str, np.ndarray]:
    """Shares of wrong pixels in N pictures, each (N,), from confusion matrices (N, C, C); NaN without pixels.

    confused and missed: share of the foreground predicted as another foreground class and as background;
    false_positive: share of the background predicted as foreground. Without a background all is foreground.
    """
    things, rest, inside = counts[:, 1:].sum((1, 2)), counts[:, 0].sum(1), counts[:, 1:, 1:]
    with np.errstate(invalid="ignore"):
        if not background:
            return {"confused": 1 - counts.trace(axis1=1, axis2=2) / counts.sum((1, 2))}
        return {
            "confused": (inside.sum((1, 2)) - inside.trace(axis1=1, axis2=2)) / things,
            "missed": counts[:, 1:, 0].sum(1) / things,
            "false_positive": counts[:, 0, 1:].sum(1) / rest,
        }


SHARES: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4)  # bounds of five bins, by the share of a picture that animals cover


def miou_by_share(lines: Sequence[dict[str, str]]) -> dict[tuple[str, str], list[float]]:
    """(data, row) -> mean mIoU of the test pictures in each bin of SHARES; NaN for an empty bin.

    lines: of per_image.csv.
    """
    counts, most, shares = [matrix_of(line) for line in lines], {}, {}
    for line, matrix in zip(lines, counts, strict=True):
        most[line["data"]] = max(len(matrix), most.get(line["data"], 0))
    for line, matrix in zip(lines, counts, strict=True):
        if len(matrix) == most[line["data"]]:  # rows by click may have fewer classes: they do not give the share
            truth = matrix.sum(1)
            shares[line["data"], line["image"]] = truth[1:].sum() / truth.sum()
    bins: dict[tuple[str, str], list[list[float]]] = {}
    for line in lines:
        share = shares.get((line["data"], line["image"]), 0)
        if share:
            of_row = bins.setdefault((line["data"], line["model"]), [[] for _ in range(len(SHARES) + 1)])
            of_row[int(np.digitize(share, SHARES))].append(float(line["miou"]))
    return {key: [float(np.mean(group)) if group else math.nan for group in of_row] for key, of_row in bins.items()}


def draw_breeds(lines: Sequence[dict[str, str]], path: Path) -> None:
    """Mean mIoU of the test pictures per breed, sorted by the first row's."""
    values: dict[str, dict[str, list[float]]] = {}
    for line in lines:
        if line["breed"]:
            values.setdefault(line["model"], {}).setdefault(line["breed"], []).append(float(line["miou"]))
    means = {model: {breed: float(np.nanmean(x)) for breed, x in of.items()} for model, of in values.items()}
    first = next(iter(means.values()))
    breeds = sorted(first, key=first.get)
    figure, axes = plt.subplots(figsize=(8, 1 + 0.19 * len(breeds)))
    for model, look in looks(means).items():
        values = [means[model].get(breed, np.nan) for breed in breeds]
        axes.plot(values, range(len(breeds)), look.marker, color=look.colour, label=model, markersize=5)
    axes.set_yticks(range(len(breeds)), [breed.replace("_", " ") for breed in breeds])
    axes.set(xlabel="mIoU, mean over pictures", ylim=(-0.6, len(breeds) - 0.4))
    figure.legend(loc="outside lower center", ncols=5)
    save_figure(figure, path)


def title_of(line: dict[str, str]) -> str:
    """The row of a line of results.csv, and whether its mIoU is of two classes, as by click."""
    return line["model"] + ", two classes" * (not counts_classes(line))


def counts_classes(line: dict[str, str]) -> bool:
    """Whether a line of results.csv has an IoU for each class of the data, as a row by class."""
    return any(line[key] for key in line if key.startswith("iou_"))


def plot_scores(lines: Sequence[dict[str, str]], path: Path) -> None:
    """IoU and Dice per class and their means: a group of bars per class, a bar per row. lines: of results.csv."""
    classes = classes_of(lines)
    groups = [*classes, "mean"]
    figure, panels = plt.subplots(2, 1, figsize=(max(8, 1.2 * len(groups)), 5.6), sharex=True)
    width, styles = 0.9 / len(lines), looks(line["model"] for line in lines)
    for axes, metric in zip(panels, ("iou", "dice"), strict=True):
        for i, line in enumerate(lines):
            values = [float(line[f"{metric}_{name}"] or 0) for name in classes] + [float(line[f"m{metric}"])]
            places = [g + (i - (len(lines) - 1) / 2) * width for g in range(len(groups))]
            style = {"color": styles[line["model"]].colour, "label": title_of(line), "zorder": 2}
            bars = axes.bar(places, values, width * 0.92, **style)
            labels = [f"{value:.2f}".removeprefix("0") if value else "" for value in values]
            axes.bar_label(bars, labels, padding=1)
        axes.set(ylabel={"iou": "IoU", "dice": "Dice"}[metric], ylim=(0, 1.05))
        axes.set_xticks(range(len(groups)), groups)
        axes.grid(axis="x", visible=False)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    save_figure(figure, path)


def draw_confusions(lines: Sequence[dict[str, str]], names: Sequence[str], path: Path) -> None:
    """Confusion matrices of every row in percent of the true class. lines: of per_image.csv; names: of the classes."""
    models = list(dict.fromkeys(line["model"] for line in lines))
    totals = [sum(matrix_of(line) for line in lines if line["model"] == model) for model in models]
    side = max(2.6, 0.55 * max(map(len, totals)))  # of a matrix, in inches
    columns = max(1, min(len(models), int(8 // side)))
    lines = math.ceil(len(models) / columns)
    figure, panels = plt.subplots(lines, columns, figsize=(columns * side, lines * side), squeeze=False)
    for axes in panels.flat[len(models) :]:
        axes.axis("off")
    for axes, model, counts in zip(panels.flat, models, totals, strict=False):
        shares, many = counts / counts.sum(1, keepdims=True).clip(min=1), len(counts) > 4
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for truth, predicted in np.ndindex(shares.shape):
            share = shares[truth, predicted]
            text = f"{share:.0%}" if many else f"{share:.1%}"
            colour = "white" if share > 0.5 else "black"
            axes.text(predicted, truth, text, ha="center", va="center", color=colour, fontsize=7 if many else None)
        by_click = len(counts) != len(names)
        own = ("rest", "thing") if by_click else names
        axes.set(title=f"{model}{', two classes' * by_click}", xlabel="predicted")
        axes.set_xticks(range(len(own)), own, rotation=90 if many else 30, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(own)), own)
        axes.grid(visible=False)
    for axes in panels[:, 0]:
        axes.set_ylabel("truth")
    save_figure(figure, path)


def plot_data_sets(lines: Sequence[dict[str, str]], by_share: dict[tuple[str, str], list[float]], path: Path) -> None:
    """Bars of every row's mIoU per data set; then, per data set, mIoU against the share that animals cover.

    lines: of results.csv, one per row and data set; by_share: see miou_by_share().
    """
    sets = list(dict.fromkeys(line["data"] for line in lines))
    styles = looks(line["model"] for line in lines)
    binned = [data for data in sets if any(of == data for of, _ in by_share)]
    figure = plt.figure(figsize=(8, 6 if binned else 3))
    panels = figure.subplot_mosaic([["bars"] * max(1, len(binned)), binned] if binned else [["bars"]])
    width = 0.9 / len(styles)
    for place, (model, look) in enumerate(styles.items()):
        mine = [line for line in lines if line["model"] == model]
        values = {line["data"]: float(line["miou"]) for line in mine}
        places = [sets.index(data) + (place - (len(styles) - 1) / 2) * width for data in values]
        style = {"color": look.colour, "label": title_of(mine[0]), "zorder": 2}
        bars = panels["bars"].bar(places, list(values.values()), width * 0.92, **style)
        labels = [f"{value:.2f}".removeprefix("0") for value in values.values()]
        panels["bars"].bar_label(bars, labels, padding=1)
    panels["bars"].set(ylabel="mIoU", ylim=(0, 1.05))
    panels["bars"].set_xticks(range(len(sets)), sets)
    panels["bars"].grid(axis="x", visible=False)
    bounds = [f"{share:.0%}".removesuffix("%") for share in SHARES]
    bins = [f"< {bounds[0]} %", *map("–".join, pairwise(bounds)), f"> {bounds[-1]} %"]
    lowest = math.floor(10 * np.nanmin([*by_share.values(), [0.9] * len(bins)])) / 10
    for data in binned:
        for model, look in styles.items():
            if (data, model) in by_share:
                style = look.dashes + look.marker
                panels[data].plot(range(len(bins)), by_share[data, model], style, color=look.colour)
        panels[data].set(title=data, xlabel="share of the picture that is an animal", ylim=(lowest, 1))
        panels[data].set_xticks(range(len(bins)), bins)
    if binned:
        panels[binned[0]].set_ylabel("mIoU, mean over pictures")
    figure.legend(*panels["bars"].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    save_figure(figure, path)


if __name__ == "__main__":
    run_script(main)
