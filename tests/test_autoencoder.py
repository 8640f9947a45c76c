"""The autoencoder: what it hides, what its loss counts, what stage 2 takes over, and the script as it is run."""

import shutil

import pytest
import torch
from conftest import run_here
from PIL import Image

import train_autoencoder
from train_autoencoder import choose_labelled
from utils import checkpoint
from utils.errors import UserError
from utils.files import read_csv

TINY = (
    "--IMAGE_SIZE=32 --SMALL_SIZE=32 --PATCH=8 --WIDTH=4 --DEPTH=3 --PRETRAIN_EPOCHS=2 --EPOCHS=2 --BATCH_SIZE=8 "
    "--EMA_DECAY=0.5 --PRECISION=fp32 --DEVICE=cpu"
).split()


def test_a_share_of_the_patches_is_hidden_and_the_rest_is_seen(monkeypatch):
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)) + 1
    monkeypatch.setattr(train_autoencoder, "PATCH", 8)
    for ratio, expected in ((0, 0), (0.5, 8), (0.6, 10)):  # of 16 patches
        monkeypatch.setattr(train_autoencoder, "MASK_RATIO", ratio)
        hidden = train_autoencoder.hide_patches(images, torch.Generator().manual_seed(0)) == 0
        patches = hidden.unflatten(2, (4, 8)).unflatten(4, (4, 8)).float().mean((1, 3, 5))  # (N, 4, 4)
        assert patches.unique().tolist() == [0, 1][: 1 + (expected > 0)]
        assert patches.sum((1, 2)).tolist() == [expected] * 3
        assert not expected or not torch.equal(patches[0], patches[1])
        seen = train_autoencoder.hide_patches(images, torch.Generator().manual_seed(0))
        assert torch.equal(seen[~hidden], images[~hidden])


def test_the_loss_is_that_of_whole_pictures():
    images = torch.rand(1, 3, 32, 32)
    loss = train_autoencoder.reconstruction_loss(lambda parts: images + 2, images, torch.Generator())
    assert loss.item() == pytest.approx(4)


# ------------------------------------------------------------------------------------------------ stage 2


def test_labels_are_a_share_that_follows_from_the_seed():
    chosen = choose_labelled(121, 10, seed=0)
    assert len(set(chosen)) == 12 and set(chosen) < set(range(121))
    assert chosen == choose_labelled(121, 10, seed=0) != choose_labelled(121, 10, seed=1)
    assert sorted(choose_labelled(121, 100, seed=0)) == list(range(121)) and len(choose_labelled(9, 1, seed=0)) == 1


# ------------------------------------------------------------------------------------------------- script


@pytest.fixture
def train(oxford_root, tmp_path):
    """train(name, *arguments): the script in this process; returns the folder of its files."""

    def run(name: str, *arguments: str):
        run_here(train_autoencoder, f"--DATA_ROOT={oxford_root}", *TINY, f"--CHECKPOINTS={tmp_path / name}", *arguments)
        return tmp_path / name / "autoencoder"

    return run


def same_weights(left, right) -> bool:
    ours, theirs = (checkpoint.load(folder / "last.pt")["weights"] for folder in (left, right))
    return ours.keys() == theirs.keys() and all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_stages_one_by_one_and_after_an_interruption_give_what_both_at_once_give(train, tmp_path):
    both = train("both")
    pictures = {file.name: Image.open(file) for file in (both / "pretraining").glob("*.png")}
    assert pictures.keys() == {"curves.png", "progress.png"} and pictures["progress.png"].size > (300, 300)
    assert same_weights(both, train("single", f"--START={both / 'pretraining'}"))
    other = train("other", "--SEED=1")
    shutil.copytree(both.parent, tmp_path / "stopped")
    shutil.rmtree(tmp_path / "stopped" / "autoencoder" / "pretraining")
    shutil.copytree(other / "pretraining", tmp_path / "stopped" / "autoencoder" / "pretraining")
    # pretrained anew: what stage 2 had made of the old file is no start
    assert same_weights(other, train("stopped", "--SEED=1", "--RESUME=True")) and not same_weights(both, other)


def test_the_variants_differ_as_they_say(train, tmp_path):
    full, scratch = train("full"), train("scratch", "--FINETUNE=scratch")
    assert not (scratch / "pretraining").exists()
    assert len(read_csv(scratch / "log.csv")) == 4  # stage 1's epochs are added: the same budget
    pretrained = f"--START={full / 'pretraining'}"
    frozen = train("frozen", pretrained, "--FINETUNE=frozen")
    few = train("few", pretrained, "--LABELS_PERCENT=10")
    classic = train("classic", "--MASK_RATIO=0")
    assert not same_weights(full / "pretraining", classic / "pretraining")
    start = checkpoint.load(full / "pretraining" / "best.safetensors")["weights"]
    end = {folder: checkpoint.load(folder / "best.safetensors")["weights"] for folder in (full, frozen, few)}
    kernel = "encoder.levels.2.0.conv1.0.weight"
    for name in start:
        if name.startswith("encoder.") and name.endswith("weight"):  # the statistics are those of whole pictures
            assert torch.equal(end[frozen][name], start[name])
    assert not torch.equal(end[frozen]["decoder.reduce.0.weight"], start["decoder.reduce.0.weight"])
    assert not torch.equal(end[full][kernel], start[kernel]) and not torch.equal(end[few][kernel], end[full][kernel])
    for name in (kernel, "decoder.merge.0.conv1.0.weight"):  # nearer to stage 1's than random weights would be
        for folder in (full, few):
            assert (end[folder][name] - start[name]).float().norm() < 0.5 * start[name].float().norm()


def test_a_start_of_another_network_is_refused(train):
    folder = train("run")
    with pytest.raises(UserError, match=r"best.safetensors holds another architecture"):
        train("run", f"--START={folder}", "--DEPTH=4")


def test_stage_1_does_not_look_at_the_masks(train, oxford_copy):
    before = train("before", f"--DATA_ROOT={oxford_copy}")
    for file in (oxford_copy / "annotations" / "trimaps").glob("*.png"):
        size = Image.open(file).size
        Image.new("L", size, 2).save(file)
    after = train("after", f"--DATA_ROOT={oxford_copy}")
    assert same_weights(before / "pretraining", after / "pretraining")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--FINETUNE=half"], "FINETUNE = 'half': must be one of"),
        (["--SMALL_SIZE=30"], "SMALL_SIZE = 30: must be a multiple of PATCH = 8"),
        (["--LABELS_PERCENT=0"], "LABELS_PERCENT = 0"),
    ],
)
def test_constants_that_make_no_sense_are_refused(train, arguments, message):
    with pytest.raises(UserError, match=message):
        train("refused", *arguments)
