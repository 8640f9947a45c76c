"""Figures drawn from numbers; pictures of photos are in utils/pictures.py."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402

from utils.files import replacing  # noqa: E402

MODEL_COLOURS = {
    "UNET": "#0072B2",
    "Autoencoder": "#E69F00",
    "CLIP": "#009E73",
    "CLIPSeg": "#999999",
    "PointCLIP": "#CC79A7",
}
CLASS_COLOURS = {"background": "#555555", "cat": "#B03030", "dog": "#2E8B57"}


def plot_curves(log: list[dict], path: Path) -> None:
    """Loss and validation score against epochs."""
    epochs = [line["epoch"] for line in log]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    left.plot(epochs, [line["loss"] for line in log], color="#0072B2")
    left.set(xlabel="epoch", ylabel="training loss")
    right.plot(epochs, [line["score"] for line in log], color="#0072B2")
    right.set(xlabel="epoch", ylabel="validation score")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    save_figure(figure, path)


def save_figure(figure: plt.Figure, path: Path) -> None:
    """Write a PNG."""
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png", facecolor="white")
    plt.close(figure)


def plot_scores(lines: list[dict[str, str]], path: Path) -> None:
    """IoU and Dice per class and their means, one group of bars per line of results.csv."""
    groups = ("background", "cat", "dog", "mean")
    figure, panels = plt.subplots(2, 1, figsize=(10, 5.6), layout="constrained", sharex=True)
    width = 0.9 / len(lines)
    for axes, metric in zip(panels, ("iou", "dice"), strict=True):
        for i, line in enumerate(lines):
            values = [float(line[f"{metric}_{name}"] or 0) for name in groups[:3]] + [float(line[f"m{metric}"])]
            places = [g + (i - (len(lines) - 1) / 2) * width for g in range(len(groups))]
            base, _, flipped = line["model"].partition(" + ")
            hatch = "//" if flipped else None
            bars = axes.bar(places, values, width * 0.92, color=MODEL_COLOURS[base], label=line["model"], hatch=hatch)
            labels = [f"{value:.2f}".removeprefix("0") if value else "" for value in values]
            axes.bar_label(bars, labels, fontsize=7, padding=1)
        axes.set(ylabel={"iou": "IoU", "dice": "Dice"}[metric], ylim=(0, 1.05))
        axes.set_xticks(range(len(groups)), groups)
        axes.grid(axis="y", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    save_figure(figure, path)


def plot_clicks(lines: list[dict], path: Path) -> None:
    """IoU of the animal against the number of clicks, whole and from .9 on: lines of results/clicks.csv."""
    high = any(float(line["miou_animal"]) > 0.9 for line in lines)
    figure, panels = plt.subplots(1, 1 + high, figsize=(11, 4), layout="constrained", squeeze=False)
    panels = panels[0]
    models = list(dict.fromkeys(line["model"] for line in lines))
    colours = ("#CC79A7", "#009E73", "#0072B2", "#999999")
    for model, colour in zip(models, colours, strict=False):
        for first_click, style in (("central", "-o"), ("random", "--s")):
            chosen = [line for line in lines if (line["model"], line["first_click"]) == (model, first_click)]
            label = f"{model}, first click {first_click}"
            clicks, values = zip(*((int(line["clicks"]), float(line["miou_animal"])) for line in chosen), strict=True)
            for axes in panels:
                axes.plot(clicks, values, style, color=colour, label=label, markersize=4)
    panels[0].set(ylabel="IoU of the animal, mean over pictures", ylim=(0, 1))
    if high:
        panels[1].set(title="from .9 on", ylim=(0.9, 1))
    for axes in panels:
        axes.set(xlabel="clicks", xticks=(1, 2, 3, 5, 10))
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    handles = panels[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    save_figure(figure, path)


def plot_robustness(lines: list[dict], level_names: dict[str, str], path: Path) -> None:
    """Mean Dice against the level, a panel per perturbation, a line per model: lines of results/robustness.csv.

    level_names: perturbation -> what its level is.
    """
    figure, panels = plt.subplots(2, 4, figsize=(12, 5.6), layout="constrained", sharey=True)
    styles = dict(zip(MODEL_COLOURS, ("-o", "--s", "-^", ":D", "-.v"), strict=True))  # told apart without colours too
    for axes, (name, level_name) in zip(panels.flat, level_names.items(), strict=False):
        for model, colour in MODEL_COLOURS.items():
            chosen = [line for line in lines if (line["model"], line["perturbation"]) == (model, name)]
            if chosen:
                values = [[float(line[key]) for line in chosen] for key in ("level", "mdice")]
                axes.plot(*values, styles[model], color=colour, label=model, markersize=4)
                if values[0][0] > values[0][-1] and not axes.xaxis_inverted():
                    axes.invert_xaxis()  # the picture as it is on the left, as in the other panels
        axes.set(title=name, xlabel=level_name)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    panels[1, 0].set_ylabel("mean Dice")
    panels[0, 0].set_ylabel("mean Dice")
    for axes in list(panels.flat)[len(level_names) :]:
        axes.axis("off")
    handles = panels[0, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=len(MODEL_COLOURS), frameon=False)
    save_figure(figure, path)


def plot_label_efficiency(lines: list[dict], path: Path) -> None:
    """mIoU against the share of masks used, a dot per run: lines of results/autoencoder.csv."""
    figure, axes = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
    looks = {"full": ("o", "#E69F00", 0.97), "scratch": ("s", "#0072B2", 1.03)}  # side by side
    looks |= {"frozen": ("^", "#999999", 1.0), "frozen_plain": ("v", "#555555", 1.0)}
    for variant, (marker, colour, shift) in looks.items():
        runs = [line for line in lines if line["variant"] == variant]
        percents = [float(line["labels_percent"]) * shift for line in runs]
        values = [float(line["miou"]) for line in runs]
        axes.scatter(percents, values, marker=marker, color=colour, label=variant.replace("_", ", "))
        means = {x: [v for p, v in zip(percents, values, strict=True) if p == x] for x in sorted(set(percents))}
        axes.plot(list(means), [sum(group) / len(group) for group in means.values()], color=colour, linewidth=1)
    axes.set(xscale="log", xlabel="masks used, % of the training split", ylabel="test mIoU")
    axes.set_xticks([10, 100], ["10", "100"])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right center", frameon=False)
    save_figure(figure, path)


def plot_benchmark(lines: list[dict], scaled: dict[tuple[str, str], dict], path: Path) -> None:
    """How many times as fast as the plain way, and how speed changes with the work: lines of results/benchmark.csv.

    scaled: (name, scale) -> its line; a scale is "1 x", "2 x pictures", "4 x pixels", ...
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 2.2 + 0.3 * len(lines)), layout="constrained")
    ratios = [float(line["ratio"]) for line in lines]
    bars = left.barh(range(len(lines)), ratios, color="#0072B2")
    left.bar_label(bars, [f"{ratio:.1f} ×" for ratio in ratios], padding=3, fontsize=8)
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
                right.plot(list(speeds), relative, style, color=colour, label=f"{name}, more {kind}", markersize=4)
    right.set(xlabel="times the pictures, or the pixels of each", ylabel="pictures/s, of those at 1 ×", ylim=(0, None))
    right.set_xticks([1, 2, 4])
    if names:
        right.legend(frameon=False, fontsize=7, ncols=2, loc="lower left")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)


