"""Train and score variants with the same budget of epochs: results/NAME.csv, a line per training.

    python -m experiments.compare clip --ENCODER=facebook/deit-tiny-patch16-224
    python -m experiments.compare autoencoder
    python -m experiments.compare seeds --ENCODER=facebook/deit-tiny-patch16-224
    python -m experiments.compare few --DATA_ROOT=data/camvid

clip: the same decoder on a frozen encoder, a fine-tuned one, and a frozen one with random weights.
autoencoder: pretrained (most patches hidden) against scratch, with all masks and with few. Stage 1 takes a fifth of the
epochs, half of them with few masks. classic: half of the epochs, no patch hidden, then the encoder is frozen.
seeds: short trainings of the U-Net, the autoencoder and CLIP that differ only in the seed.
few: mIoU against the number of training pictures, of data in the folder layout: the U-Net from scratch, and START's
weights with a frozen and a trained encoder. Up to 30 pictures are drawn for every seed, more for the first seed only.
An interrupted comparison is resumed by the same command; the CSV is written at the end.
"""

import importlib
import inspect
import random
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import mean, stdev

from utils.config import DATA, REPOSITORY, override, run_script, script_constants

import torch
from matplotlib import pyplot as plt

from data.labelling import link
from experiments.looks import looks
from experiments.readme import write_between_markers
from utils.checkpoint import load
from utils.classes import classes_file
from utils.device import pick_device
from utils.errors import UserError
from utils.figures.plots import save_figure
from utils.files import read_csv, write_csv
from utils.inputs.layouts import data_name, list_samples
from utils.inputs.pictures import Sample
from utils.metrics import scores
from utils.rows import find_rows, load_row
from utils.tables import markdown_table

DATA_ROOT = DATA  # any layout of data/README.md
ENCODER = "openai/clip-vit-base-patch16"  # of CLIP: hub id or folder
IMAGE_SIZE = 0  # 0: clip 256, autoencoder 96, seeds 64 (CLIP twice that), few 320 (U-Net half of it)
EPOCHS = 0  # of all stages together; 0: clip 3, autoencoder 20, seeds 12 (CLIP a quarter), few 5 (U-Net four times)
SEEDS = (0, 1, 2)  # of autoencoder, seeds and few
LABELS = (100, 10, 5, 1)  # percent of the masks used for the autoencoder
PICTURES = (10, 30, 100, 0)  # numbers of training pictures for few; 0: all
START = "checkpoints/clip_finetuned"  # weights for few
STEPS = 100  # per epoch of few
DEVICE = "auto"  # "cpu", "cuda", "cuda:1"
CHECKPOINTS = "checkpoints/compare"  # a folder per comparison, data set, size, epochs and variant
RESULTS = "results"  # folder of the CSV
IMAGES = "images"  # folder of labels.png and few.png
README = ()  # files whose table between markers is updated


@dataclass
class Run:
    """One training."""

    row: str
    folder: Path
    about: dict[str, str]  # first columns of its line in the CSV
    options: list[str]  # for the training script
    data: str = ""  # folder of its pictures; empty: DATA_ROOT


def main(arguments: list[str]) -> None:
    comparisons = {"clip": (clip_runs, 256, 3), "autoencoder": (autoencoder_runs, 96, 20)}
    comparisons |= {"seeds": (seed_runs, 64, 12), "few": (few_runs, 320, 5)}
    if (name := " ".join(arguments)) not in comparisons:
        raise UserError(f"name one comparison: {', '.join(comparisons)}")
    runs_of, size, epochs = comparisons[name]
    size, epochs, data = IMAGE_SIZE or size, EPOCHS or epochs, data_name(DATA_ROOT)
    path, lines = Path(RESULTS) / f"{name}.csv", []
    for run in runs_of(Path(CHECKPOINTS) / name / data / f"{size}px_{epochs}", size, epochs):
        print(f"--- {run.folder}", flush=True)
        train(run)
        lines.append(run.about | score(run))
        print("  ".join(lines[-1].values()), flush=True)
    if name == "few":
        lines = [line for line in read_csv(path) if line.get("data") != data] + lines
    write_csv(lines, path)
    marker, table = name, markdown_table({key: key.replace("_", " ") for key in lines[0]}, lines, len(run.about))
    if "seed" in run.about:
        marker, table = f"{name} spread", spread_table(lines, [column for column in run.about if column != "seed"])
    if name == "autoencoder":
        plot_lines(lines, "labels_percent", "masks used, % of the training split", Path(IMAGES) / "labels.png")
    if name == "few":
        plot_lines(lines, "pictures", "training pictures", Path(IMAGES) / "few.png")
    if README:
        write_between_markers(README, {marker: table})
    print(f"{table}\nwrote {path}")


