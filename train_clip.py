"""Train a CNN decoder on a pretrained image encoder, CLIP's by default.

    python train_clip.py                                              # the encoder stays frozen
    python train_clip.py --ENCODER=facebook/deit-tiny-patch16-224     # any encoder that transformers knows
    python train_clip.py recipes/deit_tiny.py                         # the table's, on a small encoder
    python train_clip.py recipes/clip_finetuned.py                    # then the encoder is trained too

Writes best.safetensors (the decoder, and the encoder's id or weights), last.pt, log.csv, curves.png and progress.png in
checkpoints/clip/ (or ROW/). train_pointclip.py goes on from the decoder.
"""

import time
from dataclasses import replace
from pathlib import Path

from utils.config import DATA, run_script, script_constants

import torch

from models.clip import CLIPCNN
from utils.checkpoint import halve, save
from utils.device import pick_device
from utils.errors import UserError
from utils.figures.grids import draw_progress
from utils.inputs.augment import augment, normalise
from utils.inputs.dataset import SegmentationDataset, scored_samples
from utils.rows import folder_of, load_model
from utils.rows.by_class import ByClass
from utils.training.encoders import build_model
from utils.training.fit import Settings, fit
from utils.training.losses import segmentation_loss
from utils.training.naming import fit_names
from utils.training.start import find_start, load_start

# task
ROW = ""  # name and folder of a further row in the table, e.g. DINOv2; empty: CLIP
START = ""  # start from these weights, a file or a row's folder: decoder first, then all (Kumar et al., ICLR 2022)
# data
DATA_ROOT = DATA  # any layout of data/README.md
TRAIN_SPLIT = "train"  # "trainval" also trains on the validation pictures: their score then means nothing
IMAGE_SIZE = 256  # a multiple of the encoder's patch size; 224 to 448 is sensible
VIEW_SIZE = 0  # at validation and prediction; 0: IMAGE_SIZE. Slightly larger is often better (Touvron, NeurIPS 2019)
# encoder
# hub id or folder of CLIP, SigLIP, DINOv2, ViT or DeiT; "tiny"; a row's weights. START brings its own encoder
ENCODER = "openai/clip-vit-base-patch16"
LAYERS = ()  # blocks whose tokens are used, from 1; empty: thirds of the depth
FREEZE_ENCODER = True  # False fine-tunes it
ENCODER_RATE = 0.05  # of LEARNING_RATE, if the encoder is trained
# decoder
WIDTHS = (16, 48, 96, 192)  # channels at 1/2, 1/4, 1/8 of the picture and at the tokens
DROPOUT = 0.1  # of the encoder's channels
# augmentation
SCALE = (0.7, 1.8)  # magnification
ROTATION = 15.0  # degrees at most
COLOUR = 0.5  # 0 none, 1 strong
EDGE = "grey"  # padding beyond a picture's edge; "mirror" reflects the picture, for SCALE below .5
PASTE = 0.0  # share of the batch made of animals pasted on other backgrounds
# optimisation
EPOCHS = 10
EPOCH_STEPS = 0  # minimum number of steps per epoch: few pictures are repeated
BATCH_SIZE = 16  # lower it if memory is short
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 0.05
WARMUP = 0.1  # share of the steps
EMA_DECAY = 0.995  # of the averaged weights, which are saved; lower in the first steps
CLIP_NORM = 1.0  # of the gradient
VALIDATE_EVERY = 1  # epochs; raise it where an epoch takes seconds, as on a GPU
# prediction
ZOOM = False  # True: the row segments each object again in a crop, and classifies the crop as a whole
# run
PRECISION = "auto"  # "bf16", "fp32"; auto is bf16 where it is native
DEVICE = "auto"  # "cpu", "cuda", "cuda:1"
SEED = 0
RESUME = False  # go on from last.pt
CHECKPOINTS = "checkpoints"  # folder of all rows


def main() -> None:
    settings = Settings.of(script_constants(main))
    folder = Path(CHECKPOINTS) / folder_of(ROW, "clip")
    start = find_start(START, CHECKPOINTS, "clip")
    view_size, device = VIEW_SIZE or IMAGE_SIZE, pick_device(DEVICE)
    sizes = {"IMAGE_SIZE": IMAGE_SIZE, "VIEW_SIZE": view_size}
    torch.manual_seed(SEED)
    # 1. Data.
    train = SegmentationDataset(DATA_ROOT, TRAIN_SPLIT, IMAGE_SIZE)
    val = scored_samples(DATA_ROOT)
    if (ZOOM or PASTE) and not train.classes.first:
        raise UserError(f"id 0 is {train.classes.names[0]}, not background: set ZOOM = False and PASTE = 0")

    # 2. Model: encoder and decoder.
    arguments = {"encoder": ENCODER, "layers": LAYERS, "classes": len(train.classes), "widths": WIDTHS}
    arguments |= {"dropout": DROPOUT, "freeze_encoder": FREEZE_ENCODER}
    model, arguments, encoder = build_model(CLIPCNN, arguments, start, sizes)
    mean, std = model.encoder.mean, model.encoder.std
    if start:
        load_start(model, start, train.classes, arguments["freeze_encoder"])
    row = ByClass(ROW or "CLIP", model, device, view_size, mean, std, train.classes)

    # 3. Loss on augmented batches.
    look = {"scale": SCALE, "rotation": ROTATION, "colour": COLOUR, "edge": EDGE, "paste": PASTE}

    def compute_loss(model, batch, generator, progress):
        images, masks = augment(*batch, generator, IMAGE_SIZE, **look)
        return segmentation_loss(model(normalise(images, mean, std)), masks)

    # 4. Train; validation has no crops.
    tiny = arguments["encoder"] == "tiny"  # random weights need the full rate
    best = fit(
        row,
        train,
        compute_loss,
        val,
        folder=folder,
        about={"model": "clip", "arguments": arguments, **encoder},
        settings=settings,
        report=draw_progress,
        rates={"encoder": 1.0 if tiny else ENCODER_RATE},
    )

    # 5. Fit the layer that classifies crops; the checkpoint's score becomes the one with crops.
    if ZOOM:
        began, (model, content) = time.perf_counter(), load_model(best, "clip", device)
        fit_names(model, train, view_size, device)
        score = replace(row, model=model, zoom=True).validate(val)["score"]
        names = {f"name_layer.{key}": value.cpu() for key, value in model.name_layer.state_dict().items()}
        content["arguments"]["name_parts"] = True
        content["minutes"] += (time.perf_counter() - began) / 60
        save({**content, "weights": content["weights"] | halve(names), "score": score, "zoom": True}, best)
        print(f"score with crops {score:.4f}: {best}")


if __name__ == "__main__":
    run_script(main)
