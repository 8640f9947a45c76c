"""What to expect of this machine: pictures a second, time of a click, memory; writes results/benchmark.csv.

    python benchmark.py                     # half an hour
    python benchmark.py --WHAT=click        # one of them; the lines of the others are kept

Each is measured in a process of its own, beside the plain way in the same run; medians after a warm-up. Pictures and
weights are random, for time and memory do not depend on them: nothing is downloaded.
"""

import multiprocessing
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from utils.config import require_choice, require_positive, run_script

import numpy as np
import torch
from torch import nn

from models import untrained
from models.autoencoder import Autoencoder
from models.clip import CLIPDecoder
from models.clipseg import CLIPSeg
from models.pointclip import PointCLIP
from models.unet import UNet
from predict import segment_files
from utils.classes import PETS
from utils.device import autocast, in_force, pick_device
from utils.figures.plots import plot_benchmark
from utils.files import read_csv, write_csv
from utils.inputs.augment import IMAGENET_MEAN, IMAGENET_STD, augment, normalise
from utils.inputs.dataset import SegmentationDataset
from utils.inputs.plain import PlainDataset, draw_photos
from utils.scoring.by_class import ByClass
from utils.scoring.by_click import ByClick
from utils.scoring.by_text import ByText, add_background
from utils.scoring.onnx_graphs import class_graph, to_int8, to_onnx
from utils.scoring.row import Row
from utils.scoring.speed import evaluation_race, folder_race
from utils.tables import markdown_table, write_between_markers
from utils.timing import Race, against_fp32, race_line, random_batch, step_of
from utils.training.losses import segmentation_loss
from utils.training.reconstruction import random_patches, reconstruction_loss

WHAT = ()  # --WHAT=loader,click; empty: all
SCALES = ("1 x", "2 x pictures", "4 x pictures", "2 x pixels", "4 x pixels")  # how the cost grows
PICTURES = 500  # in the evaluation of a row
REPEATS = 5  # timings of each, of which the median counts
DEVICE = "auto"  # "cpu", "cuda", "cuda:1"
RESULTS = "results"  # folder of benchmark.csv
IMAGES = "images"  # folder of benchmark.png
README = ""  # file whose table between the benchmark markers is written anew


def main() -> None:
    require_positive(globals(), "PICTURES", "REPEATS")
    for name in WHAT:
        require_choice("WHAT", name, tuple(_BENCHMARKS))
    for scale in SCALES:
        require_choice("SCALES", scale, tuple(_SCALES))
    path, figure = Path(RESULTS) / "benchmark.csv", Path(IMAGES) / "benchmark.png"
    known = {line["what"]: line for line in read_csv(path)}
    works = {
        (name, scale): work(name, scale) for name in _BENCHMARKS for scale in (_SCALES if name in _SCALED else ("1 x",))
    }
    without_onnx = [] if find_spec("onnxruntime") else [name for name in _BENCHMARKS if name.startswith("onnx")]
    if without_onnx:
        print(f"left out: {', '.join(without_onnx)}; pip install -r requirements-export.txt", flush=True)
    for (name, scale), (what, pictures, side) in works.items():
        if name in without_onnx:
            continue
        if name in (WHAT or _BENCHMARKS) and (scale in SCALES or name not in _SCALED):
            spawn = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(1, spawn) as pool:  # a process each: its peak memory is its own
                known[what] = pool.submit(run, name, what, pictures, side, REPEATS, DEVICE).result()
            write_csv([known[what] for what, *_ in works.values() if what in known], path)  # nothing is lost if stopped
            print("  ".join(str(value) for value in known[what].values()), flush=True)
    scaled = {key: known[what] for key, (what, *_) in works.items() if what in known}
    unscaled = [line for (name, scale), line in scaled.items() if scale == "1 x" and not name.startswith("start")]
    plot_benchmark(unscaled, scaled, figure)
    if README:
        titles = {"what": "what", "unit": "unit", "ours": "ours", "plain": "plain way", "ratio": "ratio"}
        titles |= {"peak_memory_mb": "peak memory (MB)", "precision": "precision"}
        write_between_markers(README, {"benchmark": markdown_table(titles, unscaled, 2)})
    print(f"wrote {path}, {figure}")


