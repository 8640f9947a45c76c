"""Rows by class: every pixel gets one of the classes that the model was trained on."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from utils.device import autocast
from utils.inputs.augment import normalise
from utils.inputs.clicks import Click
from utils.inputs.pictures import Sample, bands, read_sample
from utils.metrics import confusion_matrix, validation_scores
from utils.rows.closer_look import Maps, look_closer, resize_rows
from utils.rows.row import OnPrediction, Read, Row, Segment, Segmentation, read_batches, squash


class ByClass(Row):
    """A model that maps normalised pictures (N, 3, S, S) to logits (N, C, h, w)."""

    @property
    def sizes(self) -> list[int]:
        """image_size at every scale, as a multiple of the encoder's patch size."""
        patch = getattr(getattr(self.model, "encoder", None), "patch_size", 16)
        return [
            self.image_size if scale == 1 else round(self.image_size * scale / patch) * patch for scale in self.scales
        ]

    def score(
        self,
        samples: Sequence[Sample],
        on_prediction: OnPrediction | None = None,
        batch_size: int = 16,
        read: Read = read_sample,
    ) -> torch.Tensor:
        confusions = torch.zeros(len(samples), len(self.classes), len(self.classes), dtype=torch.int64)
        for indices, images, masks in read_batches(samples, batch_size, self.name, read):
            for index, mask, found in zip(indices, masks, self.segment_all(images), strict=True):
                ids = torch.from_numpy(found.ids)
                confusions[index] = confusion_matrix(torch.from_numpy(mask), ids, len(self.classes))
                if on_prediction:
                    on_prediction(index, found.ids, "")
        return confusions

    def validate(self, samples: Sequence[Sample]) -> dict[str, float]:
        """mIoU ("score") and IoU per thing."""
        return validation_scores(self.score(samples), self.counted)

    def open(self, image: np.ndarray) -> Segment:
        (found,) = self.segment_all([image])

        def segment(clicks: Sequence[Click] = (), text: str = "") -> Segmentation:
            self.refuse_other_prompts(clicks, text)
            return found

        return segment

    @torch.inference_mode()
    def segment_all(
        self, images: Sequence[np.ndarray], clicks: Sequence[Click] = (), text: str = ""
    ) -> list[Segmentation]:
        self.refuse_other_prompts(clicks, text)
        ids = (to_size(x, image.shape[:2]) for x, image in zip(self._logits(images), images, strict=True))
        return [Segmentation(of_picture.cpu().numpy(), self.classes) for of_picture in ids]

    @torch.inference_mode()
    def class_map(self, image: np.ndarray, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Picture uint8 (H, W, 3) -> probabilities (C, H, W)."""
        (logits,) = self._logits([image])
        probabilities = torch.empty(len(self.classes), *image.shape[:2], dtype=dtype, device=self.device)
        for rows in bands(*image.shape[:2]):
            probabilities[:, rows] = at_rows(logits, image.shape[:2], rows).softmax(0)
        return probabilities

    def _logits(self, images: Sequence[np.ndarray]) -> Iterator[torch.Tensor | Maps]:
        """Logits of every picture: (C, h, w), or at its own size with the closer look."""

        def see(squashed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
            with autocast(self.device, self.precision):
                return look(self.model, squashed, self.mean, self.std, self.flip, self.sizes)

        size = max(self.sizes)
        if self.zoom:
            return look_closer(see, images, size, self.device)
        return iter(see(squash(images, size, self.device))[0])


def look(
    model: nn.Module,
    images: torch.Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    flip: bool = False,
    sizes: Sequence[int] = (),
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Squashed uint8 pictures (N, 3, S, S) -> logits (N, C, h, w); of several views, those of their mean softmax.

    flip: the picture and its mirror image are views. sizes: the picture is seen at these, in pixels a side; without
    flip every second view is mirrored. Empty: one view. A model that names parts also gives logits (N, C - 1) of each
    picture as a whole, else None.
    """
    found, names = [], []
    for view, mirror in _views(normalise(images, mean, std), flip, sizes):
        logits, name = model.with_names(view) if hasattr(model, "name_layer") else (model(view), None)
        found.append(logits.flip(-1) if mirror else logits)
        names.append(name)
    names = None if names[0] is None else sum(names)
    if len(found) == 1:
        return found[0], names
    largest = max((logits.shape[-2:] for logits in found), key=max)
    mean_softmax = sum(_resized(logits.float().softmax(1), largest) for logits in found) / len(found)
    return mean_softmax.clamp(min=1e-30).log(), names  # resizing a logarithm of 0 would make NaN of it


def _views(images: torch.Tensor, flip: bool, sizes: Sequence[int]) -> Iterator[tuple[torch.Tensor, bool]]:
    """Pictures (N, 3, S, S) -> each view of them, and whether it is mirrored; see look()."""
    for number, size in enumerate(sizes or (images.shape[-1],)):
        view = _resized(images, (size, size))
        for mirror in (False, True) if flip else (number % 2 == 1,):
            yield view.flip(-1) if mirror else view, mirror


def _resized(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    if maps.shape[-2:] == torch.Size(size):
        return maps
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)


def to_size(logits: torch.Tensor | Maps, size: tuple[int, int]) -> torch.Tensor:
    """Logits -> class ids (H, W) uint8, resized before argmax: this undoes the squashing of the picture."""
    ids = (at_rows(logits, size, rows).max(0).indices.byte() for rows in bands(*size))
    return torch.cat(list(ids))  # max() gives what argmax gives, 25 times faster on a CPU


def at_rows(logits: torch.Tensor | Maps, size: tuple[int, int], rows: slice) -> torch.Tensor:
    """Logits at some rows of a picture of size (H, W): float32 (C, rows, W)."""
    return resize_rows(logits, size, rows) if isinstance(logits, torch.Tensor) else logits(rows)
