"""Rows by click: the thing under a click, against the rest."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from utils.classes import named
from utils.inputs.clicks import Click, next_click, random_click, thing_mask
from utils.inputs.pictures import Sample, read_sample, rng_of
from utils.metrics import confusion_matrix, scores
from utils.rows.by_class import ByClass
from utils.rows.class_prior import ClassPrior
from utils.rows.click_predictor import PointPredictor
from utils.rows.row import OnPrediction, Read, Row, Segment, Segmentation, read_batches

CLICKED = named(("background", "the thing clicked"))  # the ids of a prediction


@dataclass(eq=False)
class ByClick(Row):
    """A model of pictures and clicks, models.pointclip for example."""

    class_row: ByClass | None = None  # on the same encoder: with zoom the first answer is averaged with its class map

    prompt: ClassVar[str] = "click"

    @property
    def counted(self) -> tuple[str, ...]:
        return ("rest", "thing")

    @property
    def params_m(self) -> float:
        models = nn.ModuleList([self.model, self.class_row.model] if self.class_row else [self.model])
        return sum(parameter.numel() for parameter in models.parameters()) / 1e6  # the shared encoder once

    def score(
        self,
        samples: Sequence[Sample],
        on_prediction: OnPrediction | None = None,
        batch_size: int = 16,
        read: Read = read_sample,
        clicks: int = 1,
    ) -> torch.Tensor:
        """One click on the animal and one on the background of every picture, each at random by the file's name.

        Returns confusion matrices int64 (N, 2, 2) of rest and clicked thing. clicks: per answer; each
        one after the first is at the centre of the largest wrong region.
        """
        confusions = torch.zeros(len(samples), 2, 2, dtype=torch.int64)
        for [index], [image], [mask] in read_batches(samples, 1, self.name, read):
            segment, rng = self.open(image), rng_of(samples[index].name)
            for part in ("animal", "background"):
                found = random_click(mask, part == "animal", rng)
                if not found:
                    continue
                given, truth = [found[0]], thing_mask(mask, found[1])
                predicted = segment(given, "").ids
                while len(given) < clicks and (correction := next_click(truth, predicted > 0)):
                    given.append(correction)
                    predicted = segment(given, "").ids
                confusions[index] += confusion_matrix(torch.from_numpy(truth), torch.from_numpy(predicted), 2)
                if on_prediction:
                    on_prediction(index, predicted, part)
        return confusions

    def validate(self, samples: Sequence[Sample]) -> dict[str, float]:
        """The mean of the mIoU after one click and after three ("score"), and both."""
        one, three = (scores(self.score(samples, clicks=clicks), self.counted)["miou"] for clicks in (1, 3))
        return {"score": (one + three) / 2, "one_click": one, "three_clicks": three}

    def open(self, image: np.ndarray) -> Segment:
        adjust = None
        if self.class_row and self.zoom:
            self.class_row.flip = self.flip
            adjust = ClassPrior(self.class_row, image).adjust
        predictor = PointPredictor(self, image, adjust)

        def segment(clicks: Sequence[Click] = (), text: str = "") -> Segmentation:
            self.refuse_other_prompts((), text)
            mask, expected_iou = predictor.predict(clicks)
            return Segmentation(mask.astype(np.uint8), CLICKED, expected_iou)

        return segment
