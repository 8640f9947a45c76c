"""Augmentation: picture and mask move together, and nothing else happens to either."""

import pytest
import torch

from utils.classes import VOID
from utils.inputs import paste
from utils.inputs.augment import augment, erase_rectangle, normalise
from utils.inputs.paste import compose

PURE = torch.tensor([[0, 0, 255], [255, 0, 0], [0, 255, 0]], dtype=torch.uint8)  # class id -> colour
STRONG = {"scale": (0.5, 2.0), "rotation": 30.0}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def coloured(masks: torch.Tensor) -> torch.Tensor:
    """Masks (N, H, W) -> uint8 pictures (N, 3, H, W) whose colour is the class."""
    return PURE[masks.long()].movedim(-1, 1)


@pytest.fixture
def masks() -> torch.Tensor:
    """Sixteen masks (40, 40) of big blocks, no two of them alike, none symmetric."""
    blocks = torch.randint(0, 3, (16, 4, 4), generator=seeded(5), dtype=torch.uint8)
    return blocks.repeat_interleave(10, 1).repeat_interleave(10, 2)


def assert_aligned(images: torch.Tensor, masks: torch.Tensor, share: float) -> None:
    """Where a colour is pure, at least this share of the pixels, the mask has its class."""
    values, strongest = images.movedim(1, -1).max(-1)
    pure = (values > 0.999) & (images.sum(1) < 1.001)  # no mixture of neighbours
    assert pure.float().mean() > share
    assert torch.equal(masks[pure].long(), torch.tensor([1, 2, 0])[strongest][pure])


@pytest.mark.parametrize("seed", range(4))
def test_picture_and_mask_stay_aligned(masks, seed):
    assert_aligned(*augment(coloured(masks), masks, seeded(seed), 56, **STRONG), 0.3)


def test_outside_of_the_picture_the_mask_is_void_and_the_picture_is_grey(masks):
    images, moved = augment(coloured(masks), masks, seeded(), 40, **STRONG)
    grey = (images - 0.5).abs().amax(1) < 1e-6
    void = moved == VOID
    assert 0.05 < void.float().mean() < 0.95
    assert torch.equal(grey & void, grey)
    rim = void & ~grey  # bilinear reads half a pixel further than nearest
    assert rim.sum() < 0.1 * void.sum()


def test_half_the_scale_leaves_a_quarter_of_the_area_and_a_mirrored_edge_continues_it(masks):
    _, moved = augment(coloured(masks), masks, seeded(), 40, scale=(0.5, 0.5))
    inside = (moved != VOID).sum((1, 2))
    assert ((inside >= 19 * 19) & (inside <= 21 * 21)).all()
    images, moved = augment(coloured(masks), masks, seeded(), 80, scale=(0.5, 0.5), edge="mirror")
    assert (moved != VOID).all()
    assert_aligned(images, moved, 0.6)


def test_without_scale_and_rotation_a_picture_stays_or_is_mirrored(masks):
    pictures = coloured(masks)
    images, moved = augment(pictures, masks, seeded(), 40)
    outcomes = []
    for image, mask, picture, before in zip(images, moved, pictures / 255, masks, strict=True):
        mirrored = not torch.equal(mask, before.long())
        outcomes.append(mirrored)
        assert torch.equal(mask, before.flip(-1).long() if mirrored else before.long())
        torch.testing.assert_close(image, picture.flip(-1) if mirrored else picture, atol=1e-5, rtol=0)
    assert 3 < sum(outcomes) < 13  # a fair coin


def test_colour_changes_no_mask_and_every_picture_in_its_own_way(masks):
    plain, masks_plain = augment(coloured(masks), masks, seeded(), 40)
    jittered, masks_jittered = augment(coloured(masks), masks, seeded(), 40, colour=1.0)
    assert torch.equal(masks_plain, masks_jittered)
    change = (jittered - plain).abs().mean((1, 2, 3))
    assert (change > 0.005).all() and change.unique().numel() == len(masks)


def test_erasing_fills_one_rectangle_with_grey_and_leaves_the_rest():
    images = torch.rand(8, 3, 40, 40, generator=seeded()) * 0.4
    for before, after in zip(images, erase_rectangle(images, seeded(), 1.0), strict=True):
        changed = (before != after).any(0)
        rows, columns = changed.any(1), changed.any(0)
        assert 0 < changed.sum() < 0.3 * 40 * 40
        assert torch.equal(changed, rows[:, None] & columns[None])
        assert (after[:, changed] == 0.5).all()
    assert torch.equal(erase_rectangle(images, seeded(), 0.0), images)


def test_normalise_subtracts_the_mean_and_divides_by_the_deviation_of_every_channel():
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    mean, std = (0.5, 0.1, 0.0), (0.25, 0.1, 2.0)
    expected = torch.tensor([-2.0, 1.0, 0.5]).view(1, 3, 1, 1)
    torch.testing.assert_close(normalise(images, mean, std), expected)
    torch.testing.assert_close(normalise(images.float() / 255, mean, std), expected)


# ------------------------------------------------------------------- animals cut out, on other backgrounds


def animals(count: int = 6, side: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures of an animal in its class's colour and with a void rim on a blue background, and their masks."""
    masks = torch.zeros(count, side, side, dtype=torch.uint8)
    for index in range(count):
        top, left = 8 + 3 * index, 30 - 4 * index
        masks[index, top - 3 : top + 27, left - 3 : left + 21] = VOID
        masks[index, top : top + 24, left : left + 18] = 1 + index % 2
    return coloured(torch.where(masks == VOID, 0, masks)), masks


@pytest.mark.parametrize("seed", range(4))
def test_pasted_pixels_carry_the_label_of_their_animal(seed, monkeypatch):
    for name, value in (("SHARE", (0.05, 0.5)), ("PLAIN", 0.0), ("HIDE", 0.0)):
        monkeypatch.setattr(paste, name, value)
    images, masks = compose(*animals(), seeded(seed), 80, 12)
    assert_aligned(images.masked_fill((masks == VOID)[:, None], 0.5), masks, 0.3)
    assert {1, 2, VOID} <= set(masks.unique().tolist())


def test_what_lies_over_an_animal_is_background(monkeypatch):
    monkeypatch.setattr(paste, "HIDE", 0.0)
    _, free = compose(*animals(), seeded(), 80, 12)
    monkeypatch.setattr(paste, "HIDE", 1.0)
    _, hidden = compose(*animals(), seeded(), 80, 12)
    changed = free != hidden
    assert changed.any((1, 2)).sum() > 6
    assert (hidden[changed] == 0).all()


def test_without_an_animal_a_composition_is_background():
    images, masks = animals()
    composed, labels = compose(images, torch.zeros_like(masks), seeded(), 40, 5)
    assert composed.shape == (5, 3, 40, 40) and composed.isfinite().all()
    assert (labels == 0).all()


@pytest.mark.parametrize("options", [{}, {"paste": 0.5, "edge": "mirror"}])
def test_the_same_seed_gives_the_same_batch_and_another_seed_another(masks, options):
    options = {"scale": (0.7, 1.8), "rotation": 15.0, "colour": 1.0, "erase": 0.5, **options}
    one, same, other = (augment(coloured(masks), masks, seeded(s), 40, **options) for s in (7, 7, 8))
    assert torch.equal(one[0], same[0]) and torch.equal(one[1], same[1])
    assert not torch.equal(one[0], other[0]) and not torch.equal(one[1], other[1])
    assert one[0].min() >= 0 and one[0].max() <= 1
    assert set(one[1].unique().tolist()) <= {0, 1, 2, VOID}
