"""Segmenting a picture by clicks with a trained PointCLIP; the calls are those of Segment Anything's predictor."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from utils.device import autocast
from utils.errors import UserError
from utils.inputs.augment import normalise
from utils.inputs.clicks import Click, to_tensor
from utils.inputs.windows import Window
from utils.scoring.by_class import squash

_MARGIN = 1.4  # a window's side, of the thing's
_WINDOW = (0.2, 0.7)  # a window's side, of the picture's; larger ones are not worth a second encoding


class PointPredictor:
    """A trained PointCLIP on one picture at a time: set_image() once, then predict() for any number of clicks.

    mean, std: of the encoder; flip: average with the prediction on the mirror image; zoom: look closer at what is small
    in the picture: the window around what the first click finds is encoded too, and the clicks are answered there
    (zoom-in of Sofiiuk et al., f-BRS, CVPR 2020).
    """

    def __init__(
        self,
        model: torch.nn.Module,
        image_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device,
        flip: bool = False,
        zoom: bool = False,
    ):
        self.model, self.image_size, self.device, self.flip, self.zoom = model, image_size, device, flip, zoom
        self.mean, self.std = mean, std
        self.size = None

    def set_image(self, image: np.ndarray) -> None:
        """Encode a picture, uint8 (H, W, 3)."""
        self._start(squash(image, self.image_size, self.device), image.shape[:2])
        self.image = image

    def set_tensors(self, image: torch.Tensor, size: tuple[int, int], tokens: torch.Tensor | None = None) -> None:
        """The same for a picture that is already squashed, uint8 (1, 3, S, S), and was of size (H, W).

        tokens: of the picture, if they are known; not with flip. Raises ValueError with zoom, which needs the picture.
        """
        if self.zoom:
            raise ValueError("zoom needs the picture at its own size: set_image()")
        self._start(image, size, tokens)

    def _start(self, image: torch.Tensor, size: tuple[int, int], tokens: torch.Tensor | None = None) -> None:
        self.size = size
        self.whole = (0, 0, size[1], size[0])
        self.features = {self.whole: self._encode(image, tokens)}
        self.known = {}  # clicks and window -> logits: undoing a click costs nothing
        self.windows = {}  # first click -> window

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
        probability = self._probability(clicks, self._window(clicks))
        mask = probability > 0.5
        inside = probability[mask].sum()
        score = inside / (mask.sum() + probability[~mask].sum()).clamp(min=1e-6)
        return mask.cpu().numpy(), float(score)

    def _window(self, clicks: tuple[Click, ...]) -> Window:
        """What to look at: around what the first click finds, if that is small and has all clicks; else the whole."""
        first = clicks[0]
        if not self.zoom or not first[2]:
            return self.whole
        if first not in self.windows:
            self.windows[first] = self._around(first)
        left, top, right, bottom = window = self.windows[first]
        return window if all(left <= x < right and top <= y < bottom for x, y, _ in clicks) else self.whole

    def _around(self, click: Click) -> Window:
        """The window around what a click finds in the whole picture, or the whole, if a window is not worth it."""
        found = self._probability((click,), self.whole) > 0.5
        rows, columns = (found.any(axis).nonzero()[:, 0].tolist() for axis in (1, 0))
        if not rows:
            return self.whole
        height, width = self.size
        tall, wide = rows[-1] + 1 - rows[0], columns[-1] + 1 - columns[0]
        share = max(_MARGIN * max(tall / height, wide / width), _WINDOW[0])  # of both sides: squashed as the picture is
        if share > _WINDOW[1]:
            return self.whole
        tall, wide = round(share * height), round(share * width)
        top = min(max((rows[0] + rows[-1] + 1 - tall) // 2, 0), height - tall)
        left = min(max((columns[0] + columns[-1] + 1 - wide) // 2, 0), width - wide)
        return left, top, left + wide, top + tall

    @torch.inference_mode()
    def _probability(self, clicks: tuple[Click, ...], window: Window) -> torch.Tensor:
        """(H, W); 0 outside of the window."""
        left, top, right, bottom = window
        logits = self._logits(clicks, window)
        inside = F.interpolate(logits, size=(bottom - top, right - left), mode="bilinear", align_corners=False)
        return F.pad(inside[0, 0].sigmoid(), (left, self.whole[2] - right, top, self.whole[3] - bottom))

    def _logits(self, clicks: tuple[Click, ...], window: Window) -> torch.Tensor:
        """(1, 1, h, w) of a window; every click sees the mask of those before it."""
        if (clicks, window) not in self.known:
            left, top, right, bottom = window
            if window not in self.features:
                self.features[window] = self._encode(
                    squash(self.image[top:bottom, left:right], self.image_size, self.device)
                )
            shifted = [(x - left, y - top, label) for x, y, label in clicks]
            given = to_tensor(shifted, (bottom - top, right - left))[None].to(self.device)
            previous = self._logits(clicks[:-1], window).sigmoid() if len(clicks) > 1 else None
            if self.flip:
                mirrored = torch.cat([1 - given[..., :1], given[..., 1:]], 2)
                given = torch.cat([given, mirrored])
                previous = None if previous is None else torch.cat([previous, previous.flip(-1)])
            with autocast(self.device):
                logits = self.model.decode(self.features[window], given, previous).float()
            self.known[clicks, window] = (logits[:1] + logits[1:].flip(-1)) / 2 if self.flip else logits
        return self.known[clicks, window]

    @torch.inference_mode()
    def _encode(self, image: torch.Tensor, tokens: torch.Tensor | None = None) -> list[torch.Tensor]:
        """Feature maps of a squashed picture, uint8 (1, 3, S, S), and of its mirror image with flip."""
        image = normalise(image.to(self.device), self.mean, self.std)
        images = torch.cat([image, image.flip(-1)]) if self.flip else image
        with autocast(self.device):
            return self.model.encode(images, None if tokens is None else tokens.to(self.device).float())
