"""The mean of several trainings: its weights, its score, and what cannot be averaged."""

import pytest
import torch
from conftest import REPOSITORY, run_here

import train_clip
import train_unet
from utils.checkpoint import load
from utils.errors import UserError
from utils.inputs.dataset import SegmentationDataset
from utils.rows import load_model, load_row
from utils.scoring import averaging
from utils.scoring.by_class import validate

CPU = torch.device("cpu")
TINY = "--IMAGE_SIZE=32 --EPOCHS=1 --BATCH_SIZE=8 --EMA_DECAY=0.5 --PRECISION=fp32 --DEVICE=cpu".split()
UNET = ["--SMALL_SIZE=24", "--WIDTH=4", "--DEPTH=2", *TINY]


@pytest.fixture
def two_unets(oxford_root, tmp_path) -> list[str]:
    for seed in (0, 1):
        run_here(
            train_unet, f"--DATA_ROOT={oxford_root}", *UNET, f"--CHECKPOINTS={tmp_path / str(seed)}", f"--SEED={seed}"
        )
    return [str(tmp_path / str(seed) / "unet" / "best.safetensors") for seed in (0, 1)]


def test_the_mean_has_the_mean_weights_and_its_own_score(oxford_root, tmp_path, two_unets):
    out = tmp_path / "unet" / "best.safetensors"
    run_here(averaging, f"--DATA_ROOT={oxford_root}", "--DEVICE=cpu", str(out), *two_unets)
    model, content = load_model(out, "unet", CPU)
    first, second = (load(path) for path in two_unets)
    for name, value in content["weights"].items():
        expected = (first["weights"][name].float() + second["weights"][name].float()) / 2
        torch.testing.assert_close(value.float(), expected.to(value.dtype).float(), rtol=1e-3, atol=1e-6)
    val = SegmentationDataset(oxford_root, "val", 32)
    assert content["score"] == pytest.approx(validate(model, val, CPU, content["mean"], content["std"])["score"])
    assert [constants["SEED"] for constants in content["averaged"]] == [0, 1]
    assert [path.name for path in out.parent.iterdir()] == ["best.safetensors"]


def test_a_row_with_an_encoder_gets_a_new_layer_for_its_closer_look(oxford_root, tmp_path):
    options = [f"--DATA_ROOT={oxford_root}", "--ENCODER=tiny", "--AUGMENT_FEATURES=False", "--WIDTHS=4,8", *TINY]
    sources = []
    for seed in (0, 1):
        run_here(train_clip, *options, f"--CHECKPOINTS={tmp_path / str(seed)}", f"--SEED={seed}")
        sources.append(str(tmp_path / str(seed) / "clip" / "best.safetensors"))
    out = tmp_path / "mean" / "clip" / "best.safetensors"
    run_here(averaging, f"--DATA_ROOT={oxford_root}", "--DEVICE=cpu", str(out), *sources)
    layer = load_row("CLIP", tmp_path / "mean", CPU).model.name_layer.weight
    assert layer.abs().max() > 0
    assert not any(torch.allclose(layer, load(path)["weights"]["name_layer.weight"].float()) for path in sources)


def test_what_does_not_fit_is_refused_and_nothing_is_written(oxford_root, tmp_path, two_unets):
    run_here(train_unet, f"--DATA_ROOT={oxford_root}", *UNET, f"--CHECKPOINTS={tmp_path / 'wide'}", "--WIDTH=6")
    wide, out = tmp_path / "wide" / "unet" / "best.safetensors", tmp_path / "out" / "best.safetensors"
    with pytest.raises(UserError, match=f"{wide} holds another model than {two_unets[0]}"):
        run_here(averaging, str(out), two_unets[0], str(wide))
    with pytest.raises(UserError, match="no row by class"):
        run_here(averaging, str(out), *2 * [str(REPOSITORY / "checkpoints" / "pointclip" / "best.pt")])
    with pytest.raises(UserError, match="two or more checkpoints"):
        run_here(averaging, str(out), two_unets[0])
    assert not out.exists()
