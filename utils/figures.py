"""The figures that belong to no single script: the data, the models' diagrams, training curves, IoU per breed.

    python -m utils.figures                  # all that can be drawn from what is here, into images/
    python -m utils.figures --ROW=CLIP       # the best, median and worst test pictures of another row

What is missing (the data, the logs of a training, results/per_image.csv) is told, and its figure left as it is.
The pictures of a row's best and worst go to predictions/, for they show photos.
"""

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt

from utils.classes import CLASSES, VOID, colourise
from utils.config import require_choice, run_script
from utils.dataset import PetDataset, list_samples, read_sample
from utils.diagrams import DIAGRAMS
from utils.distributed import pick_device
from utils.errors import UserError
from utils.examples import draw_spoiled
from utils.files import read_csv
from utils.perturbations import PERTURBATIONS
from utils.pictures import overlay
from utils.plots import CLASS_COLOURS, MODEL_COLOURS, plot_examples, save_figure
from utils.rows import ROWS, load_row, segment

DATA_ROOT = os.environ.get("PETS_ROOT", "data/pets")  # any layout of data/README.md
CHECKPOINTS = "checkpoints"  # the logs of the trainings
RESULTS = "results"  # per_image.csv
IMAGES = "images"
ROW = "UNET"  # whose best, median and worst test pictures are drawn
EXAMPLES = "predictions"  # folder for them
DEVICE = "auto"  # "cpu", "cuda", "cuda:1"


def main() -> None:
    require_choice("ROW", ROW, [name for name in ROWS if name != "PointCLIP"])
    figures: dict[str, Callable[[Path], None]] = {f"{IMAGES}/{name}.png": draw for name, draw in DIAGRAMS.items()}
    figures[f"{IMAGES}/data.png"] = draw_data
    figures[f"{IMAGES}/curves.png"] = draw_curves
    figures[f"{IMAGES}/breeds.png"] = draw_breeds
    figures[f"{IMAGES}/cat.png"] = draw_cat
    figures[f"{EXAMPLES}/extremes_{ROW.lower()}.png"] = draw_extremes
    for path, draw in figures.items():
        try:
            draw(Path(path))
            print(f"wrote {path}", flush=True)
        except UserError as error:
            print(f"{path} is left out: {error}", flush=True)


def draw_data(path: Path) -> None:
    """Pictures per breed and species, share of the pixels, and where the animal lies in an average picture."""
    train = PetDataset(DATA_ROOT, "trainval", 128)
    masks = np.array(train.arrays["masks"])
    species = np.array([s.species or _species(mask) for s, mask in zip(train.samples, masks, strict=True)])
    figure = plt.figure(figsize=(11, 6), layout="constrained")
    panels = figure.subplot_mosaic([["species", "pixels", "cat", "dog"], ["breeds"] * 4], height_ratios=(1, 0.9))

    counts = {name: int((species == index).sum()) for index, name in enumerate(CLASSES) if index}
    bars = panels["species"].bar(list(counts), list(counts.values()), color=[CLASS_COLOURS[name] for name in counts])
    panels["species"].bar_label(bars)
    panels["species"].set_title(f"pictures of trainval, {len(train)}")
    shares = np.array([(masks == index).mean() for index in (0, 1, 2, VOID)])
    names = [*CLASSES, "void"]
    bars = panels["pixels"].bar(names, shares, color=[CLASS_COLOURS.get(name, "#BBBBBB") for name in names])
    panels["pixels"].bar_label(bars, [f"{share:.0%}" for share in shares])
    panels["pixels"].set_title("share of the pixels")
    panels["pixels"].tick_params(axis="x", labelsize=8)
    for index, name in ((1, "cat"), (2, "dog")):
        # an animal's pixels of all its pictures, at one place of the squashed picture
        mean = (masks[species == index] == index).mean(0) if counts[name] else np.zeros((128, 128))
        drawn = panels[name].imshow(mean, cmap="magma", vmin=0, vmax=1)
        panels[name].set(title=f"where a {name} is", xticks=[], yticks=[])
    figure.colorbar(drawn, ax=panels["dog"], label="share of the pictures")

    breeds = Counter(sample.breed for sample in train.samples)
    names = [breed.replace("_", " ") for breed in breeds]
    kinds = {sample.breed: CLASSES[kind] for sample, kind in zip(train.samples, species, strict=True)}
    panels["breeds"].bar(
        range(len(names)), list(breeds.values()), color=[CLASS_COLOURS[kinds[breed]] for breed in breeds]
    )
    panels["breeds"].set_xticks(range(len(names)), names, rotation=90, fontsize=7)
    panels["breeds"].set(title="pictures per breed", xlim=(-0.6, len(names) - 0.4))
    for name in ("species", "pixels", "breeds"):
        panels[name].spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)


