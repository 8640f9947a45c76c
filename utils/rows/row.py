"""A row of the table: the common interface for models by class, by text and by click."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from utils.classes import Classes
from utils.errors import UserError
from utils.inputs.clicks import Click
from utils.inputs.pictures import WORKERS, Sample, read_sample, resize_image


@dataclass(frozen=True)
class Segmentation:
    """What a row makes of a picture."""

    ids: np.ndarray  # uint8 (H, W), at the picture's own size
    classes: Classes  # of the ids
    expected_iou: float | None = None  # by click: the IoU that the model itself expects
    heat: np.ndarray | None = None  # by text: the text's score at every pixel, float32 (H, W) in 0..1

    def describe(self) -> str:
        """The share of the picture that each thing covers, in words."""
        shares = {name: float((self.ids == index).mean()) for index, name in enumerate(self.classes.things, 1)}
        shares = {
            name: f"{share:.0%}" if share >= 0.005 else "under 1%" for name, share in shares.items() if share > 0.001
        }
        text = ", ".join(map(" ".join, shares.items())) or "nothing found"
        return text if self.expected_iou is None else f"{text}; expected IoU {self.expected_iou:.2f}"


# index of a picture, ids (H, W), and which of its predictions: "animal" or "background" by click, else ""
OnPrediction = Callable[[int, np.ndarray, str], None]
# clicks and text -> what is asked for in a picture that is already open
Segment = Callable[[Sequence[Click], str], Segmentation]
# sample -> picture uint8 (H, W, 3), mask uint8 (H, W)
Read = Callable[[Sample], tuple[np.ndarray, np.ndarray]]


@dataclass(eq=False)
class Row:
    """A model whose weights are at hand. ByClass, ByText and ByClick are its kinds."""

    name: str
    model: nn.Module
    device: torch.device
    image_size: int  # pixels a side of the squares that the model sees
    mean: tuple[float, ...]  # of the pictures that it sees, 0..1 RGB
    std: tuple[float, ...]
    classes: Classes
    encoder: str = ""  # its title; "" for a model without a pretrained encoder
    checkpoint: str = ""
    scales: tuple[float, ...] = (1.0,)  # by class: it sees a picture at these multiples of image_size
    zoom: bool = False  # it looks closer at what it found (closer_look.py by class, click_predictor.py)
    flip: bool = False  # average over the picture and its mirror image
    precision: str = "fp32"  # like the constant PRECISION; fp32 gives the same numbers on every machine

    prompt: ClassVar[str] = ""  # what segment() takes beside the picture: "click", "text" or nothing

    @property
    def counted(self) -> tuple[str, ...]:
        """Names of the classes that the confusion matrices of score() count."""
        return self.classes.names

    @property
    def params_m(self) -> float:
        return sum(parameter.numel() for parameter in self.model.parameters()) / 1e6

    def prepare(self, root: str | Path, batch_size: int = 16) -> None:
        """Choose what has to be chosen on the validation split of root before score(); most rows need nothing."""

    def score(
        self,
        samples: Sequence[Sample],
        on_prediction: OnPrediction | None = None,
        batch_size: int = 16,
        read: Read = read_sample,
    ) -> torch.Tensor:
        """Confusion matrices of all pictures, int64 (N, C, C) of `counted`.

        on_prediction: called with every prediction at the mask's own size.
        """
        raise NotImplementedError

    def validate(self, samples: Sequence[Sample]) -> dict[str, float]:
        """The "score" by which a training chooses its weights, and what else its log says."""
        raise NotImplementedError

    def write_details(self, folder: str | Path, **about: str) -> None:
        """Write what the last score() found beyond its confusion matrices into a folder; most rows have no more.

        about: further columns of the lines, for example the split.
        """

    def open(self, image: np.ndarray) -> Segment:
        """Take a picture uint8 (H, W, 3) of any size and return the function that segments it, for any clicks or text.

        What does not depend on them, such as the encoding, is computed once.
        """
        raise NotImplementedError

    def segment(self, image: np.ndarray, clicks: Sequence[Click] = (), text: str = "") -> Segmentation:
        """One picture uint8 (H, W, 3). Raises UserError for a prompt that the row does not take."""
        return self.open(image)(clicks, text)

    def refuse_other_prompts(self, clicks: Sequence[Click], text: str) -> None:
        """Raise UserError for clicks or a text that the row does not take."""
        for given, prompt in ((clicks, "click"), (text, "text")):
            if given and self.prompt != prompt:
                raise UserError(f"{self.name} takes no {prompt}")

    def segment_all(
        self, images: Sequence[np.ndarray], clicks: Sequence[Click] = (), text: str = ""
    ) -> list[Segmentation]:
        """Several pictures, with the same clicks or text; a row by class sees them in one batch."""
        return [self.segment(image, clicks, text) for image in images]


def squash(images: Sequence[np.ndarray], size: int, device: torch.device) -> torch.Tensor:
    """Pictures uint8 (H, W, 3) of any sizes -> (N, 3, size, size), as data sets hold them."""
    return torch.from_numpy(np.stack([resize_image(image, size) for image in images])).movedim(-1, 1).to(device)


def read_batches(
    samples: Sequence[Sample], batch_size: int, label: str, read: Read = read_sample
) -> Iterator[tuple[list[int], tuple[np.ndarray, ...], tuple[np.ndarray, ...]]]:
    """Indices, pictures and masks, up to batch_size at once, with a progress bar."""
    with ThreadPoolExecutor(WORKERS) as pool, tqdm(samples, label, unit="img", leave=False, disable=None) as bar:
        for start in range(0, len(samples), batch_size):
            batch = samples[start : start + batch_size]
            images, masks = zip(*pool.map(read, batch), strict=True)
            yield list(range(start, start + len(batch))), images, masks
            bar.update(len(batch))
