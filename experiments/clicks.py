"""IoU against the number of clicks, and NoC, of rows by click and of three baselines.

    python -m experiments.clicks --PICTURES=200      # half an hour

Writes results/clicks.csv and images/clicks.png. Baselines predict the whole picture ("everything"), a disk of the mean
animal's size around every click ("disk"), or all pixels of the class that a row by class predicts at the first click
("ROW look-up").
"""

from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path

from utils.config import DATA, require_choice, run_script

import numpy as np
import torch
from matplotlib import pyplot as plt
from tqdm import tqdm

from experiments.looks import looks
from experiments.readme import write_between_markers
from utils.classes import VOID
from utils.device import pick_device
from utils.errors import UserError
from utils.figures.plots import save_figure
from utils.inputs.clicks import Click, next_click, random_click, thing_mask
from utils.inputs.dataset import SegmentationDataset
from utils.inputs.layouts import SPLITS, Sample, data_name, list_samples, subset
from utils.inputs.pictures import read_sample, rng_of
from utils.metrics import confusion_matrix, iou_per_class
from utils.rows import find_rows, load_rows
from utils.rows.by_click import CLICKED
from utils.rows.row import Row, Segment, Segmentation
from utils.scoring.results import merge_lines
from utils.tables import markdown_table

DATA_ROOT = DATA  # any layout of data/README.md
SPLIT = "test"
ROWS = ("PointCLIP", "CLIP look-up", "disk", "everything")  # any row by class has a "ROW look-up"
PICTURES = 0  # size of a random subset, always the same; 0: the whole split
DEVICE = "auto"  # "cpu", "cuda", "cuda:1"
CHECKPOINTS = "checkpoints"  # where the training scripts wrote
RESULTS = "results"  # folder of clicks.csv; lines of other rows and data in it are kept
IMAGES = "images"  # folder of clicks.png
README = ()  # files whose table between markers is written anew

MOST: int = 20  # clicks per picture, as in the literature on NoC
COUNTS: tuple[int, ...] = (1, 2, 3, 5, 10)  # numbers of clicks whose IoU is reported


def main() -> None:
    require_choice("SPLIT", SPLIT, SPLITS)
    device, samples = pick_device(DEVICE), subset(list_samples(DATA_ROOT, SPLIT), PICTURES)
    rows, missing = load_rows(find_rows(CHECKPOINTS), CHECKPOINTS, device, samples[0].classes, DATA_ROOT)
    by_click = {row.name: row for row in rows if row.prompt == "click"}
    openers = {name: row.open for name, row in by_click.items()} | baselines(rows)
    for name in ROWS:
        if name not in openers:
            reason = missing.get(name.removesuffix(" look-up"), f"there are {', '.join(openers)}")
            raise UserError(f"ROWS: {name} cannot be scored: {reason}")
    path, about = Path(RESULTS) / "clicks.csv", {"data": data_name(DATA_ROOT), "split": SPLIT}
    for name in ROWS:  # written after every row: a row takes long
        zoom = name in by_click and by_click[name].zoom
        scored = score_clicks(name, openers[name], samples, about | {"zoom": str(int(zoom))})
        lines = merge_lines(scored, path, list(openers), ("model", *about))
    lines = [line for line in lines if about.items() <= line.items()]
    plot_clicks(lines, Path(IMAGES) / "clicks.png")
    if README:
        write_between_markers(README, {f"clicks {about['data']}": click_table(lines)})
    print(f"{click_table(lines)}\nwrote {path}, {IMAGES}/clicks.png")


Opener = Callable[[np.ndarray], Segment]  # picture uint8 (H, W, 3) -> the function that answers its clicks


def score_clicks(name: str, opener: Opener, samples: Sequence[Sample], about: dict[str, str]) -> list[dict[str, str]]:
    """Lines of clicks.csv: mean IoU of the animal after each of COUNTS clicks, and NoC; about: further columns."""
    lines = []
    for first_click in ("central", "random"):
        ious = click_curves(opener, samples, first_click == "central", f"{name}, first click {first_click}")
        noc = {f"noc{percent}": f"{number_of_clicks(ious, percent / 100):.3f}" for percent in (85, 90)}
        for clicks in COUNTS:
            line = {"model": name, **about, "first_click": first_click, "clicks": str(clicks)}
            line |= {"miou_animal": f"{ious[:, clicks - 1].nanmean():.4f}", **noc}
            lines.append(line | {"images": str(len(samples))})
    return lines


