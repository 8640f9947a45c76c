"""A closer look: every part found in the whole picture is seen a second time, in a crop of its own."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage

from utils.inputs.windows import Window, window_around

# A picture's logits at its own size, computed for some rows at once: float32 (C, rows, W).
# All rows of a photo of 24 megapixels would take gigabytes.
Maps = Callable[[slice], torch.Tensor]
# pictures -> logits (N, C, h, w), and the logits (N, C - 1) of each as a whole, or None
Look = Callable[[Sequence[np.ndarray]], tuple[torch.Tensor, torch.Tensor | None]]

SMALLEST = 0.002  # skip parts smaller than this fraction of the picture
PARTS = 4  # number of parts at most, the largest ones
WEIGHT = 2.0  # of a crop's probabilities; the whole picture's have weight 1


def look_closer(look: Look, images: Sequence[np.ndarray]) -> Iterator[Maps]:
    """Pictures uint8 (H, W, 3) of any sizes -> the logits of each.

    Inside a crop the probabilities are the weighted mean of the crop's and the whole picture's (zoom-in of Sofiiuk et
    al., f-BRS, CVPR 2020). If look() also classifies crops as a whole, all pixels of a part get the class of its crop:
    the outline is decided per pixel, the class once per part (as in MaskFormer, Cheng et al., NeurIPS 2021).
    """

    def probabilities(crops: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor | None]:
        logits, names = look(crops)
        return logits.float().softmax(1).cpu(), names

    for image, whole in zip(images, probabilities(images)[0], strict=True):
        parts = parts_of((whole[1:].sum(0) > 0.5).numpy())
        windows = [window_around(part, image.shape[:2]) for part in parts]
        crops = [image[top:bottom, left:right] for left, top, right, bottom in windows]
        seen, names = probabilities(crops) if crops else ((), None)
        classes = [] if names is None else (1 + names.argmax(1)).tolist()
        yield partial(_merged, whole, parts, windows, seen, classes, image.shape[:2])


def _merged(
    whole: torch.Tensor,
    parts: Sequence[np.ndarray],
    windows: Sequence[Window],
    seen: Sequence[torch.Tensor],
    classes: Sequence[int],
    size: tuple[int, int],
    rows: slice,
) -> torch.Tensor:
    """Logits at some rows: the whole picture (C, h, w) and the crops seen, each (C, h, w).

    classes: the ids of the parts, which are bool (h, w); empty: parts keep the class of each pixel.
    """
    result = resize_rows(whole, size, rows)
    weight = torch.ones(1, *result.shape[1:])
    owner = torch.full(result.shape[1:], -1)  # number of the part that a pixel belongs to
    for number, (part, (left, top, right, bottom)) in enumerate(zip(parts, windows, strict=True)):
        first, last = max(top, rows.start), min(bottom, rows.stop)
        if first < last:
            box = slice(first - rows.start, last - rows.start), slice(left, right)
            inside = slice(first - top, last - top)
            result[:, *box] += WEIGHT * resize_rows(seen[number], (bottom - top, right - left), inside)
            weight[:, *box] += WEIGHT
            owner[box][owner[box] < 0] = number  # pixels found only in the crop
        owner[resize_rows(torch.from_numpy(part)[None], size, rows)[0] > 0] = number
    result /= weight
    for number, class_id in enumerate(classes):
        here = owner == number
        thing = result[1:, here].sum(0)
        result[1:, here] = 0
        result[class_id, here] = thing
    return result.clamp_(min=1e-30).log_()


def parts_of(found: np.ndarray) -> list[np.ndarray]:
    """The connected parts of a mask, bool (h, w), largest first: bool (h, w) each."""
    labels, _ = ndimage.label(found)
    sizes = np.bincount(labels.ravel())[1:]
    return [labels == part + 1 for part in np.argsort(-sizes)[:PARTS] if sizes[part] >= SMALLEST * found.size]


def resize_rows(maps: torch.Tensor, size: tuple[int, int], rows: slice) -> torch.Tensor:
    """Some rows of maps (C, h, w) resized to (H, W), bilinear: float32 (C, rows, W)."""
    maps, (height, width) = maps.float(), size
    if (rows.start, rows.stop) == (0, height):
        return F.interpolate(maps[None], size=size, mode="bilinear", align_corners=False)[0]
    places = (torch.arange(rows.start, rows.stop, device=maps.device) + 0.5) * (maps.shape[1] / height) - 0.5
    places = places.clamp(min=0)
    above = places.long()
    below = (above + 1).clamp(max=maps.shape[1] - 1)
    seen = maps[:, above[0] : below[-1] + 1]
    seen = F.interpolate(seen[None], size=(seen.shape[1], width), mode="bilinear", align_corners=False)[0]
    share = (places - above)[:, None]
    return (1 - share) * seen[:, above - above[0]] + share * seen[:, below - above[0]]
