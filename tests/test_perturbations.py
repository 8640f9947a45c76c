"""Spoiled pictures: each perturbation by hand, the same for every model, and nothing at level zero."""

import numpy as np
import pytest
from experiments.perturbations import (
    PERTURBATIONS,
    black_square,
    blur,
    brightness,
    contrast,
    gaussian_noise,
    salt_and_pepper,
)
from scipy import ndimage

from utils.inputs.pictures import rng_of


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)


def test_there_are_eight_of_ten_levels_each():
    assert len(PERTURBATIONS) == 8 and {len(levels) for _, levels, _ in PERTURBATIONS.values()} == {10}


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_level_zero_changes_nothing_and_every_further_one_more_than_the_last(name, image):
    _, levels, perturb = PERTURBATIONS[name]
    before = image.copy()
    spoiled = [perturb(image, level, rng_of("pug_1")).astype(float) for level in levels]
    assert np.array_equal(spoiled[0], image) and np.array_equal(image, before)  # the picture itself is left alone
    changes = [np.abs(picture - image).mean() for picture in spoiled]
    assert all(a < b for a, b in zip(changes, changes[1:], strict=False))


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_every_model_sees_the_same_and_another_picture_gets_other_noise(name, image):
    _, levels, perturb = PERTURBATIONS[name]
    first, again, other = (perturb(image, levels[-1], rng_of(of)) for of in ("pug_1", "pug_1", "pug_2"))
    assert first.dtype == np.uint8 and first.shape == image.shape and np.array_equal(first, again)
    if name in ("Gaussian noise", "black square", "salt and pepper"):
        assert not np.array_equal(first, other)


def test_the_blur_is_the_binomial_kernel_with_a_reflected_border(image):
    dot = np.zeros((5, 5, 3), np.uint8)
    dot[2, 2] = 160
    expected = np.zeros((5, 5))
    expected[1:4, 1:4] = [[10, 20, 10], [20, 40, 20], [10, 20, 10]]
    assert np.array_equal(blur(dot, 1, None)[..., 1], expected)
    kernel = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16
    channel = image[..., 0].astype(float)
    for _ in range(3):
        channel = ndimage.convolve(channel, kernel, mode="mirror")
    assert np.abs(blur(image, 3, None)[..., 0] - channel).max() <= 0.5001
    assert (blur(np.full((4, 6, 3), 77, np.uint8), 9, None) == 77).all()


def test_values_are_clipped_at_0_and_255_never_wrapped():
    ramp = np.array([[[0, 10, 250]]], np.uint8)
    assert brightness(ramp, 45, None).tolist() == [[[45, 55, 255]]]
    assert brightness(ramp, -45, None).tolist() == [[[0, 0, 205]]]  # brightness down subtracts
    assert contrast(ramp, 1.25, None).tolist() == [[[0, 12, 255]]]  # 12.5 rounds to even
    assert contrast(ramp, 0.1, None).tolist() == [[[0, 1, 25]]]
    white = np.full((50, 50, 3), 255, np.uint8)
    assert gaussian_noise(white, 18, rng_of("a")).min() > 150


def test_noise_has_the_standard_deviation_that_it_says():
    grey = np.full((200, 200, 3), 128, np.uint8)
    noise = gaussian_noise(grey, 18, rng_of("a")).astype(float) - 128
    assert abs(noise.std() - 18) < 0.2 and abs(noise.mean()) < 0.2


def test_the_square_lies_wholly_inside_anywhere():
    white = np.full((60, 80, 3), 255, np.uint8)
    corners = set()
    for number in range(200):
        black = (black_square(white, 45, rng_of(str(number))) == 0).all(2)
        rows, columns = np.nonzero(black)
        assert black.sum() == 45 * 45 and np.ptp(rows) == np.ptp(columns) == 44
        corners.add((rows.min(), columns.min()))
    tops, lefts = zip(*corners, strict=True)
    assert (min(tops), max(tops)) == (0, 15) and max(lefts) >= 34 and min(lefts) <= 1
    assert (black_square(white[:20], 45, rng_of("a")) == 0).all(2).sum() == 20 * 20  # a picture smaller than it


def test_salt_and_pepper_hit_their_share_of_pixels_in_all_channels():
    grey = np.full((300, 300, 3), 128, np.uint8)
    spoiled = salt_and_pepper(grey, 0.18, rng_of("a"))
    assert (spoiled == spoiled[..., :1]).all()
    white, black = (spoiled[..., 0] == 255).mean(), (spoiled[..., 0] == 0).mean()
    assert abs(white - 0.09) < 0.005 and abs(black - 0.09) < 0.005 and set(np.unique(spoiled)) == {0, 128, 255}
