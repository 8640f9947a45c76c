"""Rows by class: every pixel gets one of the classes that the model was trained on."""

from collections.abc import Callable, Iterable, Iterator, Sequence
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
from utils.scoring.metrics import confusion_matrix, scores
from utils.scoring.row import OnPrediction, Row, Segment, Segmentation
from utils.scoring.zoom import Look, Probabilities, look_closer, resize_rows

# uint8 pictures (N, 3, S, S) on the device, and whatever else a data set holds -> logits (N, C, h, w)
Predict = Callable[..., torch.Tensor]
# (index, mask (H, W) uint8 as on disk, logits (C, h, w) or probabilities) of every picture of this process
Found = Iterator[tuple[int, np.ndarray, torch.Tensor | Probabilities]]


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
            predict = predictor(self.model, self.mean, self.std, flip, self.sizes)
            found = predict_split(predict, dataset, self.device, self.precision, batch_size, self.name)
        return count_pixels(found, len(dataset), len(self.classes), on_prediction)

    def open(self, image: np.ndarray, flip: bool = False) -> Segment:
        (found,) = self.segment_all([image], flip=flip)

        def segment(clicks: Sequence[Click] = (), text: str = "") -> Segmentation:
            return found

        return segment

    @torch.inference_mode()
    def segment_all(
        self, images: Sequence[np.ndarray], clicks: Sequence[Click] = (), text: str = "", flip: bool = False
    ) -> list[Segmentation]:
        with autocast(self.device, self.precision):
            found = self._predict(images, flip)
            ids = (to_size(logits, image.shape[:2]) for logits, image in zip(found, images, strict=True))
            return [Segmentation(of_picture.cpu().numpy(), self.classes) for of_picture in ids]

    @torch.inference_mode()
    def class_map(self, image: np.ndarray, flip: bool = False, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Picture uint8 (H, W, 3) -> probabilities (C, H, W)."""
        with autocast(self.device, self.precision):
            (found,) = self._predict([image], flip)
        probabilities = torch.empty(len(self.classes), *image.shape[:2], dtype=dtype, device=self.device)
        for rows in bands(*image.shape[:2]):
            of_rows = found(rows) if self.zoom else resize_rows(found, image.shape[:2], rows).softmax(0)
            probabilities[:, rows] = of_rows
        return probabilities

    def _predict(self, images: Sequence[np.ndarray], flip: bool) -> Iterable[torch.Tensor | Probabilities]:
        """Of every picture logits (C, h, w) or, with zoom, probabilities."""
        if self.zoom:
            return self._look_closer(images, flip)
        predict = predictor(self.model, self.mean, self.std, flip, self.sizes)
        return predict(torch.cat([squash(image, self.view_size, self.device) for image in images]))

    def _look_closer(self, images: Sequence[np.ndarray], flip: bool) -> Iterator[Probabilities]:
        def names_of_mirror(squashed: torch.Tensor) -> torch.Tensor:
            return sum(self.model.names(view.flip(-1)) for view, _ in self._views(squashed, flip=False))

        # With flip the mirror image is one of the views already.
        added = None if flip else names_of_mirror
        return look_closer(self._look(flip), added, images, self.view_size, self.device)

    def _look(self, flip: bool) -> Look:
        """What look_closer() asks: the mean of the softmax over the views; the sum of the names, if there are any."""
        name_parts = hasattr(self.model, "name_layer")

        def look(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
            found, names = [], []
            for view, mirror in self._views(images, flip):
                logits, name = self.model.with_names(view) if name_parts else (self.model(view), None)
                found.append(probabilities(logits, mirror))
                names.append(name)
            return sum_of_views(found) / len(found), sum(names) if name_parts else None

        return look

    def _views(self, images: torch.Tensor, flip: bool) -> Iterator[tuple[torch.Tensor, bool]]:
        return views(images, self.mean, self.std, flip, self.sizes)

    @torch.inference_mode()
    def _look_closer_at_split(self, dataset: SegmentationDataset, flip: bool, batch_size: int) -> Found:
        with ThreadPoolExecutor(WORKERS) as pool:
            for batch in batches(len(dataset), batch_size, self.name):
                samples = list(pool.map(read_sample, [dataset.samples[i] for i in batch]))
                images = [image for image, _ in samples]
                with autocast(self.device, self.precision):
                    found = self._look_closer(images, flip)
                    yield from zip(batch, (mask for _, mask in samples), found, strict=True)


def predictor(
    model: nn.Module, mean: Sequence[float], std: Sequence[float], flip: bool = False, sizes: Sequence[int] = ()
) -> Predict:
    """Wrap a model for evaluation: normalises, and averages the softmax over views of a picture if there are several.

    flip: the picture and its mirror image are views. sizes: the picture is seen at these, in pixels a side; without
    flip every second one sees the mirror image, which costs nothing; none: as it is. Features of the pictures that are
    already known are handed on to the model, as float32; not with several views.
    """

    def predict(images: torch.Tensor, *features: torch.Tensor) -> torch.Tensor:
        if len(sizes) < 2 and not flip:
            return model(normalise(images, mean, std), *(x.float() for x in features))
        found = [probabilities(model(view), mirror) for view, mirror in views(images, mean, std, flip, sizes)]
        # Resizing a logarithm of 0 would make NaN of it.
        return sum_of_views(found).clamp(min=1e-30).log()

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
    """Logits (N, C, h, w) of a view -> softmax, of the picture as it is."""
    return (logits.flip(-1) if mirror else logits).float().softmax(1)


def sum_of_views(found: Sequence[torch.Tensor]) -> torch.Tensor:
    """Probabilities (N, C, h, w) of every view, added up at the largest of their sizes."""
    largest = max((p.shape[-2:] for p in found), key=max)
    return sum(_resized(p, largest) for p in found)


def _resized(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """(N, C, H, W) at another size: uint8 pictures become float32 in 0..1."""
    if images.shape[-2:] == torch.Size(size):
        return images
    images = images.float() / 255 if images.dtype == torch.uint8 else images
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False)


def validate(
    model: nn.Module,
    dataset: SegmentationDataset,
    device: torch.device,
    mean: Sequence[float],
    std: Sequence[float],
) -> dict[str, float]:
    """mIoU ("score") and IoU per thing, exactly as evaluate.py measures them."""
    confusions = evaluate(predictor(model, mean, std), dataset, device, len(dataset.classes))
    result = scores(confusions, dataset.classes.names)
    return {"score": result["miou"], **{name: result[f"iou_{name}"] for name in dataset.classes.things}}


def evaluate(
    predict: Predict, dataset: SegmentationDataset, device: torch.device, classes: int, batch_size: int = 16
) -> torch.Tensor:
    """Confusion matrices of all pictures, int64 (N, C, C), the same in every process and on every machine: in fp32."""
    found = predict_split(predict, dataset, device, "fp32", batch_size, "evaluating")
    return count_pixels(found, len(dataset), classes)


@torch.inference_mode()
def count_pixels(found: Found, count: int, classes: int, on_prediction: OnPrediction | None = None) -> torch.Tensor:
    """Confusion matrices of `count` pictures, int64 (count, C, C), the same in every process."""
    confusions = torch.zeros(count, classes, classes, dtype=torch.int64)
    for index, mask, logits in found:
        prediction = to_size(logits, mask.shape).cpu()
        confusions[index] = confusion_matrix(torch.from_numpy(mask), prediction, classes)
        if on_prediction:
            on_prediction(index, prediction.numpy(), "")
    return sum_over_processes(confusions)


@torch.inference_mode()
def predict_split(
    predict: Predict,
    dataset: SegmentationDataset,
    device: torch.device,
    precision: str,
    batch_size: int = 16,
    label: str = "",
) -> Found:
    """Pictures as the data set holds them -> logits (C, h, w)."""
    with ThreadPoolExecutor(WORKERS) as pool:
        for batch in batches(len(dataset), batch_size, label):
            masks = pool.map(read_mask, [dataset.samples[i] for i in batch])  # decoded while the model runs
            images, _, *features = dataset[batch]
            with autocast(device, precision):
                logits = predict(*(x.to(device) for x in (images, *features)))
            yield from zip(batch, masks, logits, strict=True)


def batches(count: int, batch_size: int, label: str) -> Iterator[list[int]]:
    """This process's share of the indices, so many at once, with a progress bar."""
    indices = list(range(rank(), count, world_size()))
    with tqdm(total=len(indices), desc=label, unit="img", leave=False, disable=None if is_main() else True) as bar:
        for start in range(0, len(indices), batch_size):
            batch = indices[start : start + batch_size]
            yield batch
            bar.update(len(batch))


def to_size(found: torch.Tensor | Probabilities, size: tuple[int, int]) -> torch.Tensor:
    """Logits (C, h, w), or probabilities that are of that size already -> class ids (H, W), uint8.

    Logits are resized before argmax: this undoes the squashing of the picture.
    """
    ids = []
    for rows in bands(*size):
        values = resize_rows(found, size, rows) if isinstance(found, torch.Tensor) else found(rows)
        ids.append(values.max(0).indices.byte())  # what argmax gives, 25 times faster on a CPU
    return torch.cat(ids)


def squash(image: np.ndarray, size: int, device: torch.device) -> torch.Tensor:
    """Picture uint8 (H, W, 3) -> (1, 3, size, size), as data sets hold it."""
    return torch.from_numpy(resize_image(image, size)).movedim(-1, 0)[None].to(device)
