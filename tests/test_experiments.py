"""The scripts of experiments/ on a tiny data set: lines, tables, figures, and going on where they were."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY, run_here
from PIL import Image

import evaluate
from data.drawing.dataset import write_drawings
from experiments import benchmark, clicks, compare, errors, figures, labelling
from experiments.diagrams import DIAGRAMS
from experiments.figures import FIGURES
from utils.checkpoint import load
from utils.errors import UserError
from utils.files import read_csv, write_csv

pytestmark = pytest.mark.slow
DATA = "Oxford-IIIT Pet"


@pytest.fixture
def here(trained, oxford_root, tmp_path, monkeypatch):
    """here(script, *options): run it in an empty folder with the trained checkpoints."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoints").symlink_to(trained)
    return lambda script, *options: run_here(script, f"--DATA_ROOT={oxford_root}", *options)


def is_drawn(path: str | Path) -> bool:
    return np.array(Image.open(path).convert("L")).std() > 5


def markers(path, *names: str):
    path.write_text("".join(f"<!-- {name} -->\n<!-- /{name} -->\n" for name in names))
    return path


def test_errors_and_figures_are_drawn_from_what_evaluate_wrote(here, tmp_path, capsys):
    with pytest.raises(UserError, match="run evaluate.py first"):
        run_here(errors)
    here(figures, "--CHECKPOINTS=none", "--ONLY=curves")
    assert "curves.png is skipped: none has no log.csv" in capsys.readouterr().out
    here(evaluate, "--ROWS=UNET,PointCLIP")
    readme = markers(tmp_path / "README.md", f"errors {DATA}", f"clicks {DATA}", "summary")
    run_here(errors, "--README=README.md")
    here(clicks, "--ROWS=disk,UNET look-up", "--PICTURES=4", "--README=README.md")
    table = readme.read_text()
    assert all(f"| {name} " in table for name in ("UNET", "PointCLIP")) and table.count("| UNET look-up | ") == 2
    assert all(is_drawn(f"images/{name}.png") for name in ("breeds", "confusion", "data_sets", "clicks"))
    capsys.readouterr()
    here(figures)
    assert "skipped" not in capsys.readouterr().out
    for name, (suffix, _) in FIGURES.items():
        path = tmp_path / "images" / f"{name}{suffix}"
        assert path.read_text().count("<path") > 20 if name in DIAGRAMS else is_drawn(path)


def test_a_benchmark_is_a_line_with_its_speed_and_peak_memory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    readme = markers(tmp_path / "README.md", "benchmark")
    names = ("U-Net, 160 px, photos of 500 x 375", "PointCLIP, 256 px, a further click")
    monkeypatch.setattr(benchmark, "BENCHMARKS", {name: benchmark.BENCHMARKS[name] for name in names})
    run_here(benchmark, "--README=README.md")
    photos, click = read_csv("results/benchmark.csv")
    assert (photos["what"], click["what"]) == names and (photos["unit"], click["unit"]) == ("pictures/s", "ms")
    assert float(photos["speed"]) > 0 and 100 < float(click["peak_memory_mb"]) < 4000 and click["device"] == "cpu"
    assert photos["speed"] in readme.read_text() and click["peak_memory_mb"] in readme.read_text()


