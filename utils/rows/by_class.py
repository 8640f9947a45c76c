"""Rows by class: every pixel gets one of the classes that the model was trained on."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import nn

from utils.device import autocast
from utils.inputs.augment import normalise
from utils.inputs.pictures import Sample
from utils.metrics import scores
from utils.rows.closer_look import look_closer
from utils.rows.row import Predictions, Row, Segment, Segmentation, resized, squash


class ByClass(Row):
    """A model that maps normalised pictures (N, 3, S, S) to logits (N, C, h, w)."""

    @property
    def sizes(self) -> list[int]:
        """image_size at every scale, as a multiple of the encoder's patch size."""
        patch = getattr(getattr(self.model, "encoder", None), "patch_size", 16)
        return [
            self.image_size if scale == 1 else round(self.image_size * scale / patch) * patch for scale in self.scales
        ]

    def _predict(
        self, samples: Sequence[Sample], images: Sequence[np.ndarray], masks: Sequence[np.ndarray]
    ) -> Predictions:
        for mask, found in zip(masks, self.segment_all(images), strict=True):
            yield [(mask, found.ids, "")]

    def validate(self, samples: Sequence[Sample]) -> dict[str, float]:
        """mIoU ("score", by which a training chooses its weights) and the IoU of every class but background."""
        found = scores(self.score(samples), self.counted)
        return {"score": found["miou"], **{f"iou_{name}": found[f"iou_{name}"] for name in self.classes.things}}

    def _open(self, image: np.ndarray) -> Segment:
        (found,) = self.segment_all([image])
        return lambda clicks, text: found

    @torch.inference_mode()
    def segment_all(self, images: Sequence[np.ndarray]) -> list[Segmentation]:
        """Pictures uint8 (H, W, 3) of any sizes, in one batch."""
        # max() gives the ids that argmax() gives, 25 times faster on a CPU
        ids = (logits.max(0).indices.byte().cpu().numpy() for logits in self._logits(images))
        return [Segmentation(of_picture, self.classes) for of_picture in ids]

    @torch.inference_mode()
    def class_map(self, image: np.ndarray, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Picture uint8 (H, W, 3) -> probabilities (C, H, W)."""
        (logits,) = self._logits([image])
        return logits.softmax(0).to(self.device, dtype)  # the closer look works on the CPU

    def _logits(self, images: Sequence[np.ndarray]) -> Iterator[torch.Tensor]:
        """Logits (C, H, W) of every picture at its own size: resizing before argmax undoes the squashing."""

        def see(crops: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor | None]:
            squashed = squash(crops, max(self.sizes), self.device)
            with autocast(self.device, self.precision):
                return look(self.model, squashed, self.mean, self.std, self.flip, self.sizes)

        if self.zoom:
            yield from look_closer(see, images)
        else:
            for logits, image in zip(see(images)[0], images, strict=True):
                yield resized(logits, image.shape[:2])


def look(
    model: nn.Module,
    images: torch.Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    flip: bool = False,
    sizes: Sequence[int] = (),
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Squashed uint8 pictures (N, 3, S, S) -> logits (N, C, h, w); with several views the log of their mean softmax.

    sizes: sides in pixels at which the model sees the pictures; empty: S. flip: each size is seen plain and mirrored;
    without flip every second size is mirrored. The second value is None, or, from a model that also
    classifies whole pictures, logits (N, C - 1) of the classes behind background.
    """
    images, found, names = normalise(images, mean, std), [], []
    for number, size in enumerate(sizes or (images.shape[-1],)):
        view = resized(images, (size, size))
        for mirrored in (False, True) if flip else (number % 2 == 1,):
            seen = view.flip(-1) if mirrored else view
            logits, name = model.with_names(seen) if hasattr(model, "name_layer") else (model(seen), None)
            found.append(logits.flip(-1) if mirrored else logits)
            names.append(name)
    names = None if names[0] is None else sum(names)
    if len(found) == 1:
        return found[0], names
    largest = max((logits.shape[-2:] for logits in found), key=max)
    mean_softmax = sum(resized(logits.softmax(1), largest) for logits in found) / len(found)
    return mean_softmax.clamp(min=1e-30).log(), names  # the log of 0 would become NaN when it is resized
