"""Speed and memory of this machine: training steps, evaluation, predict.py, a click.

    python -m experiments.benchmark
    python -m experiments.benchmark --WHAT=click        # one of them; the lines of the others are kept

Writes results/benchmark.csv and images/benchmark.png. Each is measured in a process of its own (its peak memory is its
own), the median of several calls after a warm-up, where there is one beside a plain way of doing the same: fp32 and
contiguous tensors; torchvision's transforms, a picture at a time; PyTorch beside onnxruntime. Pictures and weights are
random: time and memory do not depend on them, and nothing is downloaded.
"""

import io
import multiprocessing
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path

from utils.config import require_choice, require_positive, run_script

import numpy as np
import torch
from matplotlib import pyplot as plt
from PIL import Image
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from export import class_graph, to_onnx
from models.clip import CLIPCNN, CLIPDecoder, ImageEncoder
from models.pointclip import PointCLIP
from models.unet import UNet
from predict import segment_files
from utils.classes import PETS
from utils.device import autocast, in_force, pick_device
from utils.figures.plots import save_figure
from utils.files import read_csv, write_csv
from utils.inputs.augment import IMAGENET_MEAN, IMAGENET_STD, augment, normalise
from utils.inputs.dataset import SegmentationDataset
from utils.inputs.layouts import list_samples
from utils.rows.by_class import ByClass
from utils.rows.by_click import ByClick
from utils.rows.row import Row
from utils.tables import markdown_table, write_between_markers
from utils.training.losses import segmentation_loss

WHAT = ()  # --WHAT=loader,click; empty: all
PICTURES = 500  # in the evaluation of a row
REPEATS = 5  # timings of each, of which the median counts
DEVICE = "auto"  # "cpu", "cuda", "cuda:1"
RESULTS = "results"  # folder of benchmark.csv
IMAGES = "images"  # folder of benchmark.png
README = ()  # files whose table between the benchmark markers is written anew

# a call, pictures that it handles (0: its time in ms counts), the plain way or None, pictures of that
Timed = tuple[Callable[[], object], int, Callable[[], object] | None, int]
WIDTHS: tuple[int, ...] = (16, 48, 96, 192)  # of CLIP's decoder


def main() -> None:
    require_positive(globals(), "PICTURES", "REPEATS")
    for name in WHAT:
        require_choice("WHAT", name, tuple(BENCHMARKS))
    path, figure = Path(RESULTS) / "benchmark.csv", Path(IMAGES) / "benchmark.png"
    known = {line["what"]: line for line in read_csv(path)}
    for name, (_, what) in BENCHMARKS.items():
        if WHAT and name not in WHAT:
            continue
        if name.startswith("onnx") and not find_spec("onnxruntime"):
            print(f"left out: {what}; pip install -r requirements-export.txt", flush=True)
            continue
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            known[what] = pool.submit(measure, name, PICTURES, REPEATS, DEVICE).result()
        lines = [known[what] for _, what in BENCHMARKS.values() if what in known]
        write_csv(lines, path)  # after each: nothing is lost if it is stopped
        print("  ".join(known[what].values()), flush=True)
    lines = [known[what] for _, what in BENCHMARKS.values() if what in known]
    plot_ratios(lines, figure)
    if README:
        titles = {"what": "what", "unit": "unit", "ours": "ours", "plain": "plain way", "ratio": "ratio"}
        titles |= {"peak_memory_mb": "peak memory (MB)", "precision": "precision"}
        write_between_markers(README, {"benchmark": markdown_table(titles, lines, 2)})
    print(f"wrote {path}, {figure}")


def measure(name: str, pictures: int, repeats: int, device_name: str) -> dict[str, str]:
    """A line of benchmark.csv."""
    global PICTURES
    PICTURES, device = pictures, pick_device(device_name)
    torch.manual_seed(0)
    make, what = BENCHMARKS[name]
    ours, count, plain, plain_count = make(device)
    speeds = [median_seconds(ours, repeats, device) / (count or 1)]
    if plain:
        speeds.append(median_seconds(plain, repeats, device) / (plain_count or 1))
    values = [f"{1 / seconds if count else 1000 * seconds:.1f}" for seconds in speeds]
    cuda = device.type == "cuda"
    peak = torch.cuda.max_memory_allocated() / 2**20 if cuda else peak_memory_mb()
    return {
        "what": what,
        "unit": "pictures/s" if count else "ms",
        "ours": values[0],
        "plain": values[1] if plain else "",
        "ratio": f"{speeds[1] / speeds[0]:.2f}" if plain else "",
        "peak_memory_mb": f"{peak:.0f}",
        "machine": platform.machine(),
        "device": torch.cuda.get_device_name(device) if cuda else "cpu",
        "torch": torch.__version__,
        "threads": str(torch.get_num_threads()),
        "precision": in_force(device, "fp32" if name == "loader" or "onnx" in name or "evaluation" in name else "auto"),
    }


