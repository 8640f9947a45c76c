"""Confusion matrix, IoU and Dice (definitions: README, "Protocol")."""

from collections.abc import Sequence

import numpy as np
import torch

from utils.classes import VOID


def confusion_matrix(truth: torch.Tensor, prediction: torch.Tensor, classes: int) -> torch.Tensor:
    """Count pixels: entry [t, p] is the number of pixels of true class t predicted as p; int64 (C, C).

    truth, prediction: integer tensors of one shape. Pixels whose truth is VOID are dropped, whatever their
    prediction. Raises ValueError for other values outside 0 .. classes - 1.
    """
    if truth.shape != prediction.shape:
        raise ValueError(f"truth {tuple(truth.shape)} and prediction {tuple(prediction.shape)} differ in shape")
    void = truth == VOID
    if ((truth >= classes) & ~void).any() or (truth < 0).any():
        raise ValueError(f"truth holds values outside 0 .. {classes - 1} and {VOID}")
    if ((prediction < 0) | (prediction >= classes))[~void].any():
        raise ValueError(f"prediction holds values outside 0 .. {classes - 1}")
    # Void pixels are counted in an extra row, which is cut off.
    rows = truth.long().masked_fill(void, classes)
    columns = prediction.long().masked_fill(void, 0)
    counts = torch.bincount((rows * classes + columns).flatten(), minlength=(classes + 1) * classes)
    return counts[: classes**2].view(classes, classes)


def iou_per_class(confusion: torch.Tensor) -> np.ndarray:
    """IoU = TP / (TP + FP + FN) of (..., C, C) counts: float64 (..., C), NaN for a class that never occurs."""
    true_positive, truth, predicted = _marginals(confusion)
    return _divide(true_positive, truth + predicted - true_positive)


def dice_per_class(confusion: torch.Tensor) -> np.ndarray:
    """Dice = 2 TP / (2 TP + FP + FN) of (..., C, C) counts: float64 (..., C), NaN for an absent class."""
    true_positive, truth, predicted = _marginals(confusion)
    return _divide(2 * true_positive, truth + predicted)


def pixel_accuracy(confusion: torch.Tensor) -> float:
    """Share of correct pixels among those that are not void; NaN if all are."""
    counts = confusion.numpy().astype(np.float64)
    return float(_divide(np.trace(counts), counts.sum()))


def mean_over_present(per_class: np.ndarray) -> np.ndarray | float:
    """Mean over the last axis, without NaN: over the classes that occur in prediction or truth."""
    present = ~np.isnan(per_class)
    return _divide(np.where(present, per_class, 0.0).sum(-1), present.sum(-1))


def scores(confusions: torch.Tensor, names: Sequence[str]) -> dict[str, float]:
    """All scores of the results table from one confusion matrix per picture, int64 (N, C, C); names of the C classes.

    All but miou_per_image, the mean of the pictures' own mIoUs, come from the sum of the matrices.
    """
    total = confusions.sum(0)
    iou, dice = iou_per_class(total), dice_per_class(total)
    result = {"miou": mean_over_present(iou), "mdice": mean_over_present(dice), "pixel_accuracy": pixel_accuracy(total)}
    result |= {f"iou_{name}": value for name, value in zip(names, iou, strict=True)}
    result |= {f"dice_{name}": value for name, value in zip(names, dice, strict=True)}
    # A picture that is entirely void has no mIoU and is left out.
    result["miou_per_image"] = np.nanmean(mean_over_present(iou_per_class(confusions)))
    return {name: float(value) for name, value in result.items()}


def miou_interval(confusions: torch.Tensor) -> tuple[float, float]:
    """95 % bootstrap interval of the mIoU over pictures, low and high (Efron, Annals of Statistics 1979).

    confusions: one matrix per picture, int64 (N, C, C). The pictures are drawn 1000 times, always in the same way.
    """
    count, classes = confusions.shape[:2]
    weights = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), 1000)  # (1000, N)
    totals = weights.astype(np.float64) @ confusions.flatten(1).numpy().astype(np.float64)
    mious = mean_over_present(iou_per_class(torch.from_numpy(totals).view(-1, classes, classes)))
    low, high = np.nanquantile(mious, [0.025, 0.975])
    return float(low), float(high)


def _marginals(confusion: torch.Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(TP, pixels of the class in the truth, in the prediction), each (..., C)."""
    counts = confusion.numpy().astype(np.float64)
    return counts.diagonal(axis1=-2, axis2=-1), counts.sum(-1), counts.sum(-2)


def _divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return np.true_divide(numerator, denominator)
