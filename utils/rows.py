"""The five rows of the table: where each one's weights are, and how each turns pictures into logits."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from models.clipseg import HUB_ID, add_background
from utils.checkpoint import load_model
from utils.dataset import resize_image
from utils.distributed import autocast
from utils.errors import UserError
from utils.evaluation import Predict, predictor, to_size
from utils.pointing import PointPredictor
from utils.zeroshot import class_prompts, load_clipseg, prompt_logits

# row -> folder below checkpoints/ and name of the model, command that makes it
ROWS = {
    "UNET": ("unet", "python train_unet.py"),
    "Autoencoder": ("autoencoder", "python train_autoencoder.py"),
    "CLIP": ("clip", "python train_clip.py"),
    "CLIPSeg": ("clipseg", "python evaluate.py --ROWS=CLIPSeg"),
    "PointCLIP": ("pointclip", "python train_clip.py --PROMPT=point"),
}


@dataclass
class Row:
    """A row of the table whose weights are at hand."""

    name: str
    model: torch.nn.Module
    image_size: int
    encoder: str  # "" for a model without a pretrained encoder
    checkpoint: str
    # flip at test time -> (uint8 pictures -> logits), or PointCLIP's predictor
    predictor: Callable[[bool], Predict | PointPredictor] = field(repr=False)
    threshold: float = 0.3  # CLIPSeg's, until one is chosen on the validation split

    @property
    def params_m(self) -> float:
        return sum(parameter.numel() for parameter in self.model.parameters()) / 1e6


def load_row(name: str, checkpoints: str | Path, device: torch.device, clipseg: str = HUB_ID) -> Row:
    """The row `name`, one of ROWS, rebuilt from its checkpoint. Raises UserError with the command that makes it.

    clipseg: hub id or folder of CLIPSeg's weights.
    """
    model_name, command = ROWS[name]
    if name == "CLIPSeg":
        return _clipseg_row(clipseg, device)
    path = Path(checkpoints) / model_name / "best.pt"
    if not path.exists():
        raise UserError(f"{path} is missing; `{command}` makes it")
    model, content = load_model(path, model_name, device)
    size, mean, std = content["image_size"], content["mean"], content["std"]

    def predictor_of(flip: bool) -> Predict | PointPredictor:
        if name == "PointCLIP":
            return PointPredictor(model, size, mean, std, device, flip)
        return predictor(model, mean, std, flip)

    return Row(name, model, size, content.get("encoder", ""), str(path), predictor_of)


@torch.inference_mode()
def segment(row: Row, image: np.ndarray, device: torch.device, flip: bool = False) -> np.ndarray:
    """Picture uint8 (H, W, 3) of any size -> class ids uint8 (H, W); for every row but PointCLIP."""
    small = torch.from_numpy(resize_image(image, row.image_size)).movedim(-1, 0)[None].to(device)
    with autocast(device):
        logits = row.predictor(flip)(small)[0]
    return to_size(logits, image.shape[:2]).byte().cpu().numpy()


def _clipseg_row(name: str, device: torch.device) -> Row:
    model = load_clipseg(name, device)

    def predictor_of(flip: bool) -> Predict:
        return lambda images: add_background(prompt_logits(model, class_prompts(), images, flip), row.threshold)

    row = Row("CLIPSeg", model, model.image_size, "CLIP ViT-B/16", name, predictor_of)
    return row