def median_seconds(function: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Median of `repeats` calls after a warm-up; fewer, two at least, if calls are slow."""
    times = []
    while len(times) < 1 + repeats and (len(times) < 3 or sum(times) < 20):
        started = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def peak_memory_mb() -> float:
    """Of this process and the processes that it started."""
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return peak / 2**20 if platform.system() == "Darwin" else peak / 2**10  # bytes there, kilobytes here


# ---------------------------------------------------------------------------------------------- loading


def loader(device: torch.device) -> Timed:
    """Augmented batches; plain: torchvision's transforms, a picture at a time, in two worker processes."""
    folder, side, count = draw_photos(192), 128, 192
    dataset = SegmentationDataset(folder.name, "test", side)

    def ours(folder=folder) -> None:  # the folder lives as long as what reads it
        for start in range(0, count, 16):
            generator = torch.Generator().manual_seed(start)
            images, _ = augment(*dataset[list(range(start, start + 16))], generator, side, (0.7, 1.8), 15.0, 0.8)
            normalise(images, IMAGENET_MEAN, IMAGENET_STD)

    workers = torch.utils.data.DataLoader(PlainDataset(Path(folder.name), side), 16, num_workers=2)
    return ours, count, lambda: [None for _ in workers], count


class PlainDataset(torch.utils.data.Dataset):
    """The usual way: open, convert, resize and augment one picture at a time."""

    def __init__(self, root: Path, side: int):
        from torchvision.transforms import v2

        self.files = sorted((root / "test" / "images").glob("*.jpg"))
        steps = [v2.ToImage(), v2.Resize((side, side)), v2.RandomAffine(15, scale=(0.7, 1.8))]
        steps += [v2.RandomHorizontalFlip(), v2.ColorJitter(0.4, 0.4, 0.5, 0.05), v2.ToDtype(torch.float32, scale=True)]
        self.transform = v2.Compose([*steps, v2.Normalize(IMAGENET_MEAN, IMAGENET_STD)])

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> torch.Tensor:
        from torchvision import tv_tensors

        file = self.files[index]
        mask = np.array(Image.open(file.parent.with_name("masks") / f"{file.stem}.png"))
        return self.transform(Image.open(file).convert("RGB"), tv_tensors.Mask(mask))


def draw_photos(count: int, width: int = 500) -> tempfile.TemporaryDirectory:
    """A data set in the folder layout: JPEGs of width x 3/4 width with structure and noise, and their masks."""
    size = width, width * 3 // 4
    folder = tempfile.TemporaryDirectory()
    rng = np.random.default_rng(0)
    (Path(folder.name) / "train").mkdir()  # by which the layout is recognised
    for kind in ("images", "masks"):
        (Path(folder.name) / "test" / kind).mkdir(parents=True)
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).resize(size, Image.BICUBIC)
        noisy = np.asarray(coarse) + rng.normal(0, 8, (*size[::-1], 3))
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(f"{folder.name}/test/images/{number:05d}.jpg")
        mask = Image.fromarray(rng.integers(0, 3, (6, 8), np.uint8)).resize(size, Image.NEAREST)
        mask.save(f"{folder.name}/test/masks/{number:05d}.png")
    return folder


# --------------------------------------------------------------------------------------------- training


