"""Train and score the variants of a comparison, all with the same budget; writes results/NAME.csv.

    python -m experiments.compare clip --ENCODER=facebook/deit-tiny-patch16-224
    python -m experiments.compare autoencoder
    python -m experiments.compare seeds --ENCODER=facebook/deit-tiny-patch16-224

clip: the same decoder on the frozen encoder, on the fine-tuned one, and on a frozen one with random weights.
autoencoder: pretrained, then trained on; likewise with sparse convolutions in stage 1; the same network from scratch
with the same total of epochs; these three with all masks and with few; pretrained and frozen; the classic autoencoder,
frozen.
seeds: short trainings of the U-Net, the autoencoder and CLIP on kept features, which differ in the seed alone.
A comparison that was stopped goes on where it was. Lines of the CSV with another budget, size or seed stay.
"""

import importlib
import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

from utils.config import DATA, require_between, run_main, run_script

import torch
from matplotlib import pyplot as plt

from utils.checkpoint import load, weights_file
from utils.device import pick_device
from utils.errors import UserError
from utils.figures.plots import save_figure
from utils.files import read_csv, write_csv
from utils.inputs.dataset import SegmentationDataset
from utils.metrics import scores
from utils.rows import find_rows, load_row
from utils.tables import markdown_table, write_between_markers

DATA_ROOT = DATA  # any layout of data/README.md
ENCODER = "openai/clip-vit-base-patch16"  # CLIP's: hub id or folder
IMAGE_SIZE = 0  # 0: clip 256, autoencoder 96, seeds 64 and CLIP twice that; for CLIP a multiple of its patch size
EPOCHS = 0  # 0: clip 3, autoencoder 20, seeds 12 and CLIP a quarter of that
SEEDS = (0, 1, 2)  # of seeds, and of the autoencoder's full, sparse and scratch
# of the autoencoder
LABELS = (100, 10, 5, 1)  # percent of the masks that full, sparse and scratch see
PRETRAIN_EPOCHS = 4  # of EPOCHS, those of stage 1; with all masks, the fewer the better
LONG_PRETRAIN_EPOCHS = 10  # the same with fewer masks, and where the encoder stays as stage 1 left it
FROZEN = True  # also train the two variants whose encoder stays as stage 1 left it
ENCODER_RATE = 1.0  # of the pretrained encoder in stage 2; less holds it back where epochs are few
WIDTH = 16  # channels of the finest level
BATCH_SIZE = 32
# run
DEVICE = "auto"  # "cpu", "cuda", "cuda:1"
CHECKPOINTS = "checkpoints/compare"  # a folder per comparison and variant
RESULTS = "results"  # folder of the CSV
IMAGES = "images"  # folder of labels.png
README = ""  # file whose table between the comparison's markers is written anew


@dataclass
class Run:
    """One training of a comparison."""

    row: str  # of the table
    folder: str  # below CHECKPOINTS and the comparison's name
    about: dict[str, str]  # the first columns of its line in the CSV
    epochs: int  # all stages together
    options: list[str]  # of the training script


@dataclass
class Comparison:
    """What is compared, and with which budget."""

    size: int  # pixels a side
    epochs: int
    runs: Callable[[Path, int, int], list[Run]]  # folder, size, epochs -> its trainings
    draw: Callable[[list[dict], Path], None] | None = None  # its figure, from the lines of its CSV


def main(arguments: list[str]) -> None:
    comparisons = {
        "clip": Comparison(256, 3, clip_runs),
        "autoencoder": Comparison(96, 20, autoencoder_runs, plot_label_efficiency),
        "seeds": Comparison(64, 12, seed_runs),
    }
    if len(arguments) != 1 or arguments[0] not in comparisons:
        raise UserError(f"name one comparison: {', '.join(comparisons)}")
    require_between(globals(), 0, math.inf, "EPOCHS", "IMAGE_SIZE")
    (name,) = arguments
    comparison = comparisons[name]
    size, epochs = IMAGE_SIZE or comparison.size, EPOCHS or comparison.epochs
    root, path = Path(CHECKPOINTS) / name, Path(RESULTS) / f"{name}.csv"
    for run in comparison.runs(root, size, epochs):
        print(f"--- {name}: {run.folder}", flush=True)
        train(run, root)
        numbers, images = score(run.row, root / run.folder)
        line = {**run.about, **numbers, "epochs": str(run.epochs), "images": str(images)}
        lines = merged(line, read_csv(path), [*run.about, "epochs", "images"])
        write_csv(lines, path)
    tables = {name: markdown_table({key: key.replace("_", " ") for key in lines[0]}, lines, len(run.about))}
    if "seed" in run.about:
        same = [column for column in (*run.about, "epochs") if column != "seed"]
        tables[f"{name} spread"] = spread_table(lines, same)
    print("\n\n".join(tables.values()) + f"\nwrote {path}")
    if comparison.draw:
        comparison.draw(lines, Path(IMAGES) / "labels.png")
    if README:
        write_between_markers(README, tables)


