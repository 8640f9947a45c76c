"""Quality and speed of clicks and boxes in label.py: IoU of the mask, seconds per answer and to open a picture.

    python data/prepare.py --VOC=2012 --CATEGORIES=cat,dog,person,sofa,chair --OUT=data/voc_things
    pip install -r requirements-demo.txt
    python -m experiments.labelling      # a quarter of an hour

Writes results/labelling.csv. In every picture the largest region of each class is labelled in two ways: by its bounding
box, and, for classes that the row by click knows, by a click at its centre. Each further click is at the centre of the
largest wrong region. Other regions of the class are void. Seconds are from the mouse to the picture with its mask,
without the browser's share.
"""

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from utils.config import require_choice, run_script

import numpy as np
from scipy import ndimage
from tqdm import tqdm

from data.labelling import Canvas
from data.marking import Session
from experiments.clicks import binary_iou
from experiments.readme import write_between_markers
from utils.classes import VOID, Classes
from utils.device import pick_device
from utils.files import read_csv, write_csv
from utils.inputs.clicks import Click, next_click, thing_mask
from utils.inputs.layouts import SPLITS, data_name, list_samples, subset
from utils.inputs.pictures import read_sample
from utils.inputs.windows import box_of
from utils.rows import load_row
from utils.tables import markdown_table

DATA_ROOT = "data/voc_things"
SPLIT = "test"
MODEL = "PointCLIP"  # row by click
PICTURES = 0  # size of a random subset, always the same; 0: the whole split
DEVICE = "auto"  # "cpu", "cuda", "cuda:1"
CHECKPOINTS = "checkpoints"  # folder of all rows
RESULTS = "results"  # folder of labelling.csv
README = ()  # files whose table between markers is updated

FURTHER: tuple[int, ...] = (0, 2, 4)  # numbers of further clicks whose IoU is reported


def main() -> None:
    require_choice("SPLIT", SPLIT, SPLITS)
    row = load_row(MODEL, CHECKPOINTS, pick_device(DEVICE), precision="auto")
    ious, seconds = defaultdict(list), defaultdict(list)  # (way, class, further clicks) and (way, class) -> values
    opening = []  # seconds
    for sample in tqdm(subset(list_samples(DATA_ROOT, SPLIT), PICTURES), unit="img", disable=None):
        started = time.perf_counter()
        image, mask = read_sample(sample)
        segment = row.open(image)
        opening.append(time.perf_counter() - started)
        names = sample.classes.names
        for index in range(sample.classes.first, len(names)):
            if not (mask == index).any():
                continue
            truth = largest_region(mask, index)
            (left, right), (top, bottom) = box_of(truth == 1)
            if min(right - left, bottom - top) < 3:  # too small for a box
                continue
            ways: dict[str, list[Click]] = {"box": [(left, top, 1), (right - 1, bottom - 1, 1)]}
            if names[index] in row.classes.things:
                ways["click"] = [next_click(truth, np.zeros(truth.shape, bool))]
            for way, clicks in ways.items():
                canvas = Canvas(sample.image, image, np.zeros(mask.shape, np.uint8))
                session = Session(way=way, canvas=canvas, segment=segment)
                for further, (iou, took) in enumerate(answers(session, sample.classes, index, clicks, truth)):
                    ious[way, names[index], further].append(iou)
                    seconds[way, names[index]].append(took)
    path, about, lines = Path(RESULTS) / "labelling.csv", {"data": data_name(DATA_ROOT), "split": SPLIT}, []
    for way, name in sorted(seconds):
        line = about | {"way": way, "class": name}
        line |= {f"iou_{further}": f"{np.mean(ious[way, name, further]):.3f}" for further in FURTHER}
        line |= {"seconds": f"{np.median(seconds[way, name]):.2f}", "seconds_to_open": f"{np.median(opening):.2f}"}
        lines.append(line | {"things": str(len(ious[way, name, 0]))})
    write_csv([line for line in read_csv(path) if any(line[key] != about[key] for key in about)] + lines, path)
    titles = {"way": "way", "class": "class", "iou_0": "IoU after the first click or the box"}
    titles |= {f"iou_{further}": f"{further} clicks more" for further in FURTHER[1:]}
    titles |= {"seconds": "seconds per answer", "seconds_to_open": "to open a picture", "things": "things"}
    table = markdown_table(titles, lines, 2)
    if README:
        write_between_markers(README, {"labelling": table, "labelling in short": in_short(lines)})
    print(f"{table}\nwrote {path}")


def in_short(lines: Sequence[dict[str, str]]) -> str:
    """A sentence for the README; lines: of labelling.csv. Classes found by click are left out of those by box."""
    clicked, most = {line["class"] for line in lines if line["way"] == "click"}, f"iou_{max(FURTHER)}"
    parts = []
    for way, first in (("click", "a click"), ("box", "a box")):
        mine = [line for line in lines if line["way"] == way and (way == "click" or line["class"] not in clicked)]
        ious = ", ".join(f"{line['class']} {line['iou_0']} and {line[most]}" for line in mine)
        seconds = max((float(line["seconds"]) for line in mine), default=0)
        parts.append(f"after {first} and after {max(FURTHER)} clicks more: {ious}; {seconds:.2f} s each")
    opening = max((line["seconds_to_open"] for line in lines), default="0")
    return f"IoU {parts[0]}. {parts[1].capitalize()}. To open a picture: {opening} s."


def answers(
    session: Session, classes: Classes, index: int, clicks: list[Click], truth: np.ndarray
) -> Iterator[tuple[float, float]]:
    """IoU and seconds of the first answer and of those after each further click; truth: (H, W) with 1, 0, VOID."""
    for _ in range(max(FURTHER) + 1):
        started = time.perf_counter()
        session.find(clicks, session.way, index)
        session.view(classes)
        took = time.perf_counter() - started
        yield binary_iou(truth, session.mask), took
        if correction := next_click(truth, session.mask):
            clicks = [*clicks, correction]


def largest_region(mask: np.ndarray, index: int) -> np.ndarray:
    """The largest region of a class in a mask (H, W) as uint8 (H, W): 1, 0 for the rest; other regions are VOID."""
    truth = thing_mask(mask, index)
    regions, _ = ndimage.label(truth == 1)
    largest = np.bincount(regions.ravel())[1:].argmax() + 1
    return np.where((truth == 1) & (regions != largest), VOID, truth).astype(np.uint8)


if __name__ == "__main__":
    run_script(main)
