"""The class map of a row by class as a prior for the first click: the class under it, and where that class is."""

import numpy as np
import torch

from utils.inputs.clicks import Click
from utils.inputs.windows import similar_window
from utils.rows.by_class import ByClass

_WEIGHT = 0.8  # of the class map if it is certain of the class under the click
_CERTAIN = 0.95  # probability of background, or of a thing, under a click; below it a crop around the click is used too
_CROP = 0.4  # side of that crop, as a fraction of the picture's
_AREA = 0.1  # lower bound on the assumed area of foreground and background, as a fraction of the picture


class ClassPrior:
    """Averages the answer to a first click with the probability of the class under the click.

    Clicks on foreground and background are assumed equally likely, whatever their area, as in the protocol with one of
    each per picture: the map's probabilities are divided by the areas (Bayes' theorem).
    """

    def __init__(self, row: ByClass, image: np.ndarray):
        self.row, self.image = row, image
        self.classes = row.class_map(image, torch.float16)  # (C, H, W)

    def adjust(self, answer: torch.Tensor, click: Click) -> torch.Tensor:
        """Probabilities (H, W) of the thing under a positive click, changed in place; unchanged for a negative one."""
        x, y, label = click
        if not label:
            return answer
        under = self._class_under(x, y)
        certainty = (under.max() * len(under) - 1) / (len(under) - 1)  # 0 where all classes are equally likely
        weight = _WEIGHT * min(1.5 * certainty, 1)  # the full weight from two thirds on
        return answer.mul_(1 - weight).add_(weight * self.classes[under.argmax()])

    def _class_under(self, x: int, y: int) -> torch.Tensor:
        """Probabilities (C,) of the classes under a click.

        If the map is unsure whether that is background, its probability of background is averaged with that from a
        crop around the click. The crop shows too little to tell which thing it is.
        """
        under = self.classes[:, y, x].float()
        area = self.classes[0].mean(dtype=torch.float32).clamp(_AREA, 1 - _AREA)
        background = under[0]
        if 1 - _CERTAIN < _given_a_click(background, area) < _CERTAIN:
            clicked = np.zeros(self.image.shape[:2], bool)
            clicked[y, x] = True
            left, top, right, bottom = similar_window(clicked, 1, _CROP, 1)
            crop = self.row.class_map(self.image[top:bottom, left:right])
            background = (background + crop[0, y - top, x - left]) / 2
        background = _given_a_click(background, area)
        things = under[1:] / under[1:].sum().clamp(min=1e-6) * (1 - background)
        return torch.cat([background[None], things])


def _given_a_click(background: torch.Tensor, area: torch.Tensor) -> torch.Tensor:
    """Bayes' theorem: probability that a clicked pixel is background, which covers the fraction `area`."""
    on_background, on_thing = background * (1 - area), (1 - background) * area
    return on_background / (on_background + on_thing)
