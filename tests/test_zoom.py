"""The closer look: crops of parts, the mean of both looks, one class per part, and the layer that says which."""

import numpy as np
import pytest
import torch
from conftest import run_here
from sklearn.linear_model import LogisticRegression
from torch import nn

import evaluate
import train_clip
import train_pointclip
from models.clip import CLIPCNN
from utils.checkpoint import load, save
from utils.classes import PETS
from utils.errors import UserError
from utils.files import read_csv
from utils.inputs.pictures import read_image
from utils.rows import by_class, load_row
from utils.rows.by_class import ByClass
from utils.rows.closer_look import look_closer
from utils.rows.row import squash
from utils.training.naming import fit_layer

CPU = torch.device("cpu")


def red_is_found(images: torch.Tensor) -> torch.Tensor:
    """Probabilities (N, 3, S, S): where a picture is red it is a cat with .6 and a dog with .3."""
    red = (images[:, :1] > 100).float()
    return red * torch.tensor([0.1, 0.6, 0.3])[:, None, None] + (1 - red) * torch.tensor([0.9, 0.1, 0])[:, None, None]


def one_animal() -> np.ndarray:
    image = np.zeros((100, 120, 3), np.uint8)
    image[40:60, 30:60] = 255, 0, 0
    return image


def test_a_part_gets_the_one_class_of_its_crop_however_much_of_the_picture_it_fills():
    calls = []

    def look(crops):
        calls.append(len(crops))
        images = squash(crops, 60, CPU)
        whole = len(calls) == 1
        return red_is_found(images).log(), torch.tensor([[1.0, 0.0] if whole else [0.0, 1.0]]).repeat(len(images), 1)

    full, empty = np.full((40, 40, 3), (255, 0, 0), np.uint8), np.zeros((30, 50, 3), np.uint8)
    one, full, empty = look_closer(look, [one_animal(), full, empty])
    assert calls == [3, 1, 1]  # nothing in the third picture
    found = one.exp()
    assert found[1, 45:55, 35:55].max() < 1e-6  # a cat in the whole picture, a dog in its crop
    torch.testing.assert_close(found[2, 50, 45], torch.tensor(0.9))
    assert set(found.argmax(0).unique().tolist()) == {0, 2}
    assert full.argmax(0).unique().tolist() == [2] and not empty.argmax(0).any()


def test_the_layer_is_scikit_learn_s_balanced_logistic_regression():
    generator = torch.Generator().manual_seed(0)
    targets = (torch.rand(60, generator=generator) < 0.3).long()
    inputs = torch.randn(60, 12, generator=generator) + 0.7 * targets[:, None] + 3
    layer = nn.Linear(12, 2)
    fit_layer(layer, inputs, targets, 0.05)
    # With two outputs that share the penalty, each has half of the difference: twice the strength for the one output.
    other = LogisticRegression(C=0.05 * 2, class_weight="balanced", max_iter=1000, tol=1e-8)
    other.fit(inputs - inputs.mean(0), targets)
    expected = torch.from_numpy(other.decision_function(inputs - inputs.mean(0))).float()
    with torch.no_grad():
        difference = layer(inputs).diff(dim=1)[:, 0]
    assert ((difference > 0) == (expected > 0)).float().mean() > 0.95
    assert torch.corrcoef(torch.stack([difference, expected]))[0, 1] > 0.999


SMALL = ("--IMAGE_SIZE=32", "--VIEW_SIZE=32", "--EPOCHS=1", "--BATCH_SIZE=8", "--WIDTHS=4,8,8,16", "--CHECKPOINTS=runs")


@pytest.mark.parametrize(("scales", "zoom"), [((1.0,), True), ((1.0, 2.0), True), ((1.0,), False), ((1.0, 2.0), False)])
def test_a_class_map_is_what_the_row_answers_at_all_scales_and_for_mirrored_pictures(oxford_root, scales, zoom):
    torch.manual_seed(0)
    model = CLIPCNN("tiny", freeze_encoder=False, name_parts=True).eval()
    sides = []
    model.encoder.register_forward_pre_hook(lambda module, inputs: sides.append(inputs[0].shape[-1]))
    row = ByClass("CLIP", model, CPU, 32, (0.5,) * 3, (0.5,) * 3, PETS, scales=scales, zoom=zoom, flip=True)
    image = read_image(next((oxford_root / "images").iterdir()))
    found = row.class_map(image)
    torch.testing.assert_close(found.sum(0), torch.ones(image.shape[:2]))
    ids = row.segment(image).ids
    assert np.array_equal(found.argmax(0).numpy(), ids)
    assert np.array_equal(row.segment(image[:, ::-1].copy()).ids[:, ::-1], ids)


