"""Scores on corrupted pictures: eight perturbations at ten levels each.

    python -m experiments.robustness                               # every row, all levels: hours
    python -m experiments.robustness --PICTURES=1000 --LEVELS=0,5,9

Writes results/robustness.csv, a line per row, perturbation and level, and images/robustness.png; lines of other rows
and other numbers of pictures are kept. Pictures are corrupted at their own size, before any resizing. Rows are scored
without zoom.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from pathlib import Path

from utils.config import DATA, require_choice, run_script

import numpy as np
from matplotlib import pyplot as plt
from scipy import ndimage
from tqdm import tqdm

from experiments.looks import looks
from experiments.readme import write_between_markers
from utils.device import pick_device
from utils.errors import UserError
from utils.figures.plots import save_figure
from utils.inputs.layouts import Sample, data_name, list_samples, subset
from utils.inputs.pictures import read_sample, rng_of
from utils.metrics import scores
from utils.rows import find_rows, load_rows
from utils.rows.row import Row
from utils.scoring.results import merge_lines
from utils.tables import markdown_table

DATA_ROOT = DATA  # any layout of data/README.md
ROWS = ()  # e.g. --ROWS=UNET,CLIP; empty: all that have a checkpoint
LEVELS = tuple(range(10))  # 0 is the unchanged picture
PICTURES = 0  # size of a random subset of the test split, always the same; 0: all of it
DEVICE = "auto"  # "cpu", "cuda", "cuda:1"
CHECKPOINTS = "checkpoints"  # where the training scripts wrote
RESULTS = "results"  # folder of robustness.csv
IMAGES = "images"  # folder of robustness.png
README = ()  # files whose table between markers is updated


def main() -> None:
    for level in LEVELS:
        require_choice("LEVELS", level, range(10))
    device = pick_device(DEVICE)
    samples = subset(list_samples(DATA_ROOT, "test"), PICTURES)
    known = find_rows(CHECKPOINTS)
    for name in ROWS:
        require_choice("ROWS", name, tuple(known))
    rows, missing = load_rows(ROWS or known, CHECKPOINTS, device, samples[0].classes, DATA_ROOT, zoom=False)
    for row in rows:
        try:
            row.prepare(DATA_ROOT)
        except UserError as error:  # no validation split to tune on
            missing[row.name] = str(error)
    for name, reason in missing.items():
        print(f"{name} is left out: {reason}", flush=True)
    rows = [row for row in rows if row.name not in missing]
    if not rows:
        raise UserError("no row could be scored")
    path, figure = Path(RESULTS) / "robustness.csv", Path(IMAGES) / "robustness.png"
    lines = score_robustness(rows, samples, path, data_name(DATA_ROOT), list(known))
    plot_robustness(lines, figure)
    if README:
        write_between_markers(README, {"robustness": robustness_table(lines)})
    print(f"wrote {path}, {figure}")


# ------------------------------------------------------------------------------------------ perturbations
# Each takes a picture uint8 (H, W, 3), a level, and a generator seeded by the picture's name: every row sees the same
# noise. It returns uint8 (H, W, 3), rounded and clipped to 0..255; the first level changes nothing.


def gaussian_noise(image: np.ndarray, std: float, rng: np.random.Generator) -> np.ndarray:
    """Noise of this standard deviation on every value; a higher level scales the same noise."""
    return _to_uint8(image + std * rng.standard_normal(image.shape, np.float32))


def blur(image: np.ndarray, times: int, rng: np.random.Generator) -> np.ndarray:
    """Repeated convolution with [[1, 2, 1], [2, 4, 2], [1, 2, 1]] / 16, with a reflected border."""
    values = image.astype(np.float32)
    for _, axis in product(range(times), (0, 1)):
        values = ndimage.convolve1d(values, (0.25, 0.5, 0.25), axis, mode="mirror")
    return _to_uint8(values)


def contrast(image: np.ndarray, factor: float, rng: np.random.Generator) -> np.ndarray:
    """Every value times the factor."""
    return _to_uint8(image * np.float32(factor))


def brightness(image: np.ndarray, shift: int, rng: np.random.Generator) -> np.ndarray:
    """Every value plus the shift."""
    return _to_uint8(image.astype(np.float32) + shift)


def black_square(image: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    """One black square with this side in pixels, inside the picture."""
    height, width = image.shape[:2]
    side = min(side, height, width)
    top, left = (int(share * (length - side + 1)) for share, length in zip(rng.random(2), (height, width), strict=True))
    image = image.copy()
    image[top : top + side, left : left + side] = 0
    return image


def salt_and_pepper(image: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Set this share of the pixels to white or black, half each."""
    chance = rng.random(image.shape[:2])
    image = image.copy()
    image[chance < share / 2] = 0
    image[chance > 1 - share / 2] = 255
    return image


