"""The column img/s of results.csv, measured anew for every line in one run: start it while nothing else runs.

    python -m experiments.speed --README=README.md      # 64 pictures, three rounds: ten minutes

Every line of this data and split is timed in three rounds, all in turn; its median becomes the line's img/s.
"""

import time
from pathlib import Path
from statistics import median

from utils.config import DATA, require_choice, require_positive, run_script

from utils.device import pick_device
from utils.errors import UserError
from utils.files import read_csv
from utils.inputs.layouts import SPLITS, data_name, list_samples, subset
from utils.rows import find_rows, load_rows
from utils.scoring.results import merge_lines, result_table, scales_of
from utils.tables import write_between_markers

DATA_ROOT = DATA  # any layout of data/README.md
SPLIT = "test"
PICTURES = 64  # a random subset of so many, always the same; 0: the whole split
BATCH_SIZE = 16
DEVICE = "auto"  # "cpu", "cuda", "cuda:1"
CHECKPOINTS = "checkpoints"  # where the training scripts wrote
RESULTS = "results"  # folder of results.csv
README = ()  # files whose tables between markers are written anew


def main() -> None:
    require_choice("SPLIT", SPLIT, SPLITS)
    require_positive(globals(), "BATCH_SIZE")
    path, data, names = Path(RESULTS) / "results.csv", data_name(DATA_ROOT), list(find_rows(CHECKPOINTS))
    samples = subset(list_samples(DATA_ROOT, SPLIT), PICTURES)
    rows, _ = load_rows(names, CHECKPOINTS, pick_device(DEVICE), samples[0].classes, DATA_ROOT)
    rows = {row.name: row for row in rows}
    of_split = [line for line in read_csv(path) if (line["data"], line["split"]) == (data, SPLIT)]
    timed = {}  # index of a line -> its row, flip and pictures
    for index, line in enumerate(of_split):
        row = rows.get(line["model"])
        if row and line["scales"] == scales_of(row):
            row.flip = line["flip"] == "1"
            row.prepare(DATA_ROOT, BATCH_SIZE)
            timed[index] = row, row.flip
    if not timed:
        raise UserError(f"{path} has no line of these rows on {data}, {SPLIT}: run evaluate.py first")
    speeds = {index: [] for index in timed}
    for _ in range(3):
        for index, (row, row.flip) in timed.items():
            started = time.perf_counter()
            row.score(samples, batch_size=BATCH_SIZE)
            speeds[index].append(len(samples) / (time.perf_counter() - started))
    for index, of_line in speeds.items():
        of_split[index]["images_per_second"] = f"{median(of_line):.1f}"
    merge_lines(of_split, path, names)
    table = result_table(of_split, [name for name in names if name not in {line["model"] for line in of_split}])
    if README:
        write_between_markers(README, {f"results {data}": table})
    print(f"{table}\nwrote {path}")


if __name__ == "__main__":
    run_script(main)
