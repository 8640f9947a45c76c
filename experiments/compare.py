"""Train and score variants with the same budget; writes results/NAME.csv, a line per training.

    python -m experiments.compare clip --ENCODER=facebook/deit-tiny-patch16-224
    python -m experiments.compare autoencoder
    python -m experiments.compare seeds --ENCODER=facebook/deit-tiny-patch16-224

clip: the same decoder on the frozen encoder, on the fine-tuned one, and on a frozen one with random weights.
autoencoder: pretrained on hidden patches (sparse) and from scratch with the same total of epochs, with all masks and
with few; and the classic autoencoder, which hides nothing and whose encoder then stays frozen.
seeds: short trainings of the U-Net, the autoencoder and CLIP, which differ in the seed alone.
A comparison that was stopped goes on where it was. Lines of the CSV with another budget, size or seed stay.
"""

import importlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

from utils.config import DATA, require_between, run_main, run_script

import torch
from matplotlib import pyplot as plt

from utils.checkpoint import load
from utils.device import pick_device
from utils.errors import UserError
from utils.figures.plots import save_figure
from utils.files import read_csv, write_csv
from utils.inputs.layouts import list_samples
from utils.metrics import scores
from utils.rows import find_rows, load_row
from utils.scoring.results import same_columns
from utils.tables import markdown_table, write_between_markers

DATA_ROOT = DATA  # any layout of data/README.md
ENCODER = "openai/clip-vit-base-patch16"  # CLIP's: hub id or folder
IMAGE_SIZE = 0  # 0: clip 256, autoencoder 96, seeds 64 and CLIP twice that; for CLIP a multiple of its patch size
EPOCHS = 0  # of all stages; 0: clip 3, autoencoder 20, seeds 12 and CLIP a quarter of that
SEEDS = (0, 1, 2)  # of seeds, and of the autoencoder's sparse and scratch
LABELS = (100, 10, 5, 1)  # percent of the masks that the autoencoder's sparse and scratch see
PRETRAIN_EPOCHS = 4  # of the autoencoder's EPOCHS, those of stage 1; with all masks, the fewer the better
LONG_PRETRAIN_EPOCHS = 10  # the same with fewer masks, and for classic
DEVICE = "auto"  # "cpu", "cuda", "cuda:1"
CHECKPOINTS = "checkpoints/compare"  # a folder per comparison and variant
RESULTS = "results"  # folder of the CSV
IMAGES = "images"  # folder of labels.png
README = ""  # file whose table between the comparison's markers is written anew


@dataclass
class Run:
    """One training."""

    row: str  # of the table
    folder: Path
    about: dict[str, str]  # the first columns of its line in the CSV
    options: list[str]  # of the training script


def main(arguments: list[str]) -> None:
    comparisons = {"clip": (clip_runs, 256, 3), "autoencoder": (autoencoder_runs, 96, 20), "seeds": (seed_runs, 64, 12)}
    if len(arguments) != 1 or arguments[0] not in comparisons:
        raise UserError(f"name one comparison: {', '.join(comparisons)}")
    (name,) = arguments
    runs_of, size, epochs = comparisons[name]
    require_between({"EPOCHS": EPOCHS or epochs}, 1 if name == "clip" else 2, 10_000, "EPOCHS")  # two stages
    path = Path(RESULTS) / f"{name}.csv"
    for run in runs_of(Path(CHECKPOINTS) / name, IMAGE_SIZE or size, EPOCHS or epochs):
        print(f"--- {name}: {run.folder.name}", flush=True)
        train(run)
        new = run.about | score(run)
        same = [*run.about, "images"]
        lines = [line for line in read_csv(path) if any(line[column] != new[column] for column in same)]
        lines = same_columns([*lines, new])
        write_csv(lines, path)
    marker, table = name, markdown_table({key: key.replace("_", " ") for key in lines[0]}, lines, len(run.about))
    if "seed" in run.about:
        marker, table = f"{name} spread", spread_table(lines, [column for column in run.about if column != "seed"])
    if name == "autoencoder":
        plot_labels(lines, Path(IMAGES) / "labels.png")
    if README:
        write_between_markers(README, {marker: table})
    print(f"{table}\nwrote {path}")