def merged(line: dict[str, str], lines: list[dict[str, str]], key: list[str]) -> list[dict[str, str]]:
    """The lines with a new one at the end, or in place of the one that is the same in the columns `key`."""
    by_key = {tuple(old.get(column, "") for column in key): old for old in lines}
    by_key[tuple(line[column] for column in key)] = line
    columns = dict.fromkeys(column for each in by_key.values() for column in each)
    return [{column: each.get(column, "") for column in columns} for each in by_key.values()]


def spread_table(lines: list[dict[str, str]], columns: list[str]) -> str:
    """Mean and standard deviation of the mIoU over the seeds of lines that are the same in these columns."""
    groups = defaultdict(list)
    for line in lines:
        groups[tuple(line[column] for column in columns)].append(float(line["miou"]))
    table = []
    for shared, mious in groups.items():
        numbers = {"seeds": str(len(mious)), "mean": f"{mean(mious):.4f}"}
        if len(mious) > 1:
            numbers["deviation"] = f"{stdev(mious):.4f}"
        table.append(dict(zip(columns, shared, strict=True)) | numbers)
    titles = {column: column.replace("_", " ") for column in columns}
    titles |= {"seeds": "seeds", "mean": "mean mIoU", "deviation": "standard deviation"}
    return markdown_table(titles, table, len(columns))


def clip_runs(root: Path, size: int, epochs: int) -> list[Run]:
    random = root / "random-encoder"
    if not (random / "preprocessor_config.json").exists():  # the last file to be written
        save_random_encoder(ENCODER, random)
    variants = {
        "frozen": [f"--ENCODER={ENCODER}"],
        "fine-tuned": [f"--ENCODER={ENCODER}", "--FREEZE_ENCODER=False"],
        "random": [f"--ENCODER={random}"],
    }
    same = [f"--IMAGE_SIZE={size}", f"--EPOCHS={epochs}", "--ZOOM=False"]
    return [
        Run("CLIP", name, {"variant": name, "encoder": ENCODER}, epochs, [*own, *same])
        for name, own in variants.items()
    ]


def autoencoder_runs(root: Path, size: int, epochs: int) -> list[Run]:
    require_between(globals(), 1, epochs - 1, "PRETRAIN_EPOCHS", "LONG_PRETRAIN_EPOCHS")
    short, long = (
        [f"--PRETRAIN_EPOCHS={pretrain}", f"--EPOCHS={epochs - pretrain}"]
        for pretrain in (PRETRAIN_EPOCHS, LONG_PRETRAIN_EPOCHS)
    )
    rate, plain = f"--ENCODER_RATE={ENCODER_RATE}", "--SPARSE=False"
    one_stage = ["--FINETUNE=scratch", "--PRETRAIN_EPOCHS=0", f"--EPOCHS={epochs}"]
    classic = ["--FINETUNE=frozen", "--MASK_RATIO=0.0", plain]
    few = [percent for percent in LABELS if percent < 100]
    runs = []

    def add(variant: str, percent: int, seed: int, *options: str) -> None:
        about = {"variant": variant, "labels_percent": str(percent), "size": str(size), "width": str(WIDTH)}
        options = [*options, f"--LABELS_PERCENT={percent}", f"--SEED={seed}"]
        options += [f"--IMAGE_SIZE={size}", f"--SMALL_SIZE={size}", f"--PATCH={size // 8}"]
        options += [f"--WIDTH={WIDTH}", f"--BATCH_SIZE={BATCH_SIZE}"]
        runs.append(Run("Autoencoder", f"{variant}_{percent}_{seed}", {**about, "seed": str(seed)}, epochs, options))

    def stage_1_of(variant: str, seed: int) -> list[str]:  # it sees no mask: the longer one is the same for all
        pretrained = weights_file(root / f"{variant}_{few[0]}_{seed}" / "autoencoder", "pretrained")
        return ["--STAGE=2", f"--PRETRAINED={pretrained}"]

    for percent in LABELS:
        for seed in SEEDS:
            for variant, own in (("full", [rate, plain]), ("sparse", [rate, "--SPARSE=True"])):
                shared = stage_1_of(variant, seed) if percent in few[1:] else []
                add(variant, percent, seed, *(long if percent in few else short), *own, *shared)
            add("scratch", percent, seed, *one_stage)
    if FROZEN:
        add("frozen", 100, SEEDS[0], *long, *(stage_1_of("full", SEEDS[0]) if few else []), "--FINETUNE=frozen", plain)
        add("frozen_plain", 100, SEEDS[0], *long, *classic)
    return runs


