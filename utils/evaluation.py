"""Scoring a model on a split: logits at the mask's own size, one confusion matrix per picture."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from utils.augment import normalise
from utils.classes import CLASSES
from utils.dataset import WORKERS, PetDataset, read_mask
from utils.distributed import autocast, is_main, rank, sum_over_processes, world_size
from utils.metrics import confusion_matrix

# uint8 pictures (N, 3, S, S) on the device, and whatever else a data set holds -> logits (N, C, h, w)
Predict = Callable[..., torch.Tensor]


def predictor(model: torch.nn.Module, mean: tuple[float, ...], std: tuple[float, ...], flip: bool = False) -> Predict:
    """Wrap a model for evaluation: normalises, and with `flip` averages the softmax over picture and mirror image."""

    def predict(images: torch.Tensor) -> torch.Tensor:
        images = normalise(images, mean, std)
        if not flip:
            return model(images)
        mirrored = model(images.flip(-1)).flip(-1)
        # Resizing a logarithm of 0 would make NaN of it.
        return (model(images).float().softmax(1) + mirrored.float().softmax(1)).clamp(min=1e-30).log()

    return predict


def to_size(logits: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Logits (C, h, w) -> class ids (H, W), resized before argmax: this undoes the squashing of the picture."""
    logits = F.interpolate(logits[None].float(), size=size, mode="bilinear", align_corners=False)
    return logits[0].max(0).indices  # what argmax gives, 25 times faster on a CPU


@torch.inference_mode()
def predict_split(
    predict: Predict, dataset: PetDataset, device: torch.device, batch_size: int = 16, label: str = ""
) -> Iterator[tuple[int, np.ndarray, torch.Tensor]]:
    """Yield (index, mask (H, W) uint8 as on disk, logits (C, h, w)) for this process's share of the pictures."""
    indices = list(range(rank(), len(dataset), world_size()))
    bar = tqdm(total=len(indices), desc=label, unit="img", leave=False, disable=None if is_main() else True)
    with ThreadPoolExecutor(WORKERS) as pool, bar:
        for start in range(0, len(indices), batch_size):
            batch = indices[start : start + batch_size]
            masks = pool.map(read_mask, [dataset.samples[i] for i in batch])  # decoded while the model runs
            images, _, *features = dataset[batch]
            with autocast(device):
                logits = predict(*(x.to(device) for x in (images, *features)))
            yield from zip(batch, masks, logits, strict=True)
            bar.update(len(batch))


@torch.inference_mode()
def evaluate(
    predict: Predict,
    dataset: PetDataset,
    device: torch.device,
    batch_size: int = 16,
    label: str = "evaluating",
    on_prediction: Callable[[int, np.ndarray], None] | None = None,
) -> torch.Tensor:
    """Confusion matrices of all pictures, int64 (N, C, C), the same in every process.

    on_prediction(index, ids (H, W) uint8) is called with every prediction at the mask's own size.
    """
    confusions = torch.zeros(len(dataset), len(CLASSES), len(CLASSES), dtype=torch.int64)
    for index, mask, logits in predict_split(predict, dataset, device, batch_size, label):
        prediction = to_size(logits, mask.shape).cpu()
        confusions[index] = confusion_matrix(torch.from_numpy(mask), prediction)
        if on_prediction:
            on_prediction(index, prediction.byte().numpy())
    return sum_over_processes(confusions.to(device)).cpu()
