"""Rows on corrupted pictures: eight perturbations at ten levels each.

    python -m experiments.robustness                               # every row, all levels: hours
    python -m experiments.robustness --PICTURES=1000 --LEVELS=0,4,9

Writes results/robustness.csv, a line per row, perturbation and level, as soon as it is measured, and
images/robustness.png; a run that was stopped goes on where it was. Pictures are corrupted at their own size, before any
resizing, and squashed: rows are scored without their closer look.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from utils.config import DATA, require_choice, require_positive, run_script

import numpy as np
from matplotlib import pyplot as plt
from tqdm import tqdm

from utils.device import pick_device
from utils.distributed import distributed, is_main
from utils.errors import UserError
from utils.figures.grids import draw_prediction
from utils.figures.looks import looks
from utils.figures.plots import plot_examples, save_figure
from utils.files import read_csv, write_csv
from utils.inputs.layouts import SPLITS, Sample, data_name, list_samples, subset
from utils.inputs.pictures import read_sample, rng_of
from utils.metrics import scores
from utils.rows import find_rows, load_rows
from utils.rows.row import Row
from utils.tables import markdown_table, row_place, write_between_markers

DATA_ROOT = DATA  # any layout of data/README.md
SPLIT = "test"
ROWS = ()  # e.g. --ROWS=UNET,CLIP; empty: all that have a checkpoint
PERTURB = ()  # names of perturbations, e.g. --PERTURB=blur,black square; empty: all eight
LEVELS = tuple(range(10))  # 0 is the picture without a change
PICTURES = 0  # a random subset of so many, always the same; 0: the whole split
BATCH_SIZE = 16  # changes no number
DEVICE = "auto"  # "cpu", "cuda", "cuda:1"
CHECKPOINTS = "checkpoints"  # where the training scripts wrote
RESULTS = "results"  # folder of robustness.csv
IMAGES = "images"  # folder of robustness.png
README = ()  # files whose table between markers is written anew


def main() -> None:
    require_choice("SPLIT", SPLIT, SPLITS)
    require_positive(globals(), "BATCH_SIZE")
    for name in PERTURB:
        require_choice("PERTURB", name, tuple(PERTURBATIONS))
    for level in LEVELS:
        require_choice("LEVELS", level, range(10))
    device = pick_device(DEVICE)
    with distributed(device):
        samples = subset(list_samples(DATA_ROOT, SPLIT), PICTURES)
        known = find_rows(CHECKPOINTS)
        rows, missing = load_rows(ROWS or known, CHECKPOINTS, device, samples[0].classes, DATA_ROOT, zoom=False)
        if is_main():
            for name, reason in missing.items():
                print(f"{name} is left out: {reason}", flush=True)
        if not rows:
            raise UserError("no row could be scored")
        for row in rows:
            row.prepare(DATA_ROOT, batch_size=BATCH_SIZE)
        path, figure = Path(RESULTS) / "robustness.csv", Path(IMAGES) / "robustness.png"
        lines = score_robustness(rows, samples, path, data_name(DATA_ROOT), list(known))
        if is_main():
            plot_robustness(lines, figure)
            if README:
                write_between_markers(README, {"robustness": robustness_table(lines)})
            print(f"wrote {path}, {figure}")


# ------------------------------------------------------------------------------------------ perturbations
#
# All take a picture uint8 (H, W, 3), a level, and random numbers that depend on the picture alone, so that every model
# sees the same noise; they return uint8 (H, W, 3), rounded and clipped to 0..255. The first level changes nothing.


def gaussian_noise(image: np.ndarray, std: float, rng: np.random.Generator) -> np.ndarray:
    """Noise of this standard deviation on every value; from level to level the same noise, only stronger."""
    return _to_uint8(image + std * rng.standard_normal(image.shape, np.float32))


def blur(image: np.ndarray, times: int, rng: np.random.Generator) -> np.ndarray:
    """Convolution with [[1, 2, 1], [2, 4, 2], [1, 2, 1]] / 16, so many times; beyond the border it is reflected."""
    values = image.astype(np.float32)
    for _ in range(times):
        padded = np.pad(values, ((1, 1), (1, 1), (0, 0)), mode="reflect")
        rows = (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4
        values = (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) / 4
    return _to_uint8(values)


def contrast(image: np.ndarray, factor: float, rng: np.random.Generator) -> np.ndarray:
    """Every value times the factor."""
    return _to_uint8(image * np.float32(factor))


def brightness(image: np.ndarray, shift: int, rng: np.random.Generator) -> np.ndarray:
    """Every value plus the shift."""
    return _to_uint8(image.astype(np.float32) + shift)


def black_square(image: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    """One black square of so many pixels a side, wholly inside of the picture."""
    height, width = image.shape[:2]
    side = min(side, height, width)
    top, left = (int(share * (length - side + 1)) for share, length in zip(rng.random(2), (height, width), strict=True))
    image = image.copy()
    image[top : top + side, left : left + side] = 0
    return image


def salt_and_pepper(image: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """This share of the pixels becomes white or black, half each."""
    chance = rng.random(image.shape[:2])
    image = image.copy()
    image[chance < share / 2] = 0
    image[chance > 1 - share / 2] = 255
    return image


_SHIFTS = tuple(range(0, 50, 5))
Perturbation = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]
# name -> what the level is, the ten levels, the function
PERTURBATIONS: dict[str, tuple[str, tuple[float, ...], Perturbation]] = {
    "Gaussian noise": ("standard deviation", tuple(range(0, 20, 2)), gaussian_noise),
    "blur": ("times", tuple(range(10)), blur),
    "contrast up": ("factor", (1, 1.01, 1.02, 1.03, 1.04, 1.05, 1.1, 1.15, 1.2, 1.25), contrast),
    "contrast down": ("factor", (1, 0.95, 0.9, 0.85, 0.8, 0.6, 0.4, 0.3, 0.2, 0.1), contrast),
    "brightness up": ("shift", _SHIFTS, brightness),
    "brightness down": ("shift", tuple(-shift for shift in _SHIFTS), brightness),
    "black square": ("side in pixels", _SHIFTS, black_square),
    "salt and pepper": ("share of the pixels", tuple(round(0.02 * i, 2) for i in range(10)), salt_and_pepper),
}


def _to_uint8(values: np.ndarray) -> np.ndarray:
    return values.round().clip(0, 255).astype(np.uint8)


# ------------------------------------------------------------------------------------------------ scoring


def read_perturbed(name: str, level: float, sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    """Picture, perturbed at its own size, and mask of a sample."""
    image, mask = read_sample(sample)
    return PERTURBATIONS[name][2](image, level, rng_of(sample.name)), mask


def score_robustness(
    rows: Sequence[Row], samples: Sequence[Sample], path: Path, data: str, order: Sequence[str]
) -> list[dict[str, str]]:
    """Lines of robustness.csv of this data: mIoU and mean Dice of every row under PERTURB at LEVELS.

    order: of the models in the file. Lines of as many pictures that are no older than the row's checkpoint are kept.
    """
    lines, place, names = still_valid(rows, path, data, len(samples)), row_place(order), list(PERTURBATIONS)
    todo = [(row, name, PERTURBATIONS[name][1][level]) for row in rows for name in PERTURB or names for level in LEVELS]
    for row, name, level in tqdm(todo, "robustness", leave=False, disable=None if is_main() else True):
        key = {"model": row.name, "data": data, "perturbation": name, "level": str(level)}
        same = [line for line in lines if (line["model"], line["data"]) == (row.name, data) and is_unchanged(line)]
        if any(key.items() <= line.items() for line in lines):
            continue
        if same and level == PERTURBATIONS[name][1][0]:  # the same pictures under every name
            found = {"miou": same[0]["miou"], "mdice": same[0]["mdice"]}
        else:
            read = partial(read_perturbed, name, level)
            result = scores(row.score(samples, batch_size=BATCH_SIZE, read=read), row.counted)
            found = {metric: f"{result[metric]:.4f}" for metric in ("miou", "mdice")}
        lines.append(key | found | {"images": str(len(samples))})
        lines.sort(key=lambda line: (line["data"], *place(line), names.index(line["perturbation"])))
        if is_main():
            write_csv(lines, path)
    return [line for line in lines if line["data"] == data]


def still_valid(rows: Sequence[Row], path: Path, data: str, images: int) -> list[dict[str, str]]:
    """The file's lines without those of this data on other pictures, or of a row that was trained since."""
    lines = read_csv(path)
    written = path.stat().st_mtime if lines else 0.0
    changed = {row.name for row in rows if Path(row.checkpoint).is_file()}
    changed = {row.name for row in rows if row.name in changed and Path(row.checkpoint).stat().st_mtime > written}
    return [x for x in lines if x["data"] != data or (x["images"] == str(images) and x["model"] not in changed)]