def seed_runs(root: Path, size: int, epochs: int) -> list[Run]:
    require_between({"EPOCHS": epochs}, 2, math.inf, "EPOCHS")  # the autoencoder has two stages
    quarter, runs = max(epochs // 4, 1), []  # quarter: of stage 1, and enough for CLIP's decoder

    def add(row: str, size: int, epochs: int, *options: str) -> None:
        for seed in SEEDS:
            about = {"model": row, "size": str(size), "seed": str(seed)}
            own = [*options, f"--IMAGE_SIZE={size}", f"--SEED={seed}"]
            runs.append(Run(row, f"{row}_{seed}", about, epochs, own))

    stages = (f"--PRETRAIN_EPOCHS={quarter}", f"--EPOCHS={epochs - quarter}", f"--PATCH={size // 8}")
    add("UNET", size, epochs, f"--SMALL_SIZE={size}", f"--EPOCHS={epochs}")
    add("Autoencoder", size, epochs, f"--SMALL_SIZE={size}", *stages)
    add("CLIP", 2 * size, quarter, f"--ENCODER={ENCODER}", f"--EPOCHS={quarter}", "--ZOOM=False")
    return runs


def save_random_encoder(name: str, folder: Path) -> None:
    """A folder with the architecture and normalisation of an encoder, and random weights."""
    from transformers import AutoConfig, AutoImageProcessor, AutoModel

    try:
        config, processor = AutoConfig.from_pretrained(name), AutoImageProcessor.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise UserError(f"ENCODER = {name}: its configuration cannot be had ({str(error).splitlines()[0]})") from error
    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(folder)
    processor.save_pretrained(folder)


def train(run: Run, root: Path) -> None:
    """Run a row's training script, unless its run is already complete; go on with one that was stopped.

    Raises UserError if what is there was trained with other constants.
    """
    folder, script = root / run.folder, find_rows(root)[run.row].script
    asked = dict(option.removeprefix("--").split("=", 1) for option in run.options)
    options = [*run.options, f"--DATA_ROOT={DATA_ROOT}", f"--CHECKPOINTS={folder}", f"--DEVICE={DEVICE}"]
    done = next(iter(folder.glob("*/last.pt")), None)
    if done:
        saved = load(done)
        for key, value in asked.items():
            if str(saved["constants"].get(key)) != value:
                was = f"{key} = {saved['constants'].get(key)}, now it is {value}"
                raise UserError(f"{done} was trained with {was}: choose another CHECKPOINTS or remove {folder}")
        if saved["epoch"] == saved["constants"]["EPOCHS"]:
            return
    if done or any(folder.glob("*/*/last.pt")):  # the latter is of a stage before
        options = [*options, "--RESUME=True"]
    run_main(importlib.import_module(Path(script).stem).main, options)


def score(row_name: str, folder: Path) -> tuple[dict[str, str], int]:
    """Scores on the test split, ready for the CSV, and the number of pictures."""
    row = load_row(row_name, folder, pick_device(DEVICE), zoom=False)
    row.scales = (1.0,)
    dataset = SegmentationDataset(DATA_ROOT, "test", row.image_size)
    result = scores(row.score(dataset), row.counted)
    columns = ("miou", "mdice", "pixel_accuracy", *(f"iou_{name}" for name in row.counted))
    return {column: f"{result[column]:.4f}" for column in columns}, len(dataset)


def plot_label_efficiency(lines: list[dict], path: Path) -> None:
    """mIoU against the share of masks used, a dot per run, a panel per budget: lines of results/autoencoder.csv."""
    looks = {"full": ("o", "#E69F00", 0.94), "sparse": ("D", "#D55E00", 1.0), "scratch": ("s", "#0072B2", 1.06)}
    looks |= {"frozen": ("^", "#999999", 1.0), "frozen_plain": ("v", "#555555", 1.0)}
    panels = defaultdict(list)
    for line in lines:
        panels[f"{line['size']} px, width {line['width']}, {line['epochs']} epochs"].append(line)
    size = (2.4 + 4 * len(panels), 3.4)
    figure, row = plt.subplots(1, len(panels), figsize=size, sharex=True, sharey=True, squeeze=False)
    shares = sorted({float(line["labels_percent"]) for line in lines})
    for axes, (title, panel) in zip(row[0], panels.items(), strict=True):
        for variant, (marker, colour, shift) in looks.items():
            runs = [line for line in panel if line["variant"] == variant]
            percents = [float(line["labels_percent"]) * shift for line in runs]  # side by side
            values = [float(line["miou"]) for line in runs]
            axes.scatter(percents, values, 20, marker=marker, color=colour, label=variant.replace("_", ", "))
            means = {x: [v for p, v in zip(percents, values, strict=True) if p == x] for x in sorted(set(percents))}
            axes.plot(list(means), [sum(group) / len(group) for group in means.values()], color=colour, linewidth=1)
        axes.set(xscale="log", xlabel="masks used, % of the training split", title=title)
        axes.set_xticks(shares, [f"{share:g}" for share in shares])
        axes.minorticks_off()
    row[0, 0].set_ylabel("test mIoU")
    figure.legend(*row[0, 0].get_legend_handles_labels(), loc="outside right center")
    save_figure(figure, path)


if __name__ == "__main__":
    run_script(main, "clip, autoencoder or seeds", reads=("DATA_ROOT",))
