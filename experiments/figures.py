"""Figures of the README: data, diagrams of the models, training curves, predictions on a photo of a cat.

    python -m experiments.figures                   # all figures, into images/
    python -m experiments.figures --ONLY=data,cat   # some figures

A figure whose input is missing (data, training logs) is skipped with a message.
"""

from pathlib import Path
from textwrap import fill

from utils.config import DATA, require_choice, run_script

import numpy as np
from matplotlib import pyplot as plt

from experiments.diagrams import DIAGRAMS
from experiments.looks import class_colours, looks
from experiments.robustness import PERTURBATIONS
from utils.classes import VOID
from utils.device import pick_device
from utils.errors import UserError
from utils.figures.grids import draw_prediction
from utils.figures.plots import plot_examples, save_figure
from utils.files import read_csv
from utils.inputs.dataset import SegmentationDataset
from utils.inputs.pictures import read_image, rng_of
from utils.rows import find_rows, load_rows
from utils.rows.row import Row

ONLY = ()  # names of figures; empty: all
DATA_ROOT = DATA  # any layout of data/README.md
CHECKPOINTS = "checkpoints"  # folder of all rows, with their training logs
IMAGES = "images"  # folder of the figures
DEVICE = "auto"  # "cpu", "cuda", "cuda:1"

CAT, NOSE = Path(__file__).parents[1] / "images" / "examples" / "cat.jpg", (230, 170)  # a click on the nose


def main() -> None:
    for name in ONLY:
        require_choice("ONLY", name, tuple(FIGURES))
    for name in ONLY or FIGURES:
        suffix, draw = FIGURES[name]
        path = Path(IMAGES) / f"{name}{suffix}"
        try:
            draw(path)
            print(f"wrote {path}", flush=True)
        except UserError as error:
            print(f"{path} is skipped: {error}", flush=True)


def draw_data(path: Path) -> None:
    """Pictures per class, share of the pixels per class, and a map of where each class lies."""
    train = SegmentationDataset(DATA_ROOT, "trainval", 128)
    masks, classes = np.array(train.arrays["masks"]), train.classes
    colours = class_colours(classes)
    shows = {name: (masks == index).any((1, 2)) for index, name in enumerate(classes.names) if index >= classes.first}
    shown = classes.things[:6]  # more would be too small
    lines = [["pictures", "pixels"], *([*shown, "."][place : place + 2] for place in range(0, len(shown), 2))]
    figure = plt.figure(figsize=(8, 3 * len(lines)))
    panels = figure.subplot_mosaic(lines)

    counts = [int(of_class.sum()) for of_class in shows.values()]
    bars = panels["pictures"].bar(list(shows), counts, color=[colours[name] for name in shows])
    panels["pictures"].bar_label(bars)
    panels["pictures"].set_title(f"pictures of trainval, {len(train)}")
    shares = np.array([(masks == index).mean() for index in (*range(len(classes)), VOID)])
    names = [*classes.names, "void"]
    bars = panels["pixels"].bar(names, shares, color=[colours.get(name, "#BBBBBB") for name in names])
    panels["pixels"].bar_label(bars, [f"{share:.0%}" for share in shares])
    panels["pixels"].set_title("share of the pixels")
    for name in ("pictures", "pixels"):
        panels[name].tick_params(axis="x", rotation=90 if len(classes) > 4 else 0)
        panels[name].grid(axis="x", visible=False)
    for index, name in enumerate(shown, classes.first):
        where = (masks[shows[name]] == index).sum(0) / max(1, shows[name].sum())  # in the squashed picture
        drawn = panels[name].imshow(where, cmap="magma", vmin=0, vmax=1)
        panels[name].set(title=f"where a {name} is", xticks=[], yticks=[])
        panels[name].grid(visible=False)
    figure.colorbar(drawn, ax=panels[shown[-1]], label="share of the pictures")
    save_figure(figure, path)


def draw_curves(path: Path) -> None:
    """Validation score of every row against training time, which includes the autoencoder's stage 1."""
    folders = {name: Path(CHECKPOINTS) / row.folder for name, row in find_rows(CHECKPOINTS).items()}
    logs = {name: log for name, folder in folders.items() if (log := read_csv(folder / "log.csv"))}
    if not logs:
        raise UserError(f"{CHECKPOINTS} has no log.csv: the training scripts write one")
    figure, axes = plt.subplots(figsize=(8, 3.6))
    for name, look in looks(logs).items():
        log, before = logs[name], read_csv(folders[name] / "pretraining" / "log.csv")
        minutes = minutes_of(log) + (minutes_of(before)[-1] if before else 0)
        axes.plot(minutes, [float(line["score"]) for line in log], color=look.colour, label=name)
    axes.set(xscale="log", xlabel="minutes of training", ylabel="validation mIoU", ylim=(None, 1))
    axes.set_xticks([5, 10, 20, 50, 100], ["5", "10", "20", "50", "100"])
    axes.minorticks_off()
    axes.legend()
    save_figure(figure, path)


def minutes_of(log: list[dict[str, str]]) -> np.ndarray:
    """Minutes of training at every line of a log.csv, whose seconds are those of its last epoch alone."""
    epochs = np.diff([0, *(int(line["epoch"]) for line in log)])
    return np.cumsum([float(line["seconds"]) for line in log] * epochs) / 60


def draw_cat(path: Path) -> None:
    """A free photo of a cat with every row's prediction."""
    image, rows = read_image(CAT), rows_that_know_cats(path)
    pictures = {"photo": image} | {row.name: draw_prediction(row, image, NOSE, 1) for row in rows}
    figure, panels = plt.subplots(2, (len(pictures) + 1) // 2, figsize=(8, 4), squeeze=False)
    for axes in panels.flat:
        axes.axis("off")
    for axes, (title, picture) in zip(panels.flat, pictures.items(), strict=False):
        axes.imshow(picture)
        axes.set_title(title)
    save_figure(figure, path)


def draw_corrupted_cat(path: Path) -> None:
    """The same photo under every perturbation at its last level, with every row's prediction."""
    rows, corrupted = rows_that_know_cats(path), {"unchanged": read_image(CAT)}
    for name, (_, levels, perturb) in PERTURBATIONS.items():
        corrupted[fill(f"{name} {levels[-1]}", 12)] = perturb(corrupted["unchanged"], levels[-1], rng_of(name))
    columns = {"picture": list(corrupted.values())}
    columns |= {row.name: [draw_prediction(row, x, NOSE, 1) for x in corrupted.values()] for row in rows}
    plot_examples(columns, path, list(corrupted))


def rows_that_know_cats(path: Path) -> list[Row]:
    """Rows with weights and a class "cat"; others are reported."""
    rows, missing = load_rows(find_rows(CHECKPOINTS), CHECKPOINTS, pick_device(DEVICE))
    for name, reason in missing.items():
        print(f"{path}: without {name}, {reason}", flush=True)
    return [row for row in rows if row.prompt or "cat" in row.classes.names]


# name -> suffix of the file, function
FIGURES = {name: (".svg", draw) for name, draw in DIAGRAMS.items()} | {
    "data": (".png", draw_data),
    "curves": (".png", draw_curves),
    "cat": (".jpg", draw_cat),
    "cat_corrupted": (".jpg", draw_corrupted_cat),
}


if __name__ == "__main__":
    run_script(main)