def test_variants_share_a_budget_and_are_never_trained_twice(here, tiny_clip_folder, tmp_path, capsys):
    readme = markers(tmp_path / "README.md", "clip", "autoencoder spread", "seeds spread")
    (tmp_path / "checkpoints").unlink()  # they are written
    small = (f"--ENCODER={tiny_clip_folder}", "--IMAGE_SIZE=32", "--EPOCHS=2", "--README=README.md")
    here(compare, "clip", *small)
    lines = read_csv("results/clip.csv")
    assert [line["variant"] for line in lines] == ["frozen", "fine-tuned", "random"]
    assert {(line["images"], line["epochs"]) for line in lines} == {("8", "2")}
    runs = [load(path)["weights"]["decoder.project.0.running_mean"] for path in tmp_path.rglob("clip/last.pt")]
    assert len({tuple(of_tokens.tolist()) for of_tokens in runs}) == 3
    assert lines[1]["miou"] in readme.read_text()

    few = ("--SEEDS=1", "--LABELS=100,10")
    here(compare, "autoencoder", *small, *few)
    lines = read_csv("results/autoencoder.csv")
    about = [(line["labels_percent"], line["variant"], line["seed"]) for line in lines]
    both = [(percent, variant, "1") for percent in ("100", "10") for variant in ("pretrained", "scratch")]
    assert about == [*both, ("100", "classic", "0")]
    assert is_drawn("images/labels.png")
    runs = {path.parts[-3]: load(path) for path in tmp_path.rglob("autoencoder/last.pt")}
    assert {run["epoch"] for name, run in runs.items() if name.startswith("scratch")} == {2}
    assert {run["epoch"] for name, run in runs.items() if name.startswith("pretrained")} == {1}  # and one of stage 1

    capsys.readouterr()
    shutil.rmtree(next(tmp_path.rglob("scratch_10_1")))
    here(compare, "autoencoder", *small, *few)
    assert capsys.readouterr().out.count("epoch 1/") == 1  # that one alone
    assert read_csv("results/autoencoder.csv") == lines

    here(compare, "seeds", *small, "--SEEDS=0,3")
    lines = read_csv("results/seeds.csv")
    about = [tuple(line[key] for key in ("model", "size", "seed", "epochs")) for line in lines]
    rows = ("UNET", "32", "2"), ("Autoencoder", "32", "2"), ("CLIP", "64", "1")
    assert about == [(model, size, seed, epochs) for model, size, epochs in rows for seed in "03"]
    mious = [float(line["miou"]) for line in lines[:2]]
    spread = f"{sum(mious) / 2:.4f}", f"{abs(mious[0] - mious[1]) / 2**0.5:.4f}"
    assert all(number in readme.read_text() for number in spread)
    with pytest.raises(UserError, match="name one comparison"):
        here(compare, "trees")


def test_few_pictures_are_drawn_per_seed_for_every_variant(here, tmp_path):
    write_drawings(tmp_path / "data", '{"name": "drawn"}', ("cat", "rabbit"), 24, 4, (64, 80), 0)
    root = f"--DATA_ROOT={tmp_path / 'data'}"
    (tmp_path / "checkpoints").unlink()
    few = ("--PICTURES=3,0", "--SEEDS=0,1", "--IMAGE_SIZE=64", "--EPOCHS=1", "--STEPS=2")
    other = {"data": "other", "variant": "frozen", "pictures": "3", "seed": "0", "images": "4", "miou": "0.5"}
    write_csv([other], "results/few.csv")
    here(compare, "few", root, *few, f"--START={REPOSITORY / 'checkpoints' / 'clip_finetuned'}")
    kept, *lines = read_csv("results/few.csv")
    assert kept["data"] == "other" and {line["data"] for line in lines} == {"drawn"}
    variants = ("U-Net from scratch", "frozen", "fine-tuned")
    about = [(line["pictures"], line["seed"], line["variant"]) for line in lines]
    assert about == [(*drawn, variant) for drawn in (("3", "0"), ("3", "1"), ("21", "0")) for variant in variants]
    assert {line["images"] for line in lines} == {"4"} and is_drawn("images/few.png")
    first, second = ({file.name for file in tmp_path.rglob(f"data_3_{seed}/train/images/*")} for seed in (0, 1))
    assert len(first) == len(second) == 3 and first != second
    runs = {path.parts[-3]: load(path) for path in tmp_path.rglob("clip/last.pt")}
    assert "encoder_config" in runs["fine-tuned_3_0"]["arguments"] and runs["frozen_3_0"]["holds_encoder"]


def test_labelling_measures_what_a_click_and_a_box_give(here, tmp_path):
    write_drawings(tmp_path / "data", '{"name": "drawn"}', ("cat", "rabbit"), 10, 6, (96, 120), 0)
    readme = markers(tmp_path / "README.md", "labelling")
    here(labelling, f"--DATA_ROOT={tmp_path / 'data'}", "--README=README.md")
    lines = {(line["way"], line["class"]): line for line in read_csv("results/labelling.csv")}
    assert list(lines) == [("box", "cat"), ("box", "rabbit"), ("click", "cat")]
    cats, rabbits, clicked = lines.values()
    assert cats["things"] == clicked["things"] and 6 <= int(cats["things"]) + int(rabbits["things"]) <= 12
    assert float(cats["iou_0"]) > 0.2 and float(cats["iou_4"]) > float(cats["iou_0"])
    assert rabbits["iou_2"] in readme.read_text() and float(clicked["seconds"]) < 5
    assert 0 < float(clicked["seconds_to_open"]) < 5
