"""Several processes (torchrun): which one am I, and adding up what each of them counted."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
import torch.distributed as dist


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


@cache
def say_once(text: str) -> None:
    """Print a line about the data that several parts of a script may notice."""
    if is_main():
        print(text, flush=True)


def sum_over_processes(values: torch.Tensor) -> torch.Tensor:
    """The sum of the tensors of all processes, on the device that they are on."""
    if not dist.is_initialized():
        return values
    there = values.to("cuda" if dist.get_backend() == "nccl" else "cpu")
    dist.all_reduce(there)
    return there.to(values.device)


def wait_for_all() -> None:
    """Return when every process has come here: a file that the main process wrote is there for all."""
    if dist.is_initialized():
        dist.barrier()


def copy_buffers(model: torch.nn.Module) -> None:
    """Give every process the main process's buffers."""
    if dist.is_initialized():
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)
