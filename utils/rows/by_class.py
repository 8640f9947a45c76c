"""Rows by class: every pixel gets one of the classes that the model was trained on."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

from utils.device import autocast
from utils.distributed import is_main, rank, sum_over_processes, world_size
from utils.inputs.augment import normalise
from utils.inputs.clicks import Click
from utils.inputs.dataset import SegmentationDataset
from utils.inputs.pictures import WORKERS, bands, read_mask, read_sample, resize_image
from utils.metrics import confusion_matrix, validation_scores
from utils.rows.closer_look import Maps, look_closer, resize_rows
from utils.rows.row import OnPrediction, Row, Segment, Segmentation

# uint8 pictures (N, 3, S, S) on the device -> logits (N, C, h, w)
Predict = Callable[[torch.Tensor], torch.Tensor]
# (index, mask (H, W) uint8 as on disk, logits (C, h, w) or at its size) of every picture of this process
Found = Iterator[tuple[int, np.ndarray, torch.Tensor | Maps]]


class ByClass(Row):
    """A model that maps normalised pictures (N, 3, S, S) to logits (N, C, h, w)."""

    def score(
        self,
        dataset: SegmentationDataset,
        flip: bool = False,
        on_prediction: OnPrediction | None = None,
        batch_size: int = 16,
    ) -> torch.Tensor:
        if dataset.size != self.view_size:
            raise ValueError(f"{self.name} takes pictures of {self.view_size} px (view_size), not of {dataset.size}")
        if self.zoom:
            found = self._look_closer_at_split(dataset, flip, batch_size)
        else:
            found = predict_split(self._predictor(flip), dataset, self.device, self.precision, batch_size, self.name)
        confusions = torch.zeros(len(dataset), len(self.classes), len(self.classes), dtype=torch.int64)
        for index, mask, logits in found:
            ids = to_size(logits, mask.shape).cpu()
            confusions[index] = confusion_matrix(torch.from_numpy(mask), ids, len(self.classes))
            if on_prediction:
                on_prediction(index, ids.numpy(), "")
        return sum_over_processes(confusions)

    def open(self, image: np.ndarray, flip: bool = False) -> Segment:
        (found,) = self.segment_all([image], flip=flip)

        def segment(clicks: Sequence[Click] = (), text: str = "") -> Segmentation:
            self.refuse_other_prompts(clicks, text)
            return found

        return segment

    @torch.inference_mode()
    def segment_all(
        self, images: Sequence[np.ndarray], clicks: Sequence[Click] = (), text: str = "", flip: bool = False
    ) -> list[Segmentation]:
        self.refuse_other_prompts(clicks, text)
        ids = (to_size(x, image.shape[:2]) for x, image in zip(self._logits(images, flip), images, strict=True))
        return [Segmentation(of_picture.cpu().numpy(), self.classes) for of_picture in ids]

    @torch.inference_mode()
    def class_map(self, image: np.ndarray, flip: bool = False, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Picture uint8 (H, W, 3) -> probabilities (C, H, W)."""
        (logits,) = self._logits([image], flip)
        probabilities = torch.empty(len(self.classes), *image.shape[:2], dtype=dtype, device=self.device)
        for rows in bands(*image.shape[:2]):
            probabilities[:, rows] = at_rows(logits, image.shape[:2], rows).softmax(0)
        return probabilities

    def _logits(self, images: Sequence[np.ndarray], flip: bool) -> Iterator[torch.Tensor | Maps]:
        """Logits of every picture: (C, h, w), or at its own size with the closer look."""
        if self.zoom:
            yield from look_closer(self._look(flip), images, self.view_size, self.device)
        else:
            squashed = torch.cat([squash(image, self.view_size, self.device) for image in images])
            with autocast(self.device, self.precision):
                yield from self._predictor(flip)(squashed)

    def _predictor(self, flip: bool) -> Predict:
        return predictor(self.model, self.mean, self.std, flip, self.sizes)

    def _look(self, flip: bool) -> Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor | None]]:
        """What look_closer() asks: the mean of the softmax over the views, and the sum of the names' logits."""
        with_names = hasattr(self.model, "name_layer")

        def look(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
            found, names = [], []
            with autocast(self.device, self.precision):
                for view, mirror in views(images, self.mean, self.std, flip, self.sizes):
                    logits, name = self.model.with_names(view) if with_names else (self.model(view), None)
                    found.append(probabilities(logits, mirror))
                    names.append(name)
                return mean_of_views(found), sum(names) if with_names else None

        return look

    @torch.inference_mode()
    def _look_closer_at_split(self, dataset: SegmentationDataset, flip: bool, batch_size: int) -> Found:
        with ThreadPoolExecutor(WORKERS) as pool:
            for batch in batches(len(dataset), batch_size, self.name):
                images, masks = zip(*pool.map(read_sample, [dataset.samples[i] for i in batch]), strict=True)
                yield from zip(batch, masks, self._logits(images, flip), strict=True)


def validate(
    model: nn.Module,
    dataset: SegmentationDataset,
    device: torch.device,
    mean: Sequence[float],
    std: Sequence[float],
    zoom: bool = False,
) -> dict[str, float]:
    """mIoU ("score") and IoU per thing, in fp32, from one view of every picture; the table's rows may have more."""
    row = ByClass("validation", model, device, dataset.size, mean, std, dataset.classes, zoom=zoom)
    return validation_scores(row.score(dataset), row.counted)


def predictor(
    model: nn.Module, mean: Sequence[float], std: Sequence[float], flip: bool = False, sizes: Sequence[int] = ()
) -> Predict:
    """Wrap a model: normalises; with several views of a picture, returns the logarithm of their mean softmax.

    flip: the picture and its mirror image are views. sizes: the picture is seen at these, in pixels a side; without
    flip every second view is mirrored. Empty: one view.
    """

    def predict(images: torch.Tensor) -> torch.Tensor:
        if len(sizes) < 2 and not flip:
            return model(normalise(images, mean, std))
        found = [probabilities(model(view), mirror) for view, mirror in views(images, mean, std, flip, sizes)]
        # Resizing a logarithm of 0 would make NaN of it.
        return mean_of_views(found).clamp(min=1e-30).log()

    return predict


def views(
    images: torch.Tensor, mean: Sequence[float], std: Sequence[float], flip: bool, sizes: Sequence[int]
) -> Iterator[tuple[torch.Tensor, bool]]:
    """uint8 pictures (N, 3, S, S) -> each view of them, normalised, and whether it is mirrored; see predictor()."""
    for number, size in enumerate(sizes or (None,)):
        view = normalise(_resized(images, (size, size)) if size else images, mean, std)
        for mirror in (False, True) if flip else (number % 2 == 1,):
            yield view.flip(-1) if mirror else view, mirror


def probabilities(logits: torch.Tensor, mirror: bool) -> torch.Tensor:
    """Logits (N, C, h, w) of a view -> softmax, of the picture that is not mirrored."""
    return (logits.flip(-1) if mirror else logits).float().softmax(1)


def mean_of_views(found: Sequence[torch.Tensor]) -> torch.Tensor:
    """The mean of the probabilities (N, C, h, w) of every view, at the largest of their sizes."""
    largest = max((p.shape[-2:] for p in found), key=max)
    return sum(_resized(p, largest) for p in found) / len(found)


def _resized(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """(N, C, H, W) at another size: uint8 pictures become float32 in 0..1."""
    if images.shape[-2:] == torch.Size(size):
        return images
    images = images.float() / 255 if images.dtype == torch.uint8 else images
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False)


@torch.inference_mode()
def predict_split(
    predict: Predict,
    dataset: SegmentationDataset,
    device: torch.device,
    precision: str,
    batch_size: int = 16,
    label: str = "",
) -> Found:
    """Squashed pictures of a data set -> logits (C, h, w)."""
    with ThreadPoolExecutor(WORKERS) as pool:
        for batch in batches(len(dataset), batch_size, label):
            masks = pool.map(read_mask, [dataset.samples[i] for i in batch])  # decoded while the model runs
            with autocast(device, precision):
                logits = predict(dataset[batch][0].to(device))
            yield from zip(batch, masks, logits, strict=True)


def batches(count: int, batch_size: int, label: str) -> Iterator[list[int]]:
    """This process's share of the indices, so many at once, with a progress bar."""
    indices = list(range(rank(), count, world_size()))
    with tqdm(total=len(indices), desc=label, unit="img", leave=False, disable=None if is_main() else True) as bar:
        for start in range(0, len(indices), batch_size):
            batch = indices[start : start + batch_size]
            yield batch
            bar.update(len(batch))


def to_size(logits: torch.Tensor | Maps, size: tuple[int, int]) -> torch.Tensor:
    """Logits -> class ids (H, W) uint8, resized before argmax: this undoes the squashing of the picture."""
    ids = (at_rows(logits, size, rows).max(0).indices.byte() for rows in bands(*size))
    return torch.cat(list(ids))  # max() gives what argmax gives, 25 times faster on a CPU


def at_rows(logits: torch.Tensor | Maps, size: tuple[int, int], rows: slice) -> torch.Tensor:
    """Logits at some rows of a picture of size (H, W): float32 (C, rows, W)."""
    return resize_rows(logits, size, rows) if isinstance(logits, torch.Tensor) else logits(rows)


def squash(image: np.ndarray, size: int, device: torch.device) -> torch.Tensor:
    """Picture uint8 (H, W, 3) -> (1, 3, size, size), as data sets hold it."""
    return torch.from_numpy(resize_image(image, size)).movedim(-1, 0)[None].to(device)
