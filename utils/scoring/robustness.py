"""Scoring rows on corrupted pictures: eight perturbations (utils/inputs/perturbations.py) at ten levels each."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from utils.distributed import is_main
from utils.files import read_csv, write_csv
from utils.inputs.layouts import Sample
from utils.inputs.perturbations import PERTURBATIONS
from utils.inputs.pictures import WORKERS, read_image, resize_image, rng_of
from utils.scoring.metrics import scores
from utils.scoring.row import Row
from utils.tables import markdown_table, row_place


class PerturbedDataset(torch.utils.data.Dataset):
    """Samples as a model sees them after a perturbation at their own size: dataset[[i, ...]] is (uint8 (N, 3, S, S),).

    Nothing is kept on disk: 73 corrupted copies of a split would fill it.
    """

    def __init__(self, samples: Sequence[Sample], size: int, perturbation: str, level: float):
        self.samples, self.size, self.level = samples, size, level
        self.perturb = PERTURBATIONS[perturbation][2]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, indices: Sequence[int]) -> tuple[torch.Tensor, None]:
        def corrupt(index: int) -> np.ndarray:
            sample = self.samples[index]
            return resize_image(self.perturb(read_image(sample.image), self.level, rng_of(sample.name)), self.size)

        with ThreadPoolExecutor(WORKERS) as pool:
            return torch.from_numpy(np.stack(list(pool.map(corrupt, indices)))).movedim(-1, 1), None


def score_robustness(
    rows: Sequence[Row],
    samples: Sequence[Sample],
    names: Sequence[str],
    numbers: Sequence[int],
    path: Path,
    data: str,
    order: Sequence[str],
    batch_size: int,
) -> list[dict[str, str]]:
    """Lines of results/robustness.csv: mIoU and mean Dice of every row under the perturbations at the levels.

    numbers: of the levels, 0 to 9; data: name of the data set; order: of the models in the file. The file is written
    after every line; lines that are in it already, of as many pictures and no older than the row's checkpoint, are not
    scored again. Level 0 is the same for all.
    """
    lines = _known_lines(rows, path, data, len(samples))
    place = row_place(order)
    todo = [(row, name, PERTURBATIONS[name][1][number]) for row in rows for name in names for number in numbers]
    for row, name, level in tqdm(todo, "robustness", leave=False, disable=None if is_main() else True):
        of_row = [line for line in lines if (line["model"], line["data"]) == (row.name, data)]
        if any((line["perturbation"], line["level"]) == (name, str(level)) for line in of_row):
            continue
        same = next(filter(_uncorrupted, of_row), None) if level == PERTURBATIONS[name][1][0] else None
        if same:
            result = {key: same[key] for key in ("miou", "mdice")}
        else:
            dataset = PerturbedDataset(samples, row.view_size, name, level)
            found = scores(row.score(dataset, batch_size=batch_size), row.counted)
            result = {key: f"{found[key]:.4f}" for key in ("miou", "mdice")}
        line = {"model": row.name, "data": data, "perturbation": name, "level": str(level), **result}
        lines = sorted(
            [*lines, line | {"images": str(len(samples))}],
            key=lambda line: (line["data"], *place(line), *_level_place(line)),
        )
        if is_main():
            write_csv(lines, path)
    return [line for line in lines if line["data"] == data]


def robustness_table(lines: Sequence[dict[str, str]], names: Sequence[str]) -> str:
    """Mean Dice of every row on the pictures as they are, and under each perturbation at its last level."""
    models = list(dict.fromkeys(line["model"] for line in lines))
    titles = {"perturbation": "perturbation", "level": "level"} | {model: model for model in models}
    table = [{"perturbation": "none", "level": ""}]
    for name in names:
        first, last = (str(PERTURBATIONS[name][1][number]) for number in (0, -1))
        table.append({"perturbation": name, "level": last})
        for line in (line for line in lines if line["perturbation"] == name):
            if line["level"] == first:
                table[0][line["model"]] = line["mdice"]
            if line["level"] == last:
                table[-1][line["model"]] = line["mdice"]
    return markdown_table(titles, table, 1)


def _known_lines(rows: Sequence[Row], path: Path, data: str, images: int) -> list[dict[str, str]]:
    """What the file holds already: of this data as many pictures, and no row that was trained after it was written."""
    lines = [line for line in read_csv(path) if "data" in line]  # older files do not say what they were measured on
    written = path.stat().st_mtime if lines else 0.0
    checkpoints = {row.name: Path(row.checkpoint) for row in rows}
    new = {name for name, file in checkpoints.items() if file.exists() and file.stat().st_mtime > written}
    known = [line for line in lines if line["data"] != data or line["images"] == str(images)]
    return [line for line in known if line["data"] != data or line["model"] not in new]


def _uncorrupted(line: dict[str, str]) -> bool:
    return line["level"] == str(PERTURBATIONS[line["perturbation"]][1][0])


def _level_place(line: dict[str, str]) -> tuple[int, int]:
    levels = [str(level) for level in PERTURBATIONS[line["perturbation"]][1]]
    return list(PERTURBATIONS).index(line["perturbation"]), levels.index(line["level"])
