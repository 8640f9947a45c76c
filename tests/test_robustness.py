"""evaluate.py --ROBUSTNESS=True: what it scores is what the perturbations make, and it never scores a line twice."""

import csv
import os

import numpy as np
import pytest
import torch
from experiments.perturbations import brightness

from experiments.robustness import PerturbedDataset
from utils.inputs.dataset import SegmentationDataset
from utils.inputs.layouts import list_samples
from utils.inputs.pictures import read_image, resize_image, rng_of


def test_a_perturbed_split_is_the_plain_one_at_level_zero_and_spoiled_before_resizing_else(oxford_root):
    samples = list_samples(oxford_root, "test")
    plain = SegmentationDataset(oxford_root, "test", 32)
    same = PerturbedDataset(samples, 32, "Gaussian noise", 0)
    assert len(same) == len(plain) == 8 and torch.equal(same[[0, 5]][0], plain[[0, 5]][0])
    dark = PerturbedDataset(samples, 32, "brightness down", -45)[[3]][0][0].movedim(0, -1).numpy()
    assert np.array_equal(dark, resize_image(brightness(read_image(samples[3].image), -45, None), 32))
    noisy = PerturbedDataset(samples, 32, "salt and pepper", 0.18)
    assert torch.equal(noisy[[2, 3]][0][1], noisy[[3]][0][0])  # neighbours in a batch change nothing
    assert rng_of("pug_1").random() == rng_of("pug_1").random()


@pytest.mark.slow
def test_lines_are_written_once_and_go_on_where_they_were_stopped(run_script, oxford_root, tmp_path):
    tiny = "--IMAGE_SIZE=32 --SMALL_SIZE=32 --WIDTH=8 --DEPTH=3 --EPOCHS=15 --BATCH_SIZE=7 --EMA_DECAY=0.9".split()
    root = f"--DATA_ROOT={oxford_root}"
    assert run_script("train_unet.py", root, *tiny).returncode == 0
    options = (root, "--ROBUSTNESS=True", "--ROWS=UNET,CLIP", "--PICTURES=5")
    (tmp_path / "README.md").write_text("<!-- robustness -->\n<!-- /robustness -->\n")

    def lines() -> list[dict[str, str]]:
        with open(tmp_path / "results" / "robustness.csv") as file:
            return list(csv.DictReader(file))

    few = run_script("evaluate.py", *options, "--PERTURB=contrast down,black square", "--LEVELS=0,9")
    assert few.returncode == 0, few.stderr
    assert "CLIP is left out" in few.stdout and "train_clip.py" in few.stdout
    first = lines()
    assert [(line["perturbation"], line["level"]) for line in first] == [
        ("contrast down", "1"),
        ("contrast down", "0.1"),
        ("black square", "0"),
        ("black square", "45"),
    ]
    assert {(line["model"], line["images"]) for line in first} == {("UNET", "5")}
    assert first[0]["mdice"] == first[2]["mdice"] > first[1]["mdice"]  # level zero once; nearly black is harder
    assert (tmp_path / "images" / "robustness.png").exists() and (tmp_path / "predictions" / "robustness.png").exists()

    csv_file = tmp_path / "results" / "robustness.csv"
    marked = csv_file.read_text().replace(first[1]["mdice"], "0.1234")  # to see which lines are scored again
    csv_file.write_text(marked)
    more = run_script("evaluate.py", *options, "--LEVELS=0,9", "--README=README.md")
    assert more.returncode == 0, more.stderr
    assert len(lines()) == 16 and lines()[7]["mdice"] == "0.1234"
    assert "0.1234" in (tmp_path / "README.md").read_text()
    later = csv_file.stat().st_mtime + 10
    os.utime(tmp_path / "checkpoints" / "unet" / "best.safetensors", (later, later))  # trained anew
    again = run_script("evaluate.py", *options, "--PERTURB=contrast down,black square", "--LEVELS=0,9")
    assert again.returncode == 0 and lines() == first

    for wrong, message in (("--PERTURB=rain", "PERTURB = 'rain'"), ("--LEVELS=10", "LEVELS = 10")):
        refused = run_script("evaluate.py", *options, wrong)
        assert refused.returncode == 1 and message in refused.stderr
