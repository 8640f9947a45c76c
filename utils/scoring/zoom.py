"""A closer look: every part that a model finds in the whole picture is seen a second time, in a window of its own."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage

from utils.inputs.pictures import resize_image
from utils.inputs.windows import Window, window_around

# squashed uint8 pictures (N, 3, S, S) -> probabilities (N, C, h, w), and logits (N, C - 1) of each as a whole, or None
Look = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor | None]]
SMALLEST = 0.002  # of the picture; smaller parts are not looked at
PARTS = 4  # in one picture, the largest ones
WEIGHT = 2.0  # of a window's probabilities, those of the whole picture having 1
NEARLY_ALL = 0.8  # of the picture: such a window would show nothing new


def look_closer(
    look: Look, images: Sequence[np.ndarray], image_size: int, device: torch.device
) -> Iterator[torch.Tensor]:
    """Pictures uint8 (H, W, 3) of any sizes -> each picture's probabilities (C, H, W), at its own size.

    Inside of a window the probabilities are the weighted mean of the window's and the whole picture's (zoom-in of
    Sofiiuk et al., f-BRS, CVPR 2020). If look() classifies windows, a whole part gets the class of its window: the
    outline is decided per pixel, the class once per part (as in MaskFormer, Cheng et al., NeurIPS 2021).
    """

    def look_at(crops: np.ndarray) -> list[tuple[torch.Tensor, int]]:
        probabilities, names = look(torch.from_numpy(crops).movedim(-1, 1).to(device))
        named = [0] * len(crops) if names is None else (1 + names.argmax(1)).tolist()
        return list(zip(probabilities.float().cpu(), named, strict=True))

    wholes = look_at(np.stack([resize_image(image, image_size) for image in images]))
    parts = [parts_of((whole[1:].sum(0) > 0.5).numpy()) for whole, _ in wholes]
    windows = [[window_around(part, image.shape[:2]) for part in own] for own, image in zip(parts, images, strict=True)]
    new = [
        (image, window)
        for image, own in zip(images, windows, strict=True)
        for window in own
        if not nearly_all(window, image.shape[:2])
    ]
    crops = [resize_image(image[top:bottom, left:right], image_size) for image, (left, top, right, bottom) in new]
    batches = [crops[start : start + len(images)] for start in range(0, len(crops), len(images))]
    closer = iter([seen for batch in batches for seen in look_at(np.stack(batch))])

    for image, (whole, name), own_parts, own_windows in zip(images, wholes, parts, windows, strict=True):
        size = image.shape[:2]
        result, weight = _resize(whole, size), torch.ones(1, *size)
        owner, named = torch.full(size, -1), []  # the part that a pixel belongs to, and the class of every part
        for number, (part, window) in enumerate(zip(own_parts, own_windows, strict=True)):
            left, top, right, bottom = window
            box = slice(top, bottom), slice(left, right)
            if nearly_all(window, size):
                named.append(name)
            else:
                seen, its_name = next(closer)
                named.append(its_name)
                result[:, *box] += WEIGHT * _resize(seen, (bottom - top, right - left))
                weight[:, *box] += WEIGHT
            owner[box][owner[box] < 0] = number  # of what only the window shows
            owner[_resize(torch.from_numpy(part)[None].float(), size)[0] > 0] = number
        result /= weight
        for number, its_class in enumerate(named):
            if its_class:
                here = owner == number
                thing = result[1:, here].sum(0)
                result[1:, here] = 0
                result[its_class, here] = thing
        yield result


def parts_of(found: np.ndarray) -> list[np.ndarray]:
    """The connected parts of what was found, bool (h, w), largest first: bool (h, w) each."""
    labels, _ = ndimage.label(found)
    sizes = np.bincount(labels.ravel())[1:]
    return [labels == part + 1 for part in np.argsort(-sizes)[:PARTS] if sizes[part] >= SMALLEST * found.size]


def nearly_all(window: Window, size: tuple[int, int]) -> bool:
    left, top, right, bottom = window
    return (right - left) * (bottom - top) > NEARLY_ALL * size[0] * size[1]


def _resize(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return F.interpolate(maps[None], size=size, mode="bilinear", align_corners=False)[0]