def clip_runs(root: Path, size: int, epochs: int) -> Iterator[Run]:
    root = root / Path(ENCODER).name
    for variant in ("frozen", "fine-tuned", "random"):
        options = [f"--IMAGE_SIZE={size}", f"--EPOCHS={epochs}", "--ZOOM=False"]
        options.append(f"--ENCODER={random_encoder(root) if variant == 'random' else ENCODER}")
        options.append(f"--FREEZE_ENCODER={variant != 'fine-tuned'}")
        yield Run("CLIP", root / variant, {"variant": variant, "encoder": ENCODER, "epochs": str(epochs)}, options)


def random_encoder(root: Path) -> Path:
    """Write an encoder with random weights, and ENCODER's architecture and normalisation, to a folder."""
    from transformers import AutoConfig, AutoImageProcessor, AutoModel

    folder = root / "random-encoder"
    torch.manual_seed(0)
    AutoModel.from_config(AutoConfig.from_pretrained(ENCODER)).save_pretrained(folder)
    AutoImageProcessor.from_pretrained(ENCODER).save_pretrained(folder)
    return folder


def autoencoder_runs(root: Path, size: int, epochs: int) -> Iterator[Run]:
    same = [f"--IMAGE_SIZE={size}", f"--SMALL_SIZE={size}", f"--PATCH={size // 8}", "--WIDTH=16", "--BATCH_SIZE=32"]
    own = {"pretrained": [], "scratch": ["--FINETUNE=scratch"], "classic": ["--MASK_RATIO=0", "--FINETUNE=frozen"]}
    for percent, variant, seed in [*product(LABELS, ("pretrained", "scratch"), SEEDS), (100, "classic", 0)]:
        stage_1 = max(1, epochs // (5 if variant == "pretrained" and percent == 100 else 2))
        if variant == "scratch":
            stage_1 = 0
        about = {"variant": variant, "labels_percent": str(percent), "size": str(size), "width": "16"}
        about |= {"seed": str(seed), "epochs": str(epochs)}
        options = [f"--PRETRAIN_EPOCHS={stage_1}", f"--EPOCHS={epochs - stage_1}", f"--LABELS_PERCENT={percent}"]
        options += [f"--SEED={seed}", *own[variant], *same]
        yield Run("Autoencoder", root / f"{variant}_{percent}_{seed}", about, options)


def seed_runs(root: Path, size: int, epochs: int) -> Iterator[Run]:
    quarter, small = max(epochs // 4, 1), f"--SMALL_SIZE={size}"  # epochs of stage 1, and of CLIP
    stages = [f"--PRETRAIN_EPOCHS={quarter}", f"--EPOCHS={epochs - quarter}", f"--PATCH={size // 8}"]
    rows = {
        "UNET": (size, epochs, [small, f"--EPOCHS={epochs}"]),
        "Autoencoder": (size, epochs, [small, *stages]),
        "CLIP": (2 * size, quarter, [f"--ENCODER={ENCODER}", f"--EPOCHS={quarter}", "--ZOOM=False"]),
    }
    for (row, (side, total, own)), seed in product(rows.items(), SEEDS):
        about = {"model": row, "size": str(side), "seed": str(seed), "epochs": str(total)}
        folder = root / f"{row}_{seed}" / (Path(ENCODER).name if row == "CLIP" else "")
        yield Run(row, folder, about, [*own, f"--IMAGE_SIZE={side}", f"--SEED={seed}"])


def few_runs(root: Path, size: int, epochs: int) -> Iterator[Run]:
    root /= f"{STEPS}_{Path(START).name}"
    own = [str(REPOSITORY / "recipes" / "own_classes.py"), f"--START={START}"]
    own += [f"--IMAGE_SIZE={size}", f"--EPOCHS={epochs}", f"--EPOCH_STEPS={STEPS}"]
    scratch = [f"--IMAGE_SIZE={size // 2}", f"--SMALL_SIZE={size // 2}", f"--EPOCHS={4 * epochs}"]
    variants = {"U-Net from scratch": ("UNET", [*scratch, f"--EPOCH_STEPS={STEPS}", "--VALIDATE_EVERY=4"])}
    variants |= {"frozen": ("CLIP", [*own, "--FREEZE_ENCODER=True"]), "fine-tuned": ("CLIP", own)}
    list_samples(DATA_ROOT, "test")  # before hours of training: it is there
    everything = list_samples(DATA_ROOT, "train")
    if max(PICTURES) > len(everything):
        raise UserError(f"PICTURES = {PICTURES}: {DATA_ROOT} has {len(everything)} training pictures")
    for count, seed in product(PICTURES, SEEDS):
        if seed != SEEDS[0] and not 0 < count <= 30:
            continue
        data = root / f"data_{count or len(everything)}_{seed}"
        link_pictures(random.Random(seed).sample(everything, count or len(everything)), data)
        for variant, (row, options) in variants.items():
            about = {"variant": variant, "pictures": str(count or len(everything)), "seed": str(seed)}
            folder, about = root / "_".join(about.values()), {"data": data_name(DATA_ROOT)} | about
            yield Run(row, folder, about, [*options, f"--SEED={seed}"], str(data))


def link_pictures(train: Sequence[Sample], target: Path) -> None:
    """A data set in the folder layout with these training pictures and DATA_ROOT's validation split."""
    for split, samples in {"train": train, "val": list_samples(DATA_ROOT, "val")}.items():
        for sample in samples:
            link(sample.image, target / split / "images" / sample.image.name)
            link(sample.mask, target / split / "masks" / sample.mask.name)
    if file := classes_file(DATA_ROOT):
        link(file, target / file.name)


def train(run: Run) -> None:
    """Run a row's training script unless it has finished; resume an interrupted training."""
    saved = next(iter(run.folder.glob("*/last.pt")), None)
    if saved and load(saved)["epoch"] == load(saved)["constants"]["EPOCHS"]:
        return
    places = [f"--DATA_ROOT={run.data or DATA_ROOT}", f"--CHECKPOINTS={run.folder}", f"--DEVICE={DEVICE}"]
    resume = f"--RESUME={any(run.folder.rglob('last.pt'))}"  # also of stage 1
    script = importlib.import_module(Path(find_rows(run.folder)[run.row].script).stem)
    run_main(script.main, [*run.options, *places, resume])


def run_main(main: Callable[..., int | None], arguments: Sequence[str], positional: str = "") -> int | None:
    """Call a script's main with constants overridden by `--KEY=value`; they are restored afterwards."""
    module = sys.modules[main.__module__]
    before = script_constants(main)
    try:
        rest = override(vars(module), inspect.getsource(module), arguments, positional)
        return main(rest) if rest else main()
    finally:
        vars(module).update(before)


def score(run: Run) -> dict[str, str]:
    """Columns of the CSV: number of test pictures and scores."""
    row = load_row(run.row, run.folder, pick_device(DEVICE), zoom=False)
    row.scales = (1.0,)
    samples = list_samples(DATA_ROOT, "test")
    result = scores(row.score(samples), row.counted)
    columns = ("miou", "mdice", "pixel_accuracy", *(f"iou_{name}" for name in row.counted))
    return {"images": str(len(samples))} | {column: f"{result[column]:.4f}" for column in columns}


def spread_table(lines: list[dict[str, str]], columns: list[str]) -> str:
    """Mean and standard deviation of the mIoU over the seeds; columns: what the lines of a group share."""
    groups = defaultdict(list)
    for line in lines:
        groups[tuple(line[column] for column in columns)].append(float(line["miou"]))
    table = []
    for shared, mious in groups.items():
        about = dict(zip(columns, shared, strict=True)) | {"seeds": str(len(mious)), "mean": f"{mean(mious):.4f}"}
        table.append(about | ({"deviation": f"{stdev(mious):.4f}"} if len(mious) > 1 else {}))
    titles = {column: column.replace("_", " ") for column in (*columns, "seeds")}
    return markdown_table(titles | {"mean": "mean mIoU", "deviation": "standard deviation"}, table, len(columns))


def plot_lines(lines: list[dict[str, str]], key: str, title: str, path: Path) -> None:
    """mIoU of every variant against a number, a panel per data set: a dot per training, a line through the means."""
    sets = dict.fromkeys(line.get("data", "") for line in lines)
    figure, panels = plt.subplots(1, len(sets), figsize=(max(6, 4 * len(sets)), 3.4), squeeze=False)
    styles = looks(line["variant"] for line in lines if line["variant"] != "classic")
    for axes, data in zip(panels[0], sets, strict=True):
        mine = [line for line in lines if line.get("data", "") == data]
        for variant, look in styles.items():
            groups = defaultdict(list)
            for line in mine:
                if line["variant"] == variant:
                    groups[int(line[key])].append(float(line["miou"]))
            for number, values in groups.items():
                axes.plot([number] * len(values), values, look.marker, color=look.colour, alpha=0.6)
            style, means = look.dashes + look.marker, [mean(groups[x]) for x in sorted(groups)]
            axes.plot(sorted(groups), means, style, color=look.colour, label=variant)
        axes.set(title=data, xscale="log", xlabel=title, ylabel="test mIoU")
        axes.set_xticks(numbers := sorted({int(line[key]) for line in mine}), numbers)
        axes.minorticks_off()
    panels[0, 0].legend()
    save_figure(figure, path)


if __name__ == "__main__":
    run_script(main, "clip, autoencoder, seeds or few")
