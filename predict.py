"""Segment your own pictures with a trained model.

    python predict.py photo.jpg folder/ --OUT=predictions           # with the best of the trained rows
    python predict.py photo.jpg --MODEL=unet --CUTOUT=True          # also the animals on a transparent background
    python predict.py photo.jpg --POINT=210,140 --POINT=30,40,0     # the object at 210, 140; not the one at 30, 40
    python predict.py photo.jpg --TEXT="a cat"                      # any text, zero-shot

Writes OUT/masks/NAME.png (class ids, 0 is background, shown in colour; with TEXT or POINT 1 is the thing),
OUT/overlays/NAME.png and, with CUTOUT, OUT/cutouts/NAME.png, all at the picture's own size. NAME keeps its suffix
where two pictures share a stem: a.jpg.png and a.png.png. Inputs are never overwritten. Files that cannot be read, and
files in folders that are not pictures, are listed at the end.
"""

import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from utils.config import require_between, require_choice, run_script

import numpy as np
from tqdm import tqdm

from models.clipseg import HUB_ID
from utils.device import PRECISIONS, pick_device
from utils.errors import UserError
from utils.figures.overlays import cutout, draw_points, overlay, save_mask, save_picture
from utils.inputs.clicks import Click
from utils.inputs.layouts import contents, list_pictures, same_name, skipped
from utils.inputs.pictures import read_image
from utils.rows import best_row, find_rows, load_row, row_named
from utils.rows.row import Row, Segmentation

# what
MODEL = ""  # any row of the table, e.g. "unet", "clip", "clipseg", or one of your own; empty: the best on validation
POINT = []  # clicks, for a row that takes them (PointCLIP), in pixels: x,y on the thing, x,y,0 on the rest
TEXT = ""  # any text, e.g. "a cat", for a row that takes one (CLIPSeg)
CLIPSEG = HUB_ID  # hub id or folder of its weights
THRESHOLD = 0.3  # of the text's score, 0 to 1
FLIP = False  # average over the picture and its mirror image
ZOOM = True  # False: no closer look at what was found
CUTOUT = False  # also write what was found on a transparent background
# run
OUT = "predictions"  # folder
CHECKPOINTS = "checkpoints"  # folder of all rows
PRECISION = "auto"  # "bf16", "fp32"; auto is bf16 where it is native
DEVICE = "auto"  # "cpu", "cuda", "cuda:1"


def main(arguments: list[str]) -> int:
    require_choice("PRECISION", PRECISION, PRECISIONS)
    require_between(globals(), 0, 1, "THRESHOLD")
    names = find_pictures(arguments)
    if POINT and TEXT:
        raise UserError("POINT and TEXT cannot be combined: give one of them")
    clicks = [parse_click(text) for text in POINT]
    options = {"hub_id": CLIPSEG, "threshold": THRESHOLD, "zoom": ZOOM, "flip": FLIP, "precision": PRECISION}
    row = load_row(find_row(), CHECKPOINTS, pick_device(DEVICE), **options)
    failures = segment_files(row, names, clicks)
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    for folder in filter(Path.is_dir, map(Path, arguments)):
        if line := skipped(folder):
            print(line)
    return 1 if failures else 0


def segment_files(row: Row, names: dict[Path, str], clicks: Sequence[Click]) -> list[str]:
    """Segment pictures and write the outputs; names: see find_pictures(). Returns the errors of those that failed."""
    failures = []
    for picture, name in tqdm(names.items(), unit="img", leave=False, disable=None):
        try:
            image = read_image(picture)
            tqdm.write(write(picture, image, row.segment(image, clicks, TEXT), clicks, name))
        except UserError as error:
            failures.append(str(error) if str(picture) in str(error) else f"{picture}: {error}")
    return failures


def write(picture: Path, image: np.ndarray, found: Segmentation, clicks: Sequence[Click], name: str) -> str:
    """Write all outputs of one picture under this name; returns a line about it. Raises UserError."""
    paths = outputs_of(name)
    save_mask(found.ids, paths["masks"], found.classes)
    tinted = overlay(image, found.ids, found.classes)
    tinted = draw_points(tinted, [click[:2] for click in clicks], [click[2] for click in clicks])
    save_picture(tinted, paths["overlays"])
    if CUTOUT:
        save_picture(cutout(image, found.ids, found.classes.first), paths["cutouts"])
    return f"{picture}: {found.describe()} -> {paths['masks']}"


def outputs_of(name: str) -> dict[str, Path]:
    return {folder: Path(OUT) / folder / f"{name}.png" for folder in ("masks", "overlays", "cutouts")}


def find_pictures(arguments: list[str]) -> dict[Path, str]:
    """Named files and the pictures in named folders -> names of their outputs, without suffix.

    Raises UserError if there are none, or if an output would overwrite an input or another output.
    """
    if not arguments:
        raise UserError("name at least one picture or folder: python predict.py photo.jpg")
    pictures = {}
    for path in map(Path, arguments):
        for file in list_pictures(path) if os.path.isdir(path) else [path]:
            pictures[file.resolve()] = file
    if not pictures:
        raise UserError("; ".join(f"no pictures in {path}, which holds {contents(Path(path))}" for path in arguments))
    stems = Counter(same_name(file.stem) for file in pictures.values())
    names = {file: file.stem if stems[same_name(file.stem)] == 1 else file.name for file in pictures.values()}
    by_name = {}
    for file, name in names.items():
        other = by_name.setdefault(same_name(name), file)
        if other != file:
            raise UserError(f"{other} and {file} would both become {name}.png; run them with different OUT")
        for path in outputs_of(name).values():
            if path.resolve() in pictures:
                raise UserError(f"{path} is an input and would be overwritten; choose another OUT")
    return names


def find_row() -> str:
    """Name of the row: MODEL, else the first row that takes POINT or TEXT, else the best one."""
    rows, asked = find_rows(CHECKPOINTS), "click" if POINT else "text" if TEXT else ""
    takers = [name for name, row in rows.items() if row.kind.prompt == asked]
    name = row_named(MODEL, CHECKPOINTS) if MODEL else takers[0] if asked else best_row(CHECKPOINTS)
    if rows[name].kind.prompt == "click" and not asked:
        raise UserError(f"MODEL = {MODEL!r} needs a click: --POINT=x,y")
    return name


def parse_click(text: str) -> Click:
    """ "x,y" or "x,y,0" -> (x, y, label). Raises UserError."""
    try:
        x, y, label = map(int, (text if text.count(",") == 2 else f"{text},1").split(","))
    except ValueError:
        raise UserError(f"POINT = {text}: write x,y in pixels, or x,y,0 for what is not part of the thing") from None
    return x, y, label


if __name__ == "__main__":
    run_script(main, positional="PICTURE|FOLDER ...")
