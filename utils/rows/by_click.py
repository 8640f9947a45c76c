"""Rows by click: the thing under a click, against the rest."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import nn

from utils.classes import named
from utils.inputs.clicks import Click, next_click, random_click, thing_mask
from utils.inputs.pictures import Sample, rng_of
from utils.metrics import scores
from utils.rows.by_class import ByClass
from utils.rows.class_prior import ClassPrior
from utils.rows.click_predictor import PointPredictor
from utils.rows.row import Predictions, Row, Segment, Segmentation

CLICKED = named(("background", "the thing clicked"))  # the ids of a prediction


@dataclass(eq=False)
class ByClick(Row):
    """A model of pictures and clicks, models.pointclip for example.

    score() takes one click on the animal and one on the background of every picture, each at random by the file's
    name, and counts rest and clicked thing. Its option clicks: how many are given for each of the two masks; each one
    after the first is at the centre of the largest wrong region.
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
        adjust = None
        if self.class_row and self.zoom:
            self.class_row.flip = self.flip
            adjust = ClassPrior(self.class_row, image).adjust
        predictor = PointPredictor(self, image, adjust)

        def segment(clicks: Sequence[Click], text: str) -> Segmentation:
            mask, expected_iou = predictor.predict(clicks)
            return Segmentation(mask.astype(np.uint8), CLICKED, expected_iou)

        return segment
