"""Speed and memory of prediction and clicks on this machine.

    python -m experiments.benchmark

Writes results/benchmark.csv: medians of several calls after a warm-up. Each line is measured in a process of its own,
for its peak memory. Pictures and weights are random; nothing is downloaded.
"""

import multiprocessing
import platform
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from utils.config import run_script

import numpy as np
import torch
from torch import nn

from experiments.readme import write_between_markers
from models.clip import CLIPCNN
from models.pointclip import PointCLIP
from models.unet import UNet
from utils.classes import PETS
from utils.device import in_force, pick_device
from utils.files import write_csv
from utils.inputs.augment import IMAGENET_MEAN, IMAGENET_STD
from utils.rows.by_class import ByClass
from utils.rows.by_click import ByClick
from utils.rows.row import Row
from utils.tables import markdown_table

DEVICE = "auto"  # "cpu", "cuda", "cuda:1"
RESULTS = "results"  # folder of benchmark.csv
README = ()  # files whose table between markers is updated


def main() -> None:
    path, lines = Path(RESULTS) / "benchmark.csv", []
    for what in BENCHMARKS:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            lines.append(pool.submit(measure, what, DEVICE).result())
        print("  ".join(lines[-1].values()), flush=True)
    write_csv(lines, path)
    if README:
        titles = {"what": "what", "unit": "unit", "speed": "speed", "peak_memory_mb": "peak memory (MB)"}
        write_between_markers(README, {"benchmark": markdown_table(titles | {"precision": "precision"}, lines, 2)})
    print(f"wrote {path}")


def measure(what: str, device_name: str) -> dict[str, str]:
    """A line of benchmark.csv."""
    device = pick_device(device_name)
    torch.manual_seed(0)
    make, count = BENCHMARKS[what]
    seconds = median_seconds(make(device), device)
    cuda = device.type == "cuda"
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kilobytes; on a Mac bytes
    peak *= 1 if platform.system() == "Darwin" else 2**10
    return {
        "what": what,
        "unit": "pictures/s" if count else "ms",
        "speed": f"{count / seconds if count else 1000 * seconds:.1f}",
        "peak_memory_mb": f"{(torch.cuda.max_memory_allocated() if cuda else peak) / 2**20:.0f}",
        "machine": platform.machine(),
        "device": torch.cuda.get_device_name(device) if cuda else "cpu",
        "torch": torch.__version__,
        "threads": str(torch.get_num_threads()),
        "precision": in_force(device, "auto"),
    }


def median_seconds(function: Callable[[], object], device: torch.device, repeats: int = 5) -> float:
    """Median duration of `repeats` calls after one warm-up."""
    times = []
    for _ in range(1 + repeats):
        started = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def on_tiny(make: type[CLIPCNN] | type[PointCLIP]) -> nn.Module:
    """The model with an encoder of DeiT-Tiny's size and random weights."""
    sizes = {"hidden_size": 192, "intermediate_size": 768, "num_hidden_layers": 12, "num_attention_heads": 3}
    vit = {"model_type": "clip_vision_model", "image_size": 224, "patch_size": 16, **sizes}
    return make("", encoder_config={"vit": vit, "mean": IMAGENET_MEAN, "std": IMAGENET_STD}, freeze_encoder=False)


def row_of(kind: type[Row], model: nn.Module, side: int, device: torch.device) -> Row:
    model = model.to(device, memory_format=torch.channels_last).eval()
    return kind("benchmark", model, device, side, IMAGENET_MEAN, IMAGENET_STD, PETS, precision="auto")


def draw(count: int, width: int) -> list[np.ndarray]:
    """Random pictures, uint8 (3 / 4 width, width, 3)."""
    return list(np.random.default_rng(0).integers(0, 256, (count, width * 3 // 4, width, 3), np.uint8))


def photos(
    kind: type[Row], make: Callable[[], nn.Module], side: int, count: int, width: int, device: torch.device
) -> Callable[[], object]:
    """Segment `count` pictures, with a click on each for rows by click."""
    row, images = row_of(kind, make(), side, device), draw(count, width)
    if row.prompt:
        return lambda: [row.segment(image, [(200, 150, 1)]) for image in images]
    return lambda: row.segment_all(images)


def click(device: torch.device) -> Callable:
    """A second click on a picture that is already encoded."""
    segment = row_of(ByClick, on_tiny(PointCLIP), 256, device).open(draw(1, 500)[0])
    places = iter(range(10, 490))  # a new place each time: predictions are cached
    segment([(200, 150, 1)], "")
    return lambda: segment([(200, 150, 1), (next(places), 30, 0)], "")


# name -> (device -> timed function), pictures per call; 0: report ms per call
BENCHMARKS: dict[str, tuple[Callable[[torch.device], Callable], int]] = {
    "U-Net, 160 px, photos of 500 x 375": (partial(photos, ByClass, UNet, 160, 16, 500), 16),
    "U-Net, 160 px, photos of 4000 x 3000": (partial(photos, ByClass, UNet, 160, 2, 4000), 2),
    "CLIP, 256 px, photos of 500 x 375": (partial(photos, ByClass, partial(on_tiny, CLIPCNN), 256, 16, 500), 16),
    "PointCLIP, 256 px, photos of 500 x 375": (partial(photos, ByClick, partial(on_tiny, PointCLIP), 256, 16, 500), 16),
    "PointCLIP, 256 px, a further click": (click, 0),
}


if __name__ == "__main__":
    run_script(main)
