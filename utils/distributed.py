"""Devices and processes (torchrun): which one am I, and adding up what each of them counted."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch
import torch.distributed as dist

from utils.errors import UserError


@contextmanager
def distributed(device: torch.device) -> Iterator[None]:
    """Join torchrun's process group for the length of the block; does nothing in a single process."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        try:
            yield
            wait_for_all()  # a process that ends while gloo's threads still hold tensors may be aborted
        finally:
            dist.destroy_process_group()
    else:
        yield


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Only the main process prints and writes."""
    return rank() == 0


def sum_over_processes(values: torch.Tensor) -> torch.Tensor:
    """Add up a tensor of every process, in place; returns it."""
    if dist.is_initialized():
        dist.all_reduce(values)
    return values


def wait_for_all() -> None:
    """Return when every process has come here: a file that the main process wrote is there for all."""
    if dist.is_initialized():
        dist.barrier()


def copy_buffers(model: torch.nn.Module) -> None:
    """Give every process the main process's buffers."""
    if dist.is_initialized():
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)


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
        torch.cuda.set_device(device)
    else:
        _keep_freed_memory()
    return device


def autocast(device: torch.device, precision: str = "auto") -> torch.autocast:
    """PRECISION constant -> context: "bf16", "fp32"; "auto" is bf16 where the hardware multiplies it."""
    if precision == "auto":
        on_gpu = device.type == "cuda"
        fast = torch.cuda.is_bf16_supported() if on_gpu else torch.ops.mkldnn._is_mkldnn_bf16_supported()
        precision = "bf16" if fast else "fp32"
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def _keep_freed_memory() -> None:
    """Let the C library keep freed blocks for the next step; handing them back and forth costs a tenth of the time."""
    with suppress(OSError, AttributeError):  # another C library than Linux's usual one
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(-4, 0)  # M_MMAP_MAX: large blocks come from the heap too
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: which is not given back
