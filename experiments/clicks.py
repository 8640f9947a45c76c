"""IoU against the number of clicks, NoC, and what the same clicks are worth without a model of clicks.

    python -m experiments.clicks --PICTURES=200      # rows by click and three baselines: half an hour

Writes results/clicks.csv and images/clicks.png. Baselines: "everything" takes the whole picture for the thing, "disk" a
disk of the mean animal's size around every click, "ROW look-up" everything of the class that a row by class has at the
first click.
"""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from utils.config import DATA, require_choice, run_script

import numpy as np
import torch
from matplotlib import pyplot as plt
from torch import nn
from tqdm import tqdm

from utils.classes import VOID, Classes
from utils.device import pick_device
from utils.errors import UserError
from utils.figures.looks import looks
from utils.figures.plots import save_figure
from utils.inputs.clicks import Click, next_click, random_click, thing_mask
from utils.inputs.dataset import SegmentationDataset
from utils.inputs.layouts import SPLITS, Sample, data_name, list_samples, subset
from utils.inputs.pictures import read_sample, rng_of
from utils.rows import find_rows, load_rows
from utils.rows.by_click import CLICKED, ByClick
from utils.rows.row import Row, Segment, Segmentation
from utils.scoring.results import merge_lines
from utils.tables import markdown_table, write_between_markers

DATA_ROOT = DATA  # any layout of data/README.md
SPLIT = "test"
ROWS = ("PointCLIP", "CLIP look-up", "disk", "everything")  # and "NAME look-up" of every row by class
PICTURES = 0  # a random subset of so many, always the same; 0: the whole split
DEVICE = "auto"  # "cpu", "cuda", "cuda:1"
CHECKPOINTS = "checkpoints"  # where the training scripts wrote
RESULTS = "results"  # folder of clicks.csv; lines of other rows and data in it are kept
IMAGES = "images"  # folder of clicks.png
README = ()  # files whose table between markers is written anew

MOST: int = 20  # clicks at most, as in the literature on NoC
COUNTS: tuple[int, ...] = (1, 2, 3, 5, 10)  # after which the IoU is reported


def main() -> None:
    require_choice("SPLIT", SPLIT, SPLITS)
    device, samples = pick_device(DEVICE), subset(list_samples(DATA_ROOT, SPLIT), PICTURES)
    classes, known = samples[0].classes, find_rows(CHECKPOINTS)
    rows, missing = load_rows(known, CHECKPOINTS, device, classes, DATA_ROOT)
    takers = {row.name: row for row in rows if row.prompt == "click"} | baselines(rows, classes, device)
    for name in ROWS:
        if name not in takers:
            reason = missing.get(name.removesuffix(" look-up"), f"there are {', '.join(takers)}")
            raise UserError(f"ROWS: {name} cannot be scored: {reason}")
    path, about = Path(RESULTS) / "clicks.csv", {"data": data_name(DATA_ROOT), "split": SPLIT}
    for name in ROWS:  # the file is written after every row, for they take long
        lines = merge_lines(score_clicks(takers[name], samples, about), path, list(takers), ("model", *about))
    lines = [line for line in lines if about.items() <= line.items()]
    plot_clicks(lines, Path(IMAGES) / "clicks.png")
    if README:
        write_between_markers(README, {f"clicks {about['data']}": click_table(lines)})
    print(f"{click_table(lines)}\nwrote {path}, {IMAGES}/clicks.png")


def score_clicks(row: ByClick, samples: Sequence[Sample], about: dict[str, str]) -> list[dict[str, str]]:
    """Lines of clicks.csv: mean IoU of the animal after each of COUNTS clicks, and NoC; about: further columns."""
    lines = []
    for first_click in ("central", "random"):
        ious = click_curves(row, samples, first_click == "central", f"{row.name}, first click {first_click}")
        noc = {f"noc{percent}": f"{number_of_clicks(ious, percent / 100):.3f}" for percent in (85, 90)}
        for clicks in COUNTS:
            line = {"model": row.name, **about, "zoom": str(int(row.zoom)), "first_click": first_click}
            line |= {"clicks": str(clicks), "miou_animal": f"{ious[:, clicks - 1].nanmean():.4f}", **noc}
            lines.append(line | {"images": str(len(samples))})
    return lines


def click_curves(row: ByClick, samples: Sequence[Sample], central: bool, label: str) -> torch.Tensor:
    """IoU of the animal after each of MOST clicks, float64 (N, MOST); NaN for a picture without an animal.

    The first click is the centre of the animal (or random by the file's name), every further one the centre of
    the largest wrong region. A picture is finished when a click has changed nothing, for the next would be the same
    one, and from the tenth click on once it has reached .9.
    """
    ious = torch.zeros(len(samples), MOST, dtype=torch.float64)
    for index, sample in enumerate(tqdm(samples, label, unit="img", leave=False, disable=None)):
        image, mask = read_sample(sample)
        found = random_click(mask, True, rng_of(sample.name))
        if not found:
            ious[index] = np.nan
            continue
        click, thing = found
        truth = thing_mask(mask, thing)
        if central:
            click = next_click(truth, np.zeros(truth.shape, bool))
        segment, clicks, before = row.open(image), [], None
        for number in range(MOST):
            clicks.append(click)
            predicted = segment(clicks, "").ids > 0
            ious[index, number:] = binary_iou(truth, predicted)
            stuck = before is not None and np.array_equal(predicted, before)
            if stuck or (number >= 9 and ious[index].max() >= 0.9):
                break
            click, before = next_click(truth, predicted), predicted
            if click is None:
                break
    return ious