def work(name: str, scale: str) -> tuple[str, int, int]:
    """What is measured under this name: its line's title, pictures, pixels a side."""
    _, title, pictures, side = _BENCHMARKS[name]
    more, larger = _SCALES[scale]
    pictures = (pictures or PICTURES) * more
    side = round(side * larger**0.5 / 16) * 16  # a multiple of every patch size
    return title.format(pictures=pictures, side=side), pictures, side


def run(name: str, what: str, pictures: int, side: int, repeats: int, device_name: str) -> dict[str, str]:
    """One line of the CSV."""
    device = pick_device(device_name)
    torch.manual_seed(0)
    return race_line(what, _BENCHMARKS[name][0](device, pictures, side), repeats, device)


# ---------------------------------------------------------------------------------------------- loading


def loader(device: torch.device, pictures: int, side: int) -> Race:
    """Augmented batches; plain: PIL and torchvision's transforms for every picture, in two worker processes."""
    folder = draw_photos(pictures)
    ours_set = SegmentationDataset(folder.name, "test", side)
    plain_set = PlainDataset(Path(folder.name), side)

    def ours() -> None:
        for start in range(0, pictures, 16):
            batch = ours_set[list(range(start, min(start + 16, pictures)))]
            generator = torch.Generator().manual_seed(start)
            images, _ = augment(*batch, generator, side, (0.7, 1.8), 15.0, 0.8)
            normalise(images, IMAGENET_MEAN, IMAGENET_STD)

    workers = torch.utils.data.DataLoader(plain_set, 16, num_workers=2, persistent_workers=True)

    def plain(folder=folder) -> None:  # the folder lives as long as what reads it
        for _ in workers:
            pass

    return Race("pictures/s", "fp32", pictures, ours, plain)


# --------------------------------------------------------------------------------------------- training


def kept_tokens(device: torch.device, pictures: int, side: int, channels: int) -> torch.Tensor:
    """(N, C, h, w) as utils.features keeps them: float16, channels last."""
    return torch.randn(pictures, side, side, channels, device=device).half().movedim(-1, 1)


def unet_step(device: torch.device, pictures: int, side: int) -> Race:
    images, masks = random_batch(device, pictures, side)

    def compute_loss(model: nn.Module, fast: bool) -> torch.Tensor:
        return segmentation_loss(model(images[fast]), masks)

    ours, plain = step_of(device, UNet().to(device), compute_loss)
    return Race("pictures/s", against_fp32(device), pictures, ours, plain)


def autoencoder_step(device: torch.device, pictures: int, side: int) -> Race:
    """Stage 1; stage 2 is the U-Net's step."""
    images, _ = random_batch(device, pictures, side)
    hidden = random_patches(pictures, side, 16, 0.6, torch.Generator()).to(device)

    def compute_loss(model: nn.Module, fast: bool) -> torch.Tensor:
        return reconstruction_loss(model(images[fast], hidden), images[fast], hidden)

    ours, plain = step_of(device, Autoencoder().to(device), compute_loss)
    return Race("pictures/s", against_fp32(device), pictures, ours, plain)


