"""Scoring rows on spoiled pictures: eight perturbations (utils/perturbations.py) at ten levels each."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from utils.click_protocol import click_confusions
from utils.dataset import WORKERS, Sample, read_image, resize_image, rng_of
from utils.distributed import is_main
from utils.evaluation import evaluate
from utils.files import read_csv, write_csv
from utils.metrics import scores
from utils.perturbations import PERTURBATIONS
from utils.rows import ROWS, Row


class PerturbedDataset(torch.utils.data.Dataset):
    """Samples as a model sees them after a perturbation at their own size: dataset[[i, ...]] is (uint8 (N, 3, S, S),).

    Nothing is kept on disk: 73 spoiled copies of a split would fill it.
    """

    def __init__(self, samples: Sequence[Sample], size: int, perturbation: str, level: float):
        self.samples, self.size, self.level = samples, size, level
        self.perturb = PERTURBATIONS[perturbation][2]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, indices: Sequence[int]) -> tuple[torch.Tensor, None]:
        def spoil(index: int) -> np.ndarray:
            sample = self.samples[index]
            return resize_image(self.perturb(read_image(sample.image), self.level, rng_of(sample.name)), self.size)

        with ThreadPoolExecutor(WORKERS) as pool:
            return torch.from_numpy(np.stack(list(pool.map(spoil, indices)))).movedim(-1, 1), None


def score_robustness(
    rows: Sequence[Row],
    samples: Sequence[Sample],
    names: Sequence[str],
    numbers: Sequence[int],
    path: Path,
    device: torch.device,
    batch_size: int,
) -> list[dict[str, str]]:
    """Lines of results/robustness.csv: mIoU and mean Dice of every row under the perturbations at the levels.

    numbers: of the levels, 0 to 9. The file is written after every line; lines that are in it already, of as many
    pictures and no older than the row's checkpoint, are not scored again. Level 0 is the same for all.
    """
    lines = _known_lines(rows, path, len(samples))
    todo = [(row, name, PERTURBATIONS[name][1][number]) for row in rows for name in names for number in numbers]
    for row, name, level in tqdm(todo, "robustness", leave=False, disable=None if is_main() else True):
        of_row = [line for line in lines if line["model"] == row.name]
        if any((line["perturbation"], line["level"]) == (name, str(level)) for line in of_row):
            continue
        same = next(filter(_unspoiled, of_row), None) if level == PERTURBATIONS[name][1][0] else None
        if same:
            result = {key: same[key] for key in ("miou", "mdice")}
        else:
            result = _score(row, PerturbedDataset(samples, row.image_size, name, level), device, batch_size)
        line = {"model": row.name, "perturbation": name, "level": str(level), **result, "images": str(len(samples))}
        lines = sorted([*lines, line], key=_order)
        if is_main():
            write_csv(lines, path)
    return lines


def _known_lines(rows: Sequence[Row], path: Path, images: int) -> list[dict[str, str]]:
    """What the file holds already, of as many pictures; without rows that were trained after it was written."""
    lines = [line for line in read_csv(path) if line["images"] == str(images)]
    checkpoints = {row.name: Path(row.checkpoint) for row in rows}
    written = path.stat().st_mtime if lines else 0.0
    new = {name for name, file in checkpoints.items() if file.exists() and file.stat().st_mtime > written}
    return [line for line in lines if line["model"] not in new]


def _score(row: Row, dataset: PerturbedDataset, device: torch.device, batch_size: int) -> dict[str, str]:
    if row.name == "PointCLIP":
        result = scores(click_confusions(row.predictor(False), dataset, row.name), ("rest", "thing"))
    else:
        result = scores(evaluate(row.predictor(False), dataset, device, batch_size, row.name))
    return {key: f"{result[key]:.4f}" for key in ("miou", "mdice")}


def _unspoiled(line: dict[str, str]) -> bool:
    return line["level"] == str(PERTURBATIONS[line["perturbation"]][1][0])


def _order(line: dict[str, str]) -> tuple[int, int, int]:
    levels = [str(level) for level in PERTURBATIONS[line["perturbation"]][1]]
    return list(ROWS).index(line["model"]), list(PERTURBATIONS).index(line["perturbation"]), levels.index(line["level"])
