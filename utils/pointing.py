"""Segmenting a picture by clicks with a trained PointCLIP; the calls are those of Segment Anything's predictor."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from utils.augment import normalise
from utils.clicks import Click, to_tensor
from utils.dataset import resize_image
from utils.distributed import autocast
from utils.errors import UserError


class PointPredictor:
    """A trained PointCLIP on one picture at a time: set_image() once, then predict() for any number of clicks.

    mean, std: of the encoder; flip: average with the prediction on the mirror image.
    """

    def __init__(self, model: torch.nn.Module, image_size: int, mean, std, device: torch.device, flip: bool = False):
        self.model, self.image_size, self.device, self.flip = model, image_size, device, flip
        self.mean, self.std = mean, std
        self.size = None

    def set_image(self, image: np.ndarray) -> None:
        """Encode a picture, uint8 (H, W, 3)."""
        small = torch.from_numpy(resize_image(image, self.image_size)).movedim(-1, 0)[None]
        self.set_tensors(small, image.shape[:2])

    @torch.inference_mode()
    def set_tensors(self, image: torch.Tensor, size: tuple[int, int], tokens: torch.Tensor | None = None) -> None:
        """The same for a picture that is already squashed, uint8 (1, 3, S, S), and was of size (H, W).

        tokens: of the picture, if they are known; not with flip.
        """
        image = normalise(image.to(self.device), self.mean, self.std)
        images = torch.cat([image, image.flip(-1)]) if self.flip else image
        with autocast(self.device):
            self.features = self.model.encode(images, None if tokens is None else tokens.to(self.device).float())
        self.size = size
        self.known = {}  # clicks -> logits: undoing a click costs nothing

    def predict(self, points: Sequence[tuple[int, int]], labels: Sequence[int]) -> tuple[np.ndarray, float]:
        """Mask of the thing, bool (H, W), and a score in 0..1: the IoU that the model itself expects.

        points: (x, y) in pixels of the picture as given, in the order of the clicks; labels: 1 on the thing,
        0 on the rest. Raises UserError for a point outside of the picture, and without a point on the thing.
        """
        if self.size is None:
            raise UserError("set_image() comes first: there is no picture to click on")
        height, width = self.size
        clicks = tuple((int(x), int(y), int(label)) for (x, y), label in zip(points, labels, strict=True))
        for x, y, label in clicks:
            if not (0 <= x < width and 0 <= y < height):
                raise UserError(f"the click at {x},{y} is outside of the picture of {width} x {height} pixels")
            if label not in (0, 1):
                raise UserError(f"the click at {x},{y} has label {label}: 1 is on the thing, 0 on the rest")
        if not any(label for *_, label in clicks):
            raise UserError("at least one click must be on the thing (label 1)")
        logits = self._logits(clicks)
        probability = F.interpolate(logits, size=self.size, mode="bilinear", align_corners=False)[0, 0].sigmoid()
        mask = probability > 0.5
        inside = probability[mask].sum()
        score = inside / (mask.sum() + probability[~mask].sum()).clamp(min=1e-6)
        return mask.cpu().numpy(), float(score)

    @torch.inference_mode()
    def _logits(self, clicks: tuple[Click, ...]) -> torch.Tensor:
        """(1, 1, h, w); every click sees the mask of those before it."""
        if clicks not in self.known:
            given = to_tensor(clicks, self.size)[None].to(self.device)
            previous = self._logits(clicks[:-1]).sigmoid() if len(clicks) > 1 else None
            if self.flip:
                mirrored = torch.cat([1 - given[..., :1], given[..., 1:]], 2)
                given = torch.cat([given, mirrored])
                previous = None if previous is None else torch.cat([previous, previous.flip(-1)])
            with autocast(self.device):
                logits = self.model.decode(self.features, given, previous).float()
            self.known[clicks] = (logits[:1] + logits[1:].flip(-1)) / 2 if self.flip else logits
        return self.known[clicks]