def plot_confusions(confusions: dict, path: Path) -> None:
    """Row-normalised confusion matrices: of the pixels of a true class, the share predicted as each; without flips."""
    confusions = {model: counts for model, counts in confusions.items() if " + flip" not in model}
    size = (3.2 * len(confusions), 3.2)
    figure, panels = plt.subplots(1, len(confusions), figsize=size, layout="constrained", squeeze=False)
    names = list(CLASS_COLOURS)
    for axes, (model, counts) in zip(panels[0], confusions.items(), strict=True):
        counts = counts.numpy().astype(float)
        shares = counts / counts.sum(1, keepdims=True).clip(min=1)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for truth in range(len(names)):
            for predicted in range(len(names)):
                share = shares[truth, predicted]
                colour = "white" if share > 0.5 else "black"
                axes.text(predicted, truth, f"{share:.1%}", ha="center", va="center", color=colour)
        axes.set(title=model, xlabel="predicted")
        axes.set_xticks(range(len(names)), names)
        axes.set_yticks(range(len(names)), names)
    panels[0, 0].set_ylabel("truth")
    save_figure(figure, path)


def plot_examples(columns: dict[str, list], path: Path, names: Sequence[str] = ()) -> None:
    """A grid of pictures (H, W, 3): one column per key, one line per picture; names: of the lines."""
    count = len(next(iter(columns.values())))
    tallest = min(max(image.shape[0] / image.shape[1] for images in columns.values() for image in images), 1.0)
    size = (1.8 * len(columns), 1.7 * tallest * count + 0.4)
    figure, panels = plt.subplots(count, len(columns), figsize=size, layout="constrained", squeeze=False)
    for column, (title, images) in enumerate(columns.items()):
        panels[0, column].set_title(title, fontsize=10)
        for line, image in enumerate(images):
            panels[line, column].imshow(image)
            panels[line, column].set(xticks=[], yticks=[])
            panels[line, column].spines[:].set_visible(False)
    for axes, name in zip(panels[:, 0], names, strict=False):
        axes.set_ylabel(name, fontsize=10)
    save_figure(figure, path)
