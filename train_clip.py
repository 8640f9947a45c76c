"""Train a CNN decoder on a frozen image encoder (CLIP, or any other vision transformer), on the classes of the data.

    python train_clip.py                                              # CLIP ViT-B/16 from the hub
    python train_clip.py --PROMPT=point                               # PointCLIP: the thing under a click
    python train_clip.py --ENCODER=facebook/deit-tiny-patch16-224     # another encoder, by hub id or folder
    python train_clip.py --ENCODER=facebook/dinov2-small --IMAGE_SIZE=252 --ROW=DINOv2   # as a row beside CLIP's
    python train_clip.py --AUGMENT_FEATURES=False                     # encode augmented pictures in every step
    python train_clip.py --AUGMENT_FEATURES=False --FREEZE_ENCODER=False   # fine-tune the encoder too
    python train_clip.py --AUGMENT_FEATURES=False --FREEZE_ENCODER=False --START=checkpoints/clip --ROW=Tuned

The encoder's features of every picture and its mirror image are computed once and kept on disk beside the data's
cache; then an epoch costs the decoder only. Writes best.safetensors (the decoder, and the encoder's id), last.pt,
log.csv, curves.png and progress.png in checkpoints/clip/ (or pointclip/, or ROW/).
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
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
import torch.nn.functional as F

from models.clip import CLIPCNN, encoder_title
from models.pointclip import SHAPES, PointCLIP
from utils.checkpoint import digest, load, load_state, weights_file
from utils.classes import read_classes
from utils.device import pick_device
from utils.distributed import distributed
from utils.errors import UserError
from utils.figures.grids import draw_progress
from utils.figures.plots import plot_curves
from utils.inputs.augment import EDGES, augment, jitter_colour, normalise
from utils.inputs.dataset import SegmentationDataset
from utils.inputs.features import FeatureDataset, encoder_key
from utils.rows import encoder_weights, folder_of
from utils.scoring.by_class import predictor, validate
from utils.scoring.by_click import ByClick, validate_clicks
from utils.scoring.naming import add_closer_look
from utils.training.fit import fit
from utils.training.losses import segmentation_loss
from utils.training.rates import parameter_groups
from utils.training.simulated_clicks import simulate_clicks

# task
PROMPT = "class"  # "class": every pixel gets one; "point": PointCLIP, what was clicked against the rest
ROW = ""  # a name, e.g. DINOv2: a row of its own in the table, in a folder of that name; empty: CLIP, or PointCLIP
CLICK_SHAPE = "disk"  # "gaussian"
CLICK_RADIUS = 0.02  # of the picture's side
CORRECTIONS = 4  # simulated clicks after the first one, at most
EDITED = 0.5  # share of the corrected pictures of which a part is to be left out, or something beside the animal kept
WARM_START = "CLIP"  # row whose decoder to begin with, if it was trained on the same encoder; empty: none
WARM_RATE = 0.1  # of LEARNING_RATE, for that decoder
START = ""  # the row's weights, or their folder, to go on from: the decoder first, then all (Kumar et al., ICLR 2022)
# data
DATA_ROOT = DATA  # any layout of data/README.md
TRAIN_SPLIT = "train"  # "trainval" trains on the validation pictures too: choose nothing by the score then
IMAGE_SIZE = 256  # a multiple of the encoder's patch size; 224 to 448 is sensible
VIEW_SIZE = 0  # at validation and prediction; 0: IMAGE_SIZE. A little larger is often better (Touvron, NeurIPS 2019)
# encoder
# hub id or folder of CLIP, SigLIP, DINOv2, ViT or DeiT; "tiny"; the weights of a row that fine-tuned one
ENCODER = "openai/clip-vit-base-patch16"
LAYERS = ()  # blocks whose tokens are used, from 1; empty: thirds of the depth
FREEZE_ENCODER = True  # False fine-tunes it; needs AUGMENT_FEATURES = False
ENCODER_RATE = 0.05  # of LEARNING_RATE, if the encoder is trained
KEEP = 0.0  # weight of a loss that holds the class token near the pretrained encoder's (Li & Hoiem, ECCV 2016)
RATE_DECAY = 1.0  # per block, from the last to the first: below 1 the first blocks, which are general, change less
FALLBACK = ""  # "tiny": where ENCODER cannot be had, train a tiny one from scratch
# decoder
WIDTHS = (16, 48, 96, 192)  # channels at 1/2, 1/4, 1/8 of the picture and at the tokens
DROPOUT = 0.1  # of the encoder's channels
# augmentation
AUGMENT_FEATURES = True  # keep the features of pictures and mirror images; False: encode augmented pictures
SCALE = (0.7, 1.8)  # magnification, for encoded pictures
ROTATION = 15.0  # degrees at most, for encoded pictures
COLOUR = 0.5  # 0 none, 1 strong; with kept features only the stem's picture is changed
EDGE = "grey"  # beyond a picture's edge; "mirror" goes on with its mirror image: for SCALE from .3
PASTE = 0.0  # share of the batch that is animals pasted on other pictures' backgrounds
ROUGH = 0.0  # chance each of blur or sharpening, noise, JPEG's blocks
# optimisation
EPOCHS = 5  # with kept features an epoch is every picture and its mirror image
BATCH_SIZE = 16  # of all processes together
MICRO_BATCH = 0  # lower it if memory is short: pictures per process at once, 0 = all
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 0.05
WARMUP = 0.1  # share of the steps
EMA_DECAY = 0.995  # reached step by step; the averaged weights are the ones that are kept
CLIP_NORM = 1.0  # of the gradient
VALIDATE_EVERY = 1  # epochs; more where an epoch takes seconds, as on a GPU
# prediction
ZOOM = True  # look closer at what was found, and name it as a whole, unless that is clearly worse on validation
# run
PRECISION = "auto"  # "bf16", "fp32"; auto is bf16 where the hardware multiplies it
DEVICE = "auto"  # "cpu", "cuda", "cuda:1"
SEED = 0
RESUME = False  # go on from last.pt
CHECKPOINTS = "checkpoints"  # folder of all rows


def main() -> None:
    constants = script_constants(main)
    require_choice("PROMPT", PROMPT, ("class", "point"))
    require_choice("CLICK_SHAPE", CLICK_SHAPE, SHAPES)
    require_choice("TRAIN_SPLIT", TRAIN_SPLIT, ("train", "trainval"))
    require_positive(constants, "CLICK_RADIUS", "IMAGE_SIZE", "ENCODER_RATE", "WARM_RATE")
    require_between(constants, 0, math.inf, "VIEW_SIZE")
    require_between(constants, 0, 19, "CORRECTIONS")
    require_between(constants, 0, 1, "DROPOUT", "COLOUR", "EDITED", "PASTE", "ROUGH", "RATE_DECAY")
    require_range("SCALE", SCALE)
    require_choice("EDGE", EDGE, EDGES)
    name, train = ("pointclip", train_by_click) if PROMPT == "point" else ("clip", train_by_class)
    folder = Path(CHECKPOINTS) / folder_of(ROW, name)
    device = pick_device(DEVICE)
    torch.manual_seed(SEED)
    with distributed(device):
        train(folder, constants, device)


def train_by_class(folder: Path, constants: dict, device: torch.device) -> None:
    """CLIP encoder + CNN: every pixel gets a class."""
    # 1. Model: encoder and decoder.
    classes = read_classes(DATA_ROOT)
    model, arguments = build_model(CLIPCNN, {"classes": len(classes)})
    if START:
        load_state(model, load(START)["weights"], START, ignore="encoder.")

    # 2. Data: with the features of the frozen encoder, or as pictures alone.
    data = open_data(model, arguments, device)

    # 3. Loss on augmented batches.
    teacher = copy.deepcopy(model.encoder).to(device).eval() if KEEP and not arguments["freeze_encoder"] else None

    def compute_loss(model, batch, generator, progress):
        images, masks, tokens = data.augment(batch, generator)
        if not teacher:
            return segmentation_loss(model(images, tokens), masks)
        logits, embedding = model(images, with_embedding=True)
        with torch.no_grad():
            pretrained = teacher.encode(images)[1]
        change = 1 - F.cosine_similarity(embedding.float(), pretrained.float())
        return segmentation_loss(logits, masks) + KEEP * change.mean()

    # 4. Train; validation is exactly as evaluate.py does it.
    best = fit(
        model,
        data.train,
        compute_loss,
        lambda model: validate(model, data.val, device, data.mean, data.std),
        folder=folder,
        about={"model": "clip", **about(arguments, data)},
        classes=classes,
        constants=constants,
        device=device,
        draw=plot_curves,
        show=lambda model, path: draw_progress(predictor(model, data.mean, data.std), data.val, device, path),
        parameter_groups=parameter_groups(model, encoder_rate(arguments), RATE_DECAY),
    )

    # 5. Let the row look closer, if that helps on the validation split.
    if ZOOM:
        add_closer_look(best, data.train, SegmentationDataset(DATA_ROOT, "val", view_size()), device)


def train_by_click(folder: Path, constants: dict, device: torch.device) -> None:
    """PointCLIP: the thing under the clicks, against the rest."""
    # 1. Model: encoder and decoder, which starts from the one that was trained by class.
    model, arguments = build_model(PointCLIP, {"click_shape": CLICK_SHAPE, "click_radius": CLICK_RADIUS})
    warm = bool(WARM_START) and not START and load_class_decoder(model, arguments)
    if START:
        load_state(model, load(START)["weights"], START, ignore="encoder.")

    # 2. Data: with the features of the frozen encoder, or as pictures alone.
    data = open_data(model, arguments, device)

    # 3. Loss of the thing under the last of some simulated clicks.
    def compute_loss(model, batch, generator, progress):
        images, masks, tokens = data.augment(batch, generator)
        single = getattr(model, "module", model)  # without the wrapper for several processes
        single.eval()
        with torch.no_grad():
            features = single.encode(images, tokens)

        def predict(indices, clicks, previous):
            return single.decode([feature[indices] for feature in features], clicks, previous)

        truth, clicks, previous = simulate_clicks(predict, images, masks, generator, CORRECTIONS, EDITED)
        single.train()
        thing = model(images, clicks, previous, tokens)
        return segmentation_loss(torch.cat([torch.zeros_like(thing), thing], 1), truth)

    # 4. Validation after one click, as evaluate.py does it, and after three.
    def validate(model):
        row = ByClick("validation", model, device, view_size(), data.mean, data.std, data.train.classes)
        return validate_clicks(row, data.val)

    def show(model, path):
        def predict(images, clicks, *tokens):
            thing = model(normalise(images, data.mean, data.std), clicks, None, *(x.float() for x in tokens))
            return torch.cat([torch.zeros_like(thing), thing], 1)

        draw_progress(predict, data.val, device, path, clicked=True)

    # 5. Train.
    fit(
        model,
        data.train,
        compute_loss,
        validate,
        folder=folder,
        about={"model": "pointclip", **about(arguments, data)},
        classes=data.train.classes,
        constants=constants,
        device=device,
        draw=plot_curves,
        show=show,
        parameter_groups=parameter_groups(model, encoder_rate(arguments), RATE_DECAY, WARM_RATE if warm else 1.0),
    )


@dataclass
class Data:
    """Both splits, and how a batch of them is augmented."""

    train: SegmentationDataset | FeatureDataset
    val: SegmentationDataset | FeatureDataset
    mean: tuple[float, ...]  # of the encoder's pictures
    std: tuple[float, ...]
    # batch and generator -> normalised pictures, masks, the frozen encoder's tokens or None
    augment: Callable[[tuple[torch.Tensor, ...], torch.Generator], tuple]


def open_data(model: CLIPCNN | PointCLIP, arguments: dict, device: torch.device) -> Data:
    """The pictures; with the tokens of the frozen encoder if they can be kept, and then without model.encoder."""
    encoder, frozen = model.encoder, arguments["freeze_encoder"]
    mean, std = encoder.mean, encoder.std
    for name, size in {"IMAGE_SIZE": IMAGE_SIZE, "VIEW_SIZE": VIEW_SIZE}.items():
        if size % encoder.patch_size:
            raise UserError(f"{name} = {size}: must be a multiple of the patch size {encoder.patch_size}")

    def augment_tokens(batch, generator):
        images, masks, tokens = batch
        images = jitter_colour(images.float() / 255, generator, COLOUR)  # the stem's; it stays aligned
        return normalise(images, mean, std), masks.long(), tokens.float()

    def augment_pictures(batch, generator):
        images, masks = augment(
            *batch, generator, IMAGE_SIZE, SCALE, ROTATION, COLOUR, edge=EDGE, paste=PASTE, rough=ROUGH
        )
        images = normalise(images, mean, std)
        return images, masks, encoder(images) if frozen else None

    if AUGMENT_FEATURES and frozen:
        key = encoder_key(ENCODER, encoder.layers)
        train = FeatureDataset(DATA_ROOT, TRAIN_SPLIT, IMAGE_SIZE, encoder, key, device, True, PRECISION)
        val = FeatureDataset(DATA_ROOT, "val", view_size(), encoder, key, device, False, "fp32")
        model.encoder = None  # its tokens are all that is needed from here on
        return Data(train, val, mean, std, augment_tokens)
    train = SegmentationDataset(DATA_ROOT, TRAIN_SPLIT, IMAGE_SIZE).to(device)
    val = SegmentationDataset(DATA_ROOT, "val", view_size())
    return Data(train, val, mean, std, augment_pictures)


def view_size() -> int:
    return VIEW_SIZE or IMAGE_SIZE


def encoder_rate(arguments: dict) -> float:
    return 1.0 if arguments["encoder"] == "tiny" else ENCODER_RATE  # random weights have nothing to lose


def about(arguments: dict, data: Data) -> dict:
    """What a checkpoint says of its model; an encoder that another row's file holds is not stored twice."""
    tuned = "encoder_config" in arguments
    encoder = {"arguments": arguments, "encoder": encoder_title(arguments["encoder"], tuned)}
    if tuned and arguments["freeze_encoder"]:
        encoder |= {"encoder_from": Path(ENCODER).parent.name, "encoder_digest": digest(encoder_weights(ENCODER))}
    return encoder | {"image_size": view_size(), "mean": data.mean, "std": data.std}


