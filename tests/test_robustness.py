"""Corrupted pictures: each perturbation by hand, the same for every model, and a table that is never stale."""

import re

import numpy as np
import pytest
from conftest import run_here
from scipy import ndimage

from experiments import robustness
from experiments.robustness import PERTURBATIONS
from utils.errors import UserError
from utils.files import read_csv, write_csv
from utils.inputs.pictures import rng_of

IMAGE = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_levels_begin_with_no_change_grow_and_are_the_same_for_every_model(name):
    _, levels, perturb = PERTURBATIONS[name]
    before = IMAGE.copy()
    corrupted = [perturb(IMAGE, level, rng_of("pug_1")) for level in levels]
    assert len(levels) == 10 and all(x.dtype == np.uint8 and x.shape == IMAGE.shape for x in corrupted)
    assert np.array_equal(corrupted[0], IMAGE) and np.array_equal(IMAGE, before)  # the picture itself is left alone
    changes = [np.abs(picture.astype(float) - IMAGE).mean() for picture in corrupted]
    assert all(a < b for a, b in zip(changes, changes[1:], strict=False))
    assert np.array_equal(corrupted[-1], perturb(IMAGE, levels[-1], rng_of("pug_1")))
    random = not np.array_equal(corrupted[-1], perturb(IMAGE, levels[-1], rng_of("pug_2")))
    assert random == (name in ("Gaussian noise", "black square", "salt and pepper"))


def test_the_blur_is_the_binomial_kernel_with_a_reflected_border():
    kernel = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16
    channel = IMAGE[..., 0].astype(float)
    for _ in range(3):
        channel = ndimage.convolve(channel, kernel, mode="mirror")
    assert np.abs(robustness.blur(IMAGE, 3, None)[..., 0] - channel).max() <= 0.5001


def test_values_are_clipped_at_0_and_255_never_wrapped():
    ramp = np.array([[[0, 10, 250]]], np.uint8)
    assert robustness.brightness(ramp, 45, None).tolist() == [[[45, 55, 255]]]
    assert robustness.brightness(ramp, -45, None).tolist() == [[[0, 0, 205]]]  # brightness down subtracts
    assert robustness.contrast(ramp, 1.25, None).tolist() == [[[0, 12, 255]]]  # 12.5 rounds to even
    assert robustness.contrast(ramp, 0.1, None).tolist() == [[[0, 1, 25]]]
    white = np.full((50, 50, 3), 255, np.uint8)
    assert robustness.gaussian_noise(white, 18, rng_of("a")).min() > 150


def test_a_row_is_measured_anew_and_lines_of_others_are_kept(trained, oxford_root, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (readme := tmp_path / "README.md").write_text("<!-- robustness -->\n<!-- /robustness -->\n")
    options = (f"--DATA_ROOT={oxford_root}", f"--CHECKPOINTS={trained}", "--PICTURES=5", "--LEVELS=0,9")
    run_here(robustness, *options, "--ROWS=UNET,CLIP", "--README=README.md")
    assert re.search("CLIP is left out: .*train_clip.py", capsys.readouterr().out)
    lines = read_csv("results/robustness.csv")
    measured = [(name, str(levels[place])) for name, (_, levels, _) in PERTURBATIONS.items() for place in (0, 9)]
    assert [(line["perturbation"], line["level"]) for line in lines] == measured
    assert {(line["model"], line["images"]) for line in lines} == {("UNET", "5")}
    assert len({line["mdice"] for line in lines[::2]}) == 1 and lines[7]["mdice"] < lines[6]["mdice"]  # nearly black
    assert f"| {lines[7]['mdice']} |" in readme.read_text() and (tmp_path / "images" / "robustness.png").exists()

    others = [{**lines[0], "data": "mine"}, {**lines[0], "model": "CLIP"}, {**lines[0], "images": "4", "model": "CLIP"}]
    write_csv([{**lines[0], "mdice": "?"}, *others], "results/robustness.csv")
    run_here(robustness, *options, "--ROWS=UNET")
    after = read_csv("results/robustness.csv")
    assert len(after) == 19 and all(line in after for line in (*lines, *others))
    with pytest.raises(UserError, match="ROWS = 'Unet'"):
        run_here(robustness, *options, "--ROWS=Unet")
    with pytest.raises(UserError, match="LEVELS = 10"):
        run_here(robustness, *options, "--LEVELS=10")