def is_unchanged(line: dict[str, str]) -> bool:
    """Whether a line is of the pictures without a change."""
    return line["level"] == str(PERTURBATIONS[line["perturbation"]][1][0])


def robustness_table(lines: Sequence[dict[str, str]]) -> str:
    """Mean Dice of every row on the pictures without a change, and under each perturbation at its last level."""
    titles = {"perturbation": "perturbation", "level": "level"}
    titles |= {model: model for model in dict.fromkeys(line["model"] for line in lines)}
    table = {"none": {"perturbation": "none", "level": ""}}
    for line in lines:
        name, last = line["perturbation"], str(PERTURBATIONS[line["perturbation"]][1][-1])
        if is_unchanged(line):
            table["none"][line["model"]] = line["mdice"]
        elif line["level"] == last:
            table.setdefault(name, {"perturbation": name, "level": last})[line["model"]] = line["mdice"]
    return markdown_table(titles, list(table.values()), 1)


def plot_robustness(lines: Sequence[dict[str, str]], path: Path) -> None:
    """Mean Dice against the level, a panel per perturbation, a line per model."""
    figure, panels = plt.subplots(2, 4, figsize=(12, 5.6), sharey=True)
    for axes, (name, (level_name, levels, _)) in zip(panels.flat, PERTURBATIONS.items(), strict=True):
        for model, look in looks(line["model"] for line in lines).items():
            chosen = [line for line in lines if (line["model"], line["perturbation"]) == (model, name)]
            chosen.sort(key=lambda line: list(map(str, levels)).index(line["level"]))
            values = [[float(line[key]) for line in chosen] for key in ("level", "mdice")]
            axes.plot(*values, look.dashes + look.marker, color=look.colour, label=model)
        if levels[0] > levels[-1]:
            axes.invert_xaxis()  # the unchanged picture on the left, as in the other panels
        axes.set(title=name, xlabel=level_name)
    for axes in panels[:, 0]:
        axes.set_ylabel("mean Dice")
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    save_figure(figure, path)


def draw_corrupted(rows: Sequence[Row], image: np.ndarray, click: tuple[int, int], thing: int, path: Path) -> None:
    """A picture and what every perturbation makes of it at its last level, and every row's prediction below.

    click: (x, y) for rows by click, on a thing of this class.
    """
    corrupted = {"unchanged": image}
    for name, (_, levels, perturb) in PERTURBATIONS.items():
        corrupted[f"{name}\n{levels[-1]}"] = perturb(image, levels[-1], rng_of(name))
    columns = {
        title: [picture, *(draw_prediction(row, picture, click, thing) for row in rows)]
        for title, picture in corrupted.items()
    }
    plot_examples(columns, path, ["picture", *(row.name for row in rows)])


if __name__ == "__main__":
    run_script(main)
