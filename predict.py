"""Segment your own pictures with a trained model.

    python predict.py photo.jpg folder/ --MODEL=unet --OUT=predictions
    python predict.py photo.jpg --POINT=210,140 --POINT=30,40,0     # what is at x, y, without what is at 30, 40
    python predict.py photo.jpg --TEXT="a cat"                      # any text, zero-shot

Writes OUT/masks/NAME.png (class ids 0 background, 1 cat, 2 dog, shown in colour; with TEXT or POINT 1 is the thing),
OUT/overlays/NAME.png and, with TEXT, OUT/heatmaps/NAME.png, all at the picture's own size. Inputs are never
overwritten; files that cannot be read are listed at the end.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from models.clipseg import HUB_ID
from utils.classes import CLASSES
from utils.config import require_choice, run_script
from utils.dataset import list_pictures, read_image
from utils.distributed import pick_device
from utils.errors import UserError
from utils.pictures import describe, draw_points, heat_map, overlay, save_mask, save_picture
from utils.rows import ROWS, load_row, segment
from utils.zeroshot import load_clipseg, text_scores

# what
MODEL = "unet"  # "unet", "autoencoder", "clip", "clipseg"
POINT = []  # clicks for PointCLIP, in pixels: x,y on the thing, x,y,0 on what is not part of it
TEXT = ""  # any text, e.g. "a cat": CLIPSeg looks for it
CLIPSEG = HUB_ID  # hub id or folder of its weights
THRESHOLD = 0.3  # of the text's score, 0 to 1
FLIP = False  # average over the picture and its mirror image
# run
OUT = "predictions"  # folder
CHECKPOINTS = "checkpoints"  # where the training scripts wrote
DEVICE = "auto"  # "cpu", "cuda", "cuda:1"

# picture uint8 (H, W, 3) -> folder below OUT and what goes there: the mask uint8 (H, W), pictures (H, W, 3)
Segmenter = Callable[[np.ndarray], dict[str, np.ndarray]]


def main(arguments: list[str]) -> int:
    pictures = find_pictures(arguments)
    device = pick_device(DEVICE)
    if POINT and TEXT:
        raise UserError("POINT and TEXT are two ways of asking: give one of them")
    if POINT:
        segment_picture = segmenter_by_clicks(device)
    else:
        segment_picture = segmenter_by_text(device) if TEXT else segmenter_by_class(device)
    names = [TEXT or "the thing clicked"] if TEXT or POINT else CLASSES[1:]
    failures = []
    for picture in pictures:
        try:
            image = read_image(picture)
            for folder, output in segment_picture(image).items():
                path = Path(OUT) / folder / f"{picture.stem}.png"
                if path.resolve() in {p.resolve() for p in pictures}:
                    raise UserError(f"{path} is an input and would be overwritten; choose another OUT")
                save_mask(output, path) if folder == "masks" else save_picture(output, path)
                if folder == "masks":
                    print(f"{picture}: {describe(output, names)} -> {path}")
        except UserError as error:
            failures.append(str(error))
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    return 1 if failures else 0


def find_pictures(arguments: list[str]) -> list[Path]:
    """The files named, and the pictures in the folders named. Raises UserError if two would share an output."""
    if not arguments:
        raise UserError("name at least one picture or folder: python predict.py photo.jpg")
    pictures = []
    for path in map(Path, arguments):
        pictures += list_pictures(path) if path.is_dir() else [path]
    if not pictures:
        raise UserError(f"no pictures in {', '.join(arguments)}")
    by_stem = {}
    for picture in pictures:
        other = by_stem.setdefault(picture.stem, picture)
        if other.resolve() != picture.resolve():
            raise UserError(f"{other} and {picture} would both become {picture.stem}.png; run them with different OUT")
    return list(dict.fromkeys(pictures))


def segmenter_by_class(device: torch.device) -> Segmenter:
    by_class = {folder: row for row, (folder, _) in ROWS.items() if row != "PointCLIP"}
    require_choice("MODEL", MODEL, tuple(by_class))
    row = load_row(by_class[MODEL], CHECKPOINTS, device, CLIPSEG)

    def segment_picture(image: np.ndarray) -> dict[str, np.ndarray]:
        mask = segment(row, image, device, FLIP)
        return {"masks": mask, "overlays": overlay(image, mask)}

    return segment_picture


def segmenter_by_clicks(device: torch.device) -> Segmenter:
    points, labels = zip(*map(parse_click, POINT), strict=True)
    predictor = load_row("PointCLIP", CHECKPOINTS, device).predictor(FLIP)

    def segment_picture(image: np.ndarray) -> dict[str, np.ndarray]:
        predictor.set_image(image)
        mask = predictor.predict(points, labels)[0].astype(np.uint8)
        return {"masks": mask, "overlays": draw_points(overlay(image, mask), points, labels)}

    return segment_picture


def parse_click(text: str) -> tuple[tuple[int, int], int]:
    """ "x,y" or "x,y,0" -> ((x, y), label). Raises UserError."""
    try:
        x, y, label = map(int, (text if text.count(",") == 2 else f"{text},1").split(","))
    except ValueError:
        raise UserError(f"POINT = {text}: write x,y in pixels, or x,y,0 for what is not part of the thing") from None
    return (x, y), label


def segmenter_by_text(device: torch.device) -> Segmenter:
    model = load_clipseg(CLIPSEG, device)

    def segment_picture(image: np.ndarray) -> dict[str, np.ndarray]:
        heat = text_scores(model, TEXT, image, device, FLIP)
        mask = (heat > THRESHOLD).astype(np.uint8)
        return {"masks": mask, "overlays": overlay(image, mask), "heatmaps": heat_map(image, heat)}

    return segment_picture


if __name__ == "__main__":
    run_script(main, positional="PICTURE|FOLDER ...")
