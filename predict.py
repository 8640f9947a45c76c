"""Segment your own pictures with a trained model.

    python predict.py photo.jpg folder/ --OUT=predictions           # with the best of the trained rows
    python predict.py photo.jpg --MODEL=unet --CUTOUT=True          # also the animals on a transparent background
    python predict.py photo.jpg --POINT=210,140 --POINT=30,40,0     # what is at x, y, without what is at 30, 40
    python predict.py photo.jpg --TEXT="a cat"                      # any text, zero-shot

Writes OUT/masks/NAME.png (class ids, 0 is background, shown in colour; with TEXT or POINT 1 is the thing),
OUT/overlays/NAME.png, with CUTOUT OUT/cutouts/NAME.png and with TEXT OUT/heatmaps/NAME.png, all at the picture's own
size; of a.jpg and a.png, a.jpg.png and a.png.png. Inputs are never overwritten; files that cannot be read, and in
folders those that are no pictures, are named at the end.
"""

import ctypes
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

from utils.config import require_choice, require_positive, run_script

import numpy as np
from tqdm import tqdm

from models.clipseg import HUB_ID
from utils.device import PRECISIONS, pick_device
from utils.errors import UserError
from utils.figures.overlays import cutout, draw_points, heat_map, overlay, save_mask, save_picture
from utils.inputs.clicks import Click
from utils.inputs.layouts import contents, list_pictures, skipped
from utils.inputs.pictures import PIXELS, WORKERS, batches_of, read_image
from utils.rows import best_row, find_rows, load_row, row_named
from utils.rows.row import Row, Segmentation

# what
MODEL = ""  # any row of the table, e.g. "unet", "clip", "clipseg", or one of your own; empty: the best on validation
POINT = []  # clicks, for a row that takes them (PointCLIP), in pixels: x,y on the thing, x,y,0 on the rest
TEXT = ""  # any text, e.g. "a cat", for a row that takes one (CLIPSeg)
CLIPSEG = HUB_ID  # hub id or folder of its weights
THRESHOLD = 0.3  # of the text's score, 0 to 1
FLIP = False  # average over the picture and its mirror image
ZOOM = True  # False: the row does not look closer at what it finds
CUTOUT = False  # also write what was found on a transparent background
# run
OUT = "predictions"  # folder
BATCH_SIZE = 8  # pictures at once
CHECKPOINTS = "checkpoints"  # where the training scripts wrote
PRECISION = "auto"  # "bf16", "fp32"; auto is bf16 where the hardware multiplies it
DEVICE = "auto"  # "cpu", "cuda", "cuda:1"


def main(arguments: list[str]) -> int:
    require_choice("PRECISION", PRECISION, PRECISIONS)
    require_positive(globals(), "BATCH_SIZE")
    names = find_pictures(arguments)
    if POINT and TEXT:
        raise UserError("POINT and TEXT are two ways of asking: give one of them")
    clicks = [parse_click(text) for text in POINT]
    options = {"hub_id": CLIPSEG, "threshold": THRESHOLD, "zoom": ZOOM, "flip": FLIP, "precision": PRECISION}
    row = load_row(find_row(), CHECKPOINTS, pick_device(DEVICE), **options)
    failures = segment_files(row, names, Path(OUT), clicks)
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    for folder in filter(Path.is_dir, map(Path, arguments)):
        if line := skipped(folder):
            print(line)
    return 1 if failures else 0


def segment_files(row: Row, names: dict[Path, str], out: Path, clicks: Sequence[Click] = ()) -> list[str]:
    """Write what the row makes of the pictures, names: of their outputs, into the folders of out; returns failures."""
    inputs, failures = {picture.resolve() for picture in names}, []
    with ThreadPoolExecutor(WORKERS) as pool, tqdm(total=len(names), unit="img", leave=False, disable=None) as bar:

        def finish(running: dict[Path, Future]) -> Iterator[tuple[Path, object]]:
            """The results, one at a time: those of large photos take much memory."""
            while running:
                picture = next(iter(running))
                try:
                    yield picture, running.pop(picture).result()
                except UserError as error:
                    failures.append(str(error))

        for batch, pixels in batches_of(list(names), BATCH_SIZE):
            images = dict(finish({picture: pool.submit(read_image, picture) for picture in batch}))
            found = segment(row, images, clicks, failures) if images else {}
            if pixels > PIXELS // 3:
                give_back_memory()
            paths = {picture: partial(path_of, out, names[picture], inputs) for picture in found}
            writing = {
                picture: pool.submit(write, picture, images.pop(picture), found.pop(picture), clicks, path)
                for picture, path in paths.items()
            }
            for _, line in finish(writing):
                tqdm.write(line)
            bar.update(len(batch))
    return failures


