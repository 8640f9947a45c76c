"""Train and score the variants of a comparison, all with the same budget; writes results/NAME.csv.

    python compare.py clip                                              # what is the pretraining worth?
    python compare.py clip --ENCODER=facebook/deit-tiny-patch16-224

clip: the same decoder on the frozen encoder, on the fine-tuned one, and on a frozen one with random weights.
A comparison that was stopped goes on where it was.
"""

import os
import subprocess
import sys
from pathlib import Path

import torch

from utils.checkpoint import load
from utils.config import require_positive, run_script
from utils.dataset import PetDataset
from utils.distributed import pick_device
from utils.errors import UserError
from utils.evaluation import evaluate
from utils.files import write_csv
from utils.metrics import scores
from utils.rows import load_row
from utils.tables import markdown_table, write_between_markers

DATA_ROOT = os.environ.get("PETS_ROOT", "data/pets")  # any layout of data/README.md
ENCODER = "openai/clip-vit-base-patch16"  # hub id or folder
IMAGE_SIZE = 256  # a multiple of the encoder's patch size
EPOCHS = 2  # each shows every training picture once; an even number
DEVICE = "auto"  # "cpu", "cuda", "cuda:1"
CHECKPOINTS = "checkpoints/compare"  # a folder per comparison and variant
RESULTS = "results"  # folder of the CSV
README = ""  # file whose table between the comparison's markers is written anew


def main(arguments: list[str]) -> None:
    comparisons = {"clip": clip_variants}
    if len(arguments) != 1 or arguments[0] not in comparisons:
        raise UserError(f"name one comparison: {', '.join(comparisons)}")
    require_positive(globals(), "EPOCHS", "IMAGE_SIZE")
    if EPOCHS % 2:
        raise UserError(f"EPOCHS = {EPOCHS}: must be even, for an epoch of kept features shows every picture twice")
    (comparison,) = arguments
    lines = []
    for variant, (row, script, options) in comparisons[comparison]().items():
        folder = Path(CHECKPOINTS) / comparison / variant
        print(f"--- {comparison}: {variant}", flush=True)
        train(script, [*options, f"--DATA_ROOT={DATA_ROOT}", f"--CHECKPOINTS={folder}", f"--DEVICE={DEVICE}"], folder)
        lines.append({"variant": variant, "encoder": ENCODER, **score(row, folder)})
        path = Path(RESULTS) / f"{comparison}.csv"
        write_csv(lines, path)
    table = markdown_table({key: key.replace("_", " ") for key in lines[0]}, lines, 2)
    print(f"{table}\nwrote {path}")
    if README:
        write_between_markers(README, comparison, table)


def clip_variants() -> dict[str, tuple[str, str, list[str]]]:
    """variant -> row of the table, script, its options."""
    random = Path(CHECKPOINTS) / "clip" / "random-encoder"
    if not (random / "preprocessor_config.json").exists():  # the last file to be written
        save_random_encoder(ENCODER, random)
    # With kept features an epoch holds every picture and its mirror image.
    kept = [f"--IMAGE_SIZE={IMAGE_SIZE}", f"--EPOCHS={EPOCHS // 2}"]
    encoded = [f"--IMAGE_SIZE={IMAGE_SIZE}", f"--EPOCHS={EPOCHS}", "--AUGMENT_FEATURES=False", "--FREEZE_ENCODER=False"]
    return {
        "frozen": ("CLIP", "train_clip.py", [f"--ENCODER={ENCODER}", *kept]),
        "fine-tuned": ("CLIP", "train_clip.py", [f"--ENCODER={ENCODER}", *encoded]),
        "random": ("CLIP", "train_clip.py", [f"--ENCODER={random}", *kept]),
    }


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


def train(script: str, options: list[str], folder: Path) -> None:
    """Run a training script, unless its run is already complete; go on with one that was stopped.

    Raises UserError if what is there was trained with other constants.
    """
    done = next(iter(folder.glob("*/last.pt")), None)
    if done:
        saved = load(done)
        asked = dict(option.removeprefix("--").split("=", 1) for option in options)
        for key in ("ENCODER", "IMAGE_SIZE", "EPOCHS"):
            if str(saved["constants"][key]) != asked[key]:
                was = f"{key} = {saved['constants'][key]}, now it is {asked[key]}"
                raise UserError(f"{done} was trained with {was}: choose another CHECKPOINTS or remove {folder}")
        if saved["epoch"] == saved["constants"]["EPOCHS"]:
            return
        options = [*options, "--RESUME=True"]
    script_path = Path(__file__).with_name(script)
    if subprocess.run([sys.executable, str(script_path), *options]).returncode:
        raise UserError(f"{script} did not finish; its message is above")


def score(row_name: str, folder: Path) -> dict[str, str]:
    """Scores on the test split, ready for the CSV."""
    device = pick_device(DEVICE)
    row = load_row(row_name, folder, device)
    dataset = PetDataset(DATA_ROOT, "test", row.image_size)
    result = scores(evaluate(row.predictor(False), dataset, device, label="test"))
    columns = ("miou", "mdice", "pixel_accuracy", "iou_background", "iou_cat", "iou_dog")
    numbers = {column: f"{result[column]:.4f}" for column in columns}
    return {**numbers, "epochs": str(EPOCHS), "images": str(len(dataset))}


if __name__ == "__main__":
    run_script(main, positional="clip")
