"""The metric: a case counted by hand, an independent implementation, and what must not change a number."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, jaccard_score

from utils import metrics
from utils.classes import PETS, VOID
from utils.metrics import dice_per_class, iou_per_class, miou_interval, pixel_accuracy

confusion_matrix = partial(metrics.confusion_matrix, classes=3)
scores = partial(metrics.scores, names=PETS.names)


def grid(text: str) -> torch.Tensor:
    """ "01/2V" -> [[0, 1], [2, VOID]], uint8."""
    rows = text.split("/")
    return torch.tensor([[VOID if c == "V" else int(c) for c in row] for row in rows], dtype=torch.uint8)


TRUTH_A, PREDICTION_A = grid("0000/0110/0110/VVVV"), grid("0000/0110/0100/1020")
TRUTH_B, PREDICTION_B = grid("0000/2220/2220/VVVV"), grid("0000/2210/2220/0000")
BY_HAND = torch.tensor([[14, 0, 0], [1, 3, 0], [0, 1, 5]])


@pytest.fixture
def confusions() -> torch.Tensor:
    return torch.stack([confusion_matrix(TRUTH_A, PREDICTION_A), confusion_matrix(TRUTH_B, PREDICTION_B)])


@pytest.fixture
def random_masks() -> tuple[torch.Tensor, torch.Tensor]:
    """Truth with void and a prediction that is right two times out of three, (6, 24, 31)."""
    generator = torch.Generator().manual_seed(3)
    truth = torch.randint(0, 3, (6, 24, 31), generator=generator)
    noise = torch.randint(0, 3, truth.shape, generator=generator)
    prediction = truth.where(torch.rand(truth.shape, generator=generator) < 0.5, noise)
    return truth.masked_fill(torch.rand(truth.shape, generator=generator) < 0.2, VOID), prediction


def test_the_hand_case_gives_the_counts_and_scores_of_the_protocol(confusions):
    assert confusions.dtype == torch.int64 and confusions.sum(0).tolist() == BY_HAND.tolist()
    result = scores(confusions)
    iou, dice = [14 / 15, 3 / 5, 5 / 6], [28 / 29, 6 / 8, 10 / 11]
    assert [result[f"iou_{name}"] for name in PETS.names] == pytest.approx(iou)
    assert [result[f"dice_{name}"] for name in PETS.names] == pytest.approx(dice)
    assert result["miou"] == pytest.approx(sum(iou) / 3) and result["mdice"] == pytest.approx(sum(dice) / 3)
    assert result["pixel_accuracy"] == pytest.approx(22 / 24)


def test_per_image_miou_leaves_out_classes_absent_from_both_truth_and_prediction(confusions):
    picture_a = (8 / 9 + 3 / 4) / 2  # no dog in either: two classes
    picture_b = (6 / 6 + 0 / 1 + 5 / 6) / 3  # a cat only in the prediction counts, with 0
    assert scores(confusions)["miou_per_image"] == pytest.approx((picture_a + picture_b) / 2)


def test_a_picture_that_is_void_everywhere_is_left_out_of_the_per_image_mean(confusions):
    void = confusion_matrix(grid("VV/VV"), grid("01/20"))
    assert scores(torch.cat([confusions, void[None]])) == scores(confusions)


def test_iou_and_dice_agree_with_scikit_learn(random_masks):
    truth, prediction = random_masks
    confusion = confusion_matrix(truth, prediction)
    valid = truth != VOID
    flat = truth[valid].numpy(), prediction[valid].numpy()
    np.testing.assert_allclose(iou_per_class(confusion), jaccard_score(*flat, average=None))
    np.testing.assert_allclose(dice_per_class(confusion), f1_score(*flat, average=None))
    assert pixel_accuracy(confusion) == pytest.approx((flat[0] == flat[1]).mean())


@pytest.mark.parametrize("under_void", [0, 7, VOID])
def test_predictions_under_void_change_no_count(random_masks, under_void):
    truth, prediction = random_masks
    changed = prediction.masked_fill(truth == VOID, under_void)
    assert torch.equal(confusion_matrix(truth, changed), confusion_matrix(truth, prediction))


def test_a_class_that_occurs_nowhere_is_skipped_in_the_means():
    result = scores(confusion_matrix(grid("0011"), grid("0010"))[None])
    assert math.isnan(result["iou_dog"]) and math.isnan(result["dice_dog"])
    assert result["miou"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert result["mdice"] == pytest.approx((4 / 5 + 2 / 3) / 2)


@pytest.mark.parametrize(
    ("truth", "prediction", "message"),
    [
        ([0, 3], [0, 0], "truth"),
        ([0, 1], [0, -1], "prediction"),
        ([0, 1], [0, VOID], "prediction"),  # where the truth is known
        ([0, 1], [[0], [1]], "shape"),
    ],
)
def test_a_value_that_is_no_class_raises_and_says_where_it_was(truth, prediction, message):
    with pytest.raises(ValueError, match=message):
        confusion_matrix(torch.tensor(truth), torch.tensor(prediction))


def test_the_interval_is_that_of_resampled_pictures_and_shrinks_with_their_number(confusions):
    few = torch.randint(0, 50, (40, 3, 3), generator=torch.Generator().manual_seed(0))
    low, high = miou_interval(few)
    assert (low, high) == miou_interval(few)
    assert low < scores(few)["miou"] < high
    by_hand = [scores(few[list(draw)])["miou"] for draw in np.random.default_rng(1).integers(0, 40, (2000, 40))]
    assert (low, high) == pytest.approx(np.quantile(by_hand, [0.025, 0.975]), abs=0.004)
    many_low, many_high = miou_interval(few.repeat(25, 1, 1))
    assert 4.5 < (high - low) / (many_high - many_low) < 5.5  # the square root of 25
    assert miou_interval(confusions[:1]) == pytest.approx((scores(confusions[:1])["miou"],) * 2)
