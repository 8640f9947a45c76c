"""Corrupted pictures: each perturbation by hand, the same for every model, and a table that is never stale."""

import os
import shutil

import numpy as np
import pytest
from conftest import run_here
from scipy import ndimage

from experiments import robustness
from experiments.robustness import (
    PERTURBATIONS,
    black_square,
    blur,
    brightness,
    contrast,
    gaussian_noise,
    read_perturbed,
    salt_and_pepper,
)
from utils.errors import UserError
from utils.files import read_csv
from utils.inputs.layouts import list_samples
from utils.inputs.pictures import read_sample, rng_of


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_levels_begin_with_no_change_grow_and_are_the_same_for_every_model(name, image):
    _, levels, perturb = PERTURBATIONS[name]
    before = image.copy()
    corrupted = [perturb(image, level, rng_of("pug_1")) for level in levels]
    assert len(levels) == 10 and all(x.dtype == np.uint8 and x.shape == image.shape for x in corrupted)
    assert np.array_equal(corrupted[0], image) and np.array_equal(image, before)  # the picture itself is left alone
    changes = [np.abs(picture.astype(float) - image).mean() for picture in corrupted]
    assert all(a < b for a, b in zip(changes, changes[1:], strict=False))
    assert np.array_equal(corrupted[-1], perturb(image, levels[-1], rng_of("pug_1")))
    if name in ("Gaussian noise", "black square", "salt and pepper"):
        assert not np.array_equal(corrupted[-1], perturb(image, levels[-1], rng_of("pug_2")))


def test_the_blur_is_the_binomial_kernel_with_a_reflected_border(image):
    kernel = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16
    channel = image[..., 0].astype(float)
    for _ in range(3):
        channel = ndimage.convolve(channel, kernel, mode="mirror")
    assert np.abs(blur(image, 3, None)[..., 0] - channel).max() <= 0.5001


def test_values_are_clipped_at_0_and_255_never_wrapped():
    ramp = np.array([[[0, 10, 250]]], np.uint8)
    assert brightness(ramp, 45, None).tolist() == [[[45, 55, 255]]]
    assert brightness(ramp, -45, None).tolist() == [[[0, 0, 205]]]  # brightness down subtracts
    assert contrast(ramp, 1.25, None).tolist() == [[[0, 12, 255]]]  # 12.5 rounds to even
    assert contrast(ramp, 0.1, None).tolist() == [[[0, 1, 25]]]
    white = np.full((50, 50, 3), 255, np.uint8)
    assert gaussian_noise(white, 18, rng_of("a")).min() > 150


def test_noise_square_and_pepper_are_as_strong_as_they_say():
    grey = np.full((300, 300, 3), 128, np.uint8)
    noise = gaussian_noise(grey, 18, rng_of("a")).astype(float) - 128
    assert abs(noise.std() - 18) < 0.2 and abs(noise.mean()) < 0.2
    salted = salt_and_pepper(grey, 0.18, rng_of("a"))
    white, black = (salted[..., 0] == 255).mean(), (salted[..., 0] == 0).mean()
    assert abs(white - 0.09) < 0.005 and abs(black - 0.09) < 0.005 and set(np.unique(salted)) == {0, 128, 255}
    assert (salted == salted[..., :1]).all()  # in all channels
    corners = set()
    for number in range(200):  # wholly inside, anywhere
        rows, columns = np.nonzero((black_square(grey[:60, :80], 45, rng_of(str(number))) == 0).all(2))
        assert len(rows) == 45 * 45 and np.ptp(rows) == np.ptp(columns) == 44
        corners.add((rows.min(), columns.min()))
    tops, lefts = zip(*corners, strict=True)
    assert (min(tops), max(tops)) == (0, 15) and max(lefts) >= 34 and min(lefts) <= 1
    assert (black_square(grey[:20, :80], 45, rng_of("a")) == 0).all(2).sum() == 20 * 20  # a picture smaller than it


def test_a_sample_is_the_plain_one_at_level_zero_and_has_its_own_noise_else(oxford_root):
    first, second, *_ = list_samples(oxford_root, "test")
    image, mask = read_sample(first)
    same, its_mask = read_perturbed("Gaussian noise", 0, first)
    assert np.array_equal(same, image) and np.array_equal(its_mask, mask)
    assert np.array_equal(read_perturbed("brightness down", -45, first)[0], brightness(image, -45, None))
    noisy = [read_perturbed("salt and pepper", 0.18, sample)[0] for sample in (first, first, second)]
    assert np.array_equal(noisy[0], noisy[1]) and not np.array_equal(noisy[0][:40, :40], noisy[2][:40, :40])


def test_lines_are_measured_once_and_again_for_a_row_that_was_trained_since(
    trained, oxford_root, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained / "unet", tmp_path / "checkpoints" / "unet")
    (tmp_path / "README.md").write_text("<!-- robustness -->\n<!-- /robustness -->\n")
    two = ("--PERTURB=contrast down,black square", "--LEVELS=0,9")

    def lines(*options: str) -> list[dict[str, str]]:
        run_here(robustness, f"--DATA_ROOT={oxford_root}", "--ROWS=UNET,CLIP", "--PICTURES=5", *options)
        return read_csv("results/robustness.csv")

    first = lines(*two)
    printed = capsys.readouterr().out
    assert "CLIP is left out" in printed and "train_clip.py" in printed
    measured = [("contrast down", "1"), ("contrast down", "0.1"), ("black square", "0"), ("black square", "45")]
    assert [(line["perturbation"], line["level"]) for line in first] == measured
    assert {(line["model"], line["images"]) for line in first} == {("UNET", "5")}
    assert first[0]["mdice"] == first[2]["mdice"] > first[1]["mdice"]  # level zero once; nearly black is harder

    table = tmp_path / "results" / "robustness.csv"
    table.write_text(table.read_text().replace(first[1]["mdice"], "0.1234"))  # to see which lines are scored again
    more = lines("--LEVELS=0,9", "--README=README.md")
    assert len(more) == 16 and "0.1234" in {line["mdice"] for line in more}
    assert (tmp_path / "images" / "robustness.png").exists()
    assert "0.1234" in (tmp_path / "README.md").read_text()
    later = table.stat().st_mtime + 10
    os.utime(tmp_path / "checkpoints" / "unet" / "best.safetensors", (later, later))
    assert lines(*two) == first
    for wrong, message in (("--PERTURB=rain", "PERTURB = 'rain'"), ("--LEVELS=10", "LEVELS = 10")):
        with pytest.raises(UserError, match=message):
            lines(wrong)