def test_a_class_map_lies_where_the_row_computes_although_the_closer_look_works_on_the_cpu(monkeypatch):
    monkeypatch.setattr(by_class, "look_closer", lambda see, images: iter([torch.zeros(3, 4, 4)]))
    row = ByClass("CLIP", None, torch.device("meta"), 32, (0.5,) * 3, (0.5,) * 3, PETS, zoom=True)
    assert row.class_map(one_animal()).device == row.device


@pytest.mark.slow
def test_training_fits_the_names_and_the_checkpoint_says_what_evaluate_will_find(
    oxford_root, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    data = f"--DATA_ROOT={oxford_root}"
    run_here(train_clip, data, "--ENCODER=tiny", "--ZOOM=True", *SMALL)
    content = load("runs/clip/best.safetensors")
    assert f"score with crops {content['score']:.4f}" in capsys.readouterr().out
    row = load_row("CLIP", "runs", CPU)
    assert row.zoom and row.model.name_layer.weight.abs().max() > 0
    assert not load_row("CLIP", "runs", CPU, zoom=False).zoom
    for zoom, scales in ((True, "1 zoom"), (False, "1")):
        run_here(evaluate, data, "--CHECKPOINTS=runs", "--ROWS=CLIP", f"--ZOOM={zoom}", "--SPLIT=val")
        line = read_csv("results/results.csv")[-1]
        assert line["scales"] == scales and (not zoom or abs(float(line["miou"]) - content["score"]) < 2e-4)


@pytest.mark.slow
def test_a_fine_tuned_encoder_is_in_its_checkpoint_and_a_row_by_click_shares_it(
    oxford_root, tiny_clip_folder, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    data, encoder = f"--DATA_ROOT={oxford_root}", tmp_path / "encoder"
    encoder.symlink_to(tiny_clip_folder)
    tune = ("--FREEZE_ENCODER=False", "--ZOOM=True", "--ROW=CLIP fine-tuned")
    run_here(train_clip, data, f"--ENCODER={encoder}", *tune, *SMALL)
    run_here(train_clip, data, "--ENCODER=tiny", *SMALL)
    run_here(train_pointclip, data, *SMALL)
    run_here(train_pointclip, data, "--START=pointclip", "--ROW=went on", *SMALL, "--VIEW_SIZE=48")
    went_on = load("runs/went on")
    assert (went_on["encoder_from"], went_on["image_size"]) == ("clip_finetuned", 48)
    with pytest.raises(UserError, match="no pretrained encoder that was fine-tuned"):
        run_here(train_pointclip, data, "--ENCODER=runs/clip/best.safetensors", *SMALL)
    encoder.unlink()  # from here on nothing but the checkpoints is there
    tuned, clicked = (load_row(name, "runs", CPU) for name in ("CLIP fine-tuned", "PointCLIP"))
    assert tuned.encoder == clicked.encoder and tuned.encoder.endswith(", fine-tuned")
    assert not any(name.startswith("encoder.") for name in load("runs/pointclip/best.safetensors")["weights"])
    assert clicked.class_row.name == "CLIP fine-tuned"
    assert clicked.class_row.model.encoder.vit is clicked.model.encoder.vit
    alone = load_row("PointCLIP", "runs", CPU, zoom=False)
    decoder = sum(p.numel() for name, p in tuned.model.named_parameters() if not name.startswith("encoder."))
    assert alone.class_row is None and clicked.params_m * 1e6 == pytest.approx(alone.params_m * 1e6 + decoder)
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(tuned.model.encoder(images), clicked.model.encoder(images))
    image = read_image(next((oxford_root / "images").iterdir()))
    assert clicked.segment(image, [(20, 20, 1)]).ids.shape == tuned.segment(image).ids.shape == image.shape[:2]
    content = load("runs/clip_finetuned/best.safetensors")
    next(value for name, value in content["weights"].items() if name.startswith("encoder.")).add_(1)
    save(content, "runs/clip_finetuned/best.safetensors")
    with pytest.raises(
        UserError, match="pointclip/best.safetensors was trained on another encoder than .*clip_finetuned"
    ):
        load_row("PointCLIP", "runs", CPU)
    (tmp_path / "runs" / "clip_finetuned" / "best.safetensors").unlink()
    with pytest.raises(UserError, match="clip_finetuned"):
        load_row("PointCLIP", "runs", CPU)
