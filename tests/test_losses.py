"""The loss: numbers by hand, and no influence of void pixels and absent classes."""

import math

import pytest
import torch

from utils.classes import VOID
from utils.training.losses import segmentation_loss, soft_dice_loss


def picture(rows: list[list[float]]) -> torch.Tensor:
    """One probability triple per pixel of a line -> logits (1, 3, 1, W)."""
    return torch.tensor(rows).log().T[None, :, None]


# Two pixels, truth background and cat, each right with probability .5.
LOGITS = picture([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25]])
MASKS = torch.tensor([[[0, 1]]])


def test_the_loss_by_hand_is_cross_entropy_plus_soft_dice_without_the_absent_class():
    # per class: overlap .5, probabilities .75, truth 1 -> Dice 1 / 1.75; the dog does not occur
    assert soft_dice_loss(LOGITS, MASKS).item() == pytest.approx(1 - 1 / 1.75)
    assert segmentation_loss(LOGITS, MASKS).item() == pytest.approx(math.log(2) + 1 - 1 / 1.75)
    with_void = torch.cat([LOGITS, picture([[0.01, 0.01, 0.98]])], 3)
    assert segmentation_loss(with_void, torch.tensor([[[0, 1, VOID]]])).item() == pytest.approx(
        segmentation_loss(LOGITS, MASKS).item()
    )


def test_soft_dice_is_that_of_the_batch_not_the_mean_of_its_pictures():
    logits = torch.cat([LOGITS, picture([[0.8, 0.1, 0.1], [0.8, 0.1, 0.1]])])
    masks = torch.cat([MASKS, torch.tensor([[[0, 0]]])])
    background = 2 * (0.5 + 0.8 + 0.8) / (0.5 + 0.25 + 1.6 + 3)
    cat = 2 * 0.5 / (0.25 + 0.5 + 0.2 + 1)
    assert soft_dice_loss(logits, masks).item() == pytest.approx(1 - (background + cat) / 2)


def test_the_gradient_is_exactly_zero_at_void_and_nowhere_else():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 9, 7, generator=generator, requires_grad=True)
    masks = torch.randint(0, 3, (2, 9, 7), generator=generator)
    void = torch.rand(masks.shape, generator=generator) < 0.3
    segmentation_loss(logits, masks.masked_fill(void, VOID)).backward()
    assert torch.equal((logits.grad != 0).any(1), ~void)


def test_a_batch_that_is_void_everywhere_gives_zero_and_a_zero_gradient():
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = segmentation_loss(logits, torch.full((2, 4, 4), VOID))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_logits_of_another_size_are_resized_to_the_masks():
    masks = torch.tensor([[0, 1]]).repeat_interleave(4, 1).repeat(1, 8, 1)  # left half background, right half cat
    coarse = torch.zeros(1, 3, 2, 2)
    coarse[:, 0, :, 0] = coarse[:, 1, :, 1] = 30
    assert segmentation_loss(coarse, masks).item() < segmentation_loss(coarse.flip(-1), masks).item() - 5
