"""What the loader is measured against: the usual way, a picture at a time; and pictures to measure with."""

import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from utils.inputs.augment import IMAGENET_MEAN, IMAGENET_STD


class PlainDataset(torch.utils.data.Dataset):
    """The usual way: open, convert, resize and augment one picture at a time."""

    def __init__(self, root: Path, side: int):
        from torchvision.transforms import v2

        self.files = sorted((root / "test" / "images").glob("*.jpg"))
        self.transform = v2.Compose(
            [
                v2.ToImage(),
                v2.Resize((side, side), antialias=True),
                v2.RandomAffine(15, scale=(0.7, 1.8)),
                v2.RandomHorizontalFlip(),
                v2.ColorJitter(0.4, 0.4, 0.5, 0.05),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> torch.Tensor:
        from torchvision import tv_tensors

        file = self.files[index]
        mask = np.array(Image.open(file.parent.with_name("masks") / f"{file.stem}.png"))
        return self.transform(Image.open(file).convert("RGB"), tv_tensors.Mask(mask))


def draw_photos(count: int, width: int = 500) -> tempfile.TemporaryDirectory:
    """A data set in the folder layout: JPEGs of width x 3/4 width with structure and noise, and their masks."""
    size = width, width * 3 // 4
    folder = tempfile.TemporaryDirectory()
    rng = np.random.default_rng(0)
    (Path(folder.name) / "train").mkdir()  # by which the layout is recognised
    for kind in ("images", "masks"):
        (Path(folder.name) / "test" / kind).mkdir(parents=True)
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).resize(size, Image.BICUBIC)
        noisy = np.asarray(coarse) + rng.normal(0, 8, (*size[::-1], 3))
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(f"{folder.name}/test/images/{number:05d}.jpg")
        mask = Image.fromarray(rng.integers(0, 3, (6, 8), np.uint8)).resize(size, Image.NEAREST)
        mask.save(f"{folder.name}/test/masks/{number:05d}.png")
    return folder
