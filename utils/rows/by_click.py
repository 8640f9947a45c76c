"""Rows by click: the thing under a click, against the rest. A picture is encoded once for all clicks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import nn

from utils.classes import named
from utils.device import autocast
from utils.errors import UserError
from utils.inputs.augment import normalise
from utils.inputs.clicks import Click, next_click, random_click, thing_mask, to_tensor
from utils.inputs.pictures import Sample, rng_of
from utils.inputs.windows import Window, contains, similar_window
from utils.metrics import scores
from utils.rows.by_class import ByClass
from utils.rows.class_prior import ClassPrior
from utils.rows.row import Predictions, Row, Segment, Segmentation, resized, squash

CLICKED = named(("background", "the thing clicked"))  # the ids of a prediction

# Sides are fractions of the picture's side.
_MARGIN = 1.4  # side of a window, as a multiple of the side of the mask inside
_THING = 0.2  # minimum side of the window around the thing
_CHANGE = 0.5  # minimum side of the window around what a later click changes
_WORTH = 0.7  # skip windows larger than this fraction of the region already encoded


@dataclass(eq=False)
class ByClick(Row):
    """A model of pictures and clicks, models.pointclip for example.

    score() gives one random click on the animal and one on the background of every picture, seeded by the file's name,
    and counts rest and clicked thing. Its option clicks: how many are given for each of the two masks; each one after
    the first is at the centre of the largest wrong region.
    """

    class_row: ByClass | None = None  # on the same encoder: with zoom the first answer is averaged with its class map

    prompt: ClassVar[str] = "click"

    @property
    def counted(self) -> tuple[str, ...]:
        return ("rest", "thing")

    @property
    def params_m(self) -> float:
        models = nn.ModuleList([self.model, self.class_row.model] if self.class_row else [self.model])
        return sum(parameter.numel() for parameter in models.parameters()) / 1e6  # the shared encoder counts once

    def _predict(
        self, samples: Sequence[Sample], images: Sequence[np.ndarray], masks: Sequence[np.ndarray], clicks: int = 1
    ) -> Predictions:
        for sample, image, mask in zip(samples, images, masks, strict=True):
            segment, rng, answers = self.open(image), rng_of(sample.name), []
            for part in ("animal", "background"):
                found = random_click(mask, part == "animal", rng)
                if not found:
                    continue
                given, truth = [found[0]], thing_mask(mask, found[1])
                ids = segment(given, "").ids
                while len(given) < clicks and (correction := next_click(truth, ids > 0)):
                    given.append(correction)
                    ids = segment(given, "").ids
                answers.append((truth, ids, part))
            yield answers

    def validate(self, samples: Sequence[Sample]) -> dict[str, float]:
        """The mean of the mIoU after one click and after three ("score"), and both."""
        one, three = (scores(self.score(samples, clicks=clicks), self.counted)["miou"] for clicks in (1, 3))
        return {"score": (one + three) / 2, "one_click": one, "three_clicks": three}

    def _open(self, image: np.ndarray) -> Segment:
        predictor = PointPredictor(self, image)

        def segment(clicks: Sequence[Click], text: str) -> Segmentation:
            mask, expected_iou = predictor.predict(clicks)
            return Segmentation(mask.astype(np.uint8), CLICKED, expected_iou)

        return segment


class PointPredictor:
    """A row by click on one picture, uint8 (H, W, 3), for any number of clicks.

    The first click is answered on the whole picture and, if the answer is small, once more in a window around it
    (zoom-in of Sofiiuk et al., f-BRS, CVPR 2020). Every later click corrects the previous answer: in the connected
    region of changes that contains the click, then in a window around that region (progressive merge and local
    refinement of Chen et al., FocalClick, CVPR 2022). A row without zoom uses no windows and no class map.
    """

    def __init__(self, row: ByClick, image: np.ndarray):
        self.row, self.image, self.prior = row, image, None
        if row.zoom and row.class_row:
            row.class_row.flip = row.flip
            self.prior = ClassPrior(row.class_row, image)
        self.size = height, width = image.shape[:2]
        self._whole = (0, 0, width, height)
        self._features = {}  # window -> feature maps
        self._answers = {}  # clicks -> probabilities (H, W) and the window around the thing: undoing a click is free
        self._encode(self._whole)

    @torch.inference_mode()
    def predict(self, clicks: Sequence[Click]) -> tuple[np.ndarray, float]:
        """Mask of the thing, bool (H, W), and the model's own estimate of its IoU, 0..1.

        Raises UserError for a click outside the picture, and without a click on the thing.
        """
        (height, width), clicks = self.size, tuple(map(tuple, clicks))
        for x, y, label in clicks:
            if not (0 <= x < width and 0 <= y < height):
                raise UserError(f"the click at {x},{y} is outside of the picture of {width} x {height} pixels")
            if label not in (0, 1):
                raise UserError(f"the click at {x},{y} has label {label}: 1 is on the thing, 0 on the rest")
        if not any(label for *_, label in clicks):
            raise UserError("at least one click must be on the thing (label 1)")
        probability = self._answer(clicks)[0].float()
        mask = probability > 0.5
        inside, union = (probability * mask).sum(), torch.where(mask, 1, probability).sum()  # expected pixels
        return mask.cpu().numpy(), float(inside / union.clamp(min=1e-6))

    def _answer(self, clicks: tuple[Click, ...]) -> tuple[torch.Tensor, Window]:
        """Probabilities (H, W) after the last click, and the window around the thing."""
        if clicks not in self._answers:
            answer, window = self._first(clicks[0]) if len(clicks) == 1 else self._correct(clicks)
            kept = answer.half() if self.row.zoom else answer  # halves the memory: 24 MB for a photo of 12 megapixels
            self._answers[clicks] = kept, window
        return self._answers[clicks]

    def _first(self, click: Click) -> tuple[torch.Tensor, Window]:
        answer, window = self._look(torch.zeros(self.size, device=self.row.device), (click,), self._whole), self._whole
        if self.row.zoom and click[2]:
            closer = similar_window((answer > 0.5).cpu().numpy(), _MARGIN, _THING, _WORTH)
            if closer and contains(closer, click):
                answer, window = self._look(answer.zero_(), (click,), closer), closer
        return (self.prior.adjust(answer, click) if self.prior else answer), window

    def _correct(self, clicks: tuple[Click, ...]) -> tuple[torch.Tensor, Window]:
        """The previous answer, corrected by the last click."""
        before, window = self._answer(clicks[:-1])
        before = before.float()
        around = window if all(contains(window, click) for click in clicks) else self._whole
        answer = self._look(before.clone(), clicks, around)
        regions, _ = ndimage.label(((answer > 0.5) != (before > 0.5)).cpu().numpy())
        x, y, _ = clicks[-1]
        changed = regions == regions[y, x]
        if regions[y, x]:
            torch.where(torch.from_numpy(changed).to(self.row.device), answer, before, out=answer)
        else:  # the model changes nothing under the click
            answer, changed = before, np.zeros_like(changed)
            changed[y, x] = True
        if self.row.zoom:
            closer = similar_window(changed, _MARGIN, _CHANGE, _WORTH * (around[2] - around[0]) / self.size[1])
            answer = self._look(answer, clicks, closer) if closer else answer
        return answer, window

    def _look(self, answer: torch.Tensor, clicks: tuple[Click, ...], window: Window) -> torch.Tensor:
        """Write the model's probabilities in a window into the answer (H, W), which is also the model's input."""
        row, (left, top, right, bottom) = self.row, window
        part = answer[top:bottom, left:right]
        inside = [(x - left, y - top, label) for x, y, label in clicks if contains(window, (x, y, label))]
        if len(clicks) > 1 and not any(label for *_, label in inside):  # the model needs a click on the thing
            on_thing = next_click((part > 0.5).cpu().numpy().astype(np.uint8), np.zeros(part.shape, bool))
            if not on_thing:
                return answer
            inside.insert(0, (*on_thing[:2], 1))
        features, previous = self._encode(window), None
        if len(clicks) > 1:
            previous = F.interpolate(part[None, None], features[0].shape[-2:], mode="bilinear", align_corners=False)
        given = to_tensor(inside, part.shape)[None].to(row.device)  # (1, K, 3)
        if row.flip:
            given = torch.cat([given, torch.cat([1 - given[..., :1], given[..., 1:]], 2)])
            previous = None if previous is None else torch.cat([previous, previous.flip(-1)])
        with autocast(row.device, row.precision):
            logits = row.model.decode(features, given, previous).float()
        logits = (logits[:1] + logits[1:].flip(-1)) / 2 if row.flip else logits
        part[:] = resized(logits[0], part.shape)[0].sigmoid()
        return answer

    @torch.inference_mode()
    def _encode(self, window: Window) -> list[torch.Tensor]:
        """Feature maps of a window and, with flip, of its mirror image; computed once."""
        if window not in self._features:
            left, top, right, bottom = window
            row, crop = self.row, self.image[top:bottom, left:right]
            image = normalise(squash([crop], row.image_size, row.device), row.mean, row.std)
            with autocast(row.device, row.precision):
                self._features[window] = row.model.encode(torch.cat([image, image.flip(-1)]) if row.flip else image)
        return self._features[window]
