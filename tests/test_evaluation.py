"""Scoring a model on a split: at the mask's own size, whatever the batches are."""

import numpy as np
import pytest
import torch
from torch import nn

from utils.classes import PETS, VOID
from utils.inputs.dataset import SegmentationDataset
from utils.inputs.pictures import read_mask
from utils.metrics import scores
from utils.rows.by_class import ByClass, predictor, to_size

CPU = torch.device("cpu")
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


class ByColour(nn.Module):
    """Logits from the colours that the pictures were drawn in: reddish is a cat, greenish a dog."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        redness = (images[:, 0] - images[:, 1]) * STD[0]
        return torch.stack([torch.full_like(redness, 0.2), redness, -redness], 1)


def test_every_pixel_that_is_not_void_is_counted_once_at_the_size_of_its_mask(oxford_root):
    dataset, predictions = SegmentationDataset(oxford_root, "test", 32), {}
    row = ByClass("by colour", ByColour(), CPU, 32, MEAN, STD, PETS)

    def keep(index, ids, part):
        assert part == "" and index not in predictions
        predictions[index] = ids

    confusions = row.score(dataset, on_prediction=keep, batch_size=3)
    assert confusions.shape == (8, 3, 3) and confusions.dtype == torch.int64
    assert torch.equal(confusions, row.score(dataset, batch_size=100))
    masks = [read_mask(sample) for sample in dataset.samples]
    assert len({mask.shape for mask in masks}) > 1
    assert confusions.sum(2).tolist() == [[int((mask == c).sum()) for c in range(3)] for mask in masks]
    for index, mask in enumerate(masks):
        assert predictions[index].shape == mask.shape and predictions[index].dtype == np.uint8
        assert ((predictions[index] == mask) & (mask != VOID)).sum() == confusions[index].trace()
    assert scores(confusions, PETS.names)["miou"] > 0.9  # it knows the colours


def test_logits_are_resized_before_the_decision():
    logits = torch.tensor([[[0.0, 0.0]], [[3.0, -1.0]]])  # (2, 1, 2): the border between them is not in the middle
    assert to_size(logits, (1, 8)).tolist() == [[1, 1, 1, 1, 1, 0, 0, 0]]
    assert to_size(logits, (2, 2)).tolist() == [[1, 0], [1, 0]]


class RampToTheLeft(nn.Module):
    """Logits 0 and the first channel, plus a preference for the left that a mirror image takes away."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        ramp = torch.linspace(4, -4, images.shape[-1]).expand_as(images[:, 0])
        return torch.stack([torch.zeros_like(ramp), images[:, 0] + ramp], 1)


def test_flipping_averages_the_softmax_of_picture_and_mirror_image():
    images = torch.full((1, 3, 4, 6), 128, dtype=torch.uint8)
    plain = predictor(RampToTheLeft(), MEAN, STD)(images).softmax(1)
    flipped = predictor(RampToTheLeft(), MEAN, STD, flip=True)(images).softmax(1)
    torch.testing.assert_close(flipped, (plain + plain.flip(-1)) / 2)
    assert (plain - flipped).abs().max() > 0.4


class Certain(nn.Module):
    """A sure background everywhere: the softmax of the other classes underflows to 0."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.tensor([0.0, -500.0, -500.0]).view(1, 3, 1, 1).expand(len(images), 3, 4, 4)


def test_a_model_that_is_certain_stays_so_when_its_logits_are_resized():
    logits = predictor(Certain(), MEAN, STD, flip=True)(torch.zeros(1, 3, 4, 4, dtype=torch.uint8))
    assert logits.isfinite().all()
    assert (to_size(logits[0], (9, 7)) == 0).all()


class Thirds(nn.Module):
    """Knows nothing but the size of what it sees: small pictures are a cat, large ones a dog, the left less surely."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        ramp = torch.linspace(0, 1, images.shape[-1]).expand_as(images[:, 0])
        large = images.shape[-1] > 32
        return torch.stack([-ramp, ramp if not large else -ramp, ramp if large else -ramp], 1)


def test_scales_average_the_softmax_and_the_second_sees_the_mirror_image():
    images = torch.randint(0, 256, (2, 3, 48, 48), dtype=torch.uint8)
    logits = predictor(Thirds(), MEAN, STD, sizes=(32, 48))(images)
    assert logits.shape == (2, 3, 48, 48)
    cat, dog = logits[0, 1:, 0].exp()
    assert cat[0] < cat[-1] and dog[0] > dog[-1]  # the dog was seen in the mirror
    both = predictor(Thirds(), MEAN, STD, flip=True, sizes=(32, 48))(images)
    torch.testing.assert_close(both, both.flip(-1))
    one = predictor(Thirds(), MEAN, STD, sizes=(48,))(images)
    torch.testing.assert_close(one, Thirds()(images / 255))


def test_a_row_at_two_scales_takes_pictures_of_the_larger_one(oxford_root):
    row = ByClass("thirds", Thirds(), CPU, 32, MEAN, STD, PETS, scales=(1, 1.4))
    assert row.sizes == [32, 48] and row.view_size == 48
    with pytest.raises(ValueError, match="48"):
        row.score(SegmentationDataset(oxford_root, "test", 32))
    assert row.score(SegmentationDataset(oxford_root, "test", 48)).sum() > 0
    assert row.segment(np.zeros((20, 30, 3), np.uint8)).ids.shape == (20, 30)
