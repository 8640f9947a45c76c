"""Segmenting a picture by clicks with a trained PointCLIP; the calls are those of Segment Anything's predictor."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage

from utils.device import autocast
from utils.errors import UserError
from utils.inputs.augment import normalise
from utils.inputs.clicks import Click, distance_to_edge, next_click, to_tensor
from utils.inputs.pictures import bands
from utils.inputs.windows import Window, similar_window
from utils.scoring.by_class import squash

_MARGIN = 1.4  # a window's side, of that of what it is around
_THING = 0.2  # the side of the thing's window, at least, of the picture's
_CHANGE = 0.5  # that of what a further click changes: smaller ones show too little of the thing
_WORTH = 0.7  # of the side of what was encoded already: larger windows are not worth a second encoding
_MIDDLE = 0.75  # of the largest distance to a part's edge: a click at least that far from it is about the whole part
_CLASS_MAP = 0.8  # weight of a class map that is sure of the class under the click
_SURE = 0.95  # probability of background, or of a thing, under a click; below it a window around the click is seen too
_AROUND = 0.4  # the side of that window, of the picture's
_LEAST = 0.1  # of the picture, that things and the background are each taken to cover at least


class PointPredictor:
    """A trained PointCLIP on one picture at a time: set_image() once, then predict() for any number of clicks.

    mean, std: of the encoder; flip: average with the prediction on the mirror image; zoom: look closer. The window
    around what the first click finds, if that is small, is encoded too, and the clicks are answered there (zoom-in of
    Sofiiuk et al., f-BRS, CVPR 2020). Every further click corrects the answer before it: first the connected region
    that the click is in, then what a window around that region shows (progressive merge and local refinement of Chen
    et al., CVPR 2022). A click on the rest in the middle of a connected part of the mask removes all of it, unless a
    click on the thing is there too.
    class_map: picture (H, W, 3) and dtype -> probabilities (C, H, W) of a row by class. With zoom, the first answer is
    averaged with the probability of the class under the click; its weight grows with that probability at the click.
    Where the map is not sure whether the click is on the background, that of a window around the click has a say too.
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
        class_map: Callable[..., torch.Tensor] | None = None,
        precision: str = "fp32",
    ):
        self.model, self.image_size, self.device, self.flip, self.zoom = model, image_size, device, flip, zoom
        self.mean, self.std, self.class_map, self.precision = mean, std, class_map, precision
        self.size = None

    def set_image(self, image: np.ndarray) -> None:
        """Encode a picture, uint8 (H, W, 3)."""
        self._start(squash(image, self.image_size, self.device), image.shape[:2])
        self.image = image
        self.classes = self.class_map(image, dtype=torch.half) if self.zoom and self.class_map else None

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
        self.answers = {}  # clicks, with zoom -> probabilities (H, W)

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
        probability = self._answer(clicks)
        mask = probability > 0.5
        inside, outside = 0, mask.sum()
        for rows in bands(height, width):
            part = probability[rows].float()
            inside += (part * mask[rows]).sum()  # an index takes 16 bytes a pixel
            outside = outside + (part * ~mask[rows]).sum()
        score = inside / outside.clamp(min=1e-6)
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
        return similar_window(found.cpu().numpy(), _MARGIN, _THING, _WORTH) or self.whole

    @torch.inference_mode()
    def _answer(self, clicks: tuple[Click, ...]) -> torch.Tensor:
        """Probabilities (H, W) after the last of the clicks, with zoom as float16."""
        window = self._window(clicks)
        if not self.zoom:
            return self._probability(clicks, window)
        if clicks not in self.answers:
            answer = self._further(clicks, window) if len(clicks) > 1 else self._first(clicks[0], window)
            self.answers[clicks] = answer.half()  # a photo of 12 megapixels has 24 MB
            del answer
        return self.answers[clicks]

    def _first(self, click: Click, window: Window) -> torch.Tensor:
        """Probabilities (H, W): what the click finds, and where the class under a click on the thing is."""
        x, y, label = click
        answer = self._probability((click,), window)
        if self.classes is None or not label:
            return answer
        under = self._class_under(x, y)
        sure = (under.max() * len(under) - 1) / (len(under) - 1)  # 0 where all classes are equally likely
        weight = _CLASS_MAP * min(1.5 * sure, 1)  # all of it from two thirds on
        for rows in bands(*self.size):  # in place: a photo's has 100 MB
            answer[rows].mul_(1 - weight).add_(weight * self.classes[under.argmax(), rows])
        return answer

    def _class_under(self, x: int, y: int) -> torch.Tensor:
        """Probabilities (C,) of the classes under a click.

        A click is taken to be as likely on a thing as on the background, however much of the picture each covers: the
        map's probabilities are divided by these shares. Where that leaves it unsure, their mean with those of a window
        decides between background and thing. The window shows too little to tell which thing it is.
        """
        under = self.classes[:, y, x].float()
        share = self.classes[0].mean(dtype=torch.float32).clamp(_LEAST, 1 - _LEAST)
        background = under[0]
        if 1 - _SURE < _of_click(background, share) < _SURE:
            left, top, right, bottom = similar_window(self._only(x, y), 1, _AROUND, 1)
            background = (background + self.class_map(self.image[top:bottom, left:right])[0, y - top, x - left]) / 2
        background = _of_click(background, share)
        things = under[1:] / under[1:].sum().clamp(min=1e-6) * (1 - background)
        return torch.cat([background[None], things])

    def _further(self, clicks: tuple[Click, ...], window: Window) -> torch.Tensor:
        """The answer (H, W) to the clicks before the last one, corrected by that."""
        before = self._answer(clicks[:-1]).float()
        unwanted = _unwanted_part(before, clicks)
        if unwanted is not None:
            return before.masked_fill(unwanted, 0)
        answer, changed = self._correct(before, clicks, window)
        seen = (window[2] - window[0]) / self.size[1]  # its side, of the picture's
        closer = similar_window(changed, _MARGIN, _CHANGE, _WORTH * seen)
        return self._look_closer(answer, clicks, closer) if closer else answer

    def _only(self, x: int, y: int) -> np.ndarray:
        """Bool (H, W), with that pixel alone."""
        pixel = np.zeros(self.size, bool)
        pixel[y, x] = True
        return pixel

    def _correct(
        self, before: torch.Tensor, clicks: tuple[Click, ...], window: Window
    ) -> tuple[torch.Tensor, np.ndarray]:
        """The answer before the last click, corrected in the connected region that the click is in; and that region.

        Both are (H, W). Where the model changes nothing under the click the answer stays, and the region is that pixel.
        """
        x, y, _ = clicks[-1]
        answer = self._look(before, clicks, window)
        regions = _differences(answer, before)
        if not regions[y, x]:
            return before, self._only(x, y)
        changed = regions == regions[y, x]
        return torch.where(torch.from_numpy(changed).to(self.device), answer, before, out=answer), changed

    def _look_closer(self, before: torch.Tensor, clicks: tuple[Click, ...], window: Window) -> torch.Tensor:
        """The answer (H, W) as a closer look changes it, but for changed regions that the window's edge cuts off."""
        x, y, _ = clicks[-1]
        left, top, right, bottom = window
        answer = self._look(before, clicks, window)
        regions = _differences(answer, before)
        shown = np.zeros(self.size, bool)
        shown[top:bottom, left:right] = True
        edge = shown & ~ndimage.binary_erosion(shown, border_value=True)  # the picture's own cuts nothing off
        cut_off = np.isin(regions, np.setdiff1d(regions[edge], [0, regions[y, x]]))
        return torch.where(torch.from_numpy(cut_off).to(self.device), before, answer, out=answer)

    def _look(self, answer: torch.Tensor, clicks: tuple[Click, ...], window: Window) -> torch.Tensor:
        """The answer (H, W) with what the model says in the window, given that answer and the clicks."""
        left, top, right, bottom = window
        part = answer[top:bottom, left:right]
        inside = [(x, y, label) for x, y, label in clicks if left <= x < right and top <= y < bottom]
        if not any(label for *_, label in inside):  # the model needs to know what the thing is
            on_thing = next_click((part > 0.5).cpu().numpy().astype(np.uint8), np.zeros(part.shape, bool))
            if not on_thing:
                return answer
            inside.insert(0, (left + on_thing[0], top + on_thing[1], 1))
        size = self.features[self.whole][0].shape[-2:]
        previous = F.interpolate(part[None, None], size=size, mode="bilinear", align_corners=False)
        answer = answer.clone()
        answer[top:bottom, left:right] = _resized(self._decode(window, inside, previous), part.shape).sigmoid()
        return answer

    @torch.inference_mode()
    def _probability(self, clicks: tuple[Click, ...], window: Window) -> torch.Tensor:
        """(H, W); 0 outside of the window."""
        left, top, right, bottom = window
        inside = _resized(self._logits(clicks, window), (bottom - top, right - left)).sigmoid_()
        if window == self.whole:
            return inside
        return F.pad(inside, (left, self.whole[2] - right, top, self.whole[3] - bottom))

    def _logits(self, clicks: tuple[Click, ...], window: Window) -> torch.Tensor:
        """(1, 1, h, w) of a window; every click sees the mask of those before it."""
        if (clicks, window) not in self.known:
            previous = self._logits(clicks[:-1], window).sigmoid() if len(clicks) > 1 else None
            self.known[clicks, window] = self._decode(window, clicks, previous)
        return self.known[clicks, window]

    def _decode(self, window: Window, clicks: Sequence[Click], previous: torch.Tensor | None) -> torch.Tensor:
        """Logits (1, 1, h, w) of a window, which is encoded once; clicks inside of it; previous as in PointCLIP."""
        left, top, right, bottom = window
        if window not in self.features:
            crop = self.image[top:bottom, left:right]
            self.features[window] = self._encode(squash(crop, self.image_size, self.device))
        shifted = [(x - left, y - top, label) for x, y, label in clicks]
        given = to_tensor(shifted, (bottom - top, right - left))[None].to(self.device)
        if self.flip:
            given = torch.cat([given, torch.cat([1 - given[..., :1], given[..., 1:]], 2)])
            previous = None if previous is None else torch.cat([previous, previous.flip(-1)])
        with autocast(self.device, self.precision):
            logits = self.model.decode(self.features[window], given, previous).float()
        return (logits[:1] + logits[1:].flip(-1)) / 2 if self.flip else logits

    @torch.inference_mode()
    def _encode(self, image: torch.Tensor, tokens: torch.Tensor | None = None) -> list[torch.Tensor]:
        """Feature maps of a squashed picture, uint8 (1, 3, S, S), and of its mirror image with flip."""
        image = normalise(image.to(self.device), self.mean, self.std)
        images = torch.cat([image, image.flip(-1)]) if self.flip else image
        with autocast(self.device, self.precision):
            return self.model.encode(images, None if tokens is None else tokens.to(self.device).float())


