"""One split of a data set as uint8 tensors, resized to a square, from a memory-mapped cache."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from utils.classes import VOID
from utils.errors import UserError
from utils.inputs.cache import cache_folder, cached_arrays
from utils.inputs.layouts import Sample, list_samples
from utils.inputs.pictures import WORKERS, read_mask, read_sample, resize_image
from utils.terminal import say_once


class SegmentationDataset(torch.utils.data.Dataset):
    """The pictures and masks of a split, resized to size x size, as uint8 tensors from a memory-mapped cache.

    dataset[i] is (image (3, size, size), mask (size, size)), dataset[[i, j, ...]] a batch of these.
    """

    def __init__(self, root: str | Path, split: str, size: int):
        self.samples = list_samples(root, split)
        require_labelled(self.samples, root, split)
        self.classes, self.size, count = self.samples[0].classes, size, len(self.samples)
        key = [size, repr(self.classes), [_fingerprint(sample) for sample in self.samples]]
        specs = {"images": ((count, size, size, 3), "uint8"), "masks": ((count, size, size), "uint8")}
        self.arrays = cached_arrays(cache_folder(root), key, specs, self._read(f"reading {split} pictures"))
        if split in ("train", "trainval"):
            masks, names = self.arrays["masks"], self.classes.names
            absent = [name for index, name in enumerate(names) if not any((mask == index).any() for mask in masks)]
            for name in absent:
                say_once(f"warning: no pixel is {name} in the training masks of {root}, at {size} px a side")

    def _read(self, label: str) -> Iterator[dict[str, np.ndarray]]:
        """The arrays, 256 samples at a time."""

        def read(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
            image, mask = read_sample(sample)
            small = Image.fromarray(mask).resize((self.size, self.size), Image.Resampling.NEAREST)
            return resize_image(image, self.size), np.array(small)

        for start in tqdm(range(0, len(self), 256), label, leave=False, unit_scale=256, unit="img", disable=None):
            samples = self.samples[start : start + 256]
            with ThreadPoolExecutor(WORKERS) as pool:  # Pillow frees the GIL
                images, masks = zip(*pool.map(read, samples), strict=True)
            yield {"images": np.stack(images), "masks": np.stack(masks)}

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int | Sequence[int]) -> tuple[torch.Tensor, ...]:
        images, masks = (torch.from_numpy(np.array(self.arrays[name][index])) for name in ("images", "masks"))
        return images.movedim(-1, -3), masks


def scored_samples(root: str | Path, split: str = "val") -> list[Sample]:
    """The pictures of a split to score. Raises UserError if a file cannot be read or every pixel is void."""
    samples = list_samples(root, split)
    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(lambda sample: bool(read_sample(sample)), samples))  # raises the first error
    require_labelled(samples, root, split)
    return samples


def require_labelled(samples: Sequence[Sample], root: str | Path, split: str) -> None:
    """Raise UserError if every pixel of the samples is void."""
    if all((read_mask(sample) == VOID).all() for sample in samples):
        raise UserError(
            f"DATA_ROOT = {root}: every pixel of the {split} split is void in {samples[0].mask.parent}, "
            "so it has no score: give it masks with class ids"
        )


def _fingerprint(sample: Sample) -> list:
    """What the cached arrays of a sample depend on: its files, their sizes and dates, and how the mask is read."""
    stats = (os.stat(sample.image), os.stat(sample.mask))
    meaning = sample.species or f"white is {sample.white}"
    return [str(sample.image.resolve()), meaning, *((s.st_size, s.st_mtime_ns) for s in stats)]
