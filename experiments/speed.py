"""Re-measure img/s of all lines in results.csv in one run: start it while nothing else runs.

    python -m experiments.speed --README=README.md      # 64 pictures, three rounds: ten minutes

All lines of this data's test split are timed in turn, three rounds; the median becomes the line's img/s.
"""

import time
from itertools import product
from pathlib import Path
from statistics import median

from utils.config import DATA, run_script

from utils.device import pick_device
from utils.errors import UserError
from utils.files import read_csv
from utils.inputs.layouts import data_name, list_samples, subset
from utils.rows import find_rows, load_rows
from utils.scoring.results import merge_lines, result_table, scales_of
from utils.tables import write_between_markers

DATA_ROOT = DATA  # any layout of data/README.md
PICTURES = 64  # a fixed random subset of the test split; 0: all of it
DEVICE = "auto"  # "cpu", "cuda", "cuda:1"
CHECKPOINTS = "checkpoints"  # folder of all rows
RESULTS = "results"  # folder of results.csv
README = ()  # files whose tables between markers are updated


def main() -> None:
    path, data, names = Path(RESULTS) / "results.csv", data_name(DATA_ROOT), list(find_rows(CHECKPOINTS))
    samples = subset(list_samples(DATA_ROOT, "test"), PICTURES)
    rows, _ = load_rows(names, CHECKPOINTS, pick_device(DEVICE), samples[0].classes, DATA_ROOT)
    rows = {row.name: row for row in rows}
    of_split = [line for line in read_csv(path) if (line["data"], line["split"]) == (data, "test")]
    timed = []  # a line, its row, flip and the speeds measured
    for line in of_split:
        row, flip = rows.get(line["model"]), line["flip"] == "1"
        if row and line["scales"] == scales_of(row):
            row.flip = flip
            row.prepare(DATA_ROOT)
            timed.append((line, row, flip, []))
    if not timed:
        raise UserError(f"{path} has no line of these rows on {data}, test split: run evaluate.py first")
    for _, (_, row, row.flip, speeds) in product(range(3), timed):
        started = time.perf_counter()
        row.score(samples)
        speeds.append(len(samples) / (time.perf_counter() - started))
    for line, *_, speeds in timed:
        line["images_per_second"] = f"{median(speeds):.1f}"
    merge_lines(of_split, path, names)
    table = result_table(of_split, [name for name in names if name not in {line["model"] for line in of_split}])
    if README:
        write_between_markers(README, {f"results {data}": table})
    print(f"{table}\nwrote {path}")


if __name__ == "__main__":
    run_script(main)
