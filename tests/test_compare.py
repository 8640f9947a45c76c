"""compare.py in a process of its own, on a tiny data set and a tiny encoder."""

import csv

import pytest
import torch

from models.clip import ImageEncoder
from utils.checkpoint import load


@pytest.mark.slow
def test_the_three_encoders_are_compared_with_the_same_budget_and_never_trained_twice(
    run_script, oxford_root, tiny_clip_folder, tmp_path
):
    (tmp_path / "README.md").write_text("<!-- clip -->\n<!-- /clip -->\n")
    options = (f"--DATA_ROOT={oxford_root}", f"--ENCODER={tiny_clip_folder}", "--IMAGE_SIZE=32", "--EPOCHS=2")
    done = run_script("compare.py", "clip", *options, "--README=README.md")
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "results" / "clip.csv") as file:
        lines = list(csv.DictReader(file))
    assert [line["variant"] for line in lines] == ["frozen", "fine-tuned", "random"]
    assert {line["images"] for line in lines} == {"8"} and {line["epochs"] for line in lines} == {"2"}
    assert lines[1]["miou"] in (tmp_path / "README.md").read_text()

    runs = {path.parts[-3]: load(path) for path in tmp_path.glob("checkpoints/compare/clip/*/clip/last.pt")}
    assert [run["schedule"]["last_epoch"] for run in runs.values()] == [2, 2, 2]
    seen = [runs[variant]["weights"]["decoder.project.0.running_mean"] for variant in runs]  # of the tokens
    assert not any(torch.equal(seen[i], seen[i - 1]) for i in range(3))
    assert runs["frozen"]["constants"]["ENCODER"] == runs["fine-tuned"]["constants"]["ENCODER"] == str(tiny_clip_folder)
    random = ImageEncoder.from_pretrained(str(tmp_path / "checkpoints" / "compare" / "clip" / "random-encoder"))
    given = ImageEncoder.from_pretrained(str(tiny_clip_folder))
    assert random.mean == given.mean
    assert not all(torch.equal(a, b) for a, b in zip(random.parameters(), given.parameters(), strict=True))

    again = run_script("compare.py", "clip", *options)
    assert again.returncode == 0 and "epoch 1/" in done.stdout and "epoch 1/" not in again.stdout
    assert (tmp_path / "results" / "clip.csv").read_text().splitlines()[1].startswith("frozen")

    other = run_script("compare.py", "clip", *options[:-1], "--EPOCHS=3")  # never old runs under a new number
    assert other.returncode == 1 and "was trained with EPOCHS = 2, now it is 3" in other.stderr


def test_an_unknown_comparison_and_a_training_that_fails_are_told(run_script, oxford_root, tmp_path):
    refused = run_script("compare.py", "trees")
    assert refused.returncode == 1 and "name one comparison: clip, autoencoder, seeds" in refused.stderr
    options = (f"--DATA_ROOT={oxford_root}", f"--ENCODER={tmp_path / 'gone'}")
    failed = run_script("compare.py", "clip", *options, env={"HF_HUB_OFFLINE": "1"})
    assert failed.returncode == 1 and "gone" in failed.stderr and "Traceback" not in failed.stderr


