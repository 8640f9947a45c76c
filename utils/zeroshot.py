"""The CLIPSeg row: prompts instead of training, and the one number that is chosen, the threshold."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from models.clipseg import CLIPSeg, class_scores_to_ids
from utils.augment import normalise
from utils.classes import CLASSES
from utils.dataset import PetDataset, resize_image
from utils.distributed import autocast, sum_over_processes
from utils.errors import UserError
from utils.evaluation import predict_split
from utils.files import write_text
from utils.metrics import confusion_matrix, scores

# One text per class behind background, in every template; their embeddings are averaged.
PROMPTS = ("cat", "dog")
TEMPLATES = ("a photo of a {}.", "a photograph of a {}.", "an image of a {}.", "{}.")
CANDIDATES = tuple(n / 20 for n in range(1, 16))  # thresholds tried on the validation split: .05 to .75


def load_clipseg(name: str, device: torch.device) -> CLIPSeg:
    """CLIPSeg by hub id or folder. Raises UserError if it cannot be had."""
    try:
        return CLIPSeg.from_pretrained(name).to(device)
    except OSError as error:
        raise UserError(str(error)) from error


@torch.inference_mode()
def prompt_logits(model: CLIPSeg, prompts: Sequence[Sequence[str]], images: torch.Tensor, flip: bool) -> torch.Tensor:
    """uint8 pictures (N, 3, S, S) -> logits (N, P, S, S) of P prompts, each a list of filled-in templates."""
    with autocast(images.device):
        return model(normalise(images, model.mean, model.std), model.encode_prompts(prompts), flip)


@torch.inference_mode()
def text_scores(model: CLIPSeg, text: str, image: np.ndarray, device: torch.device, flip: bool = False) -> np.ndarray:
    """Where CLIPSeg sees a text in a picture uint8 (H, W, 3): scores 0..1, float32 (H, W)."""
    small = torch.from_numpy(resize_image(image, model.image_size)).movedim(-1, 0)[None].to(device)
    logits = prompt_logits(model, [[text]], small, flip)
    logits = F.interpolate(logits, size=image.shape[:2], mode="bilinear", align_corners=False)
    return logits[0, 0].sigmoid().cpu().numpy()


def class_prompts() -> list[list[str]]:
    return [[template.format(name) for template in TEMPLATES] for name in PROMPTS]


def sweep_thresholds(
    model: CLIPSeg,
    dataset: PetDataset,
    thresholds: Sequence[float],
    flip: bool,
    device: torch.device,
    batch_size: int,
    on_prediction: Callable[[int, np.ndarray], None] | None = None,
) -> dict[float, torch.Tensor]:
    """Confusion matrices (N, C, C) at every threshold, from one pass over the pictures.

    on_prediction(index, ids (H, W) uint8) is called with the predictions at the first threshold.
    """
    confusions = torch.zeros(len(thresholds), len(dataset), len(CLASSES), len(CLASSES), dtype=torch.int64)
    texts = class_prompts()

    def predict(images: torch.Tensor) -> torch.Tensor:
        return prompt_logits(model, texts, images, flip)

    for index, mask, logits in predict_split(predict, dataset, device, batch_size, "CLIPSeg"):
        logits = F.interpolate(logits[None].float(), size=mask.shape, mode="bilinear", align_corners=False)
        truth = torch.from_numpy(mask)
        for number, threshold in enumerate(thresholds):
            ids = class_scores_to_ids(logits, threshold)[0].cpu()
            confusions[number, index] = confusion_matrix(truth, ids)
            if on_prediction and number == 0:
                on_prediction(index, ids.byte().numpy())
    confusions = sum_over_processes(confusions.to(device)).cpu()
    return dict(zip(thresholds, confusions, strict=True))


def choose_threshold(
    model: CLIPSeg, root: str | Path, size: int, flip: bool, device: torch.device, batch_size: int, path: Path
) -> float:
    """The threshold with the best mIoU on the validation split, kept in `path` with what it was chosen for."""
    setting = {"prompts": class_prompts(), "flip": flip, "size": size, "data": str(Path(root).resolve())}
    if path.exists():
        stored = json.loads(path.read_text())
        if {key: stored.get(key) for key in setting} == setting:
            return stored["threshold"]
    val = PetDataset(root, "val", size)
    tried = sweep_thresholds(model, val, CANDIDATES, flip, device, batch_size)
    miou = {threshold: scores(confusions)["miou"] for threshold, confusions in tried.items()}
    best = max(miou, key=miou.get)
    write_text(json.dumps({**setting, "threshold": best, "val_miou": miou[best]}, indent=1), path)
    return best