def build_model(make: type[CLIPCNN] | type[PointCLIP], own: dict) -> tuple[CLIPCNN | PointCLIP, dict]:
    """The model and the arguments it was made with; own: those that the other has not.

    Raises UserError if its encoder cannot be had.
    """
    if AUGMENT_FEATURES and not FREEZE_ENCODER:
        raise UserError("FREEZE_ENCODER = False changes the features in every step: set AUGMENT_FEATURES = False too")
    require_choice("FALLBACK", FALLBACK, ("", "tiny"))
    arguments = {"encoder": ENCODER, "layers": LAYERS, "widths": WIDTHS, "dropout": DROPOUT}
    arguments |= {"freeze_encoder": FREEZE_ENCODER, **own}
    tiny = arguments | {"encoder": "tiny", "layers": (), "freeze_encoder": False}
    if ENCODER == "tiny":
        return make(**tiny), tiny
    try:
        if ENCODER.endswith((".safetensors", ".pt")):
            return share_encoder(make, arguments)
        model = make(**arguments)
        if not FREEZE_ENCODER:  # the checkpoint holds it, and needs no other file
            arguments["encoder_config"] = model.encoder.config()
        return model, arguments
    except ValueError as error:  # no such layer
        raise UserError(f"LAYERS = {LAYERS}: {error}") from error
    except OSError as error:
        if FALLBACK != "tiny":
            raise UserError(f"ENCODER = {error}") from error
    print(f"{ENCODER} cannot be had here; FALLBACK trains a tiny encoder from scratch in its place", flush=True)
    return make(**tiny), tiny


