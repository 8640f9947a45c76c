"""The old metric by hand: what it punishes although nothing is wrong."""

import numpy as np
import pytest

from utils.scoring.old_metric import count_with_outline, old_miou


def test_perfect_predictions_lose_for_outlines_and_for_absent_species():
    cat = np.array([[0, 0, 1, 255]])
    dog = np.array([[0, 0, 2, 255]])
    counts = np.stack(
        [count_with_outline(truth, np.where(truth == 255, 0, truth), 3) for truth in (cat, cat, dog, dog)]
    )
    assert counts[0].tolist() == [[2, 0, 0], [0, 1, 0], [0, 0, 0], [1, 0, 0]]
    # background: 2 of 3 pixels per picture, for the outline was called background
    assert old_miou(counts, 4) == pytest.approx((2 / 3 + 1 + 1) / 3)
    assert old_miou(counts, 2) == pytest.approx((2 / 3 + 1 + 0) / 3)  # each batch lacks a species
    assert old_miou(counts[[0, 2, 1, 3]], 2) == pytest.approx((2 / 3 + 1 + 1) / 3)  # the order changes the number
