"""Figures drawn from numbers, and grids of pictures."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import matplotlib
import numpy as np
import torch

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402

from utils.figures.looks import looks  # noqa: E402
from utils.files import replacing  # noqa: E402
from utils.scoring.error_analysis import SHARES  # noqa: E402

plt.rcParams.update(
    {"axes.grid": True, "grid.alpha": 0.3, "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True}
)
plt.rcParams.update({"legend.frameon": False, "lines.markersize": 4, "figure.constrained_layout.use": True})


def plot_curves(log: list[dict], path: Path) -> None:
    """Loss and validation score against epochs."""
    epochs = [line["epoch"] for line in log]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2))
    left.plot(epochs, [line["loss"] for line in log], color="#0072B2")
    left.set(xlabel="epoch", ylabel="training loss")
    right.plot(epochs, [line["score"] for line in log], color="#0072B2")
    right.set(xlabel="epoch", ylabel="validation score")
    save_figure(figure, path)


def save_figure(figure: plt.Figure, path: Path) -> None:
    """Write a PNG."""
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png", facecolor="white")
    plt.close(figure)


def plot_scores(lines: Sequence[dict[str, str]], path: Path) -> None:
    """IoU and Dice per class and their means, one group of bars per class, one bar per line of results.csv."""
    classes = list(dict.fromkeys(key[4:] for line in lines for key in line if key.startswith("iou_") and line[key]))
    groups = [*classes, "mean"]
    figure, panels = plt.subplots(2, 1, figsize=(max(10, 1.2 * len(groups)), 5.6), sharex=True)
    width, styles = 0.9 / len(lines), looks(line["model"] for line in lines)
    for axes, metric in zip(panels, ("iou", "dice"), strict=True):
        for i, line in enumerate(lines):
            values = [float(line[f"{metric}_{name}"] or 0) for name in classes] + [float(line[f"m{metric}"])]
            places = [g + (i - (len(lines) - 1) / 2) * width for g in range(len(groups))]
            flip = line["flip"] == "1"
            style = {"color": styles[line["model"]].colour, "hatch": "//" if flip else None, "zorder": 2}
            bars = axes.bar(places, values, width * 0.92, label=line["model"] + ", flip" * flip, **style)
            labels = [f"{value:.2f}".removeprefix("0") if value else "" for value in values]
            axes.bar_label(bars, labels, fontsize=7, padding=1)
        axes.set(ylabel={"iou": "IoU", "dice": "Dice"}[metric], ylim=(0, 1.05))
        axes.set_xticks(range(len(groups)), groups)
        axes.grid(axis="x", visible=False)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    save_figure(figure, path)


def plot_data_sets(lines: Sequence[dict[str, str]], by_share: dict[tuple[str, str], list[float]], path: Path) -> None:
    """Left: mIoU of every row, a group of bars per data set. Then for each the pictures' mIoU, by share of the things.

    lines: of results/results.csv, one per row and data set; by_share: miou_by_share().
    """
    sets = list(dict.fromkeys(line["data"] for line in lines))
    styles = looks(line["model"] for line in lines)
    figure, panels = plt.subplots(1, 1 + len(sets), figsize=(4.4 + 3.6 * len(sets), 3.6))
    width = 0.9 / len(styles)
    for place, (model, look) in enumerate(styles.items()):
        values = {line["data"]: float(line["miou"]) for line in lines if line["model"] == model}
        places = [sets.index(data) + (place - (len(styles) - 1) / 2) * width for data in values]
        bars = panels[0].bar(places, list(values.values()), width * 0.92, color=look.colour, label=model, zorder=2)
        panels[0].bar_label(
            bars, [f"{value:.2f}".removeprefix("0") for value in values.values()], fontsize=7, padding=1
        )
    panels[0].set(ylabel="mIoU", ylim=(0, 1.05))
    panels[0].set_xticks(range(len(sets)), sets)
    panels[0].grid(axis="x", visible=False)
    bounds = [f"{share:.0%}".removesuffix("%") for share in SHARES]
    bins = [f"< {bounds[0]} %", *map("–".join, pairwise(bounds)), f"> {bounds[-1]} %"]
    panels[1].set_ylabel("mIoU, mean over pictures")
    for axes, data in zip(panels[1:], sets, strict=True):
        for model, look in styles.items():
            if (data, model) in by_share:
                style = look.dashes + look.marker
                axes.plot(range(len(bins)), by_share[data, model], style, color=look.colour)
        axes.set(title=data, xlabel="share of the picture that is an animal", ylim=(0.2, 1))
        axes.set_xticks(range(len(bins)), bins)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(styles))
    save_figure(figure, path)


def plot_clicks(lines: Sequence[dict[str, str]], path: Path) -> None:
    """IoU of the thing against the number of clicks, whole and from .9 on: lines of results/clicks.csv."""
    high = any(float(line["miou_animal"]) > 0.9 for line in lines)
    figure, panels = plt.subplots(1, 1 + high, figsize=(11, 4), squeeze=False)
    panels = panels[0]
    for model, look in looks(line["model"] for line in lines).items():
        for first_click, style in (("central", "-o"), ("random", "--s")):
            chosen = [line for line in lines if (line["model"], line["first_click"]) == (model, first_click)]
            if not chosen:
                continue
            label = f"{model}, first click {first_click}"
            clicks, values = zip(*((int(line["clicks"]), float(line["miou_animal"])) for line in chosen), strict=True)
            for axes in panels:
                axes.plot(clicks, values, style, color=look.colour, label=label)
    panels[0].set(ylabel="IoU of the animal, mean over pictures", ylim=(0, 1))
    if high:
        panels[1].set(title="from .9 on", ylim=(0.9, 1))
    for axes in panels:
        axes.set(xlabel="clicks", xticks=(1, 2, 3, 5, 10))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    save_figure(figure, path)


def plot_robustness(lines: Sequence[dict[str, str]], level_names: dict[str, str], path: Path) -> None:
    """Mean Dice against the level, a panel per perturbation, a line per model: lines of results/robustness.csv.

    level_names: perturbation -> what its level is.
    """
    figure, panels = plt.subplots(2, 4, figsize=(12, 5.6), sharey=True)
    for axes, (name, level_name) in zip(panels.flat, level_names.items(), strict=False):
        for model, look in looks(line["model"] for line in lines).items():
            chosen = [line for line in lines if (line["model"], line["perturbation"]) == (model, name)]
            if chosen:
                values = [[float(line[key]) for line in chosen] for key in ("level", "mdice")]
                axes.plot(*values, look.dashes + look.marker, color=look.colour, label=model)
                if values[0][0] > values[0][-1] and not axes.xaxis_inverted():
                    axes.invert_xaxis()  # the picture as it is on the left, as in the other panels
        axes.set(title=name, xlabel=level_name)
    for axes in panels[:, 0]:
        axes.set_ylabel("mean Dice")
    for axes in list(panels.flat)[len(level_names) :]:
        axes.axis("off")
    handles = panels[0, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=5)
    save_figure(figure, path)


def plot_label_efficiency(lines: list[dict], path: Path) -> None:
    """mIoU against the share of masks used, a dot per run, a panel per budget: lines of results/autoencoder.csv."""
    looks = {"full": ("o", "#E69F00", 0.94), "sparse": ("D", "#D55E00", 1.0), "scratch": ("s", "#0072B2", 1.06)}
    looks |= {"frozen": ("^", "#999999", 1.0), "frozen_plain": ("v", "#555555", 1.0)}
    panels = defaultdict(list)
    for line in lines:
        panels[f"{line['size']} px, width {line['width']}, {line['epochs']} epochs"].append(line)
    size = (2.4 + 4 * len(panels), 3.4)
    figure, row = plt.subplots(1, len(panels), figsize=size, sharex=True, sharey=True, squeeze=False)
    shares = sorted({float(line["labels_percent"]) for line in lines})
    for axes, (title, panel) in zip(row[0], panels.items(), strict=True):
        for variant, (marker, colour, shift) in looks.items():
            runs = [line for line in panel if line["variant"] == variant]
            percents = [float(line["labels_percent"]) * shift for line in runs]  # side by side
            values = [float(line["miou"]) for line in runs]
            axes.scatter(percents, values, 20, marker=marker, color=colour, label=variant.replace("_", ", "))
            means = {x: [v for p, v in zip(percents, values, strict=True) if p == x] for x in sorted(set(percents))}
            axes.plot(list(means), [sum(group) / len(group) for group in means.values()], color=colour, linewidth=1)
        axes.set(xscale="log", xlabel="masks used, % of the training split", title=title)
        axes.set_xticks(shares, [f"{share:g}" for share in shares])
        axes.minorticks_off()
    row[0, 0].set_ylabel("test mIoU")
    figure.legend(*row[0, 0].get_legend_handles_labels(), loc="outside right center")
    save_figure(figure, path)


def plot_benchmark(lines: list[dict], scaled: dict[tuple[str, str], dict], path: Path) -> None:
    """How many times as fast as the plain way, and how speed changes with the work: lines of results/benchmark.csv.

    scaled: (name, scale) -> its line; a scale is "1 x", "2 x pictures", "4 x pixels", ...
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 2.2 + 0.3 * len(lines)))
    ratios = [float(line["ratio"]) for line in lines]
    left.barh(range(len(lines)), ratios, color="#0072B2")
    for place, ratio in enumerate(ratios):  # never across the line at 1
        left.annotate(
            f"{ratio:.1f} ×", (max(ratio, 1), place), (3, 0), textcoords="offset points", va="center", fontsize=8
        )
    left.set_yticks(range(len(lines)), [line["what"] for line in lines], fontsize=8)
    left.axvline(1, color="#333333", linewidth=1)
    left.set(xlabel="speed, as a multiple of the plain way's", xlim=(0, max(ratios, default=1) * 1.15))
    left.invert_yaxis()
    names = list(dict.fromkeys(name for name, scale in scaled if scale != "1 x"))
    for name, colour in zip(names, ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#555555", "#D55E00"), strict=False):
        for kind, style in (("pictures", "-o"), ("pixels", "--s")):
            known = {1: scaled.get((name, "1 x"))} | {n: scaled.get((name, f"{n} x {kind}")) for n in (2, 4)}
            speeds = {n: float(line["ours"]) for n, line in known.items() if line}
            if 1 in speeds and len(speeds) > 1:
                relative = [speed / speeds[1] for speed in speeds.values()]
                right.plot(list(speeds), relative, style, color=colour, label=f"{name}, more {kind}")
    right.set(xlabel="times the pictures, or the pixels of each", ylabel="pictures/s, of those at 1 ×", ylim=(0, None))
    right.set_xticks([1, 2, 4])
    if names:
        right.legend(fontsize=7, ncols=2, loc="lower left")
    left.grid(axis="y", visible=False)
    save_figure(figure, path)


def plot_confusions(confusions: dict[str, tuple[Sequence[str], torch.Tensor]], path: Path) -> None:
    """Row-normalised confusion matrices: of the pixels of a true class, the share predicted as each.

    confusions: row -> names of the C classes, and counts (C, C).
    """
    sides = [max(3.2, 0.45 * len(names)) for names, _ in confusions.values()]
    size, ratios = (sum(sides), max(sides)), {"width_ratios": sides}
    figure, panels = plt.subplots(1, len(sides), figsize=size, squeeze=False, gridspec_kw=ratios)
    for axes, (model, (names, counts)) in zip(panels[0], confusions.items(), strict=True):
        counts, many = counts.numpy().astype(float), len(names) > 4
        shares = counts / counts.sum(1, keepdims=True).clip(min=1)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for truth, predicted in np.ndindex(shares.shape):
            share = shares[truth, predicted]
            text = f"{share:.0%}" if many else f"{share:.1%}"
            colour = "white" if share > 0.5 else "black"
            axes.text(predicted, truth, text, ha="center", va="center", color=colour, fontsize=7 if many else 10)
        axes.set(title=model, xlabel="predicted")
        axes.set_xticks(range(len(names)), names, rotation=90 if many else 0)
        axes.set_yticks(range(len(names)), names)
        axes.grid(visible=False)
    panels[0, 0].set_ylabel("truth")
    save_figure(figure, path)


def plot_examples(columns: dict[str, list], path: Path, names: Sequence[str] = ()) -> None:
    """A grid of pictures (H, W, 3): one column per key, one line per picture; names: of the lines."""
    count = len(next(iter(columns.values())))
    tallest = min(max(image.shape[0] / image.shape[1] for images in columns.values() for image in images), 1.0)
    size = (1.8 * len(columns), 1.7 * tallest * count + 0.4)
    figure, panels = plt.subplots(count, len(columns), figsize=size, squeeze=False)
    for column, (title, images) in enumerate(columns.items()):
        panels[0, column].set_title(title, fontsize=10)
        for line, image in enumerate(images):
            panels[line, column].imshow(image)
            panels[line, column].set(xticks=[], yticks=[])
            panels[line, column].spines[:].set_visible(False)
            panels[line, column].grid(visible=False)
    for axes, name in zip(panels[:, 0], names, strict=False):
        axes.set_ylabel(name, fontsize=10)
    save_figure(figure, path)
