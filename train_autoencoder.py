"""Train an autoencoder in two stages: reconstruct pictures without masks, then segment.

    python train_autoencoder.py                        # both stages: 86 minutes on two cores in bf16; .891 on Pet's
                                                       # validation split
    python train_autoencoder.py --FINETUNE=scratch     # the same network and total budget without stage 1
    python train_autoencoder.py --FINETUNE=frozen      # the encoder is not trained in stage 2
    python train_autoencoder.py --FINETUNE=frozen --MASK_RATIO=0   # the classic one: no patch hidden
    python train_autoencoder.py --LABELS_PERCENT=10    # stage 1 on all pictures, stage 2 on a tenth of the masks

Stage 2 writes checkpoints/autoencoder/{best.safetensors, last.pt, log.csv, curves.png, progress.png}, stage 1 the same
files in checkpoints/autoencoder/pretraining/.
"""

from pathlib import Path

from utils.config import DATA, require_between, require_choice, require_positive, run_script, script_constants

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import Subset

from models.autoencoder import Autoencoder, AutoencoderSegmenter
from utils.checkpoint import digest, load
from utils.device import pick_device
from utils.errors import UserError
from utils.figures.grids import draw_progress
from utils.figures.plots import plot_curves, plot_examples
from utils.inputs.augment import IMAGENET_MEAN, IMAGENET_STD, augment, normalise
from utils.inputs.dataset import SegmentationDataset, scored_samples
from utils.rows.by_class import ByClass
from utils.rows.row import Row
from utils.training.fit import Settings, fit
from utils.training.losses import segmentation_loss
from utils.training.start import find_start, load_start

# stages
START = ""  # skip stage 1 and start from these weights, a file or a row's folder; their classes may differ
FINETUNE = "full"  # "frozen": the encoder is not trained; "scratch": no stage 1, its epochs added to stage 2
# data
DATA_ROOT = DATA  # any layout of data/README.md
TRAIN_SPLIT = "train"  # "trainval" also trains on the validation pictures: their score then means nothing
LABELS_PERCENT = 100  # of the training masks used in stage 2
IMAGE_SIZE = 160  # pictures are squashed to this many pixels a side
SMALL_SIZE = 112  # in stage 1 and in the first part of stage 2
SMALL_SHARE = 0.5  # share of the epochs at SMALL_SIZE
# reconstruction
MASK_RATIO = 0.6  # share of patches hidden; 0: none, the classic autoencoder
PATCH = 16  # pixels a side
# model: a U-Net
WIDTH = 32  # channels of the finest level
DEPTH = 5  # levels; the coarsest should see the whole animal
MAX_WIDTH = 512  # channels are doubled per level up to this
BLOCKS = 1  # residual blocks per encoder level
STEM_STRIDE = 2  # 1 keeps the full resolution, at three times the cost
DROPOUT = 0.1  # of channels at the coarsest level, in stage 2
# augmentation
SCALE = (0.7, 1.8)  # magnification of the animal
ROTATION = 15.0  # degrees, at most
COLOUR = 0.8  # 0 none, 1 strong
ERASE = 0.3  # chance of a grey rectangle, in stage 2
# optimisation, of both stages
PRETRAIN_EPOCHS = 5
EPOCHS = 65
BATCH_SIZE = 16  # lower it if memory is short
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 0.05
WARMUP = 0.1  # share of the steps
EMA_DECAY = 0.998  # of the averaged weights, which are saved; lower in the first steps
CLIP_NORM = 1.0  # of the gradient
VALIDATE_EVERY = 1  # epochs; raise it where an epoch takes seconds, as on a GPU
# run
PRECISION = "auto"  # "bf16", "fp32"; auto is bf16 where it is native
DEVICE = "auto"  # "cpu", "cuda", "cuda:1"
SEED = 0
RESUME = False  # go on from last.pt, of the stage that was interrupted
CHECKPOINTS = "checkpoints"  # folder of all rows


def main() -> None:
    constants = script_constants(main)
    Settings.of(constants)  # checks them
    require_choice("FINETUNE", FINETUNE, ("full", "frozen", "scratch"))
    require_between(constants, 0, 0.95, "MASK_RATIO")
    require_between(constants, 0, 100, "LABELS_PERCENT")
    if SMALL_SIZE % PATCH:
        raise UserError(f"SMALL_SIZE = {SMALL_SIZE}: must be a multiple of PATCH = {PATCH}")
    device = pick_device(DEVICE)
    folder = Path(CHECKPOINTS) / "autoencoder"
    network = {"width": WIDTH, "depth": DEPTH, "max_width": MAX_WIDTH, "blocks": BLOCKS, "stem_stride": STEM_STRIDE}
    if FINETUNE == "scratch" and START:
        raise UserError("FINETUNE = scratch takes no START: choose one of them")
    if FINETUNE != "scratch" and not START:
        require_positive(constants, "PRETRAIN_EPOCHS")
        pretrain(folder, network, constants, device)
    finetune(folder, network, constants, device)