def click_curves(opener: Opener, samples: Sequence[Sample], central: bool, label: str) -> torch.Tensor:
    """IoU of the animal after each of MOST clicks, float64 (N, MOST); NaN for a picture without an animal.

    The first click is at the centre of the animal, or random with the file's name as seed; each further one is at the
    centre of the largest wrong region. A picture is finished when a click changes nothing, since the next click would
    be the same, or after ten clicks if its IoU has reached .9.
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
        segment, clicks, before = opener(image), [], None
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
    return float(iou_per_class(confusion_matrix(torch.from_numpy(truth), torch.from_numpy(predicted), 2))[1])


def number_of_clicks(ious: torch.Tensor, threshold: float) -> float:
    """NoC: mean number of clicks until the IoU reaches the threshold; MOST for pictures that never do."""
    ious = ious[~ious.isnan().any(1)]
    reached = ious >= threshold
    first = reached.double().argmax(1) + 1
    return float(torch.where(reached.any(1), first, MOST).double().mean())


def click_table(lines: Sequence[dict[str, str]]) -> str:
    """The lines of clicks.csv as a table, with a column per number of clicks."""
    titles = {"model": "model", "first_click": "first click"}
    titles |= {f"{clicks}": f"IoU, {clicks} click{'s' * (clicks > 1)}" for clicks in COUNTS}
    titles |= {"noc85": "NoC@85", "noc90": "NoC@90", "images": "images"}
    merged = {}
    for line in lines:
        row = merged.setdefault((line["model"], line["first_click"]), dict(line))
        row[str(line["clicks"])] = line["miou_animal"]
    return markdown_table(titles, list(merged.values()), 2)


def plot_clicks(lines: Sequence[dict[str, str]], path: Path) -> None:
    """IoU of the animal against the number of clicks; a second panel shows the range from .95 on."""
    figure, panels = plt.subplots(1, 2, figsize=(8, 4))
    for model, look in looks(line["model"] for line in lines).items():
        for first_click, style in (("central", "-o"), ("random", "--s")):
            chosen = [line for line in lines if (line["model"], line["first_click"]) == (model, first_click)]
            clicks, values = [int(line["clicks"]) for line in chosen], [float(line["miou_animal"]) for line in chosen]
            for axes in panels:
                axes.plot(clicks, values, style, color=look.colour, label=f"{model}, first click {first_click}")
    panels[0].set(ylabel="IoU of the animal, mean over pictures", ylim=(0, 1))
    panels[1].set(title="from .95 on", ylim=(0.95, 1))
    for axes in panels:
        axes.set(xlabel="clicks", xticks=COUNTS)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    save_figure(figure, path)


# ---------------------------------------------------------------------------------------------- baselines


def baselines(rows: Sequence[Row]) -> dict[str, Opener]:
    """A look-up in the class map of every row by class, disks of the mean animal's size, and the whole picture."""
    look_ups = {f"{row.name} look-up": partial(look_up, row) for row in rows if not row.prompt}
    return look_ups | {"disk": disks, "everything": lambda image: as_segment(lambda clicks: np.ones(image.shape[:2]))}


def as_segment(mask_of: Callable[[Sequence[Click]], np.ndarray]) -> Segment:
    """clicks -> mask (H, W), with the interface of a row's open()."""
    return lambda clicks=(), text="": Segmentation(mask_of(clicks).astype(np.uint8), CLICKED)


def look_up(row: Row, image: np.ndarray) -> Segment:
    """All pixels of the class that a row by class predicts at the first click; further clicks change nothing."""
    ids = row.segment(image).ids
    return as_segment(lambda clicks: ids == ids[clicks[0][1], clicks[0][0]])


def disks(image: np.ndarray) -> Segment:
    """A disk of the mean animal's size around every click on the animal; at each pixel the nearest click decides."""
    height, width = image.shape[:2]
    rows, columns = np.ogrid[:height, :width]

    def mask_of(clicks: Sequence[Click]) -> np.ndarray:
        nearest = np.full((height, width), mean_share(DATA_ROOT) * height * width / np.pi)  # squared distance
        mask = np.zeros((height, width), bool)
        for x, y, label in clicks:
            distance = (columns - x) ** 2 + (rows - y) ** 2
            mask[distance <= nearest] = label
            np.minimum(nearest, distance, out=nearest)
        return mask

    return as_segment(mask_of)


@cache
def mean_share(root: str) -> float:
    """Mean share of a picture that animals cover, over a data set's training split."""
    masks = SegmentationDataset(root, "train", 128).arrays["masks"]
    return float(np.mean([((mask != 0) & (mask != VOID)).sum() / (mask != VOID).sum() for mask in masks]))


if __name__ == "__main__":
    run_script(main)