def decoder_step(device: torch.device, pictures: int, side: int) -> Race:
    """The decoder on kept tokens of ViT-B/16; plain: with the encoder in the loop."""
    vit = untrained.image_encoder(untrained.BASE).to(device).eval()
    decoder = CLIPDecoder(vit.channels, (16, 48, 96, 192), 0.1).to(device)
    images, masks = random_batch(device, pictures, side)
    tokens = kept_tokens(device, pictures, side // 16, vit.channels)

    def compute_loss(decoder: nn.Module, fast: bool) -> torch.Tensor:
        with torch.no_grad():
            seen = tokens.float() if fast else vit(images[False])
        return segmentation_loss(decoder(images[fast], seen)[:, :3], masks)

    ours, plain = step_of(device, decoder, compute_loss)
    return Race("pictures/s", against_fp32(device), pictures, ours, plain)


def point_step(device: torch.device, pictures: int, side: int) -> Race:
    """PointCLIP with one correction on kept tokens of ViT-B/16; plain: with the encoder in the loop."""
    model = untrained.point_clip(untrained.BASE).to(device)
    images, masks = random_batch(device, pictures, side)
    tokens = kept_tokens(device, pictures, side // 16, model.encoder.channels)
    clicks = torch.rand(pictures, 2, 3, device=device).round()
    truth = (masks == 1).long()

    def compute_loss(model: nn.Module, fast: bool) -> torch.Tensor:
        with torch.no_grad():
            seen = tokens.float() if fast else model.encoder(images[False])
            before = model(images[fast], clicks[:, :1], None, seen).float().sigmoid()
        thing = model(images[fast], clicks, before, seen)
        return segmentation_loss(torch.cat([torch.zeros_like(thing), thing], 1), truth)

    ours, plain = step_of(device, model, compute_loss)
    return Race("pictures/s", against_fp32(device), pictures, ours, plain)


# ------------------------------------------------------------------------------------------ using models


def encoder(device: torch.device, pictures: int, side: int) -> Race:
    """CLIP ViT-B/16, as features are computed."""
    model, images = (
        untrained.image_encoder(untrained.BASE).to(device).eval(),
        torch.randn(pictures, 3, side, side, device=device),
    )

    @torch.inference_mode()
    def encode(precision: str) -> None:
        with autocast(device, precision):
            model(images)

    return Race("pictures/s", against_fp32(device), pictures, lambda: encode("auto"), lambda: encode("fp32"))


def row_of(
    kind: type[Row], make: Callable[[], nn.Module], device: torch.device, side: int, precision: str = "auto"
) -> Row:
    """A row with random weights."""
    model = make().to(device, memory_format=torch.channels_last).eval()
    return kind("evaluation", model, device, side, IMAGENET_MEAN, IMAGENET_STD, PETS, precision=precision)


def click(device: torch.device, pictures: int, side: int) -> Race:
    """A click after the first, with a DeiT-Tiny encoder; plain: the picture encoded again."""
    model = untrained.point_clip().to(device, memory_format=torch.channels_last).eval()
    images = random_batch(device, 1, side)[0][True]
    clicks = torch.tensor([[[0.5, 0.5, 1.0], [0.2, 0.3, 0.0]]], device=device)
    previous = torch.rand(1, 1, side // 2, side // 2, device=device)
    with torch.inference_mode():
        features = model.encode(images)

    @torch.inference_mode()
    def decode(encode: bool) -> None:
        with autocast(device, "auto"):
            model.decode(model.encode(images) if encode else features, clicks, previous)

    return Race("ms", in_force(device, "auto"), 1, lambda: decode(False), lambda: decode(True))


def clipseg(device: torch.device, pictures: int, side: int) -> Race:
    """CLIPSeg with two prompts; plain: transformers' own way in fp32, a picture encoded once per prompt."""
    reference = untrained.clipseg_reference().to(device).eval()
    images, prompts = torch.randn(pictures, 3, side, side, device=device), torch.randn(2, 512, device=device)
    model = CLIPSeg(reference, None).to(device)  # takes the reference's modules for its own

    @torch.inference_mode()
    def plain() -> None:
        pairs, both = images.repeat_interleave(2, 0), prompts.repeat(pictures, 1)
        reference(pixel_values=pairs, conditional_embeddings=both, interpolate_pos_encoding=True)

    @torch.inference_mode()
    def ours() -> None:
        with autocast(device, "auto"):
            model(images, prompts)

    return Race("pictures/s", against_fp32(device), pictures, ours, plain)


def onnx(device: torch.device, pictures: int, side: int, make: Callable[[], nn.Module], int8: bool = False) -> Race:
    """Photos of 500 x 375 pixels, from their pixels to ids: the file that export.py writes, beside PyTorch."""
    import onnxruntime

    row = row_of(ByClass, make, torch.device("cpu"), side, "fp32")
    data = to_onnx(class_graph(row), {"row": row.name})
    session = onnxruntime.InferenceSession(to_int8(data) if int8 else data, providers=["CPUExecutionProvider"])
    photos = np.random.default_rng(0).integers(0, 256, (pictures, 375, 500, 3), np.uint8)

    def ours() -> None:
        for photo in photos:
            session.run(["ids"], {"picture": photo[None]})

    def plain() -> None:
        for photo in photos:
            row.segment(photo)

    return Race("pictures/s", "int8 against " * int8 + "fp32", pictures, ours, plain)


def start(device: torch.device, pictures: int, side: int, script: str) -> Race:
    """A script up to its help text; plain: `import torch` alone."""

    def run_python(*arguments: str) -> None:
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True, cwd=Path(__file__).parent)

    ours, plain = (lambda: run_python(script, "--help")), (lambda: run_python("-c", "import torch"))
    return Race("ms", "", 1, ours, plain)


def ask_clipseg(model: CLIPSeg, image: torch.Tensor) -> list[torch.Tensor]:
    return [add_background(model(image, model.encode_prompts(())), 0.3)[0]]


def ask_pointclip(model: PointCLIP, image: torch.Tensor) -> list[torch.Tensor]:
    """Two clicks, one on the animal and one on the background."""
    click = torch.tensor([[[0.5, 0.5, 1.0]]], device=image.device)
    things = [model(image, click)[0] for _ in ("animal", "background")]
    return [torch.cat([-thing, thing]) for thing in things]


_SCRIPTS = "train_unet.py train_autoencoder.py train_clip.py evaluate.py predict.py compare.py".split()
_OF = "{pictures} of {side} px"
_UNET = {"make": partial(row_of, ByClass, UNet), "ask": lambda model, image: [model(image)[0]]}
_CLIP = {"make": partial(row_of, ByClass, untrained.clip_cnn), "ask": lambda model, image: [model(image)[0]]}
_CLIPSEG = {"make": partial(row_of, ByText, untrained.clipseg), "ask": ask_clipseg}
_POINTCLIP = {"make": partial(row_of, ByClick, untrained.point_clip), "ask": ask_pointclip}
predicting = partial(folder_race, make=_UNET["make"], segment_files=segment_files)
# name -> what measures it, its line in the CSV, pictures (None: PICTURES), pixels a side
_BENCHMARKS = {
    "loader": (loader, "loader, {pictures} pictures, {side} px", 192, 128),
    "unet step": (unet_step, f"U-Net training, {_OF}", 16, 128),
    "autoencoder step": (autoencoder_step, f"autoencoder, stage 1, {_OF}", 16, 128),
    "decoder step": (decoder_step, f"CLIP decoder training, {_OF}", 16, 256),
    "point step": (point_step, f"PointCLIP training, {_OF}", 16, 256),
    "encoder": (encoder, "encoder ViT-B/16, {side} px", 8, 352),
    "unet evaluation": (partial(evaluation_race, **_UNET), f"U-Net evaluation, {_OF}", None, 160),
    "clip evaluation": (partial(evaluation_race, **_CLIP), f"CLIP evaluation, {_OF}", None, 256),
    "clipseg evaluation": (partial(evaluation_race, **_CLIPSEG), f"CLIPSeg evaluation, {_OF}", None, 352),
    "point evaluation": (partial(evaluation_race, **_POINTCLIP), f"PointCLIP evaluation, {_OF}", None, 256),
    "predict": (predicting, "predict.py, U-Net, {pictures} photos, {side} px wide", 48, 496),
    "predict large": (predicting, "predict.py, U-Net, {pictures} photos, {side} px wide", 6, 4000),
    "click": (click, "a click, DeiT-Tiny, {side} px", 1, 256),
    "clipseg": (clipseg, "CLIPSeg, {side} px, two prompts", 2, 352),
    "onnx unet": (partial(onnx, make=UNet), "U-Net in onnxruntime, against PyTorch, {side} px", 8, 160),
    "onnx clip": (partial(onnx, make=untrained.clip_cnn), "CLIP in onnxruntime, against PyTorch, {side} px", 4, 320),
    "onnx int8": (partial(onnx, make=untrained.clip_cnn, int8=True), "CLIP, int8, likewise, {side} px", 4, 320),
    **{
        f"start {script}": (partial(start, script=script), f"start of {script}, against import torch", 1, 0)
        for script in _SCRIPTS
    },
}
_SCALED = ("loader", "unet step", "autoencoder step", "decoder step", "point step", "unet evaluation")  # at SCALES
_SCALES = {  # times the pictures, times the pixels
    "1 x": (1, 1),
    "2 x pictures": (2, 1),
    "4 x pictures": (4, 1),
    "2 x pixels": (1, 2),
    "4 x pixels": (1, 4),
}

if __name__ == "__main__":
    run_script(main)
