"""How fast rows are scored, beside each other and beside the plain way."""

import io
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from torch import nn

from utils.device import in_force
from utils.inputs.augment import normalise
from utils.inputs.dataset import SegmentationDataset
from utils.inputs.pictures import read_mask
from utils.inputs.plain import draw_photos
from utils.scoring.by_class import to_size
from utils.scoring.metrics import confusion_matrix
from utils.scoring.row import Row
from utils.timing import Race, against_fp32


def images_per_second(
    rows: Sequence[tuple[Row, bool, SegmentationDataset]], batch_size: int, rounds: int = 3
) -> list[float]:
    """How many pictures a second each row scores, with flip or without: the median of rounds that time all in turn."""
    speeds = [[] for _ in rows]
    for _ in range(rounds):
        for found, (row, flip, dataset) in zip(speeds, rows, strict=True):
            started = time.perf_counter()
            row.score(dataset, flip, batch_size=batch_size)
            found.append(len(dataset) / (time.perf_counter() - started))
    return [median(found) for found in speeds]


def evaluation_race(
    device: torch.device,
    pictures: int,
    side: int,
    make: Callable[[torch.device, int], Row],
    ask: Callable[[nn.Module, torch.Tensor], list[torch.Tensor]],
) -> Race:
    """Scoring a split, files included. The plain way: a picture at a time with PIL, in fp32, encoded for every click.

    ask: a picture's logits (C, h, w), once for every answer that is scored.
    """
    folder = draw_photos(pictures)
    dataset = SegmentationDataset(folder.name, "test", side)
    some = dataset.samples[:50]
    row = make(device, side)

    @torch.inference_mode()
    def plain(folder=folder) -> None:  # the folder lives as long as what reads it
        for sample in some:
            image = Image.open(sample.image).convert("RGB").resize((side, side))
            image = torch.from_numpy(np.array(image)).movedim(-1, 0)[None].to(device)
            mask = torch.from_numpy(read_mask(sample))
            for logits in ask(row.model, normalise(image, row.mean, row.std)):
                confusion_matrix(mask, to_size(logits, mask.shape).cpu(), 3)

    return Race("pictures/s", against_fp32(device), pictures, lambda: row.score(dataset), plain, len(some))


def folder_race(
    device: torch.device,
    pictures: int,
    width: int,
    make: Callable[[torch.device, int], Row],
    segment_files: Callable[[Row, dict[Path, str], Path], list[str]],
) -> Race:
    """Photos in, masks and overlays out. The plain way: one after the other, files as Pillow reads and writes them."""
    folder = draw_photos(pictures, width)
    names = {path: path.stem for path in sorted(Path(folder.name).glob("test/images/*.jpg"))}
    row, out = make(device, 160), Path(folder.name) / "out"
    out.mkdir()

    def ours() -> None:
        with redirect_stdout(io.StringIO()):
            assert segment_files(row, names, out) == []

    def plain(folder=folder) -> None:  # the folder lives as long as what reads it
        for path, name in names.items():
            image = np.array(Image.open(path).convert("RGB"))
            ids = row.segment(image).ids
            colours = Image.fromarray(row.classes.colourise(ids))
            Image.fromarray(ids).save(out / f"{name}.png")
            Image.blend(Image.fromarray(image), colours, 0.5).save(out / f"{name}_overlay.png")

    return Race("pictures/s", in_force(device, row.precision), pictures, ours, plain)
