"""A linear classifier for object crops, fitted on crops from the training set; the closer look classifies with it.

It sees objects whole, in part and from afar: on whole ones alone, it would rely on a cat's face.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import Dataset

from utils.classes import VOID
from utils.errors import UserError
from utils.inputs.augment import normalise
from utils.inputs.pictures import resize_image
from utils.inputs.windows import Window, window_around

PART = (0.4, 0.8)  # sides of a partial crop, as a fraction of the object's window
AFAR = (40, 120)  # pixels a side


@torch.no_grad()
def fit_names(model: nn.Module, dataset: Dataset, size: int, device: torch.device) -> None:
    """Give a model with an encoder (models.clip.CLIPCNN) a name_layer, fitted on 1000 random pictures, in fp32.

    size: side of the crops in pixels. Three minutes on two cores.
    """
    crops, classes = object_crops(dataset, size, 1000, seed=0)
    embeddings = []
    for batch in torch.from_numpy(crops).movedim(-1, 1).split(16):
        batch = normalise(batch.to(device), model.encoder.mean, model.encoder.std)
        embeddings.append(model.encoder.encode(batch)[1].float())
    model.add_names()
    model.name_layer.to(device)
    fit_layer(model.name_layer, torch.cat(embeddings), torch.from_numpy(classes).long().to(device) - 1)


def object_crops(dataset: Dataset, size: int, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The largest object in each of `count` random pictures: its window, a random part of it, and from afar.

    Returns uint8 (M, size, size, 3) and class ids (M,), from 1. Three crops per image; images without foreground are
    skipped. Raises UserError if all are.
    """
    rng = np.random.default_rng(seed)
    crops, classes = [], []
    for index in rng.permutation(len(dataset))[:count]:
        image, mask = (x[0].cpu().numpy() for x in dataset[[int(index)]])
        things = mask[(mask != 0) & (mask != VOID)]
        if len(things):
            largest = np.bincount(things).argmax()
            thing, picture = mask == largest, image.transpose(1, 2, 0)
            for left, top, right, bottom in (window_around(thing, thing.shape), random_part(thing, rng)):
                crops.append(resize_image(picture[top:bottom, left:right], size))
            crops.append(resize_image(resize_image(crops[-2], int(rng.integers(*AFAR))), size))
            classes += 3 * [largest]
    if not crops:
        raise UserError("the training masks show nothing but background, no object to classify: set ZOOM = False")
    return np.stack(crops), np.array(classes)


def random_part(thing: np.ndarray, rng: np.random.Generator) -> Window:
    """A random window in that of an object, bool (H, W); at least one third foreground (best effort, eight tries)."""
    left, top, right, bottom = window_around(thing, thing.shape)
    for _ in range(8):
        share = rng.uniform(*PART)
        width, height = max(int((right - left) * share), 1), max(int((bottom - top) * share), 1)
        x = int(rng.integers(left, right - width, endpoint=True))
        y = int(rng.integers(top, bottom - height, endpoint=True))
        if thing[y : y + height, x : x + width].mean() > 1 / 3:
            break
    return x, y, x + width, y + height


@torch.enable_grad()
def fit_layer(layer: nn.Linear, inputs: torch.Tensor, targets: torch.Tensor, strength: float = 0.01) -> None:
    """Logistic regression by L-BFGS: layer (D -> C), inputs (M, D), targets (M,) from 0, classes weighted equally.

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
    with torch.no_grad():  # so that the layer takes inputs that are not centred
        layer.bias -= layer.weight @ centre
