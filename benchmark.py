"""What to expect of this machine: pictures a second, time of a click, memory; writes results/benchmark.csv.

    python benchmark.py                     # half an hour
    python benchmark.py --WHAT=click        # one of them; the lines of the others are kept

Each is measured in a process of its own, beside the plain way in the same run; medians after a warm-up. Pictures and
weights are random, for time and memory do not depend on them: nothing is downloaded.
"""

import multiprocessing
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from models.autoencoder import Autoencoder
from models.clip import CLIPCNN, CLIPDecoder, ImageEncoder
from models.clipseg import CLIPSeg, add_background
from models.pointclip import PointCLIP
from models.unet import UNet
from utils.augment import augment, normalise
from utils.click_protocol import click_confusions
from utils.config import require_choice, require_positive, run_script
from utils.dataset import PetDataset, read_mask
from utils.distributed import autocast, pick_device
from utils.evaluation import evaluate, to_size
from utils.files import read_csv, write_csv
from utils.losses import segmentation_loss
from utils.metrics import confusion_matrix
from utils.plots import plot_benchmark
from utils.pointing import PointPredictor
from utils.reconstruction import random_patches, reconstruction_loss
from utils.tables import markdown_table, write_between_markers

WHAT = ()  # --WHAT=loader,click; empty: all
SCALES = ("1 x", "2 x pictures", "4 x pictures", "2 x pixels", "4 x pixels")  # how the cost grows
PICTURES = 500  # in the evaluation of a row
REPEATS = 5  # timings of each, of which the median counts
DEVICE = "auto"  # "cpu", "cuda", "cuda:1"
RESULTS = "results"  # folder of benchmark.csv
IMAGES = "images"  # folder of benchmark.png
README = ""  # file whose table between the benchmark markers is written anew

