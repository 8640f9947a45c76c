"""A closer look: every part that a model finds in the whole picture is seen a second time, in a crop of its own."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage

from utils.inputs.windows import Window, window_around
from utils.rows.row import squash

# squashed uint8 pictures (N, 3, S, S) -> logits (N, C, h, w), and logits (N, C - 1) of each as a whole, or None
Look = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor | None]]
Maps = Callable[[slice], torch.Tensor]  # rows of a picture at its own size -> its logits there, float32 (C, rows, W)
SMALLEST = 0.002  # skip parts smaller than this fraction of the picture
PARTS = 4  # of a picture at most, the largest ones
WEIGHT = 2.0  # of a crop's probabilities; those of the whole picture have 1


def look_closer(look: Look, images: Sequence[np.ndarray], image_size: int, device: torch.device) -> Iterator[Maps]:
    """Pictures uint8 (H, W, 3) of any sizes -> the logits of each, at its own size.

    Inside of a crop the probabilities are the weighted mean of the crop's and the whole picture's (zoom-in of Sofiiuk
    et al., f-BRS, CVPR 2020). If look() classifies crops, a whole part gets the class of its crop: outlines are decided
    per pixel, the class once per part (as in MaskFormer, Cheng et al., NeurIPS 2021).
    """

    def probabilities(crops: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor | None]:
        logits, names = look(squash(crops, image_size, device))
        return logits.float().softmax(1).cpu(), names

    for image, whole in zip(images, probabilities(images)[0], strict=True):
        parts = parts_of((whole[1:].sum(0) > 0.5).numpy())
        windows = [window_around(part, image.shape[:2]) for part in parts]
        crops = [image[top:bottom, left:right] for left, top, right, bottom in windows]
        seen, names = probabilities(crops) if crops else (torch.empty(0), None)
        yield _merge(whole, parts, windows, seen, names, image.shape[:2])


def _merge(
    whole: torch.Tensor,
    parts: Sequence[np.ndarray],
    windows: Sequence[Window],
    seen: torch.Tensor,
    names: torch.Tensor | None,
    size: tuple[int, int],
) -> Maps:
    """Combine the whole picture (C, h, w) with the crops (parts, C, h, w) and their names (parts, C - 1)."""

    def maps(rows: slice) -> torch.Tensor:
        result = resize_rows(whole, size, rows)
        weight = torch.ones(1, *result.shape[1:])
        owner = torch.full(result.shape[1:], -1)  # the part that a pixel belongs to
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
        for number, name in enumerate([] if names is None else names.argmax(1).tolist()):
            here = owner == number
            thing = result[1:, here].sum(0)
            result[1:, here] = 0
            result[1 + name, here] = thing
        return result.clamp_(min=1e-30).log_()

    return maps


def parts_of(found: np.ndarray) -> list[np.ndarray]:
    """The connected parts of what was found, bool (h, w), largest first: bool (h, w) each."""
    labels, _ = ndimage.label(found)
    sizes = np.bincount(labels.ravel())[1:]
    return [labels == part + 1 for part in np.argsort(-sizes)[:PARTS] if sizes[part] >= SMALLEST * found.size]


def resize_rows(maps: torch.Tensor, size: tuple[int, int], rows: slice) -> torch.Tensor:
    """Some rows of maps (C, h, w) as they are at size (H, W), bilinear: float32 (C, rows, W).

    Of a picture that is no larger than a band these are all rows.
    """
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