def _species(mask: np.ndarray) -> int:
    """The animal that covers most of a mask; 0 if there is none."""
    counts = [(mask == index).sum() for index in range(1, len(CLASSES))]
    return 1 + int(np.argmax(counts)) if max(counts) else 0


def draw_curves(path: Path) -> None:
    """Validation score of every row against the time that its training took, the autoencoder's stage 1 included."""
    logs = {row: read_csv(Path(CHECKPOINTS) / folder / "log.csv") for row, (folder, _) in ROWS.items()}
    logs = {row: log for row, log in logs.items() if log}
    if not logs:
        raise UserError(f"{CHECKPOINTS} holds no log.csv: the training scripts write one")
    figure, axes = plt.subplots(figsize=(8, 3.6), layout="constrained")
    for row, log in logs.items():
        before = read_csv(Path(CHECKPOINTS) / ROWS[row][0] / "pretraining" / "log.csv")
        seconds = np.cumsum([float(line["seconds"]) for line in [*before, *log]])
        minutes = seconds[len(before) :] / 60
        values = [float(line["score"]) for line in log]
        marker = "o" if len(log) < 10 else None
        axes.plot(minutes, values, color=MODEL_COLOURS[row], label=row, marker=marker, markersize=4)
    axes.set(xscale="log", xlabel="minutes of training", ylabel="validation mIoU", ylim=(None, 1))
    axes.set_xticks([1, 2, 5, 10, 20, 50, 100], ["1", "2", "5", "10", "20", "50", "100"])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    save_figure(figure, path)


def per_image() -> list[dict[str, str]]:
    """results/per_image.csv. Raises UserError if it is not there."""
    path = Path(RESULTS) / "per_image.csv"
    lines = read_csv(path)
    if not lines:
        raise UserError(f"{path} is missing; `python evaluate.py` makes it")
    return lines


def draw_breeds(path: Path) -> None:
    """Mean of the test pictures' mIoU, a line of dots per breed, the hardest for the first row on the left."""
    values: dict[str, dict[str, list[float]]] = {}
    for line in per_image():
        values.setdefault(line["model"], {}).setdefault(line["breed"], []).append(float(line["miou"]))
    means = {model: {breed: float(np.nanmean(x)) for breed, x in of.items()} for model, of in values.items()}
    first = next(iter(means.values()))
    breeds = sorted(first, key=first.get)
    figure, axes = plt.subplots(figsize=(11, 4), layout="constrained")
    for model, marker in zip(means, "osd^v", strict=False):
        heights = [means[model].get(breed, np.nan) for breed in breeds]
        axes.plot(range(len(breeds)), heights, marker, color=MODEL_COLOURS[model], label=model, markersize=5)
    axes.set_xticks(range(len(breeds)), [breed.replace("_", " ") for breed in breeds], rotation=90, fontsize=8)
    axes.set(ylabel="mIoU, mean over pictures", xlim=(-0.6, len(breeds) - 0.4))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False)
    save_figure(figure, path)


def draw_cat(path: Path) -> None:
    """A free photo of a cat (CC0), as it is and spoiled in eight ways, and what every row makes of it."""
    try:
        from skimage.data import chelsea
    except ImportError as error:
        raise UserError("the photo comes with scikit-image, `pip install -r requirements-test.txt`") from error
    device, rows = pick_device(DEVICE), []
    for name in ROWS:
        try:
            rows.append(load_row(name, CHECKPOINTS, device))
        except UserError as error:
            print(f"{path}: without {name}, {error}", flush=True)
    draw_spoiled(rows, chelsea(), (230, 170), CLASSES.index("cat"), tuple(PERTURBATIONS), path, device)


def draw_extremes(path: Path, count: int = 4) -> None:
    """The best, median and worst test pictures of ROW: pairs of truth and prediction."""
    of_row = sorted((line for line in per_image() if line["model"] == ROW), key=lambda line: -float(line["miou"]))
    if not of_row:
        raise UserError(f"{RESULTS}/per_image.csv has no line of {ROW}; `python evaluate.py --ROWS={ROW}` makes them")
    device = pick_device(DEVICE)
    row = load_row(ROW, CHECKPOINTS, device)
    samples = {sample.name: sample for sample in list_samples(DATA_ROOT, "test")}
    middle = max(len(of_row) // 2 - count // 2, 0)
    chosen = {"best": of_row[:count], "median": of_row[middle : middle + count], "worst": of_row[-count:]}
    columns = {}
    for title, lines in chosen.items():
        truths, predictions = columns.setdefault(f"{title}: truth", []), columns.setdefault(f"{title}: {ROW}", [])
        for line in lines:
            if line["image"] not in samples:
                raise UserError(f"{RESULTS}/per_image.csv is of another data set than DATA_ROOT = {DATA_ROOT}")
            image, mask = read_sample(samples[line["image"]])
            truths.append(colourise(mask))
            predictions.append(overlay(image, segment(row, image, device)))
    plot_examples(columns, path)


if __name__ == "__main__":
    run_script(main)
