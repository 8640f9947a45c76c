"""Scoring a model on a split: at the mask's own size, whatever the batches are."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import run_here
from torch import nn

import evaluate as evaluate_script
from utils.classes import PETS, VOID, named
from utils.files import read_csv
from utils.inputs.layouts import list_samples
from utils.inputs.pictures import read_mask
from utils.metrics import scores
from utils.rows.by_class import ByClass, look

CPU = torch.device("cpu")
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


class ByColour(nn.Module):
    """Logits from the colours that the pictures were drawn in: reddish is a cat, greenish a dog."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        redness = (images[:, 0] - images[:, 1]) * STD[0]
        return torch.stack([torch.full_like(redness, 0.2), redness, -redness], 1)


def test_every_pixel_that_is_not_void_is_counted_once_at_the_size_of_its_mask(oxford_root):
    samples, predictions = list_samples(oxford_root, "test"), {}
    row = ByClass("by colour", ByColour(), CPU, 32, MEAN, STD, PETS)

    def keep(index, ids, part):
        assert part == "" and index not in predictions
        predictions[index] = ids

    confusions = row.score(samples, on_prediction=keep, batch_size=3)
    assert confusions.shape == (8, 3, 3) and confusions.dtype == torch.int64
    assert torch.equal(confusions, row.score(samples, batch_size=100))
    masks = [read_mask(sample) for sample in samples]
    assert len({mask.shape for mask in masks}) > 1
    assert confusions.sum(2).tolist() == [[int((mask == c).sum()) for c in range(3)] for mask in masks]
    for index, mask in enumerate(masks):
        assert predictions[index].shape == mask.shape and predictions[index].dtype == np.uint8
        assert ((predictions[index] == mask) & (mask != VOID)).sum() == confusions[index].trace()
    assert scores(confusions, PETS.names)["miou"] > 0.9  # it knows the colours


def ids_of(logits: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """The answer of a row whose model gives these logits (C, h, w)."""
    row = ByClass("", lambda images: logits[None], CPU, 32, MEAN, STD, named([f"c{i}" for i in range(len(logits))]))
    return torch.from_numpy(row.segment(np.zeros((*size, 3), np.uint8)).ids)


def test_logits_are_resized_before_the_decision():
    logits = torch.tensor([[[0.0, 0.0]], [[3.0, -1.0]]])  # (2, 1, 2): the border between them is not in the middle
    assert ids_of(logits, (1, 8)).tolist() == [[1, 1, 1, 1, 1, 0, 0, 0]]
    assert ids_of(logits, (2, 2)).tolist() == [[1, 0], [1, 0]]


class RampToTheLeft(nn.Module):
    """Logits 0 and the first channel, plus a preference for the left that a mirror image takes away."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        ramp = torch.linspace(4, -4, images.shape[-1]).expand_as(images[:, 0])
        return torch.stack([torch.zeros_like(ramp), images[:, 0] + ramp], 1)


def test_flipping_and_scales_average_the_softmax_of_picture_and_mirror_image():
    images = torch.full((1, 3, 48, 48), 128, dtype=torch.uint8)
    plain = look(RampToTheLeft(), images, MEAN, STD)[0].softmax(1)
    flipped = look(RampToTheLeft(), images, MEAN, STD, flip=True)[0].softmax(1)
    torch.testing.assert_close(flipped, (plain + plain.flip(-1)) / 2)
    assert (plain - flipped).abs().max() > 0.4
    scales = look(RampToTheLeft(), images, MEAN, STD, sizes=(32, 48))[0].softmax(1)  # the second sees the mirror image
    torch.testing.assert_close(scales, flipped, atol=0.02, rtol=0)
    row = ByClass("ramp", RampToTheLeft(), CPU, 32, MEAN, STD, PETS, scales=(1, 1.4))
    assert row.sizes == [32, 48]  # multiples of its patches


def test_a_model_that_is_certain_stays_so_when_its_logits_are_resized():
    sure = torch.tensor([0.0, -500.0, -500.0]).view(1, 3, 1, 1).expand(1, 3, 4, 4)  # softmax underflows to 0
    ((logits,), _) = look(lambda images: sure, torch.zeros(1, 3, 4, 4, dtype=torch.uint8), MEAN, STD, flip=True)
    assert logits.isfinite().all() and (ids_of(logits, (9, 7)) == 0).all()


def test_what_is_scored_stays_when_a_later_row_fails(oxford_root, tmp_path, monkeypatch):
    def score(row, samples, about):
        if row.name == "CLIP":
            raise RuntimeError("out of memory")
        line = {"model": row.name, "flip": str(int(row.flip)), **about, "miou": "0.5"}
        return line, torch.ones(len(samples), 3, 3, dtype=torch.int64)

    rows = [SimpleNamespace(name=name, counted=PETS.names, prepare=str) for name in ("UNET", "CLIP")]
    monkeypatch.setattr(evaluate_script, "load_rows", lambda *about, **options: (rows, {}))
    monkeypatch.setattr(evaluate_script, "score", score)
    with pytest.raises(RuntimeError):
        run_here(evaluate_script, f"--DATA_ROOT={oxford_root}", f"--RESULTS={tmp_path}", "--FLIP=True")
    assert [line["flip"] for line in read_csv(tmp_path / "results.csv")] == ["0", "1"]
    assert len(read_csv(tmp_path / "per_image.csv")) == 8  # those without flip
