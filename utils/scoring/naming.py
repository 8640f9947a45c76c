"""The layer that classifies a picture of one thing, fitted on the things cut out of the training pictures.

Each is seen whole, in part and from afar: fitted on whole ones alone, the layer relies on what every training picture
shows (a cat's face), and a thing that hides it goes to the wrong class.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import Dataset

from utils.checkpoint import halve, save
from utils.classes import VOID
from utils.distributed import is_main
from utils.inputs.augment import normalise
from utils.inputs.pictures import resize_image
from utils.inputs.windows import Window, window_around
from utils.rows import load_model
from utils.scoring.by_class import ByClass
from utils.scoring.metrics import clearly_worse, scores

PART = (0.4, 0.8)  # of the sides of a thing's window
AFAR = (40, 120)  # pixels a side
LAYER = "name_layer."  # what its weights are called in a model


def cut_out(dataset: Dataset, size: int, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The largest thing in each of `count` random pictures: its window, a random part of it, and from afar.

    Returns uint8 (M, size, size, 3) and class ids (M,), from 1; M is 3 * count, less what shows nothing.
    """
    rng = np.random.default_rng(seed)
    crops, classes = [], []
    for index in rng.permutation(len(dataset))[:count]:
        image, mask, *_ = (x[0].cpu().numpy() for x in dataset[[int(index)]])
        things = mask[(mask != 0) & (mask != VOID)]
        if len(things):
            largest = np.bincount(things).argmax()
            thing, picture = mask == largest, image.transpose(1, 2, 0)
            for left, top, right, bottom in (window_around(thing, thing.shape), random_part(thing, rng)):
                crops.append(resize_image(picture[top:bottom, left:right], size))
            crops.append(resize_image(resize_image(crops[-2], int(rng.integers(*AFAR))), size))
            classes += 3 * [largest]
    return np.stack(crops), np.array(classes)


def random_part(thing: np.ndarray, rng: np.random.Generator) -> Window:
    """A random window in that of a thing, bool (H, W), a third of which is the thing, if eight tries find one."""
    left, top, right, bottom = window_around(thing, thing.shape)
    for _ in range(8):
        share = rng.uniform(*PART)
        width, height = max(int((right - left) * share), 1), max(int((bottom - top) * share), 1)
        x, y = (
            int(rng.integers(left, right - width, endpoint=True)),
            int(rng.integers(top, bottom - height, endpoint=True)),
        )
        if thing[y : y + height, x : x + width].mean() > 1 / 3:
            break
    return x, y, x + width, y + height


def fit_layer(layer: nn.Linear, inputs: torch.Tensor, targets: torch.Tensor, strength: float = 0.01) -> None:
    """Logistic regression by L-BFGS: layer (D -> C), inputs (M, D), targets (M,) from 0, every class of one weight.

    It minimises strength * sum of the M weighted cross-entropies + |layer.weight|^2 / 2.
    """
    centre = inputs.mean(0)
    weights = len(targets) / (layer.out_features * torch.bincount(targets, minlength=layer.out_features).clamp(min=1))
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=500, tolerance_grad=1e-6, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        losses = F.cross_entropy(layer(inputs - centre), targets, weights.to(inputs), reduction="sum")
        loss = strength * losses + layer.weight.square().sum() / 2
        loss.backward()
        return loss

    optimizer.step(closure)
    with torch.no_grad():  # for inputs as they come
        layer.bias -= layer.weight @ centre


def fit_names(
    model: nn.Module, dataset: Dataset, size: int, mean, std, device: torch.device, count: int = 1000, seed: int = 0
) -> None:
    """Fit model.name_layer on the things of so many random pictures; three minutes on two cores.

    model: with an encoder (models.clip.CLIPCNN). dataset: squashed pictures and masks, in batches. size: pixels a side
    of the pictures that the encoder sees.
    """
    crops, classes = cut_out(dataset, size, count, seed)
    embeddings = []
    for batch in torch.from_numpy(crops).movedim(-1, 1).split(16):
        with torch.no_grad():
            embeddings.append(model.encoder.encode(normalise(batch.to(device), mean, std))[1].float())
    fit_layer(model.name_layer, torch.cat(embeddings), torch.from_numpy(classes).long().to(device) - 1)


def add_closer_look(path: Path, train: Dataset, val: Dataset, device: torch.device) -> None:
    """Fit the layer that names parts; note in the checkpoint whether its row looks closer, and its score.

    It does, unless its mIoU on val is lower in nearly all bootstrap resamples (clearly_worse).
    """
    model, content = load_model(path, "clip", device)
    size, mean, std, classes = (*(content[key] for key in ("image_size", "mean", "std")), train.classes)
    model.add_names()
    fit_names(model.to(device), train, size, mean, std, device)
    row = ByClass("closer look", model, device, size, mean, std, classes, zoom=True)
    closer = row.score(val)
    row.zoom = False
    plain = row.score(val)
    content["zoom"] = not clearly_worse(closer, plain)
    closer, plain = (scores(confusions, classes.names)["miou"] for confusions in (closer, plain))
    content["score"] = closer if content["zoom"] else plain
    content["arguments"]["name_parts"] = True
    layer = {f"{LAYER}{name}": value.cpu() for name, value in model.name_layer.state_dict().items()}
    content["weights"] |= halve(layer)
    if is_main():
        save(content, path)
        switch = "on" if content["zoom"] else "off"
        print(f"score with a closer look {closer:.4f}, without {plain:.4f}: it is {switch} in {path}")
