"""Scoring models that take clicks: one click, IoU against the number of clicks, NoC, and the baselines."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from utils.classes import VOID
from utils.clicks import Click, next_click, random_click, thing_mask
from utils.dataset import PetDataset, Sample, read_mask, read_sample, rng_of
from utils.distributed import is_main, rank, sum_over_processes, world_size
from utils.metrics import confusion_matrix
from utils.pointing import PointPredictor
from utils.rows import Row, segment

MOST = 20  # clicks at most, as in the literature on NoC
CLICK_MODELS = ("PointCLIP", "CLIP look-up", "disk", "everything")
# picture uint8 (H, W, 3) -> (clicks so far -> mask of the thing, bool (H, W))
ClickModel = Callable[[np.ndarray], Callable[[Sequence[Click]], np.ndarray]]


def click_confusions(predictor: PointPredictor, dataset: PetDataset, label: str, on_prediction=None, clicks: int = 1):
    """The main row: one click on the animal and one on the background, each at random by the file's name.

    Returns confusion matrices int64 (N, 2, 2) of rest and clicked thing. on_prediction(index, mask bool
    (H, W), "animal" or "background") is called with every prediction. clicks: so many in all, every further one
    at the centre of the largest wrong region.
    """
    confusions = torch.zeros(len(dataset), 2, 2, dtype=torch.int64)
    for index in _my_pictures(len(dataset), label):
        mask = read_mask(dataset.samples[index])
        image, _, *tokens = dataset[[index]]
        predictor.set_tensors(image, mask.shape, *tokens)
        rng = rng_of(dataset.samples[index].name)
        for name in ("animal", "background"):
            found = random_click(mask, name == "animal", rng)
            if not found:
                continue
            given, thing = [found[0]], found[1]
            truth = thing_mask(mask, thing)
            predicted = mask_of(predictor, given)
            while len(given) < clicks and (correction := next_click(truth, predicted)):
                given.append(correction)
                predicted = mask_of(predictor, given)
            confusions[index] += confusion_matrix(torch.from_numpy(truth), torch.from_numpy(predicted).byte(), 2)
            if on_prediction:
                on_prediction(index, predicted, name)
    return sum_over_processes(confusions.to(predictor.device)).cpu()


def mask_of(predictor: PointPredictor, clicks: Sequence[Click]) -> np.ndarray:
    """The predictor's mask of a list of clicks, bool (H, W)."""
    return predictor.predict([click[:2] for click in clicks], [click[2] for click in clicks])[0]


def click_models(rows: dict[str, Row], root: str | Path, device: torch.device) -> dict[str, ClickModel]:
    """CLICK_MODELS as far as they are at hand: PointCLIP and the baselines."""
    models = {}
    if "PointCLIP" in rows:
        point = rows["PointCLIP"].predictor(False)

        def point_clip(image: np.ndarray) -> Callable[[Sequence[Click]], np.ndarray]:
            point.set_image(image)
            return lambda clicks: mask_of(point, clicks)

        models["PointCLIP"] = point_clip
    if "CLIP" in rows:
        models["CLIP look-up"] = lambda image: look_up(segment(rows["CLIP"], image, device))
    return models | {"disk": disk_baseline(root), "everything": everything}


def disk_baseline(root: str | Path) -> ClickModel:
    """Disks that cover the share of the picture that an animal covers in the mean of the training split."""
    share = None

    def disk(image: np.ndarray) -> Callable[[Sequence[Click]], np.ndarray]:
        nonlocal share
        if share is None:
            masks = PetDataset(root, "train", 128).arrays["masks"]
            share = float(np.mean([((mask != 0) & (mask != VOID)).sum() / (mask != VOID).sum() for mask in masks]))
        return disks(image, share)

    return disk


