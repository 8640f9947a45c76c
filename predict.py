"""Segment your own pictures with a trained model.

    python predict.py photo.jpg folder/ --MODEL=unet --OUT=predictions
    python predict.py photo.jpg --POINT=210,140 --POINT=30,40,0     # what is at x, y, without what is at 30, 40
    python predict.py photo.jpg --TEXT="a cat"                      # any text, zero-shot

Writes OUT/masks/NAME.png (class ids, 0 is background, shown in colour; with TEXT or POINT 1 is the thing),
OUT/overlays/NAME.png and, with TEXT, OUT/heatmaps/NAME.png, all at the picture's own size; of a.jpg and a.png,
a.jpg.png and a.png.png. Inputs are never overwritten; files that cannot be read are listed at the end.
"""

import sys
from collections import Counter
from pathlib import Path

import numpy as np

from models.clipseg import HUB_ID
from utils.config import run_script
from utils.device import pick_device
from utils.errors import UserError
from utils.figures.overlays import draw_points, heat_map, overlay, save_mask, save_picture
from utils.inputs.clicks import Click
from utils.inputs.layouts import list_pictures
from utils.inputs.pictures import read_image
from utils.rows import find_rows, load_row, row_named
from utils.scoring.row import Row, Segmentation

# what
MODEL = "unet"  # any row of the table, e.g. "unet", "autoencoder", "clip", "clipseg", or one of your own
POINT = []  # clicks, for a row that takes them (PointCLIP), in pixels: x,y on the thing, x,y,0 on the rest
TEXT = ""  # any text, e.g. "a cat", for a row that takes one (CLIPSeg)
CLIPSEG = HUB_ID  # hub id or folder of its weights
THRESHOLD = 0.3  # of the text's score, 0 to 1
FLIP = False  # average over the picture and its mirror image
# run
OUT = "predictions"  # folder
CHECKPOINTS = "checkpoints"  # where the training scripts wrote
DEVICE = "auto"  # "cpu", "cuda", "cuda:1"


def main(arguments: list[str]) -> int:
    pictures = find_pictures(arguments)
    if POINT and TEXT:
        raise UserError("POINT and TEXT are two ways of asking: give one of them")
    clicks = [parse_click(text) for text in POINT]
    row = load_row(find_row(), CHECKPOINTS, pick_device(DEVICE), hub_id=CLIPSEG, threshold=THRESHOLD)
    inputs, failures = {picture.resolve() for picture in pictures}, []
    for picture, name in pictures.items():
        try:
            outputs = segment(row, read_image(picture), clicks)
            paths = {folder: Path(OUT) / folder / f"{name}.png" for folder in outputs}
            for path in paths.values():
                if path.resolve() in inputs:
                    raise UserError(f"{path} is an input and would be overwritten; choose another OUT")
            found = outputs["masks"]
            save_mask(found.ids, paths["masks"], found.classes)
            for folder in outputs.keys() - {"masks"}:
                save_picture(outputs[folder], paths[folder])
            print(f"{picture}: {found.describe()} -> {paths['masks']}")
        except UserError as error:
            failures.append(str(error))
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    return 1 if failures else 0


def find_pictures(arguments: list[str]) -> dict[Path, str]:
    """The files named, and the pictures in the folders named -> the names of their outputs. Raises UserError."""
    if not arguments:
        raise UserError("name at least one picture or folder: python predict.py photo.jpg")
    pictures = {}
    for path in map(Path, arguments):
        for file in list_pictures(path) if path.is_dir() else [path]:
            pictures[file.resolve()] = file
    if not pictures:
        raise UserError(f"no pictures in {', '.join(arguments)}")
    stems = Counter(file.stem for file in pictures.values())
    names = {file: file.stem if stems[file.stem] == 1 else file.name for file in pictures.values()}
    by_name = {}
    for file, name in names.items():
        other = by_name.setdefault(name, file)
        if other != file:
            raise UserError(f"{other} and {file} would both become {name}.png; run them with different OUT")
    return names


def find_row() -> str:
    """MODEL; with POINT or TEXT, if it takes none, the first row that does."""
    rows, name = find_rows(CHECKPOINTS), row_named(MODEL, CHECKPOINTS)
    asked = "click" if POINT else "text" if TEXT else ""
    chosen = next(name for name in (name, *rows) if not asked or rows[name].kind.prompt == asked)
    if rows[chosen].kind.prompt == "click" and not POINT:
        raise UserError(f"MODEL = {MODEL!r} needs a click: --POINT=x,y")
    return chosen


def parse_click(text: str) -> Click:
    """ "x,y" or "x,y,0" -> (x, y, label). Raises UserError."""
    try:
        x, y, label = map(int, (text if text.count(",") == 2 else f"{text},1").split(","))
    except ValueError:
        raise UserError(f"POINT = {text}: write x,y in pixels, or x,y,0 for what is not part of the thing") from None
    return x, y, label


def segment(row: Row, image: np.ndarray, clicks: list[Click]) -> dict[str, Segmentation | np.ndarray]:
    """Folder below OUT -> what goes there: the segmentation, pictures uint8 (H, W, 3)."""
    found = row.segment(image, clicks, TEXT, FLIP)
    points, labels = [click[:2] for click in clicks], [click[2] for click in clicks]
    outputs = {"masks": found, "overlays": draw_points(overlay(image, found.ids, found.classes), points, labels)}
    return outputs if found.heat is None else outputs | {"heatmaps": heat_map(image, found.heat)}


if __name__ == "__main__":
    run_script(main, positional="PICTURE|FOLDER ...")
