"""Simulated clicks for the training of PointCLIP: a user whose target is sometimes perturbed."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from utils.classes import VOID
from utils.inputs.clicks import Click, next_click, random_click, thing_mask, to_tensor


@torch.no_grad()
def simulate_clicks(
    predict: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor],
    images: torch.Tensor,
    masks: torch.Tensor,
    generator: torch.Generator,
    corrections: int,
    edited: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Simulated clicks: the first anywhere on the animal or the background, further ones where the model is wrong.

    images: float (N, 3, H, W), masks: class ids (N, H, W). Half of the pictures get one to `corrections` further
    clicks; in a share `edited` of these the target mask is randomly edited (edit_thing).
    predict(indices, clicks, previous) -> logits (n, 1, H / 2, W / 2). Returns the target, int64 (N, H, W) with
    1, 0, VOID, the clicks (N, K, 3), and the probabilities (N, 1, H / 2, W / 2) before the last one.
    """
    count, height, width = masks.shape
    rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
    extra = rng.integers(1, corrections, count, endpoint=True) * (rng.random(count) < 0.5) if corrections else [0]
    truths, clicks = [], torch.full((count, 1 + corrections, 3), -1.0)
    for index, mask in enumerate(masks.cpu().numpy()):
        animal = rng.random() < 0.5
        first = random_click(mask, animal, rng) or random_click(mask, not animal, rng)
        click, thing = first or ((0, 0, -1), 0)  # -1: no click, all is void
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
    """Remove a random region of similar pixels from the target, or add one beside it.

    This teaches the model to trust clicks over the picture. truth: (H, W) with 1, 0, VOID; image:
    float (3, H, W). Unchanged if less than half of the target would remain, or not the pixel under the click.
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
