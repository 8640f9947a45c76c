"""Timing two ways of doing one thing, in one run: our way beside the plain way."""

import platform
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from utils.device import autocast, in_force


@dataclass
class Race:
    """Our way and the plain way of doing one thing."""

    unit: str  # "pictures/s" or "ms"
    precision: str
    pictures: int  # that one call handles
    ours: Callable[[], object]
    plain: Callable[[], object]
    plain_pictures: int = 0  # 0: as many; fewer where the plain way is slow


def against_fp32(device: torch.device) -> str:
    """The precision of a race whose plain way is in fp32."""
    return f"{in_force(device, 'auto')} against fp32"


def race_line(what: str, race: Race, repeats: int, device: torch.device) -> dict[str, str]:
    """A line of results/benchmark.csv."""
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
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
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
        if device.type != "cpu":
            getattr(torch, device.type).synchronize()
        times.append(time.perf_counter() - started)
    return statistics.median(times[2:] if len(times) == 2 + repeats else times[1:])


def _peak_memory_mb() -> float:
    """Of this process and the processes that it started."""
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return peak / 2**20 if platform.system() == "Darwin" else peak / 2**10  # bytes there, kilobytes here


def step_of(
    device: torch.device, model: nn.Module, compute_loss: Callable[[nn.Module, bool], torch.Tensor]
) -> tuple[Callable[[], None], Callable[[], None]]:
    """Forward and backward pass as the scripts do it (auto, channels_last), and in fp32, contiguous.

    compute_loss(model, fast): fast says which.
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