def score_click_model(
    name: str, model: ClickModel, samples: Sequence[Sample], counts: Sequence[int], device: torch.device
) -> list[dict[str, str]]:
    """Lines of results/clicks.csv: mean IoU of the animal after so many clicks, and NoC."""
    lines = []
    for first_click in ("central", "random"):
        ious = click_curves(model, samples, first_click == "central", device, f"{name}, first click {first_click}")
        noc = {f"noc{percent}": f"{number_of_clicks(ious, percent / 100):.3f}" for percent in (85, 90)}
        for clicks in counts:
            line = {"model": name, "first_click": first_click, "clicks": str(clicks)}
            line |= {"miou_animal": f"{ious[:, clicks - 1].nanmean():.4f}", **noc, "images": str(len(samples))}
            lines.append(line)
    return lines


def click_curves(model: ClickModel, samples: Sequence[Sample], central: bool, device: torch.device, label: str):
    """IoU of the animal after each of MOST clicks, float64 (N, MOST); NaN for a picture without an animal.

    The first click is the centre of the animal (or random by the file's name), every further one the centre of
    the largest wrong region. A picture is left alone when a click has changed nothing, for the next would be the same
    one, and from the tenth click on once it has reached .9.
    """
    ious = torch.zeros(len(samples), MOST, dtype=torch.float64)
    for index in _my_pictures(len(samples), label):
        image, mask = read_sample(samples[index])
        found = random_click(mask, True, rng_of(samples[index].name))
        if not found:
            ious[index] = np.nan
            continue
        click, thing = found
        truth = thing_mask(mask, thing)
        if central:
            click = next_click(truth, np.zeros(truth.shape, bool))
        predict, clicks, before = model(image), [], None
        for number in range(MOST):
            clicks.append(click)
            predicted = predict(clicks)
            ious[index, number:] = binary_iou(truth, predicted)
            stuck = before is not None and np.array_equal(predicted, before)
            if stuck or (number >= 9 and ious[index].max() >= 0.9):
                break
            click, before = next_click(truth, predicted), predicted
            if click is None:
                break
    return sum_over_processes(ious.to(device)).cpu()


def binary_iou(truth: np.ndarray, predicted: np.ndarray) -> float:
    """IoU of the thing; truth (H, W) with 1, 0, VOID, predicted bool (H, W)."""
    thing, known = truth == 1, truth != VOID
    return float((thing & predicted).sum() / ((thing | predicted) & known).sum())


def number_of_clicks(ious: torch.Tensor, threshold: float) -> float:
    """NoC: the mean number of clicks until the IoU reaches the threshold, MOST where it never does."""
    ious = ious[~ious.isnan().any(1)]
    reached = ious >= threshold
    first = reached.double().argmax(1) + 1
    return float(torch.where(reached.any(1), first, MOST).double().mean())


def everything(image: np.ndarray) -> Callable[[Sequence[Click]], np.ndarray]:
    """Baseline: the whole picture is the thing."""
    return lambda clicks: np.ones(image.shape[:2], bool)


def disks(image: np.ndarray, share: float) -> Callable[[Sequence[Click]], np.ndarray]:
    """Baseline: a disk that covers `share` of the picture about every click on the thing; nearest click wins."""
    height, width = image.shape[:2]
    rows, columns = np.ogrid[:height, :width]
    nearest = np.full((height, width), share * height * width / np.pi)  # squared distance; at first the disk's radius
    positive = np.zeros((height, width), bool)
    seen = 0

    def predict(clicks: Sequence[Click]) -> np.ndarray:
        nonlocal seen
        for x, y, label in clicks[seen:]:
            distance = (columns - x) ** 2 + (rows - y) ** 2
            positive[distance <= nearest] = label
            np.minimum(nearest, distance, out=nearest)
        seen = len(clicks)
        return positive.copy()

    return predict


def look_up(classes: np.ndarray) -> Callable[[Sequence[Click]], np.ndarray]:
    """Baseline: everything of the class that a class map (H, W) has at the first click.

    Corrections change nothing. To look them up too would make it far worse: where the map is wrong, a click on what is
    missing adds the whole background, one on what is superfluous takes the whole animal away.
    """
    return lambda clicks: classes == classes[clicks[0][1], clicks[0][0]]


def _my_pictures(count: int, label: str) -> tqdm:
    """The indices of this process, with a progress bar."""
    hidden = None if is_main() else True
    return tqdm(range(rank(), count, world_size()), label, unit="img", leave=False, disable=hidden)
