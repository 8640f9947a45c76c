"""Curves of a training, and grids of pictures."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402

from utils.files import replacing  # noqa: E402

plt.rcParams.update(
    {"axes.grid": True, "grid.alpha": 0.3, "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True}
)
plt.rcParams |= {"legend.frameon": False, "lines.markersize": 4, "figure.constrained_layout.use": True}
plt.rcParams |= {"font.size": 9, "axes.titlesize": "medium"}  # at the 8 inches that most figures are wide
plt.rcParams["svg.hashsalt"] = "the same ids in every run"


def plot_curves(log: list[dict], path: Path) -> None:
    """Loss and validation score against epochs."""
    epochs = [line["epoch"] for line in log]
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3))
    left.plot(epochs, [line["loss"] for line in log], color="#0072B2")
    left.set(xlabel="epoch", ylabel="training loss")
    right.plot(epochs, [line["score"] for line in log], color="#0072B2")
    right.set(xlabel="epoch", ylabel="validation score")
    save_figure(figure, path)


def save_figure(figure: plt.Figure, path: Path, dpi: int = 260) -> None:
    """Write a figure in the format of the path's suffix: .png, .svg (diagrams) or .jpg (photos)."""
    options = {".jpg": {"pil_kwargs": {"quality": 85}}, ".svg": {"metadata": {"Date": None}}}.get(path.suffix, {})
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=dpi, format=path.suffix[1:], facecolor="white", **options)
    plt.close(figure)


def plot_examples(columns: dict[str, list], path: Path, names: Sequence[str] = ()) -> None:
    """A grid of pictures (H, W, 3): a column per key, a line per picture; names of the lines."""
    count = len(next(iter(columns.values())))
    tallest = min(max(image.shape[0] / image.shape[1] for images in columns.values() for image in images), 1.0)
    width = min(1.8, 8 / len(columns))
    size = (width * len(columns), 0.95 * width * tallest * count + 0.4)
    figure, panels = plt.subplots(count, len(columns), figsize=size, squeeze=False)
    for column, (title, images) in enumerate(columns.items()):
        panels[0, column].set_title(title)
        for line, image in enumerate(images):
            panels[line, column].imshow(image)
            panels[line, column].set(xticks=[], yticks=[])
            panels[line, column].spines[:].set_visible(False)
            panels[line, column].grid(visible=False)
    for axes, name in zip(panels[:, 0], names, strict=False):
        axes.set_ylabel(name)
    save_figure(figure, path, 130)  # photos need no more