def training_step(device: torch.device, model: nn.Module, side: int) -> Timed:
    """Forward and backward pass of 16 pictures as the scripts do it, and in fp32 with contiguous tensors."""
    model.to(device)
    images = torch.randn(16, 3, side, side, device=device)
    masks = torch.randint(0, 3, (16, side // 16, side // 16), device=device)
    masks = masks.repeat_interleave(16, 1).repeat_interleave(16, 2)

    def step(fast: bool) -> None:
        memory_format = torch.channels_last if fast else torch.contiguous_format
        model.to(memory_format=memory_format)
        with autocast(device, "auto" if fast else "fp32"):
            loss = segmentation_loss(model(images.contiguous(memory_format=memory_format)), masks)
        loss.backward()
        model.zero_grad()

    return lambda: step(True), 16, lambda: step(False), 16


# ------------------------------------------------------------------------------------------ using models

TINY: dict = {"hidden_size": 192, "intermediate_size": 768, "num_hidden_layers": 12, "num_attention_heads": 3}  # DeiT's


def on_encoder(make: type[CLIPCNN] | type[PointCLIP]) -> nn.Module:
    """The model on an encoder of DeiT-Tiny's shape with random weights."""
    model = make("tiny", freeze_encoder=False)
    model.encoder = ImageEncoder(CLIPVisionModel(CLIPVisionConfig(**TINY, image_size=224, patch_size=16)))
    model.decoder = CLIPDecoder(model.encoder.channels, WIDTHS, 0.1)
    return model


def row_of(kind: type[Row], model: nn.Module, device: torch.device, side: int, precision: str = "fp32") -> Row:
    model = model.to(device, memory_format=torch.channels_last).eval()
    return kind("evaluation", model, device, side, IMAGENET_MEAN, IMAGENET_STD, PETS, precision=precision)


def evaluation(device: torch.device, row: Row) -> Timed:
    """Scoring a split, files included."""
    folder = draw_photos(PICTURES)
    samples = list_samples(folder.name, "test")

    def ours(folder=folder) -> None:
        row.score(samples)

    return ours, PICTURES, None, 0


def predicting(device: torch.device, count: int, width: int) -> Timed:
    """Photos in, masks and overlays out."""
    folder = draw_photos(count, width)
    names = {path: path.stem for path in sorted(Path(folder.name).glob("test/images/*.jpg"))}
    row = row_of(ByClass, UNet(), device, 160, "auto")

    def ours() -> None:
        with redirect_stdout(io.StringIO()):
            assert segment_files(row, names, Path(folder.name) / "out") == []

    return ours, count, None, 0


def click(device: torch.device) -> Timed:
    """A click after the first, on a picture that is encoded already, DeiT-Tiny's encoder."""
    row = row_of(ByClick, on_encoder(PointCLIP), device, 256, "auto")
    segment = row.open(np.random.default_rng(0).integers(0, 256, (375, 500, 3), np.uint8))
    places = iter(range(10, 10_000))  # a new one each time: known answers are kept
    segment([(200, 150, 1)], "")
    return lambda: segment([(200, 150, 1), (next(places) % 490, 30, 0)], ""), 0, None, 0


def onnx(device: torch.device) -> Timed:
    """From the pixels of photos to ids: the file that export.py writes, beside PyTorch."""
    import onnxruntime

    row = row_of(ByClass, on_encoder(CLIPCNN), torch.device("cpu"), 320)
    data = to_onnx(class_graph(row), {"row": row.name})
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    photos = np.random.default_rng(0).integers(0, 256, (4, 375, 500, 3), np.uint8)
    ours, plain = (lambda photo: session.run(["ids"], {"picture": photo[None]})), row.segment
    return lambda: [ours(photo) for photo in photos], 4, lambda: [plain(photo) for photo in photos], 4


# name -> what measures it, its line in the CSV
BENCHMARKS: dict[str, tuple[Callable[[torch.device], Timed], str]] = {
    "loader": (loader, "loader, 192 pictures, 128 px"),
    "unet step": (lambda on: training_step(on, UNet(), 128), "U-Net training, 16 of 128 px"),
    "clip step": (lambda on: training_step(on, on_encoder(CLIPCNN), 256), "CLIP fine-tuning, 16 of 256 px"),
    "unet evaluation": (lambda on: evaluation(on, row_of(ByClass, UNet(), on, 160)), "U-Net evaluation, 160 px"),
    "clip evaluation": (
        lambda on: evaluation(on, row_of(ByClass, on_encoder(CLIPCNN), on, 256)),
        "CLIP evaluation, 256 px",
    ),
    "point evaluation": (
        lambda on: evaluation(on, row_of(ByClick, on_encoder(PointCLIP), on, 256)),
        "PointCLIP evaluation, 256 px",
    ),
    "predict": (lambda on: predicting(on, 48, 496), "predict.py, U-Net, photos of 496 x 372"),
    "predict large": (lambda on: predicting(on, 6, 4000), "predict.py, U-Net, photos of 4000 x 3000"),
    "click": (click, "a click, 256 px"),
    "onnx": (onnx, "CLIP in onnxruntime, beside PyTorch, 320 px"),
}


def plot_ratios(lines: list[dict[str, str]], path: Path) -> None:
    """Speed as a multiple of the plain way's."""
    lines = [line for line in lines if line["ratio"]]
    ratios = [float(line["ratio"]) for line in lines]
    figure, axes = plt.subplots(figsize=(8, 1 + 0.32 * len(lines)))
    bars = axes.barh([line["what"] for line in lines], ratios, color="#0072B2")
    axes.bar_label(bars, [f"{ratio:.1f} ×" for ratio in ratios], padding=3, fontsize=8)
    axes.axvline(1, color="#333333", linewidth=1)
    axes.set(xlabel="speed, as a multiple of the plain way's", xlim=(0, max(ratios, default=1) * 1.15))
    axes.tick_params(axis="y", labelsize=8)
    axes.grid(axis="y", visible=False)
    axes.invert_yaxis()
    save_figure(figure, path)


if __name__ == "__main__":
    run_script(main)