def share_encoder(make: type[CLIPCNN] | type[PointCLIP], arguments: dict) -> tuple[CLIPCNN | PointCLIP, dict]:
    """A model on the encoder that another row fine-tuned, and its arguments. Raises UserError."""
    used = weights_file(Path(CHECKPOINTS) / Path(ENCODER).parent.name)
    if not FREEZE_ENCODER or Path(ENCODER) != used:
        raise UserError(f"ENCODER = {ENCODER}: give the weights of a row, like {used}, and leave it frozen")
    weights, source = encoder_weights(ENCODER), load(ENCODER)["arguments"]
    arguments = arguments | {key: source[key] for key in ("encoder", "encoder_config")}
    model = make(**arguments)
    model.load_state_dict(weights, strict=False)
    return model, arguments


def load_class_decoder(model: PointCLIP, arguments: dict) -> bool:
    """Copy the decoder of WARM_START's row (and its encoder, if it was trained along) into PointCLIP, if it fits.

    With the encoder of another row, that row's decoder.
    """
    shared = ENCODER.endswith((".safetensors", ".pt"))
    path = Path(ENCODER) if shared else weights_file(Path(CHECKPOINTS) / folder_of(WARM_START, "clip"))
    saved, same = load(path) if path.exists() else {"arguments": {}}, ("encoder", "encoder_config", "layers", "widths")
    if any(saved["arguments"].get(key) != arguments.get(key) for key in same):
        print(f"the decoder starts from random weights: {path} is missing or was trained on another encoder")
        return False
    weights = {name: value for name, value in saved["weights"].items() if name.startswith(("encoder.", "decoder."))}
    model.load_state_dict(weights, strict=False)  # clicks are new
    print(f"the decoder starts from {path}")
    return True


if __name__ == "__main__":
    run_script(main, reads=("DATA_ROOT",))  # CHECKPOINTS is written