@pytest.mark.slow
def test_the_autoencoders_variants_share_stage_1_and_the_budget(run_script, oxford_root, tmp_path):
    markers = "<!-- autoencoder -->\n<!-- /autoencoder -->\n<!-- autoencoder spread -->\n<!-- /autoencoder spread -->\n"
    (tmp_path / "README.md").write_text(markers)
    options = (f"--DATA_ROOT={oxford_root}", "--IMAGE_SIZE=32", "--EPOCHS=3", "--PRETRAIN_EPOCHS=1")
    options += ("--LONG_PRETRAIN_EPOCHS=2", "--SEEDS=0,1", "--LABELS=100,10,5", "--WIDTH=8")
    done = run_script("compare.py", "autoencoder", *options, "--README=README.md")
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "results" / "autoencoder.csv") as file:
        lines = list(csv.DictReader(file))
    assert [(line["variant"], line["labels_percent"], line["seed"]) for line in lines] == [
        *((variant, "100", "0") for variant in ("full", "sparse", "scratch")),
        *((variant, "100", "1") for variant in ("full", "sparse", "scratch")),
        *((variant, "10", "0") for variant in ("full", "sparse", "scratch")),
        *((variant, "10", "1") for variant in ("full", "sparse", "scratch")),
        *((variant, "5", "0") for variant in ("full", "sparse", "scratch")),
        *((variant, "5", "1") for variant in ("full", "sparse", "scratch")),
        ("frozen", "100", "0"),
        ("frozen_plain", "100", "0"),
    ]
    assert list(lines[0])[-2:] == ["epochs", "images"] and {line["epochs"] for line in lines} == {"3"}
    assert (tmp_path / "images" / "labels.png").exists()
    full = [float(line["miou"]) for line in lines if line["variant"] == "full" and line["labels_percent"] == "100"]
    spread = (tmp_path / "README.md").read_text().split("<!-- autoencoder spread -->\n")[1].splitlines()
    assert len(spread) == 2 + 3 * 3 + 2 + 1  # full, sparse and scratch at three shares, both frozen ones
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in spread[2:-1]]
    mean_and_deviation = [f"{sum(full) / 2:.4f}", f"{abs(full[0] - full[1]) / 2**0.5:.4f}"]
    assert cells[0] == ["full", "100", "32", "8", "3", "2", *mean_and_deviation]
    assert cells[-1] == ["frozen_plain", "100", "32", "8", "3", "1", lines[-1]["miou"], "–"]

    folder = tmp_path / "checkpoints" / "compare" / "autoencoder"
    runs = {path.parts[-3]: load(path) for path in folder.glob("*/autoencoder/last.pt")}
    long = [name for name in runs if "_100_" not in name or name.startswith("frozen")]
    assert {name: run["epoch"] for name, run in runs.items()} == {
        name: 3 if name.startswith("scratch") else 1 if name in long else 2 for name in runs
    }
    assert len({runs[name]["pretrained"] for name in ("full_10_0", "full_5_0", "frozen_100_0")}) == 1
    assert {run["arguments"]["width"] for run in runs.values()} == {8}
    assert runs["sparse_10_0"]["constants"]["SPARSE"] and not runs["full_10_0"]["constants"]["SPARSE"]
    # two seeds, short and long, plain and sparse; the classic one; none
    assert len({run["pretrained"] for run in runs.values()}) == 10
    assert len(list(folder.glob("*/autoencoder/pretraining/best.safetensors"))) == 9

    few = ("--SEEDS=0", "--LABELS=10", "--WIDTH=8", "--FROZEN=False")
    again = run_script("compare.py", "autoencoder", *options[:-3], *few)
    assert again.returncode == 0 and "epoch 1/" not in again.stdout and "frozen_100_0" not in again.stdout
    with open(tmp_path / "results" / "autoencoder.csv") as file:
        assert list(csv.DictReader(file)) == lines  # those of the other seed and the other shares too
    (folder / "full_100_1" / "autoencoder" / "last.pt").unlink()  # as if it had been stopped after stage 1
    resumed = run_script("compare.py", "autoencoder", *options)
    assert resumed.returncode == 0 and "epoch 1/2" in resumed.stdout and "epoch 1/1" not in resumed.stdout
    short = run_script("compare.py", "autoencoder", "--EPOCHS=3", "--PRETRAIN_EPOCHS=3")
    assert short.returncode == 1 and "PRETRAIN_EPOCHS = 3: must be in 1 .. 2" in short.stderr
    short = run_script("compare.py", "autoencoder", "--EPOCHS=10")
    assert short.returncode == 1 and "LONG_PRETRAIN_EPOCHS = 10: must be in 1 .. 9" in short.stderr


@pytest.mark.slow
def test_seeds_differ_in_nothing_else_and_the_spread_is_theirs(run_script, oxford_root, tiny_clip_folder, tmp_path):
    (tmp_path / "README.md").write_text("<!-- seeds spread -->\n<!-- /seeds spread -->\n")
    options = (f"--DATA_ROOT={oxford_root}", f"--ENCODER={tiny_clip_folder}", "--IMAGE_SIZE=32", "--EPOCHS=2")
    done = run_script("compare.py", "seeds", *options, "--SEEDS=0,3", "--README=README.md")
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "results" / "seeds.csv") as file:
        lines = list(csv.DictReader(file))
    assert [(line["model"], line["size"], line["seed"], line["epochs"]) for line in lines] == [
        (model, size, seed, epochs)
        for model, size, epochs in (("UNET", "32", "2"), ("Autoencoder", "32", "2"), ("CLIP", "64", "1"))
        for seed in "03"
    ]
    runs = {path.parts[-3]: load(path) for path in tmp_path.glob("checkpoints/compare/seeds/*/*/last.pt")}
    for model in ("UNET", "Autoencoder", "CLIP"):
        first, second = (runs[f"{model}_{seed}"]["constants"] for seed in "03")
        assert {key for key in first if first[key] != second[key]} == {"SEED", "CHECKPOINTS"}
    spread = (tmp_path / "README.md").read_text().splitlines()[3:-1]
    assert len(spread) == 3
    for row, first, second in zip(spread, lines[::2], lines[1::2], strict=True):
        mious = [float(line["miou"]) for line in (first, second)]
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert cells[:4] == [first["model"], first["size"], first["epochs"], "2"]
        assert cells[4:] == [f"{sum(mious) / 2:.4f}", f"{abs(mious[0] - mious[1]) / 2**0.5:.4f}"]
    short = run_script("compare.py", "seeds", "--EPOCHS=1")
    assert short.returncode == 1 and "EPOCHS = 1: must be in 2" in short.stderr
