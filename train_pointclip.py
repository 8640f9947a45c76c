"""Train PointCLIP, which segments the object under the clicks, on a frozen encoder.

    python train_pointclip.py    # 74 minutes on two cores in bf16; .968 on Pet's validation split after one click
    python train_pointclip.py --START=clip                            # on the frozen encoder of CLIP
    python train_pointclip.py --ENCODER=facebook/deit-tiny-patch16-224   # another encoder, a random decoder

Writes best.safetensors (decoder and click stem, and where the encoder is), last.pt, log.csv, curves.png and
progress.png in checkpoints/pointclip/ (or ROW/).
"""

from pathlib import Path

from utils.config import DATA, require_between, run_script, script_constants

import torch

from models.pointclip import PointCLIP
from utils.device import pick_device
from utils.errors import UserError
from utils.figures.grids import draw_progress
from utils.inputs.augment import augment, normalise
from utils.inputs.dataset import SegmentationDataset, scored_samples
from utils.rows import folder_of
from utils.rows.by_click import ByClick
from utils.training.encoders import build_model
from utils.training.fit import Settings, fit
from utils.training.losses import segmentation_loss
from utils.training.simulated_clicks import simulate_clicks
from utils.training.start import find_start, load_start

# task
ROW = ""  # name and folder of a further row in the table; empty: PointCLIP
CLICK_RADIUS = 0.02  # of the picture's side
CORRECTIONS = 9  # maximum number of simulated clicks after the first one
EDITED = 0.5  # share of corrected images whose target mask is randomly edited
START = "clip_finetuned"  # start from a CLIP's encoder and decoder, or from all of a PointCLIP
# data
DATA_ROOT = DATA  # any layout of data/README.md
TRAIN_SPLIT = "train"  # "trainval" also trains on the validation pictures: their score then means nothing
IMAGE_SIZE = 256  # a multiple of the encoder's patch size; 224 to 448 is sensible
VIEW_SIZE = 320  # at validation and prediction; 0: IMAGE_SIZE
# encoder
ENCODER = ""  # instead of START's: hub id or folder of CLIP, SigLIP, DINOv2, ViT or DeiT; "tiny"; a row's weights
LAYERS = ()  # blocks whose tokens are used, from 1; empty: thirds of the depth
# decoder
WIDTHS = (16, 48, 96, 192)  # channels at 1/2, 1/4, 1/8 of the picture and at the tokens
DROPOUT = 0.1  # of the encoder's channels
# augmentation
SCALE = (0.5, 2.0)  # magnification
ROTATION = 15.0  # degrees at most
COLOUR = 0.5  # 0 none, 1 strong
EDGE = "mirror"  # padding beyond a picture's edge: the reflected picture, or "grey"
PASTE = 0.2  # share of the batch made of animals pasted on other backgrounds
# optimisation
EPOCHS = 12
BATCH_SIZE = 16  # lower it if memory is short
LEARNING_RATE = 5e-4
WEIGHT_DECAY = 0.05
WARMUP = 0.1  # share of the steps
EMA_DECAY = 0.995  # of the averaged weights, which are saved; lower in the first steps
CLIP_NORM = 1.0  # of the gradient
VALIDATE_EVERY = 2  # epochs
# run
PRECISION = "auto"  # "bf16", "fp32"; auto is bf16 where it is native
DEVICE = "auto"  # "cpu", "cuda", "cuda:1"
SEED = 0
RESUME = False  # go on from last.pt
CHECKPOINTS = "checkpoints"  # folder of all rows


def main() -> None:
    constants = script_constants(main)
    settings = Settings.of(constants)
    require_between(constants, 0, 19, "CORRECTIONS")
    if not (START or ENCODER):
        raise UserError("START and ENCODER are empty: give one of them")
    folder = Path(CHECKPOINTS) / folder_of(ROW, "pointclip")
    start = {} if ENCODER else find_start(START, CHECKPOINTS, "clip", "pointclip")
    view_size, device = VIEW_SIZE or IMAGE_SIZE, pick_device(DEVICE)
    sizes = {"IMAGE_SIZE": IMAGE_SIZE, "VIEW_SIZE": view_size}
    torch.manual_seed(SEED)
    # 1. Data.
    train = SegmentationDataset(DATA_ROOT, TRAIN_SPLIT, IMAGE_SIZE)
    val = scored_samples(DATA_ROOT)
    if PASTE and not train.classes.first:
        raise UserError(f"id 0 is {train.classes.names[0]}, not background: set PASTE = 0")

    # 2. Model; encoder and decoder start from START's.
    arguments = {"encoder": ENCODER, "layers": LAYERS, "widths": WIDTHS, "dropout": DROPOUT}
    arguments |= {"freeze_encoder": True, "click_radius": CLICK_RADIUS}
    model, arguments, encoder = build_model(PointCLIP, arguments, start, sizes, CHECKPOINTS)
    mean, std = model.encoder.mean, model.encoder.std
    if start:
        load_start(model, start, train.classes, arguments["freeze_encoder"])
    row = ByClick(ROW or "PointCLIP", model, device, view_size, mean, std, train.classes)

    # 3. Loss of the mask after the last simulated click.
    look = {"scale": SCALE, "rotation": ROTATION, "colour": COLOUR, "edge": EDGE, "paste": PASTE}

    def compute_loss(model, batch, generator, progress):
        images, masks = augment(*batch, generator, IMAGE_SIZE, **look)
        images = normalise(images, mean, std)
        tokens = model.encoder(images) if arguments["freeze_encoder"] else None
        model.eval()
        with torch.no_grad():
            features = model.encode(images, tokens)

        def predict(indices, clicks, previous):
            return model.decode([feature[indices] for feature in features], clicks, previous)

        truth, clicks, previous = simulate_clicks(predict, images, masks, generator, CORRECTIONS, EDITED)
        model.train()
        thing = model(images, clicks, previous, tokens)
        return segmentation_loss(torch.cat([torch.zeros_like(thing), thing], 1), truth)

    # 4. Train; validation gives one click and three, without windows.
    fit(
        row,
        train,
        compute_loss,
        val,
        folder=folder,
        about={"model": "pointclip", "arguments": arguments, **encoder},
        settings=settings,
        report=draw_progress,
    )


if __name__ == "__main__":
    run_script(main)
