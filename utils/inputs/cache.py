"""Arrays that are computed once, kept on disk and memory-mapped from then on."""

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from filelock import FileLock
from tqdm import tqdm

from utils.errors import UserError

FALLBACK = Path(__file__).parents[2] / "data" / "cache"


def cache_folder(data_root: str | Path) -> Path:
    """`.cache` beside the data; data/cache in this repository where the data's folder is read-only."""
    root = Path(data_root)
    # Root may write anywhere: respect the permission bits too.
    writable = os.access(root, os.W_OK) and root.stat().st_mode & stat.S_IWUSR
    return root / ".cache" if writable else FALLBACK


def cached_arrays(
    folder: Path,
    key: object,
    specs: dict[str, tuple[tuple[int, ...], str]],
    fill: Callable[[int, int], dict[str, np.ndarray]],
    chunk: int,
    label: str,
) -> dict[str, np.ndarray]:
    """Read-only memory maps of the arrays named in specs; computed first if they are not in `folder` yet.

    key: everything that the arrays depend on, as JSON; another key is another cache. specs: name -> (shape,
    dtype), all of one length. fill(start, stop) returns the rows start .. stop - 1 of every array. Rows are
    appended `chunk` at a time, so a build that was killed goes on where it stopped; a file lock lets one of
    several processes build while the others wait. Raises UserError if the disk is full.
    """
    name = hashlib.sha256(json.dumps([key, specs], sort_keys=True, default=str).encode()).hexdigest()[:16]
    done, partial = folder / name, folder / f"{name}.partial"
    if not done.exists():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / f"{name}.lock"):
                if not done.exists():
                    _check_space(folder, partial, specs)
                    _build(partial, specs, fill, chunk, label)
                    partial.rename(done)
        except OSError as error:
            raise UserError(f"cannot write the cache {partial}: {error}; free some space, then run again") from error
    return {array: np.load(done / f"{array}.npy", mmap_mode="r") for array in specs}


def _build(partial: Path, specs: dict, fill: Callable, chunk: int, label: str) -> None:
    partial.mkdir(exist_ok=True)
    total = next(iter(specs.values()))[0][0]
    files, complete = {}, total
    with ExitStack() as stack:
        for name, (shape, dtype) in specs.items():
            file = files[name] = stack.enter_context(open(partial / f"{name}.npy", "a+b", buffering=0))
            header_bytes, row_bytes = _header(file, shape, dtype)
            complete = min(complete, (os.fstat(file.fileno()).st_size - header_bytes) // row_bytes)
        for name, (shape, dtype) in specs.items():  # what was only half written goes
            header_bytes, row_bytes = _header(files[name], shape, dtype)
            files[name].truncate(header_bytes + complete * row_bytes)
        bar = stack.enter_context(
            tqdm(total=total, initial=complete, desc=label, unit="img", leave=False, disable=None)
        )
        for start in range(complete, total, chunk):
            rows = fill(start, min(start + chunk, total))
            for name, (_, dtype) in specs.items():
                data = memoryview(np.ascontiguousarray(rows[name], dtype)).cast("B")
                while data:  # an unbuffered write may be short
                    data = data[files[name].write(data) :]
            bar.update(min(chunk, total - start))
        for file in files.values():
            os.fsync(file.fileno())


def _header(file, shape: tuple[int, ...], dtype: str) -> tuple[int, int]:
    """Write the .npy header into an empty (or cut-off) file; returns the bytes of the header and of a row."""
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    file.seek(0)
    try:
        np.lib.format.read_magic(file)
        np.lib.format.read_array_header_1_0(file)
    except ValueError:
        file.truncate(0)
        np.lib.format.write_array_header_1_0(file, header)
    header_bytes = file.tell()
    file.seek(0, os.SEEK_END)
    return header_bytes, int(np.prod(shape[1:])) * np.dtype(dtype).itemsize


def _check_space(folder: Path, partial: Path, specs: dict) -> None:
    """Raise UserError before hours of work if the arrays cannot fit."""
    needed = sum(int(np.prod(shape)) * np.dtype(dtype).itemsize for shape, dtype in specs.values())
    written = sum(file.stat().st_size for file in partial.glob("*.npy"))
    free = shutil.disk_usage(folder).free
    if needed - written > free:
        raise UserError(f"the cache {folder} needs {needed / 1e9:.1f} GB, but only {free / 1e9:.1f} GB are free")
