"""The device that a script runs on, and the precision that it multiplies in."""

import ctypes
import os
import platform
from contextlib import suppress

import torch

from utils.errors import UserError


def pick_device(name: str) -> torch.device:
    """DEVICE constant -> device: "auto" is this process's GPU if there is one, else the CPU. Raises UserError."""
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    if name == "auto":
        name = f"cuda:{local_rank}" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f'DEVICE = "{name}" cannot be used here ({str(error).splitlines()[0]}); try "auto"') from error
    if device.type == "cuda":
        torch.cuda.set_device(device.index or 0)
        torch.backends.cudnn.benchmark = True  # the fastest convolution for each shape, and few shapes occur
    else:
        _keep_freed_memory()
    return device


def autocast(device: torch.device, precision: str = "auto") -> torch.autocast:
    """PRECISION constant -> context: "bf16", "fp32"; "auto" is bf16 where the hardware multiplies it."""
    if precision == "auto":
        on_gpu = device.type == "cuda"
        fast = torch.cuda.is_bf16_supported(including_emulation=False) if on_gpu else _cpu_multiplies_bf16()
        precision = "bf16" if fast else "fp32"
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def _cpu_multiplies_bf16() -> bool:
    """Whether in one instruction; x86 with AVX512 but without its BF16 extension needs several, and fp32 is faster."""
    if platform.machine().lower() in ("x86_64", "amd64"):
        return torch.cpu._is_avx512_bf16_supported()
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


def _keep_freed_memory() -> None:
    """Let the C library keep freed blocks for the next step; handing them back and forth costs a tenth of the time."""
    with suppress(OSError, AttributeError):  # another C library than Linux's usual one
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(-4, 0)  # M_MMAP_MAX: large blocks come from the heap too
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: which is not given back