def _of_click(background: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """Bayes' theorem: the probability that a pixel is background, which covers `share`, if it was clicked on."""
    on_background, on_thing = background * (1 - share), (1 - background) * share
    return on_background / (on_background + on_thing)


def _unwanted_part(answer: torch.Tensor, clicks: tuple[Click, ...]) -> torch.Tensor | None:
    """The connected part of the mask, bool (H, W), that a click on the rest is in the middle of, and that is to go.

    None if the last click is on the thing, outside of the mask or near the part's edge, or if a click on the thing is
    in the same part.
    """
    x, y, label = clicks[-1]
    mask = (answer > 0.5).cpu().numpy()
    if label or not mask[y, x]:
        return None
    parts, _ = ndimage.label(mask)
    part = parts == parts[y, x]
    del parts, mask  # of a photo they are large
    if any(part[row, column] for column, row, on_thing in clicks if on_thing):
        return None
    distance = distance_to_edge(part)
    return torch.from_numpy(part).to(answer.device) if distance[y, x] >= _MIDDLE * distance.max() else None


def _differences(answer: torch.Tensor, before: torch.Tensor) -> np.ndarray:
    """The connected regions in which two answers (H, W) differ, numbered from 1; 0 elsewhere."""
    regions, _ = ndimage.label(((answer > 0.5) != (before > 0.5)).cpu().numpy())
    return regions


def _resized(logits: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """(1, 1, h, w) -> (H, W)."""
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)[0, 0]
