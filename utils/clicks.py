"""Clicks: where a person would put them, in training and in evaluation.

A click is (x, y) in pixels of the picture as given, x to the right, and a label: 1 on the thing, 0 on the rest.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage

from utils.classes import VOID

Click = tuple[int, int, int]  # x, y, label


def thing_mask(mask: np.ndarray, thing: int) -> np.ndarray:
    """Mask (H, W) with class ids -> 1 for the class `thing`, 0 for the rest, VOID."""
    return np.where(mask == VOID, VOID, mask == thing).astype(np.uint8)


def random_click(mask: np.ndarray, animal: bool, rng: np.random.Generator) -> tuple[Click, int] | None:
    """A click anywhere on the animals (or the background), near their edges too, and the class under it.

    None if there is no such pixel.
    """
    places = np.flatnonzero((mask != VOID) & ((mask != 0) == animal))
    if not len(places):
        return None
    y, x = divmod(int(rng.choice(places)), mask.shape[1])
    return (x, y, 1), int(mask[y, x])


def next_click(truth: np.ndarray, predicted: np.ndarray, rng: np.random.Generator | None = None) -> Click | None:
    """A click on the largest wrong region, on its pixel that is farthest from its edge; None if nothing is wrong.

    truth: (H, W) with 1, 0, VOID; predicted: bool. The picture's border is an edge, of equally far pixels the
    middle one is clicked. With rng it is any pixel of the region's inner half, as a person would click.
    """
    best = 0, None, 0
    for label, wrong in ((1, (truth == 1) & ~predicted), (0, (truth == 0) & predicted)):
        regions, count = ndimage.label(wrong)
        if count:
            sizes = np.bincount(regions.ravel())[1:]
            largest = int(sizes.argmax())
            if sizes[largest] > best[0]:
                best = sizes[largest], regions == largest + 1, label
    _, region, label = best
    if region is None:
        return None
    rows, columns = ndimage.find_objects(region.astype(np.uint8))[0]
    distance = ndimage.distance_transform_edt(np.pad(region[rows, columns], 1))[1:-1, 1:-1]
    places = np.flatnonzero(distance >= distance.max() * (1.0 if rng is None else 0.5))
    place = places[len(places) // 2] if rng is None else rng.choice(places)
    y, x = divmod(int(place), distance.shape[1])
    return columns.start + x, rows.start + y, label


def to_tensor(clicks: Sequence[Click], size: tuple[int, int]) -> torch.Tensor:
    """Clicks in pixels of a picture of size (H, W) -> (K, 3) as models.pointclip takes them."""
    height, width = size
    return torch.tensor([[(x + 0.5) / width, (y + 0.5) / height, label] for x, y, label in clicks])


@torch.no_grad()
def simulate_clicks(
    predict: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor],
    images: torch.Tensor,
    masks: torch.Tensor,
    generator: torch.Generator,
    corrections: int,
    edited: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What a person would click: first anywhere on the animal or the background, then where the model is wrong.

    images: float (N, 3, H, W), masks: class ids (N, H, W). Half of the pictures get one to `corrections` further
    clicks; in a share `edited` of these the thing wanted is not quite all of its class (edit_thing).
    predict(indices, clicks, previous) -> logits (n, 1, H / 2, W / 2). Returns the thing wanted, int64 (N, H, W) with
    1, 0, VOID, the clicks (N, K, 3), and the probabilities (N, 1, H / 2, W / 2) before the last one.
    """
    count, height, width = masks.shape
    rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
    extra = rng.integers(1, corrections, count, endpoint=True) * (rng.random(count) < 0.5) if corrections else [0]
    truths, clicks = [], torch.full((count, 1 + corrections, 3), -1.0)
    for index, mask in enumerate(masks.cpu().numpy()):
        animal = rng.random() < 0.5
        first = random_click(mask, animal, rng) or random_click(mask, not animal, rng)
        click, thing = first or ((0, 0, -1), 0)  # -1: there is nothing to click on, all is void
        truth = thing_mask(mask, thing)
        if corrections and extra[index] and rng.random() < edited:
            truth = edit_thing(truth, images[index].float().cpu(), click, rng)
        truths.append(truth)
        clicks[index, 0] = to_tensor([click], (height, width))[0]
    clicks, previous = clicks.to(masks.device), torch.zeros(count, 1, height // 2, width // 2, device=masks.device)
    for number in range(1, 1 + max(extra)):
        going = torch.from_numpy(np.flatnonzero(extra >= number)).to(masks.device)
        previous[going] = predict(going, clicks[going, :number], previous[going]).float().sigmoid()
        for index, probability in zip(going.tolist(), previous[going, 0].cpu().numpy(), strict=True):
            click = next_click(truths[index][::2, ::2], probability > 0.5, rng)
            if click:
                clicks[index, number] = to_tensor([click], probability.shape)[0]
    return torch.from_numpy(np.stack(truths)).long().to(masks.device), clicks, previous


def edit_thing(truth: np.ndarray, image: torch.Tensor, click: Click, rng: np.random.Generator) -> np.ndarray:
    """The thing without a part, or with a region beside it: pixels that are near a random one and look like it.

    Teaches that clicks are right even where the picture says otherwise. truth: (H, W) with 1, 0, VOID; image:
    float (3, H, W). Unchanged where less than half of the thing would be left, or not what is under the click.
    """
    height, width = truth.shape
    places = np.flatnonzero(truth == 1)
    if not len(places):
        return truth
    radius = rng.uniform(0.05, 0.3) * max(height, width)
    y, x = divmod(int(rng.choice(places)), width)
    y, x = (int(place + rng.uniform(-1, 1) * radius) for place in (y, x))  # on the thing or beside it
    if not (0 <= y < height and 0 <= x < width) or truth[y, x] == VOID:
        return truth
    small = F.adaptive_avg_pool2d(image, (-(-height // 8), -(-width // 8)))  # so that regions are smooth
    difference = (small - small[:, y // 8, x // 8, None, None]).abs().mean(0) / small.std().clamp(min=1e-6)
    difference = F.interpolate(difference[None, None], size=truth.shape, mode="bilinear", align_corners=False)[0, 0]
    rows, columns = np.ogrid[:height, :width]
    region = ((rows - y) ** 2 + (columns - x) ** 2 < radius**2) & (difference.numpy() < rng.uniform(0.2, 2))
    edited = np.where(region & (truth != VOID), 1 - truth[y, x], truth)
    kept = ((edited == 1) & (truth == 1)).sum() >= len(places) / 2
    return edited if kept and edited[click[1], click[0]] == 1 else truth
