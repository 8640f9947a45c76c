"""Train a residual U-Net from scratch, on the classes of the data.

    python train_unet.py                      # 106 minutes on two cores in bf16; .881 on Pet's validation split
    python train_unet.py --RESUME=True        # go on after an interruption

Writes checkpoints/unet/{best.safetensors, last.pt, log.csv, curves.png, progress.png}; `python evaluate.py` scores it.
"""

from pathlib import Path

from utils.config import DATA, run_script, script_constants

import torch

from models.unet import UNet
from utils.device import pick_device
from utils.figures.grids import draw_progress
from utils.inputs.augment import IMAGENET_MEAN, IMAGENET_STD, augment, normalise
from utils.inputs.dataset import SegmentationDataset, scored_samples
from utils.rows.by_class import ByClass
from utils.training.fit import Settings, fit
from utils.training.losses import segmentation_loss
from utils.training.start import find_start, load_start

# data
DATA_ROOT = DATA  # any layout of data/README.md
TRAIN_SPLIT = "train"  # "trainval" also trains on the validation pictures: their score then means nothing
IMAGE_SIZE = 160  # pictures are squashed to this many pixels a side
SMALL_SIZE = 112  # in the first part of the training: half the cost, and the model learns scale
SMALL_SHARE = 0.5  # share of the epochs at SMALL_SIZE
# model
WIDTH = 32  # channels of the finest level
DEPTH = 5  # levels; the coarsest should see the whole animal
MAX_WIDTH = 512  # channels are doubled per level up to this
BLOCKS = 1  # residual blocks per encoder level
STEM_STRIDE = 2  # 1 keeps the full resolution, at three times the cost
DROPOUT = 0.1  # of channels at the coarsest level
START = ""  # start from these weights, a file or a row's folder; their classes may differ
# augmentation
SCALE = (0.7, 1.8)  # magnification of the animal
ROTATION = 15.0  # degrees, at most
COLOUR = 0.8  # 0 none, 1 strong
ERASE = 0.3  # chance of a grey rectangle
# optimisation
EPOCHS = 70
EPOCH_STEPS = 0  # minimum number of steps per epoch: few pictures are repeated
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
RESUME = False  # go on from last.pt
CHECKPOINTS = "checkpoints"  # folder of all rows


def main() -> None:
    settings, device = Settings.of(script_constants(main)), pick_device(DEVICE)
    torch.manual_seed(SEED)
    # 1. Data: uint8 batches from the cache.
    train = SegmentationDataset(DATA_ROOT, TRAIN_SPLIT, IMAGE_SIZE)
    val = scored_samples(DATA_ROOT)

    # 2. Model. Validation sees each picture at one size, evaluate.py at two.
    arguments = {"classes": len(train.classes), "width": WIDTH, "depth": DEPTH, "max_width": MAX_WIDTH}
    arguments |= {"blocks": BLOCKS, "stem_stride": STEM_STRIDE, "dropout": DROPOUT}
    model = UNet(**arguments)
    if START:
        load_start(model, find_start(START, CHECKPOINTS, "unet"), train.classes)
    row = ByClass("UNET", model, device, IMAGE_SIZE, IMAGENET_MEAN, IMAGENET_STD, train.classes)

    # 3. Loss on augmented batches; small pictures first.
    def compute_loss(model, batch, generator, progress):
        size = SMALL_SIZE if progress < SMALL_SHARE else IMAGE_SIZE
        images, masks = augment(*batch, generator, size, scale=SCALE, rotation=ROTATION, colour=COLOUR, erase=ERASE)
        return segmentation_loss(model(normalise(images, IMAGENET_MEAN, IMAGENET_STD)), masks)

    # 4. Train.
    fit(
        row,
        train,
        compute_loss,
        val,
        folder=Path(CHECKPOINTS) / "unet",
        about={"model": "unet", "arguments": arguments},
        settings=settings,
        report=draw_progress,
    )


if __name__ == "__main__":
    run_script(main)