def clip_runs(root: Path, size: int, epochs: int) -> Iterator[Run]:
    same = [f"--IMAGE_SIZE={size}", f"--EPOCHS={epochs}", "--ZOOM=False"]
    for variant in ("frozen", "fine-tuned", "random"):
        own = [f"--ENCODER={random_encoder(root) if variant == 'random' else ENCODER}"]
        own.append(f"--FREEZE_ENCODER={variant != 'fine-tuned'}")
        about = {"variant": variant, "encoder": ENCODER, "epochs": str(epochs)}
        yield Run("CLIP", root / variant, about, [*own, *same])


def random_encoder(root: Path) -> Path:
    """A folder with the architecture and normalisation of ENCODER, and random weights."""
    from transformers import AutoConfig, AutoImageProcessor, AutoModel

    folder = root / "random-encoder"
    if not (folder / "preprocessor_config.json").exists():  # the last file to be written
        torch.manual_seed(0)
        AutoModel.from_config(AutoConfig.from_pretrained(ENCODER)).save_pretrained(folder)
        AutoImageProcessor.from_pretrained(ENCODER).save_pretrained(folder)
    return folder


def autoencoder_runs(root: Path, size: int, epochs: int) -> Iterator[Run]:
    require_between(globals(), 1, epochs - 1, "PRETRAIN_EPOCHS", "LONG_PRETRAIN_EPOCHS")
    classic = ["--FINETUNE=frozen", "--MASK_RATIO=0.0"]
    runs = [("classic", 100, SEEDS[0], LONG_PRETRAIN_EPOCHS, classic)]
    for percent in LABELS:
        stage_1 = PRETRAIN_EPOCHS if percent == 100 else LONG_PRETRAIN_EPOCHS
        runs += [("sparse", percent, seed, stage_1, []) for seed in SEEDS]
        runs += [("scratch", percent, seed, 0, ["--FINETUNE=scratch"]) for seed in SEEDS]
    same = [f"--IMAGE_SIZE={size}", f"--SMALL_SIZE={size}", f"--PATCH={size // 8}", "--WIDTH=16", "--BATCH_SIZE=32"]
    for variant, percent, seed, stage_1, own in runs:
        about = {"variant": variant, "labels_percent": str(percent), "size": str(size), "width": "16"}
        about |= {"seed": str(seed), "epochs": str(epochs)}
        own = [*own, f"--PRETRAIN_EPOCHS={stage_1}", f"--EPOCHS={epochs - stage_1}"]
        own += [f"--LABELS_PERCENT={percent}", f"--SEED={seed}"]
        yield Run("Autoencoder", root / f"{variant}_{percent}_{seed}", about, [*own, *same])


