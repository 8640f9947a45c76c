"""The tokens of a frozen encoder: computed once for every picture and its mirror image, kept on disk."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from utils.device import autocast, in_force
from utils.inputs.augment import normalise
from utils.inputs.cache import cached_arrays
from utils.inputs.dataset import SegmentationDataset

CHUNK = 32  # pictures at once


def encoder_key(name: str, layers: Sequence[int]) -> list:
    """What the tokens depend on: hub id, file or folder, which may be replaced by others of the same name; layers."""
    files = [Path(name)] if Path(name).is_file() else sorted(Path(name).glob("*"))
    return [name, list(layers), *([file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files)]


class FeatureDataset(torch.utils.data.Dataset):
    """A split with the encoder's tokens: dataset[[i, ...]] is images (N, 3, S, S) uint8, masks (N, S, S) uint8,
    tokens (N, C, h, w) float16.

    With `mirrored`, indices from len(split) on are the mirror images of the same pictures. encoder: a module that
    maps normalised pictures to tokens, with channels, patch_size, mean, std; encoder_id: all that its tokens
    depend on, for the cache's key; so is the precision that is in force.
    """

    def __init__(
        self,
        root: str | Path,
        split: str,
        size: int,
        encoder: torch.nn.Module,
        encoder_id: list,
        device: torch.device,
        mirrored: bool,
        precision: str,
    ):
        self.pictures = SegmentationDataset(root, split, size)
        self.samples, self.classes = self.pictures.samples, self.pictures.classes
        self.mirrored = mirrored
        side = size // encoder.patch_size
        encoder.to(device).eval()

        @torch.inference_mode()
        def encode(start: int, stop: int) -> dict[str, np.ndarray]:
            images = self.pictures[list(range(start, stop))][0].to(device)
            names = ("tokens", "mirrored") if mirrored else ("tokens",)
            tokens = {}
            for name, batch in zip(names, (images, images.flip(-1)), strict=False):
                with autocast(device, precision):
                    features = encoder(normalise(batch, encoder.mean, encoder.std))
                tokens[name] = features.movedim(1, -1).half().cpu().numpy()
            return tokens

        shape = (len(self.pictures), side, side, encoder.channels)
        specs = {"tokens": (shape, "float16")} | ({"mirrored": (shape, "float16")} if mirrored else {})
        key = [self.pictures.key, encoder_id, in_force(device, precision)]
        self.arrays = cached_arrays(self.pictures.cache, key, specs, encode, CHUNK, f"encoding {split} pictures")

    def __len__(self) -> int:
        return len(self.pictures) * (2 if self.mirrored else 1)

    def __getitem__(self, indices: Sequence[int]) -> tuple[torch.Tensor, ...]:
        count = len(self.pictures)
        mirror = torch.tensor([index >= count for index in indices])
        plain = [index % count for index in indices]
        images, masks = self.pictures[plain]
        images = torch.where(mirror[:, None, None, None], images.flip(-1), images)
        masks = torch.where(mirror[:, None, None], masks.flip(-1), masks)
        rows = [self.arrays["mirrored" if m else "tokens"][i] for i, m in zip(plain, mirror.tolist(), strict=True)]
        return images, masks, torch.from_numpy(np.stack(rows)).movedim(-1, 1)