def pretrain(folder: Path, network: dict, constants: dict, device: torch.device) -> None:
    """Stage 1: reconstruct pictures, without their masks. Writes folder/pretraining/."""
    # 1. Data and model.
    train = SegmentationDataset(DATA_ROOT, TRAIN_SPLIT, SMALL_SIZE)
    val = SegmentationDataset(DATA_ROOT, "val", SMALL_SIZE)
    torch.manual_seed(SEED)
    model = Autoencoder(**network)
    row = Reconstruction("stage 1", model, device, SMALL_SIZE, IMAGENET_MEAN, IMAGENET_STD, train.classes)

    # 2. Loss on whole pictures; the model sees masked ones.
    def compute_loss(model, batch, generator, progress):
        images, _ = augment(*batch, generator, SMALL_SIZE, scale=SCALE, rotation=ROTATION, colour=COLOUR)
        return reconstruction_loss(model, normalise(images, IMAGENET_MEAN, IMAGENET_STD), generator)

    # 3. Train; stage 2 starts from the averaged weights of the best epoch.
    fit(
        row,
        train,
        compute_loss,
        val,
        folder=folder / "pretraining",
        about={"model": "autoencoder stage 1", "arguments": network},
        settings=Settings.of(constants, epochs=PRETRAIN_EPOCHS),
        report=draw_reconstructions,
    )


class Reconstruction(Row):
    """Stage 1; its score is the negative loss."""

    @torch.inference_mode()
    def validate(self, val: SegmentationDataset) -> dict[str, float]:
        generator, total = torch.Generator().manual_seed(0), 0.0  # always hides the same patches
        for indices in torch.arange(len(val)).split(BATCH_SIZE):
            images = normalise(val[indices.tolist()][0].to(self.device), self.mean, self.std)
            total += reconstruction_loss(self.model, images, generator).item() * len(images)
        return {"score": -total / len(val)}


def hide_patches(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Normalised pictures (N, 3, S, S) with random patches set to 0, a share MASK_RATIO of each picture."""
    count, side = len(images), images.shape[-1] // PATCH
    ranks = torch.rand(count, side * side, generator=generator).argsort(1).argsort(1)
    hidden = (ranks < round(MASK_RATIO * side * side)).view(count, 1, side, side).to(images.device)
    return images.masked_fill(hidden.repeat_interleave(PATCH, 2).repeat_interleave(PATCH, 3), 0)


def reconstruction_loss(model: torch.nn.Module, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Mean squared error of all pixels of pictures (N, 3, S, S), reconstructed after hide_patches()."""
    return F.mse_loss(model(hide_patches(images, generator)).float(), images)


def finetune(folder: Path, network: dict, constants: dict, device: torch.device) -> None:
    """Stage 2: the same network with a head for the classes. Writes folder/best.safetensors."""
    # 1. Data: with fewer masks an epoch repeats them, so that budgets stay comparable.
    train = SegmentationDataset(DATA_ROOT, TRAIN_SPLIT, IMAGE_SIZE)
    val = scored_samples(DATA_ROOT)
    labelled = Subset(train, choose_labelled(len(train), LABELS_PERCENT, SEED))

    # 2. Model, from stage 1, from START or from scratch.
    torch.manual_seed(SEED)
    arguments = {"classes": len(train.classes), "dropout": DROPOUT, "frozen": FINETUNE == "frozen", **network}
    model = AutoencoderSegmenter(**arguments)
    row = ByClass("Autoencoder", model, device, IMAGE_SIZE, IMAGENET_MEAN, IMAGENET_STD, train.classes)
    scratch = FINETUNE == "scratch"
    source = "" if scratch else START or str(folder / "pretraining")
    start = find_start(source, CHECKPOINTS, "autoencoder", "autoencoder stage 1")
    if start:
        load_start(model, start, train.classes)
    steps = len(train) // BATCH_SIZE
    settings = Settings.of(constants, epochs=EPOCHS + PRETRAIN_EPOCHS * scratch, epoch_steps=steps)

    # 3. Loss on augmented batches; small pictures first.
    def compute_loss(model, batch, generator, progress):
        size = SMALL_SIZE if progress < SMALL_SHARE else IMAGE_SIZE
        images, masks = augment(*batch, generator, size, scale=SCALE, rotation=ROTATION, colour=COLOUR, erase=ERASE)
        return segmentation_loss(model(normalise(images, IMAGENET_MEAN, IMAGENET_STD)), masks)

    # 4. Train; validation sees each picture at one size, evaluate.py at two.
    about = {"model": "autoencoder", "arguments": arguments}
    about["pretrained"] = digest(start["weights"]) if start else ""
    about["minutes"] = 0.0 if START else start.get("minutes", 0.0)  # of stage 1
    if RESUME and start:  # if stage 1 was interrupted, stage 2 begins anew
        last, best = folder / "last.pt", folder / "best.safetensors"
        settings.resume = last.exists() and best.exists() and load(last).get("pretrained") == about["pretrained"]
    fit(row, labelled, compute_loss, val, folder=folder, about=about, settings=settings, report=draw_progress)


def choose_labelled(count: int, percent: int, seed: int) -> list[int]:
    """Indices of a random `percent` of `count` pictures, at least one."""
    return np.random.default_rng(seed).permutation(count)[: max(1, round(count * percent / 100))].tolist()


@torch.inference_mode()
def draw_reconstructions(log: list[dict], row: Row, val: SegmentationDataset, folder: Path) -> None:
    """curves.png, and progress.png: a grid of pictures, the model's inputs, and its reconstructions."""
    plot_curves(log, folder / "curves.png")
    images = normalise(val[:4][0].to(row.device), row.mean, row.std)
    parts = hide_patches(images, torch.Generator().manual_seed(0))
    columns = {"original": images, "input": parts, "reconstruction": row.model(parts).float()}
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (row.mean, row.std))
    pictures = {title: (x.cpu() * std + mean).clamp(0, 1).movedim(1, -1).numpy() for title, x in columns.items()}
    plot_examples(pictures, folder / "progress.png")


if __name__ == "__main__":
    run_script(main)
