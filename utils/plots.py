"""Figures drawn from numbers; pictures of photos are in utils/pictures.py."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402

MODEL_COLOURS = {"UNET": "#0072B2", "Autoencoder": "#E69F00", "CLIP": "#009E73", "CLIPSeg": "#999999", "PointCLIP": "#CC79A7"}
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
    """Write a PNG whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    figure.savefig(temporary, dpi=130, format="png", facecolor="white")
    temporary.replace(path)
    plt.close(figure)
