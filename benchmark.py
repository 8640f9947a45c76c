"""What to expect of this machine: pictures a second, time of a click, memory; writes results/benchmark.csv.

    python benchmark.py                     # minutes
    python benchmark.py --WHAT=click        # one of them

Each is measured in a process of its own, beside the plain way in the same run; medians after a warm-up. Weights are
random, for time and memory do not depend on them: nothing is downloaded.
"""

import multiprocessing
import platform
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from models.clip import CLIPDecoder, ImageEncoder
from models.clipseg import CLIPSeg
from models.pointclip import PointCLIP
from utils.config import require_choice, require_positive, run_script
from utils.distributed import pick_device
from utils.files import write_csv
from utils.losses import segmentation_loss
from utils.tables import markdown_table, write_between_markers

WHAT = ("encoder", "decoder step", "click", "clipseg")  # --WHAT=encoder,click
REPEATS = 7  # timings of each, of which the median counts
DEVICE = "auto"  # "cpu", "cuda", "cuda:1"
RESULTS = "results"  # folder of benchmark.csv
README = ""  # file whose table between the benchmark markers is written anew

_BASE = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
_TINY = {"hidden_size": 192, "intermediate_size": 768, "num_hidden_layers": 12, "num_attention_heads": 3}


def main() -> None:
    require_positive(globals(), "REPEATS")
    for name in WHAT:
        require_choice("WHAT", name, tuple(_BENCHMARKS))
    lines = []
    for name in WHAT:
        with multiprocessing.get_context("spawn").Pool(1) as pool:  # a process each: its peak memory is its own
            lines.append(pool.apply(run, (name, REPEATS, DEVICE)))
        print("  ".join(str(value) for value in lines[-1].values()), flush=True)
    path = Path(RESULTS) / "benchmark.csv"
    write_csv(lines, path)
    if README:
        titles = {"what": "what", "unit": "unit", "ours": "ours", "plain": "plain way", "ratio": "ratio"}
        titles |= {"peak_memory_mb": "peak memory (MB)", "threads": "threads", "precision": "precision"}
        write_between_markers(README, "benchmark", markdown_table(titles, lines, 2))
    print(f"wrote {path}")


def run(name: str, repeats: int, device_name: str) -> dict[str, str]:
    """One line of the CSV."""
    device = pick_device(device_name)
    torch.manual_seed(0)
    what, unit, precision, pictures, ours, plain = _BENCHMARKS[name](device)
    seconds = [median_seconds(function, repeats, device) for function in (ours, plain)]
    per_second = unit == "pictures/s"
    values = [pictures / s if per_second else 1000 * s for s in seconds]
    peak = torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else _peak_memory_mb()
    return {
        "what": what,
        "unit": unit,
        "ours": f"{values[0]:.1f}",
        "plain": f"{values[1]:.1f}",
        "ratio": f"{seconds[1] / seconds[0]:.2f}",
        "peak_memory_mb": f"{peak:.0f}",
        "machine": platform.machine(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
        "threads": str(torch.get_num_threads()),
        "precision": precision,
    }


def median_seconds(function: Callable[[], object], repeats: int, device: torch.device) -> float:
    times = []
    for _ in range(2 + repeats):  # two to warm up
        started = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return statistics.median(times[2:])


def encoder(device: torch.device) -> tuple:
    """CLIP ViT-B/16 at 352 px; ours as features are computed, in bf16."""
    model, images = random_encoder(_BASE).to(device).eval(), torch.randn(8, 3, 352, 352, device=device)

    @torch.inference_mode()
    def encode(bf16: bool) -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            model(images)

    ours, plain = lambda: encode(True), lambda: encode(False)
    return "encoder ViT-B/16, 352 px", "pictures/s", "bf16 against fp32", len(images), ours, plain


def decoder_step(device: torch.device) -> tuple:
    """A training step of the decoder on kept tokens, against one with ViT-B/16 in the loop; 256 px, bf16."""
    vit = random_encoder(_BASE).to(device).eval()
    decoder = CLIPDecoder(vit.channels, (16, 48, 96, 192), 0.1).to(device, memory_format=torch.channels_last)
    images = torch.randn(16, 3, 256, 256, device=device).contiguous(memory_format=torch.channels_last)
    masks = torch.randint(0, 3, (16, 256, 256), device=device)
    tokens = torch.randn(16, vit.channels, 16, 16, device=device)

    def step(in_loop: bool) -> None:
        with torch.autocast(device.type, torch.bfloat16):
            with torch.no_grad():
                seen = vit(images) if in_loop else tokens
            loss = segmentation_loss(decoder(images, seen)[:, :3], masks)
        loss.backward()
        decoder.zero_grad()

    ours, plain = lambda: step(False), lambda: step(True)
    return "decoder training, ViT-B/16, 256 px", "pictures/s", "bf16", len(images), ours, plain


def click(device: torch.device) -> tuple:
    """A click after the first, with a DeiT-Tiny encoder; plain: the picture encoded again."""
    model = PointCLIP("tiny", freeze_encoder=False)
    vit = random_encoder(_TINY)
    model.encoder, model.decoder = vit, CLIPDecoder(vit.channels, (16, 48, 96, 192), 0.1)
    model.to(device, memory_format=torch.channels_last).eval()
    images = torch.randn(1, 3, 256, 256, device=device).contiguous(memory_format=torch.channels_last)
    clicks = torch.tensor([[[0.5, 0.5, 1.0], [0.2, 0.3, 0.0]]], device=device)
    previous = torch.rand(1, 1, 128, 128, device=device)
    with torch.inference_mode():
        features = model.encode(images)

    @torch.inference_mode()
    def decode(encode: bool) -> None:
        with torch.autocast(device.type, torch.bfloat16):
            model.decode(model.encode(images) if encode else features, clicks, previous)

    return "a click, DeiT-Tiny, 256 px", "ms", "bf16", 1, lambda: decode(False), lambda: decode(True)


def clipseg(device: torch.device) -> tuple:
    """CLIPSeg at 352 px with two prompts in bf16; plain: transformers' own way, a picture encoded once per prompt."""
    from transformers import CLIPSegConfig, CLIPSegForImageSegmentation

    reference = CLIPSegForImageSegmentation(CLIPSegConfig(vision_config={**_BASE, "patch_size": 16})).to(device).eval()
    images, prompts = torch.randn(2, 3, 352, 352, device=device), torch.randn(2, 512, device=device)

    @torch.inference_mode()
    def plain() -> None:
        pairs = images.repeat_interleave(2, 0)
        reference(pixel_values=pairs, conditional_embeddings=prompts.repeat(2, 1), interpolate_pos_encoding=True)

    model = CLIPSeg(reference, None).to(device)  # takes the reference's modules for its own

    @torch.inference_mode()
    def ours() -> None:
        with torch.autocast(device.type, torch.bfloat16):
            model(images, prompts)

    return "CLIPSeg, 352 px, two prompts", "pictures/s", "bf16 against fp32", len(images), ours, plain


def random_encoder(sizes: dict) -> ImageEncoder:
    """A vision transformer of CLIP's shape with 16 x 16 patches and random weights."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    return ImageEncoder(CLIPVisionModel(CLIPVisionConfig(**sizes, image_size=224, patch_size=16)))


def _peak_memory_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if platform.system() == "Darwin" else peak / 2**10  # bytes there, kilobytes here


_BENCHMARKS = {"encoder": encoder, "decoder step": decoder_step, "click": click, "clipseg": clipseg}

if __name__ == "__main__":
    run_script(main)
