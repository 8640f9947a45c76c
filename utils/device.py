"""The device that a script runs on, and the precision of its multiplications."""

import ctypes
import platform
from contextlib import suppress

import torch

from utils.errors import UserError

PRECISIONS = ("auto", "bf16", "fp32")


def pick_device(name: str) -> torch.device:
    """DEVICE constant -> device: "auto" is the CUDA GPU if there is one, else the CPU. Raises UserError."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    devices = ["cpu", *(["cuda"] if gpus else []), *gpus, *(["mps"] if torch.backends.mps.is_available() else [])]
    if name not in devices:
        raise UserError(f'DEVICE = "{name}" cannot be used here: choose one of auto, {", ".join(devices)}')
    device = torch.device(name)
    torch.set_float32_matmul_precision("highest")  # fp32, never TF32, whatever the environment says
    torch.backends.cudnn.allow_tf32 = False  # the same for convolutions
    if device.type == "cuda":
        try:
            torch.cuda.set_device(device.index or 0)
            torch.empty(1, device=device)
        except RuntimeError as error:  # it is busy, or too old
            reason = str(error).splitlines()[0]
            raise UserError(f'DEVICE = "{name}" cannot be used here ({reason}); try "auto"') from error
        torch.backends.cudnn.benchmark = True  # find the fastest convolution once per shape; there are few shapes
    else:
        _keep_freed_memory()
    return device


def in_force(device: torch.device, precision: str) -> str:
    """PRECISION constant -> "bf16" or "fp32"; "auto" is bf16 where it is native."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = device.type == "cpu" and _cpu_multiplies_bf16()
    return "bf16" if fast else "fp32"


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """PRECISION constant -> context. Measurements take "fp32", which gives the same numbers on every machine.

    Without a cache: in PyTorch 2.10 weights first cast under no_grad() would get no gradients later.
    """
    return torch.autocast(device.type, torch.bfloat16, in_force(device, precision) == "bf16", cache_enabled=False)


def _cpu_multiplies_bf16() -> bool:
    """Whether the CPU multiplies bf16 natively; without AVX512-BF16, PyTorch emulates it, and fp32 is faster.

    PyTorch has no public function for this, and some builds lack the private ones: False then.
    """
    try:
        if platform.machine().lower() in ("x86_64", "amd64"):
            return bool(torch.cpu._is_avx512_bf16_supported())
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except Exception:  # what is raised depends on the build
        return False


def _keep_freed_memory() -> None:
    """Let glibc reuse freed memory: returning it to the system and asking again costs a tenth of the time."""
    with suppress(OSError, AttributeError):  # no glibc
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(-4, 0)  # M_MMAP_MAX: large blocks come from the heap too
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: the heap is not returned to the system
        mallopt(-8, 1)  # M_ARENA_MAX: one heap for all threads, so that one reuses what another freed
