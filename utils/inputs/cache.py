"""Arrays that are computed once, stored on disk and memory-mapped from then on."""

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from filelock import FileLock

from utils.errors import UserError

FALLBACK = Path(__file__).parents[2] / "data" / "cache"


def cache_folder(data_root: str | Path) -> Path:
    """`.cache` beside the data; data/cache in this repository where the data's folder is read-only."""
    root = Path(data_root)
    # os.access() allows root everything, so the permission bits count too.
    writable = os.access(root, os.W_OK) and root.stat().st_mode & stat.S_IWUSR
    return root / ".cache" if writable else FALLBACK


def cached_arrays(
    folder: Path, key: object, specs: dict[str, tuple[tuple[int, ...], str]], chunks: Iterable[dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Read-only memory maps of the arrays named in specs; computed first if they are not in `folder` yet.

    key: everything that the arrays depend on, as JSON. specs: name -> (shape, dtype). chunks: the next rows of every
    array, from the first to the last; not iterated over if the arrays are there. If several processes need the same
    arrays, one computes them and the others wait. Raises UserError if the disk is full.
    """
    name = hashlib.sha256(json.dumps([key, specs], sort_keys=True, default=str).encode()).hexdigest()[:16]
    done, partial = folder / name, folder / f"{name}.partial"
    if not done.exists():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / f"{name}.lock"):
                if not done.exists():
                    _build(partial, specs, chunks)
                    partial.rename(done)
        except OSError as error:
            raise UserError(f"cannot write the cache {partial}: {error}; free some space, then run again") from error
    return {array: np.load(done / f"{array}.npy", mmap_mode="r") for array in specs}


def _build(partial: Path, specs: dict, chunks: Iterable[dict[str, np.ndarray]]) -> None:
    """Write the arrays to the folder `partial`; after an error the folder is removed, to free its space."""
    partial.mkdir(exist_ok=True)  # a killed process may have left it
    try:
        with ExitStack() as stack:
            files = {name: stack.enter_context(open(partial / f"{name}.npy", "wb")) for name in specs}
            for name, (shape, dtype) in specs.items():
                header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(files[name], header)
            for rows in chunks:
                for name, (_, dtype) in specs.items():
                    files[name].write(np.ascontiguousarray(rows[name], dtype))
            for file in files.values():
                file.flush()
                os.fsync(file.fileno())
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