def binary_iou(truth: np.ndarray, predicted: np.ndarray) -> float:
    """IoU of the thing; truth (H, W) with 1, 0, VOID, predicted bool (H, W)."""
    thing, known = truth == 1, truth != VOID
    return float((thing & predicted).sum() / ((thing | predicted) & known).sum())


def number_of_clicks(ious: torch.Tensor, threshold: float) -> float:
    """NoC: the mean number of clicks until the IoU reaches the threshold, MOST where it never does."""
    ious = ious[~ious.isnan().any(1)]
    reached = ious >= threshold
    first = reached.double().argmax(1) + 1
    return float(torch.where(reached.any(1), first, MOST).double().mean())


def click_table(lines: Sequence[dict[str, str]]) -> str:
    """The lines of clicks.csv with the numbers of clicks side by side."""
    titles = {"model": "model", "first_click": "first click"}
    titles |= {f"{clicks}": f"IoU, {clicks} click{'s' * (clicks > 1)}" for clicks in COUNTS}
    titles |= {"noc85": "NoC@85", "noc90": "NoC@90", "images": "images"}
    merged = {}
    for line in lines:
        row = merged.setdefault((line["model"], line["first_click"]), dict(line))
        row[str(line["clicks"])] = line["miou_animal"]
    return markdown_table(titles, list(merged.values()), 2)


def plot_clicks(lines: Sequence[dict[str, str]], path: Path) -> None:
    """IoU of the thing against the number of clicks, whole and from .9 on."""
    high = any(float(line["miou_animal"]) > 0.9 for line in lines)
    figure, panels = plt.subplots(1, 1 + high, figsize=(11, 4), squeeze=False)
    for model, look in looks(line["model"] for line in lines).items():
        for first_click, style in (("central", "-o"), ("random", "--s")):
            chosen = [line for line in lines if (line["model"], line["first_click"]) == (model, first_click)]
            clicks, values = [int(line["clicks"]) for line in chosen], [float(line["miou_animal"]) for line in chosen]
            for axes in panels[0]:
                axes.plot(clicks, values, style, color=look.colour, label=f"{model}, first click {first_click}")
    panels[0, 0].set(ylabel="IoU of the animal, mean over pictures", ylim=(0, 1))
    if high:
        panels[0, 1].set(title="from .9 on", ylim=(0.9, 1))
    for axes in panels[0]:
        axes.set(xlabel="clicks", xticks=COUNTS)
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    save_figure(figure, path)


# ---------------------------------------------------------------------------------------------- baselines

Masks = Callable[[Sequence[Click]], np.ndarray]  # clicks so far -> mask of the thing, bool (H, W)
Answer = Callable[[np.ndarray], Masks]  # picture uint8 (H, W, 3) -> how it is answered


class Baseline(ByClick):
    """A rule that answers clicks, with the interface of a row."""

    def __init__(self, name: str, answer: Answer, classes: Classes, device: torch.device):
        super().__init__(name, nn.Identity(), device, 1, (), (), classes)
        self.answer = answer

    def open(self, image: np.ndarray) -> Segment:
        masks = self.answer(image)
        return lambda clicks=(), text="": Segmentation(masks(clicks).astype(np.uint8), CLICKED)


def baselines(rows: Sequence[Row], classes: Classes, device: torch.device) -> dict[str, Baseline]:
    """A look-up in the class map of every row by class, disks of the mean thing's size, and the whole picture."""
    answers: dict[str, Answer] = {f"{row.name} look-up": look_up(row) for row in rows if not row.prompt}
    answers |= {"disk": disks, "everything": lambda image: lambda clicks: np.ones(image.shape[:2], bool)}
    return {name: Baseline(name, answer, classes, device) for name, answer in answers.items()}


def look_up(row: Row) -> Answer:
    """Everything of the class that a row's class map has at the first click; corrections change nothing."""

    def answer(image: np.ndarray) -> Masks:
        ids = row.segment(image).ids
        return lambda clicks: ids == ids[clicks[0][1], clicks[0][0]]

    return answer


def disks(image: np.ndarray) -> Masks:
    """A disk of the mean thing's size about every click on the thing; the nearest click wins."""
    size = height, width = image.shape[:2]
    rows, columns = np.ogrid[:height, :width]
    nearest = np.full(size, mean_share(DATA_ROOT) * height * width / np.pi)  # squared distance; at first the radius
    positive = np.zeros(size, bool)
    done = []

    def masks(clicks: Sequence[Click]) -> np.ndarray:
        for x, y, label in clicks[len(done) :]:
            distance = (columns - x) ** 2 + (rows - y) ** 2
            positive[distance <= nearest] = label
            np.minimum(nearest, distance, out=nearest)
        done[:] = clicks
        return positive.copy()

    return masks


@cache
def mean_share(root: str) -> float:
    """The share of a picture that the things of a data set's training split cover in the mean."""
    masks = SegmentationDataset(root, "train", 128).arrays["masks"]
    return float(np.mean([((mask != 0) & (mask != VOID)).sum() / (mask != VOID).sum() for mask in masks]))


if __name__ == "__main__":
    run_script(main)
