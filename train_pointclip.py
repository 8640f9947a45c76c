"""Train PointCLIP: the thing under the clicks, against the rest, on a frozen encoder.

    python train_pointclip.py                                         # from train_clip.py's decoder
    python train_pointclip.py --ENCODER=facebook/deit-tiny-patch16-224
    python train_pointclip.py --ENCODER=checkpoints/clip_finetuned/best.safetensors   # the encoder that row fine-tuned

Writes best.safetensors (decoder and click stem, and where the encoder is), last.pt, log.csv, curves.png and
progress.png in checkpoints/pointclip/ (or ROW/).
"""

import math
from pathlib import Path

from utils.config import (
    DATA,
    require_between,
    require_choice,
    require_positive,
    require_range,
    run_script,
    script_constants,
)

import torch

from models.pointclip import SHAPES, PointCLIP
from utils.checkpoint import weights_file
from utils.device import pick_device
from utils.distributed import distributed
from utils.figures.grids import training_report
from utils.inputs.augment import EDGES, augment, normalise
from utils.inputs.dataset import SegmentationDataset
from utils.rows import folder_of
from utils.rows.by_click import ByClick, validate_clicks
from utils.training.encoders import (
    WEIGHTS,
    build_model,
    load_decoder,
    load_start,
    parameter_groups,
    require_multiple,
)
from utils.training.fit import Settings, fit
from utils.training.losses import segmentation_loss
from utils.training.simulated_clicks import simulate_clicks

# task
ROW = ""  # a name: a row of its own in the table, in a folder of that name; empty: PointCLIP
CLICK_SHAPE = "disk"  # "gaussian"
CLICK_RADIUS = 0.02  # of the picture's side
CORRECTIONS = 4  # simulated clicks after the first one, at most
EDITED = 0.5  # share of corrected images whose target mask is randomly edited
WARM_START = "CLIP"  # row whose decoder to begin with, if it was trained on the same encoder; empty: none
WARM_RATE = 0.1  # of LEARNING_RATE, for that decoder
START = ""  # PointCLIP's weights, or their folder, to go on from
# data
DATA_ROOT = DATA  # any layout of data/README.md
TRAIN_SPLIT = "train"  # "trainval" trains on the validation pictures too: choose nothing by the score then
IMAGE_SIZE = 256  # a multiple of the encoder's patch size; 224 to 448 is sensible
VIEW_SIZE = 0  # at validation and prediction; 0: IMAGE_SIZE
# encoder
# hub id or folder of CLIP, SigLIP, DINOv2, ViT or DeiT; "tiny"; the weights of a row that fine-tuned one
ENCODER = "openai/clip-vit-base-patch16"
LAYERS = ()  # blocks whose tokens are used, from 1; empty: thirds of the depth
FALLBACK = ""  # "tiny": where ENCODER cannot be had, train a tiny one from scratch
# decoder
WIDTHS = (16, 48, 96, 192)  # channels at 1/2, 1/4, 1/8 of the picture and at the tokens
DROPOUT = 0.1  # of the encoder's channels
# augmentation
SCALE = (0.7, 1.8)  # magnification
ROTATION = 15.0  # degrees at most
COLOUR = 0.5  # 0 none, 1 strong
EDGE = "grey"  # beyond a picture's edge; "mirror" goes on with its mirror image: for SCALE from .3
PASTE = 0.0  # share of the batch that is animals pasted on other pictures' backgrounds
# optimisation
EPOCHS = 10
BATCH_SIZE = 16  # of all processes together
MICRO_BATCH = 0  # lower it if memory is short: pictures per process at once, 0 = all
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 0.05
WARMUP = 0.1  # share of the steps
EMA_DECAY = 0.995  # reached step by step; the averaged weights are the ones that are kept
CLIP_NORM = 1.0  # of the gradient
VALIDATE_EVERY = 1  # epochs; more where an epoch takes seconds, as on a GPU
# run
PRECISION = "auto"  # "bf16", "fp32"; auto is bf16 where the hardware multiplies it
DEVICE = "auto"  # "cpu", "cuda", "cuda:1"
SEED = 0
RESUME = False  # go on from last.pt
CHECKPOINTS = "checkpoints"  # folder of all rows


