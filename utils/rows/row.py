"""A row of the table: the common interface of models by class, by text and by click."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

from utils.classes import Classes
from utils.errors import UserError
from utils.inputs.clicks import Click
from utils.inputs.pictures import WORKERS, Sample, read_sample, resize_image
from utils.metrics import confusion_matrix


@dataclass(frozen=True)
class Segmentation:
    """A row's answer for one picture."""

    ids: np.ndarray  # uint8 (H, W), at the picture's own size
    classes: Classes  # of the ids
    expected_iou: float | None = None  # by click: the model's own estimate of the mask's IoU

    def describe(self) -> str:
        """ "cat 31.4%, dog 0.3%": the share of the picture that each class covers, from 0.1% on, without background."""
        names = enumerate(self.classes.things, self.classes.first)
        shares = {name: float((self.ids == index).mean()) for index, name in names}
        words = [f"{name} {share:.1%}" for name, share in shares.items() if share > 0.001]
        text = ", ".join(words) or "nothing found"
        return text if self.expected_iou is None else f"{text}; expected IoU {self.expected_iou:.2f}"


Segment = Callable[[Sequence[Click], str], Segmentation]  # clicks and text -> the answer for an opened picture
# of every picture its predictions: target (H, W), ids uint8 (H, W), and "animal" or "background" by click, else ""
Predictions = Iterator[list[tuple[np.ndarray, np.ndarray, str]]]


@dataclass(eq=False)
class Row:
    """A model with its weights. Its kinds are ByClass, ByText, ByClick: they define _predict() and _open()."""

    name: str
    model: nn.Module
    device: torch.device
    image_size: int  # side in pixels of the squares that the model sees
    mean: tuple[float, ...]  # normalisation of the model's input, 0..1 RGB
    std: tuple[float, ...]
    classes: Classes
    encoder: str = ""  # its title; "" for a model without a pretrained encoder
    checkpoint: str = ""
    scales: tuple[float, ...] = (1.0,)  # by class: the model sees a picture at these multiples of image_size
    zoom: bool = False  # segment each object again in a crop (closer_look.py, by_click.py)
    flip: bool = False  # average over the picture and its mirror image
    precision: str = "fp32"  # like the constant PRECISION; fp32 gives the same numbers on every machine
    minutes: float | None = None  # of the training, if the checkpoint says it

    prompt: ClassVar[str] = ""  # what segment() takes beside the picture: "click", "text" or nothing

    @property
    def counted(self) -> tuple[str, ...]:
        """Names of the classes that the confusion matrices of score() count."""
        return self.classes.names

    @property
    def params_m(self) -> float:
        return sum(parameter.numel() for parameter in self.model.parameters()) / 1e6

    def prepare(self, root: str) -> None:
        """Tune on the validation split of root before score(); nothing to tune for most rows."""

    def score(
        self,
        samples: Sequence[Sample],
        on_prediction: Callable[[int, np.ndarray, str], None] | None = None,
        batch_size: int = 16,
        read: Callable[[Sample], tuple[np.ndarray, np.ndarray]] = read_sample,
        **options: int,
    ) -> torch.Tensor:
        """Confusion matrices of all pictures, int64 (N, C, C) of `counted`, at the size of each mask.

        on_prediction: called with the index of the picture, the ids (H, W) and the part, see Predictions.
        read: sample -> picture uint8 (H, W, 3) and mask uint8 (H, W). options: of the row's kind.
        """
        count = len(self.counted)
        confusions = torch.zeros(len(samples), count, count, dtype=torch.int64)
        bar = tqdm(samples, self.name, unit="img", leave=False, disable=None)
        with ThreadPoolExecutor(WORKERS) as pool, bar:
            for start in range(0, len(samples), batch_size):
                batch = samples[start : start + batch_size]
                images, masks = zip(*pool.map(read, batch), strict=True)
                for index, predictions in enumerate(self._predict(batch, images, masks, **options), start):
                    for truth, ids, part in predictions:
                        confusions[index] += confusion_matrix(torch.from_numpy(truth), torch.from_numpy(ids), count)
                        if on_prediction:
                            on_prediction(index, ids, part)
                    bar.update()
        return confusions

    def write_details(self, folder: str, **about: str) -> None:
        """Write further results of the last score() into a folder; most rows have none.

        about: additional columns, for example the split.
        """

    def open(self, image: np.ndarray) -> Segment:
        """Prepare a picture, uint8 (H, W, 3) of any size; returns the function that segments it by clicks or text.

        What does not depend on the prompt, such as the encoding, is computed once. The function raises UserError for a
        prompt that the row does not take.
        """
        answer = self._open(image)

        def segment(clicks: Sequence[Click] = (), text: str = "") -> Segmentation:
            for given, prompt in ((clicks, "click"), (text, "text")):
                if given and self.prompt != prompt:
                    raise UserError(f"{self.name} takes no {prompt}")
            return answer(clicks, text)

        return segment

    def segment(self, image: np.ndarray, clicks: Sequence[Click] = (), text: str = "") -> Segmentation:
        """One picture uint8 (H, W, 3) of any size."""
        return self.open(image)(clicks, text)


def squash(images: Sequence[np.ndarray], size: int, device: torch.device) -> torch.Tensor:
    """Pictures uint8 (H, W, 3) of any sizes -> (N, 3, size, size), as in training."""
    return torch.from_numpy(np.stack([resize_image(image, size) for image in images])).movedim(-1, 1).to(device)


def resized(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Maps (C, h, w) or (N, C, h, w) at another size (H, W), bilinear, in float32."""
    maps = maps.float()
    if maps.shape[-2:] == torch.Size(size):
        return maps
    batch = maps if maps.ndim == 4 else maps[None]
    return F.interpolate(batch, size=size, mode="bilinear", align_corners=False).view(*maps.shape[:-2], *size)