_BASE = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
_TINY = {"hidden_size": 192, "intermediate_size": 768, "num_hidden_layers": 12, "num_attention_heads": 3}
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass
class Race:
    """Our way and the plain way of doing one thing."""

    unit: str  # "pictures/s" or "ms"
    precision: str
    pictures: int  # that one call handles
    ours: Callable[[], object]
    plain: Callable[[], object]
    plain_pictures: int = 0  # 0: as many; fewer where the plain way is slow


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
    for (name, scale), (what, pictures, side) in works.items():
        if name in (WHAT or _BENCHMARKS) and (scale in SCALES or name not in _SCALED):
            spawn = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(1, spawn) as pool:  # a process each: its peak memory is its own
                known[what] = pool.submit(run, name, what, pictures, side, REPEATS, DEVICE).result()
            print("  ".join(str(value) for value in known[what].values()), flush=True)
            write_csv([known[what] for what, *_ in works.values() if what in known], path)  # nothing is lost if stopped
    scaled = {key: known[what] for key, (what, *_) in works.items() if what in known}
    unscaled = [line for (name, scale), line in scaled.items() if scale == "1 x" and not name.startswith("start")]
    plot_benchmark(unscaled, scaled, figure)
    if README:
        titles = {"what": "what", "unit": "unit", "ours": "ours", "plain": "plain way", "ratio": "ratio"}
        titles |= {"peak_memory_mb": "peak memory (MB)", "precision": "precision"}
        write_between_markers(README, "benchmark", markdown_table(titles, unscaled, 2))
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
    race = _BENCHMARKS[name][0](device, pictures, side)
    seconds = [median_seconds(function, repeats, device) for function in (race.ours, race.plain)]
    seconds[1] *= race.pictures / (race.plain_pictures or race.pictures)
    values = [race.pictures / s if race.unit == "pictures/s" else 1000 * s for s in seconds]
    peak = torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else _peak_memory_mb()
    return {
        "what": what,
        "unit": race.unit,
        "ours": f"{values[0]:.1f}",
        "plain": f"{values[1]:.1f}",
        "ratio": f"{seconds[1] / seconds[0]:.2f}",
        "peak_memory_mb": f"{peak:.0f}",
        "machine": platform.machine(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
        "threads": str(torch.get_num_threads()),
        "precision": race.precision,
    }


def median_seconds(function: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Of `repeats` calls after two to warm up, or after one and of fewer calls (two at least) that take long."""
    times = []
    while len(times) < 2 + repeats and (len(times) < 3 or sum(times) < 20):
        started = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return statistics.median(times[2:] if len(times) == 2 + repeats else times[1:])


# ---------------------------------------------------------------------------------------------- loading


def loader(device: torch.device, pictures: int, side: int) -> Race:
    """Augmented batches; plain: PIL and torchvision's transforms for every picture, in two worker processes."""
    folder = draw_photos(pictures)
    ours_set = PetDataset(folder.name, "test", side)
    plain_set = PlainDataset(Path(folder.name), side)

    def ours() -> None:
        for start in range(0, pictures, 16):
            batch = ours_set[list(range(start, min(start + 16, pictures)))]
            generator = torch.Generator().manual_seed(start)
            images, _ = augment(*batch, generator, side, (0.7, 1.8), 15.0, 0.8)
            normalise(images, _MEAN, _STD)

    workers = torch.utils.data.DataLoader(plain_set, 16, num_workers=2, persistent_workers=True)

    def plain(folder=folder) -> None:  # the folder lives as long as what reads it
        for _ in workers:
            pass

    return Race("pictures/s", "fp32", pictures, ours, plain)


class PlainDataset(torch.utils.data.Dataset):
    """The usual way: open, convert, resize and augment one picture at a time."""

    def __init__(self, root: Path, side: int):
        from torchvision.transforms import v2

        self.files = sorted((root / "test" / "images").glob("*.jpg"))
        self.transform = v2.Compose(
            [
                v2.ToImage(),
                v2.Resize((side, side), antialias=True),
                v2.RandomAffine(15, scale=(0.7, 1.8)),
                v2.RandomHorizontalFlip(),
                v2.ColorJitter(0.4, 0.4, 0.5, 0.05),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(_MEAN, _STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> torch.Tensor:
        from torchvision import tv_tensors

        file = self.files[index]
        mask = np.array(Image.open(file.parent.with_name("masks") / f"{file.stem}.png"))
        return self.transform(Image.open(file).convert("RGB"), tv_tensors.Mask(mask))


def draw_photos(count: int) -> tempfile.TemporaryDirectory:
    """A data set in the folder layout: JPEGs of 500 x 375 pixels with structure and noise, and their masks."""
    folder = tempfile.TemporaryDirectory()
    rng = np.random.default_rng(0)
    (Path(folder.name) / "train").mkdir()  # by which the layout is recognised
    for kind in ("images", "masks"):
        (Path(folder.name) / "test" / kind).mkdir(parents=True)
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).resize((500, 375), Image.BICUBIC)
        noisy = np.asarray(coarse) + rng.normal(0, 8, (375, 500, 3))
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(f"{folder.name}/test/images/{number:05d}.jpg")
        mask = Image.fromarray(rng.integers(0, 3, (6, 8), np.uint8)).resize((500, 375), Image.NEAREST)
        mask.save(f"{folder.name}/test/masks/{number:05d}.png")
    return folder


# --------------------------------------------------------------------------------------------- training


def training_step(
    device: torch.device, model: nn.Module, compute_loss: Callable[[nn.Module, bool], torch.Tensor]
) -> tuple[Callable[[], None], Callable[[], None]]:
    """Forward and backward pass as the scripts do it (bf16, channels_last), and in fp32, contiguous.

    compute_loss(model, fast) is told which.
    """

    def step(fast: bool) -> None:
        model.to(memory_format=torch.channels_last if fast else torch.contiguous_format)
        with autocast(device, "auto" if fast else "fp32"):
            loss = compute_loss(model, fast)
        loss.backward()
        model.zero_grad()

    return lambda: step(True), lambda: step(False)


def random_batch(device: torch.device, pictures: int, side: int) -> tuple[dict[bool, torch.Tensor], torch.Tensor]:
    """Pictures, channels_last (True) and contiguous (False), and masks of blocks."""
    images = torch.randn(pictures, 3, side, side, device=device)
    masks = torch.randint(0, 3, (pictures, side // 16, side // 16), device=device)
    masks = masks.repeat_interleave(16, 1).repeat_interleave(16, 2)
    return {True: images.contiguous(memory_format=torch.channels_last), False: images}, masks


def kept_tokens(device: torch.device, pictures: int, side: int, channels: int) -> torch.Tensor:
    """(N, C, h, w) as utils.features keeps them: float16, channels last."""
    return torch.randn(pictures, side, side, channels, device=device).half().movedim(-1, 1)


def unet_step(device: torch.device, pictures: int, side: int) -> Race:
    images, masks = random_batch(device, pictures, side)

    def compute_loss(model: nn.Module, fast: bool) -> torch.Tensor:
        return segmentation_loss(model(images[fast]), masks)

    ours, plain = training_step(device, UNet().to(device), compute_loss)
    return Race("pictures/s", _BF16, pictures, ours, plain)


def autoencoder_step(device: torch.device, pictures: int, side: int) -> Race:
    """Stage 1; stage 2 is the U-Net's step."""
    images, _ = random_batch(device, pictures, side)
    hidden = random_patches(pictures, side, 16, 0.6, torch.Generator()).to(device)

    def compute_loss(model: nn.Module, fast: bool) -> torch.Tensor:
        return reconstruction_loss(model(images[fast], hidden), images[fast], hidden)

    ours, plain = training_step(device, Autoencoder().to(device), compute_loss)
    return Race("pictures/s", _BF16, pictures, ours, plain)


def decoder_step(device: torch.device, pictures: int, side: int) -> Race:
    """The decoder on kept tokens of ViT-B/16; plain: with the encoder in the loop."""
    vit = random_encoder(_BASE).to(device).eval()
    decoder = CLIPDecoder(vit.channels, (16, 48, 96, 192), 0.1).to(device)
    images, masks = random_batch(device, pictures, side)
    tokens = kept_tokens(device, pictures, side // 16, vit.channels)

    def compute_loss(decoder: nn.Module, fast: bool) -> torch.Tensor:
        with torch.no_grad():
            seen = tokens.float() if fast else vit(images[False])
        return segmentation_loss(decoder(images[fast], seen)[:, :3], masks)

    ours, plain = training_step(device, decoder, compute_loss)
    return Race("pictures/s", _BF16, pictures, ours, plain)


def point_step(device: torch.device, pictures: int, side: int) -> Race:
    """PointCLIP with one correction on kept tokens of ViT-B/16; plain: with the encoder in the loop."""
    model = point_clip(_BASE).to(device)
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

    ours, plain = training_step(device, model, compute_loss)
    return Race("pictures/s", _BF16, pictures, ours, plain)


# ------------------------------------------------------------------------------------------ using models


def encoder(device: torch.device, pictures: int, side: int) -> Race:
    """CLIP ViT-B/16, as features are computed."""
    model, images = random_encoder(_BASE).to(device).eval(), torch.randn(pictures, 3, side, side, device=device)

    @torch.inference_mode()
    def encode(precision: str) -> None:
        with autocast(device, precision):
            model(images)

    return Race("pictures/s", _BF16, pictures, lambda: encode("auto"), lambda: encode("fp32"))


def evaluation(device: torch.device, pictures: int, side: int, row: str) -> Race:
    """A row over a split, from the files on; plain: a picture at a time with PIL, in fp32, all of it for every click.

    The encoder of CLIP and PointCLIP has the shape of DeiT-Tiny.
    """
    folder = draw_photos(pictures)
    dataset = PetDataset(folder.name, "test", side)
    some = dataset.samples[:50]
    prompts, click = torch.randn(2, 512, device=device), torch.tensor([[[0.5, 0.5, 1.0]]], device=device)
    make = {"U-Net": UNet, "CLIP": clip_cnn, "PointCLIP": lambda: point_clip(_TINY)}
    make["CLIPSeg"] = lambda: CLIPSeg(clipseg_reference(), None)
    model = make[row]().to(device, memory_format=torch.channels_last).eval()

    def predict(images: torch.Tensor) -> torch.Tensor:
        images = normalise(images, _MEAN, _STD)
        return add_background(model(images, prompts), 0.3) if row == "CLIPSeg" else model(images)

    def ours() -> None:
        if row == "PointCLIP":
            click_confusions(PointPredictor(model, side, _MEAN, _STD, device, False), dataset, row)
        else:
            evaluate(predict, dataset, device)

    @torch.inference_mode()
    def plain(folder=folder) -> None:  # the folder lives as long as what reads it
        for sample in some:
            image = Image.open(sample.image).convert("RGB").resize((side, side))
            image = torch.from_numpy(np.array(image)).movedim(-1, 0)[None].to(device)
            mask = torch.from_numpy(read_mask(sample))
            if row == "PointCLIP":
                for _ in ("animal", "background"):
                    thing = model(normalise(image, _MEAN, _STD), click)[0]
                    confusion_matrix(mask, to_size(torch.cat([-thing, thing]), mask.shape).cpu(), 3)
            else:
                confusion_matrix(mask, to_size(predict(image)[0], mask.shape).cpu())

    return Race("pictures/s", _BF16, pictures, ours, plain, len(some))


def click(device: torch.device, pictures: int, side: int) -> Race:
    """A click after the first, with a DeiT-Tiny encoder; plain: the picture encoded again."""
    model = point_clip(_TINY).to(device, memory_format=torch.channels_last).eval()
    images = random_batch(device, 1, side)[0][True]
    clicks = torch.tensor([[[0.5, 0.5, 1.0], [0.2, 0.3, 0.0]]], device=device)
    previous = torch.rand(1, 1, side // 2, side // 2, device=device)
    with torch.inference_mode():
        features = model.encode(images)

    @torch.inference_mode()
    def decode(encode: bool) -> None:
        with autocast(device):
            model.decode(model.encode(images) if encode else features, clicks, previous)

    return Race("ms", "bf16", 1, lambda: decode(False), lambda: decode(True))


def clipseg(device: torch.device, pictures: int, side: int) -> Race:
    """CLIPSeg with two prompts; plain: transformers' own way in fp32, a picture encoded once per prompt."""
    reference = clipseg_reference().to(device).eval()
    images, prompts = torch.randn(pictures, 3, side, side, device=device), torch.randn(2, 512, device=device)
    model = CLIPSeg(reference, None).to(device)  # takes the reference's modules for its own

    @torch.inference_mode()
    def plain() -> None:
        pairs, both = images.repeat_interleave(2, 0), prompts.repeat(pictures, 1)
        reference(pixel_values=pairs, conditional_embeddings=both, interpolate_pos_encoding=True)

    @torch.inference_mode()
    def ours() -> None:
        with autocast(device):
            model(images, prompts)

    return Race("pictures/s", _BF16, pictures, ours, plain)


def start(device: torch.device, pictures: int, side: int, script: str) -> Race:
    """A script up to its help text; plain: `import torch` alone."""

    def run_python(*arguments: str) -> None:
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True, cwd=Path(__file__).parent)

    ours, plain = (lambda: run_python(script, "--help")), (lambda: run_python("-c", "import torch"))
    return Race("ms", "", 1, ours, plain)


def random_encoder(sizes: dict) -> ImageEncoder:
    """A vision transformer of CLIP's shape with 16 x 16 patches and random weights."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    return ImageEncoder(CLIPVisionModel(CLIPVisionConfig(**sizes, image_size=224, patch_size=16)))


def clipseg_reference() -> nn.Module:
    """transformers' CLIPSeg of its usual size, with random weights."""
    from transformers import CLIPSegConfig, CLIPSegForImageSegmentation

    return CLIPSegForImageSegmentation(CLIPSegConfig(vision_config={**_BASE, "patch_size": 16}))


def on_random_encoder(model: nn.Module, sizes: dict) -> nn.Module:
    """CLIPCNN or PointCLIP, made with the encoder "tiny", on such an encoder instead."""
    model.encoder = random_encoder(sizes).requires_grad_(False)
    model.decoder = CLIPDecoder(model.encoder.channels, (16, 48, 96, 192), 0.1)
    return model


def clip_cnn() -> nn.Module:
    return on_random_encoder(CLIPCNN("tiny", freeze_encoder=False), _TINY)


def point_clip(sizes: dict) -> nn.Module:
    return on_random_encoder(PointCLIP("tiny", freeze_encoder=False), sizes)


def _peak_memory_mb() -> float:
    """Of this process and the processes that it started."""
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return peak / 2**20 if platform.system() == "Darwin" else peak / 2**10  # bytes there, kilobytes here


_BF16 = "bf16 against fp32"
_SCRIPTS = "train_unet.py train_autoencoder.py train_clip.py evaluate.py predict.py compare.py".split()
_OF = "{pictures} of {side} px"
# name -> what measures it, its line in the CSV, pictures (None: PICTURES), pixels a side
_BENCHMARKS = {
    "loader": (loader, "loader, {pictures} pictures, {side} px", 192, 128),
    "unet step": (unet_step, f"U-Net training, {_OF}", 16, 128),
    "autoencoder step": (autoencoder_step, f"autoencoder, stage 1, {_OF}", 16, 128),
    "decoder step": (decoder_step, f"CLIP decoder training, {_OF}", 16, 256),
    "point step": (point_step, f"PointCLIP training, {_OF}", 16, 256),
    "encoder": (encoder, "encoder ViT-B/16, {side} px", 8, 352),
    "unet evaluation": (partial(evaluation, row="U-Net"), f"U-Net evaluation, {_OF}", None, 160),
    "clip evaluation": (partial(evaluation, row="CLIP"), f"CLIP evaluation, {_OF}", None, 256),
    "clipseg evaluation": (partial(evaluation, row="CLIPSeg"), f"CLIPSeg evaluation, {_OF}", None, 352),
    "point evaluation": (partial(evaluation, row="PointCLIP"), f"PointCLIP evaluation, {_OF}", None, 256),
    "click": (click, "a click, DeiT-Tiny, {side} px", 1, 256),
    "clipseg": (clipseg, "CLIPSeg, {side} px, two prompts", 2, 352),
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