def main() -> None:
    constants = script_constants(main)
    settings = Settings.of(constants)
    require_choice("CLICK_SHAPE", CLICK_SHAPE, SHAPES)
    require_choice("TRAIN_SPLIT", TRAIN_SPLIT, ("train", "trainval"))
    require_positive(constants, "CLICK_RADIUS", "IMAGE_SIZE", "WARM_RATE")
    require_between(constants, 0, math.inf, "VIEW_SIZE")
    require_between(constants, 0, 19, "CORRECTIONS")
    require_between(constants, 0, 1, "DROPOUT", "COLOUR", "EDITED", "PASTE")
    require_range("SCALE", SCALE)
    require_choice("EDGE", EDGE, EDGES)
    folder = Path(CHECKPOINTS) / folder_of(ROW, "pointclip")
    view_size, device = VIEW_SIZE or IMAGE_SIZE, pick_device(DEVICE)
    torch.manual_seed(SEED)
    with distributed(device):
        # 1. Data.
        train = SegmentationDataset(DATA_ROOT, TRAIN_SPLIT, IMAGE_SIZE).to(device)
        val = SegmentationDataset(DATA_ROOT, "val", view_size)

        # 2. Model: encoder and decoder, which starts from the one that was trained by class.
        arguments = {"encoder": ENCODER, "layers": LAYERS, "widths": WIDTHS, "dropout": DROPOUT}
        arguments |= {"freeze_encoder": True, "click_shape": CLICK_SHAPE, "click_radius": CLICK_RADIUS}
        model, arguments, encoder = build_model(PointCLIP, arguments, FALLBACK, CHECKPOINTS)
        mean, std = model.encoder.mean, model.encoder.std
        require_multiple(model.encoder, IMAGE_SIZE=IMAGE_SIZE, VIEW_SIZE=view_size)
        warm = False
        if START:
            load_start(model, arguments["freeze_encoder"], START)
        elif ENCODER.endswith(WEIGHTS):
            warm = load_decoder(model, arguments, Path(ENCODER))
        elif WARM_START:
            warm = load_decoder(model, arguments, weights_file(Path(CHECKPOINTS) / folder_of(WARM_START, "clip")))

        # 3. Loss of the thing under the last of some simulated clicks.
        look = {"scale": SCALE, "rotation": ROTATION, "colour": COLOUR, "edge": EDGE, "paste": PASTE}

        def compute_loss(model, batch, generator, progress):
            images, masks = augment(*batch, generator, IMAGE_SIZE, **look)
            images = normalise(images, mean, std)
            single = getattr(model, "module", model)  # without the wrapper for several processes
            tokens = single.encoder(images) if arguments["freeze_encoder"] else None
            single.eval()
            with torch.no_grad():
                features = single.encode(images, tokens)

            def predict(indices, clicks, previous):
                return single.decode([feature[indices] for feature in features], clicks, previous)

            truth, clicks, previous = simulate_clicks(predict, images, masks, generator, CORRECTIONS, EDITED)
            single.train()
            thing = model(images, clicks, previous, tokens)
            return segmentation_loss(torch.cat([torch.zeros_like(thing), thing], 1), truth)

        # 4. Validation after one click and after three, without windows.
        def validate(model):
            return validate_clicks(ByClick("validation", model, device, view_size, mean, std, val.classes), val)

        def predict(model):
            def rest_and_thing(images, clicks):
                thing = model(normalise(images, mean, std), clicks)
                return torch.cat([torch.zeros_like(thing), thing], 1)

            return rest_and_thing

        # 5. Train.
        fit(
            model,
            train,
            compute_loss,
            validate,
            folder=folder,
            about={
                "model": "pointclip",
                "arguments": arguments,
                **encoder,
                "image_size": view_size,
                "mean": mean,
                "std": std,
            },
            classes=train.classes,
            settings=settings,
            device=device,
            report=training_report(val, device, predict, clicked=True),
            parameter_groups=parameter_groups(model, decoder=WARM_RATE if warm else 1.0),
        )


if __name__ == "__main__":
    run_script(main)