_SHIFTS = tuple(range(0, 50, 5))
Perturbation = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]
# name -> meaning of the level, the ten levels, the function
PERTURBATIONS: dict[str, tuple[str, tuple[float, ...], Perturbation]] = {
    "Gaussian noise": ("standard deviation", tuple(range(0, 20, 2)), gaussian_noise),
    "blur": ("times 3 x 3 pixels", tuple(range(10)), blur),
    "contrast up": ("factor", (1, 1.01, 1.02, 1.03, 1.04, 1.05, 1.1, 1.15, 1.2, 1.25), contrast),
    "contrast down": ("factor", (1, 0.95, 0.9, 0.85, 0.8, 0.6, 0.4, 0.3, 0.2, 0.1), contrast),
    "brightness up": ("grey levels added", _SHIFTS, brightness),
    "brightness down": ("grey levels added", tuple(-shift for shift in _SHIFTS), brightness),
    "black square": ("side in pixels", _SHIFTS, black_square),
    "salt and pepper": ("share of the pixels", tuple(round(0.02 * i, 2) for i in range(10)), salt_and_pepper),
}


def _to_uint8(values: np.ndarray) -> np.ndarray:
    return values.round().clip(0, 255).astype(np.uint8)


# ------------------------------------------------------------------------------------------------ scoring


def read_perturbed(name: str, level: float, sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    """Perturbed picture and mask of a sample."""
    image, mask = read_sample(sample)
    return PERTURBATIONS[name][2](image, level, rng_of(sample.name)), mask


def score_robustness(
    rows: Sequence[Row], samples: Sequence[Sample], path: Path, data: str, order: Sequence[str]
) -> list[dict[str, str]]:
    """Write mIoU and mean Dice of every row under every perturbation at LEVELS; returns all lines of these samples.

    order: of the models in the file. A row's lines are replaced when all its new ones are measured.
    """
    images, everything = str(len(samples)), []
    for row in rows:
        lines, measured = [], {}  # level 0 is the same picture for every perturbation: it is scored once
        for name, level in tqdm(list(product(PERTURBATIONS, LEVELS)), row.name, leave=False, disable=None):
            strength = PERTURBATIONS[name][1][level]
            key = (name, level) if level else ""
            if key not in measured:
                result = scores(row.score(samples, read=partial(read_perturbed, name, strength)), row.counted)
                measured[key] = {metric: f"{result[metric]:.4f}" for metric in ("miou", "mdice")}
            about = {"model": row.name, "data": data, "perturbation": name, "level": str(strength)}
            lines.append(about | measured[key] | {"images": images})
        everything = merge_lines(lines, path, order, ("data", "images", "model"))
    return [line for line in everything if line["data"] == data and line["images"] == images]


def robustness_table(lines: Sequence[dict[str, str]]) -> str:
    """Mean Dice of every row on unchanged pictures and under each perturbation at its last level."""
    table = {"none": {"perturbation": "none", "level": ""}}
    table |= {name: {"perturbation": name, "level": str(levels[-1])} for name, (_, levels, _) in PERTURBATIONS.items()}
    for line in lines:
        name, first = line["perturbation"], str(PERTURBATIONS[line["perturbation"]][1][0])
        if line["level"] in (first, table[name]["level"]):
            table["none" if line["level"] == first else name][line["model"]] = line["mdice"]
    return markdown_table({title: title for row in table.values() for title in row}, list(table.values()), 1)


def plot_robustness(lines: Sequence[dict[str, str]], path: Path) -> None:
    """Mean Dice against the level: a panel per perturbation, a line per row."""
    figure, panels = plt.subplots(4, 2, figsize=(8, 7), sharey=True)
    for axes, (name, (level_name, levels, _)) in zip(panels.flat, PERTURBATIONS.items(), strict=True):
        for model, look in looks(line["model"] for line in lines).items():
            chosen = [line for line in lines if (line["model"], line["perturbation"]) == (model, name)]
            values = [[float(line[key]) for line in chosen] for key in ("level", "mdice")]
            axes.plot(*values, look.dashes + look.marker, color=look.colour, label=model)
        if levels[0] > levels[-1]:
            axes.invert_xaxis()  # unchanged pictures on the left, as in the other panels
        axes.set(title=name, xlabel=level_name)
    for axes in panels[:, 0]:
        axes.set_ylabel("mean Dice")
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    save_figure(figure, path)


if __name__ == "__main__":
    run_script(main)
