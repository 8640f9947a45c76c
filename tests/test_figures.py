"""Diagrams say what the modules return; figures are drawn from what is there, and what is missing is told."""

import csv

import numpy as np
import pytest
from PIL import Image

from experiments.diagrams import DIAGRAMS, clip_boxes, u_net
from models.unet import UNet


def test_the_shapes_in_the_boxes_are_those_of_the_modules():
    boxes, arrows = u_net(UNet(width=8, depth=3), "picture", "logits")
    texts = [box.text.splitlines()[-1] for box in boxes.values()]
    down, up = ["8 × 80 × 80", "16 × 40 × 40", "32 × 20 × 20"], ["8 × 80 × 80", "16 × 40 × 40"]
    assert texts == ["3 × 160 × 160", *down, *up, "3 × 160 × 160"]
    assert all(name.lstrip("~") in boxes for arrow in arrows for name in arrow)
    assert sum(name.startswith("~") for name, _ in arrows) == 2  # the skip connections
    clip, _ = clip_boxes()
    assert clip["tokens"].text.endswith("2304 × 16 × 16") and clip["up0"].text.endswith("16 × 128 × 128")


@pytest.mark.parametrize("name", DIAGRAMS)
def test_no_two_boxes_of_a_diagram_overlap(name, monkeypatch, tmp_path):
    from utils.figures import diagrams

    drawn = []
    monkeypatch.setattr(diagrams, "draw", lambda boxes, *rest: drawn.extend(boxes.values()))
    DIAGRAMS[name](tmp_path / "x.png")
    for i, a in enumerate(drawn):
        assert all(abs(a.x - b.x) >= 1.8 or abs(a.y - b.y) >= 0.7 for b in drawn[:i]), a.text


@pytest.mark.slow
def test_figures_are_drawn_from_what_is_there(run_script, oxford_root, tmp_path):
    def run(*options: str) -> str:
        done = run_script("experiments/figures.py", f"--DATA_ROOT={oxford_root}", *options)
        assert done.returncode == 0, done.stderr
        return done.stdout

    text = run()
    for name in ("flow", "model_unet", "model_autoencoder", "model_clip", "model_pointclip", "data"):
        picture = np.array(Image.open(tmp_path / "images" / f"{name}.png").convert("L"))
        assert picture.std() > 10, name
    assert "curves.png is left out: checkpoints holds no log.csv" in text
    assert "breeds.png is left out" in text and "`python evaluate.py` makes them" in text

    tiny = "--IMAGE_SIZE=32 --SMALL_SIZE=32 --WIDTH=8 --DEPTH=3 --EPOCHS=2 --BATCH_SIZE=7".split()
    assert run_script("train_unet.py", f"--DATA_ROOT={oxford_root}", *tiny).returncode == 0
    assert run_script("evaluate.py", f"--DATA_ROOT={oxford_root}", "--ROWS=UNET").returncode == 0
    with open(tmp_path / "results" / "per_image.csv") as file:
        lines = list(csv.DictReader(file))
    assert lines[0]["data"] == "Oxford-IIIT Pet" and len(lines) == 8
    assert {line["breed"] for line in lines} == {"Birman_test", "pug_test"}
    assert "left out" not in run()
    assert (tmp_path / "predictions" / "extremes_unet.png").exists()