def seed_runs(root: Path, size: int, epochs: int) -> Iterator[Run]:
    quarter, small = max(epochs // 4, 1), f"--SMALL_SIZE={size}"  # of stage 1, and enough for CLIP's decoder
    stages = [f"--PRETRAIN_EPOCHS={quarter}", f"--EPOCHS={epochs - quarter}", f"--PATCH={size // 8}"]
    rows = {
        "UNET": (size, epochs, [small, f"--EPOCHS={epochs}"]),
        "Autoencoder": (size, epochs, [small, *stages]),
        "CLIP": (2 * size, quarter, [f"--ENCODER={ENCODER}", f"--EPOCHS={quarter}", "--ZOOM=False"]),
    }
    for row, (side, total, own) in rows.items():
        for seed in SEEDS:
            about = {"model": row, "size": str(side), "seed": str(seed), "epochs": str(total)}
            yield Run(row, root / f"{row}_{seed}", about, [*own, f"--IMAGE_SIZE={side}", f"--SEED={seed}"])


def train(run: Run) -> None:
    """Run a row's training script, unless its run is already complete; go on with one that was stopped.

    Raises UserError if what is there was trained with other constants.
    """
    script = find_rows(run.folder)[run.row].script
    options = [*run.options, f"--DATA_ROOT={DATA_ROOT}", f"--CHECKPOINTS={run.folder}", f"--DEVICE={DEVICE}"]
    done = next(iter(run.folder.glob("*/last.pt")), None)
    if done:
        saved = load(done)
        for key, value in (option.removeprefix("--").split("=", 1) for option in run.options):
            if (was := str(saved["constants"].get(key))) != value:
                odd = f"{key} = {was}, now it is {value}"
                raise UserError(f"{done} was trained with {odd}: choose another CHECKPOINTS or remove {run.folder}")
        if saved["epoch"] == saved["constants"]["EPOCHS"]:
            return
    if done or any(run.folder.glob("*/*/last.pt")):  # the latter is of a stage before
        options.append("--RESUME=True")
    run_main(importlib.import_module(Path(script).stem).main, options)


def score(run: Run) -> dict[str, str]:
    """Scores on the test split, and the number of its pictures, ready for the CSV."""
    row = load_row(run.row, run.folder, pick_device(DEVICE), zoom=False)
    row.scales = (1.0,)
    samples = list_samples(DATA_ROOT, "test")
    result = scores(row.score(samples), row.counted)
    columns = ("miou", "mdice", "pixel_accuracy", *(f"iou_{name}" for name in row.counted))
    return {"images": str(len(samples))} | {column: f"{result[column]:.4f}" for column in columns}


def spread_table(lines: list[dict[str, str]], columns: list[str]) -> str:
    """Mean and standard deviation of the mIoU over the seeds of lines that are the same in these columns."""
    groups = defaultdict(list)
    for line in lines:
        groups[tuple(line[column] for column in columns)].append(float(line["miou"]))
    table = []
    for shared, mious in groups.items():
        deviation = {"deviation": f"{stdev(mious):.4f}"} if len(mious) > 1 else {}
        about = dict(zip(columns, shared, strict=True)) | {"seeds": str(len(mious)), "mean": f"{mean(mious):.4f}"}
        table.append(about | deviation)
    titles = {column: column.replace("_", " ") for column in (*columns, "seeds")}
    return markdown_table(titles | {"mean": "mean mIoU", "deviation": "standard deviation"}, table, len(columns))


def plot_labels(lines: list[dict[str, str]], path: Path) -> None:
    """mIoU against the share of masks used: a dot per run, a line through the means; of one budget, the last line's."""
    budget = ("size", "width", "epochs")
    lines = [line for line in lines if all(line[key] == lines[-1][key] for key in budget)]
    figure, axes = plt.subplots(figsize=(6, 3.4))
    for variant, colour in {"sparse": "#E69F00", "scratch": "#0072B2", "classic": "#555555"}.items():
        groups = defaultdict(list)
        for line in lines:
            if line["variant"] == variant:
                groups[int(line["labels_percent"])].append(float(line["miou"]))
        for percent, values in groups.items():
            axes.plot([percent] * len(values), values, "o", color=colour, alpha=0.6)
        if groups:
            axes.plot(sorted(groups), [mean(groups[x]) for x in sorted(groups)], "-s", color=colour, label=variant)
    axes.set(xscale="log", xlabel="masks used, % of the training split", ylabel="test mIoU")
    axes.set_xticks(shares := sorted({int(line["labels_percent"]) for line in lines}), shares)
    axes.minorticks_off()
    axes.legend()
    save_figure(figure, path)


if __name__ == "__main__":
    run_script(main, "clip, autoencoder or seeds", reads=("DATA_ROOT",))