def give_back_memory() -> None:
    """Let the C library return what was freed: of photos it would keep as much as they need anew."""
    with suppress(OSError, AttributeError, TypeError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)


def segment(
    row: Row, images: dict[Path, np.ndarray], clicks: Sequence[Click], failures: list[str]
) -> dict[Path, Segmentation]:
    """Segment the pictures; one that refuses the clicks, for they lie outside of it, is added to failures."""
    try:
        return dict(zip(images, row.segment_all(list(images.values()), clicks, TEXT), strict=True))
    except UserError as error:
        if len(images) == 1:
            failures.append(f"{next(iter(images))}: {error}")
            return {}
    found = {}
    for picture, image in images.items():
        found |= segment(row, {picture: image}, clicks, failures)
    return found


def write(
    picture: Path, image: np.ndarray, found: Segmentation, clicks: Sequence[Click], path: Callable[[str], Path]
) -> str:
    """Write all outputs of one picture; returns a line about it. Raises UserError.

    path: folder of an output -> its file.
    """
    points, labels = [click[:2] for click in clicks], [click[2] for click in clicks]
    outputs = {"overlays": lambda: draw_points(overlay(image, found.ids, found.classes), points, labels)}
    if CUTOUT:
        outputs["cutouts"] = lambda: cutout(image, found.ids)
    if found.heat is not None:
        outputs["heatmaps"] = lambda: heat_map(image, found.heat)
    paths = {folder: path(folder) for folder in ("masks", *outputs)}
    save_mask(found.ids, paths["masks"], found.classes)
    for folder, draw in outputs.items():  # one at a time: each is as large as the picture
        save_picture(draw(), paths[folder])
    return f"{picture}: {found.describe()} -> {paths['masks']}"


def path_of(out: Path, name: str, inputs: set[Path], folder: str) -> Path:
    """Raises UserError if an input lies there."""
    path = out / folder / f"{name}.png"
    if path.resolve() in inputs:
        raise UserError(f"{path} is an input and would be overwritten; choose another OUT")
    return path


def find_pictures(arguments: list[str]) -> dict[Path, str]:
    """The files named, and the pictures in the folders named -> the names of their outputs. Raises UserError."""
    if not arguments:
        raise UserError("name at least one picture or folder: python predict.py photo.jpg")
    pictures = {}
    for path in map(Path, arguments):
        for file in list_pictures(path) if os.path.isdir(path) else [path]:
            pictures[file.resolve()] = file
    if not pictures:
        raise UserError("; ".join(f"no pictures in {path}, which holds {contents(Path(path))}" for path in arguments))
    stems = Counter(file.stem for file in pictures.values())
    names = {file: file.stem if stems[file.stem] == 1 else file.name for file in pictures.values()}
    by_name = {}
    for file, name in names.items():
        other = by_name.setdefault(name, file)
        if other != file:
            raise UserError(f"{other} and {file} would both become {name}.png; run them with different OUT")
    return names


def find_row() -> str:
    """MODEL, or the best row; with POINT or TEXT, if it takes none, the first row that does."""
    rows = find_rows(CHECKPOINTS)
    name = row_named(MODEL, CHECKPOINTS) if MODEL else "" if POINT or TEXT else best_row(CHECKPOINTS)
    asked = "click" if POINT else "text" if TEXT else ""
    chosen = next(n for n in (name, *rows) if n and (not asked or rows[n].kind.prompt == asked))
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


if __name__ == "__main__":
    run_script(main, positional="PICTURE|FOLDER ...")
