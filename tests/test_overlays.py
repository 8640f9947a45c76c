"""Pictures of masks."""

from types import SimpleNamespace

import numpy as np

from utils.classes import PETS, VOID, named
from utils.figures.grids import draw_prediction
from utils.figures.overlays import cutout, overlay

IMAGE = np.random.default_rng(0).integers(0, 256, (300, 200, 3), np.uint8)
MASK = np.zeros((300, 200), np.uint8)
MASK[40:200, 20:150], MASK[100:250, 100:180], MASK[280:] = 1, 2, VOID


def test_an_overlay_tints_things_outlines_them_in_white_and_leaves_the_rest():
    tinted = overlay(IMAGE, MASK, PETS)
    assert np.array_equal(tinted[(MASK == 0) | (MASK == VOID)], IMAGE[(MASK == 0) | (MASK == VOID)])
    assert (tinted[40, 20:150] == 255).all()
    inside = tinted[50:90, 30:90].astype(float) - IMAGE[50:90, 30:90] / 2
    assert (abs(inside.mean((0, 1)) - (115, 0, 0)) < 1).all()  # half of the class's colour, brightened
    assert np.array_equal(overlay(IMAGE, MASK, PETS, 0.0)[60:90, 30:90], IMAGE[60:90, 30:90])


def test_a_cutout_is_the_picture_inside_of_things_and_transparent_away_from_them():
    cut, inside, away = cutout(IMAGE, MASK), np.zeros(MASK.shape, bool), MASK == 0
    inside[60:180, 40:90] = inside[120:230, 120:160] = True
    away[20:270] = False
    assert np.array_equal(cut[inside, :3], IMAGE[inside]) and (cut[inside, 3] >= 254).all()
    assert not cut[away].any()


def test_the_outline_of_a_cutout_follows_the_picture():
    """The mask misses the thing's edge by a pixel; the picture shows where it is."""
    image, mask = np.full((200, 200, 3), 40, np.uint8), np.zeros((200, 200), np.uint8)
    image[:, 100:], mask[:, 101:] = 200, 1
    assert (cutout(image, mask)[:, :, 3] > 127)[:, 100:].all() and not (cutout(image, mask)[:, :99, 3] > 127).any()


def test_a_prediction_by_click_is_tinted_where_the_thing_is_also_for_class_0_of_data_without_background():
    street = named(("sky", "road"), ((200, 0, 0), (0, 200, 0)))
    found = SimpleNamespace(ids=(MASK == 1).astype(np.uint8))
    row = SimpleNamespace(prompt="click", classes=street, segment=lambda image, clicks: found)
    for thing, colour in enumerate(street.colours):
        drawn = draw_prediction(row, IMAGE, (60, 80), thing)
        assert np.array_equal(drawn[:30], IMAGE[:30]) and np.array_equal(drawn[230:], IMAGE[230:])
        inside = drawn[120:190, 25:90].astype(float) - IMAGE[120:190, 25:90] / 2
        assert (abs(inside.mean((0, 1)) - np.minimum(np.array(colour) * 1.8, 255) / 2) < 1).all()
