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
Names = Callable[[torch.Tensor], torch.Tensor]  # likewise -> the logits (N, C - 1) alone
Probabilities = Callable[[slice], torch.Tensor]  # rows of a picture -> float32 (C, rows, W)
SMALLEST = 0.002  # of the picture; smaller parts are not looked at
PARTS = 4  # in one picture, the largest ones
WEIGHT = 2.0  # of a window's probabilities, those of the whole picture having 1
NEARLY_ALL = 0.8  # of the picture: such a window would show nothing new


def look_closer(
    look: Look, names_of_mirror: Names | None, images: Sequence[np.ndarray], image_size: int, device: torch.device
) -> Iterator[Probabilities]:
    """Pictures uint8 (H, W, 3) of any sizes -> each picture's probabilities, at its own size.

    Inside of a window the probabilities are the weighted mean of the window's and the whole picture's (zoom-in of
    Sofiiuk et al., f-BRS, CVPR 2020). If look() classifies windows, a whole part gets the class of its window and that
    window's mirror image: the outline is decided per pixel, the class once per part (as in MaskFormer, Cheng et al.,
    NeurIPS 2021). names_of_mirror: None if mirror images are among the views that look() takes.
    """

    def stack(crops: Sequence[np.ndarray]) -> torch.Tensor:
        return torch.from_numpy(np.stack(crops)).movedim(-1, 1).to(device)

    def classes(crops: torch.Tensor, names: torch.Tensor | None) -> list[int]:
        if names is None:
            return [0] * len(crops)
        if names_of_mirror:
            names = names + names_of_mirror(crops)
        return (1 + names.argmax(1)).tolist()

    squashed = stack([resize_image(image, image_size) for image in images])
    wholes, names_of_wholes = look(squashed)
    wholes = wholes.float().cpu()
    parts = [parts_of((whole[1:].sum(0) > 0.5).numpy()) for whole in wholes]
    windows = [[window_around(part, image.shape[:2]) for part in own] for own, image in zip(parts, images, strict=True)]
    wanted = [
        (number, window)
        for number, (image, own) in enumerate(zip(images, windows, strict=True))
        for window in own
        if not nearly_all(window, image.shape[:2])
    ]
    closer = {}  # picture and window -> its probabilities and its class
    for start in range(0, len(wanted), len(images)):
        some = wanted[start : start + len(images)]
        crops = [images[number][top:bottom, left:right] for number, (left, top, right, bottom) in some]
        batch = stack([resize_image(crop, image_size) for crop in crops])
        seen, names = look(batch)
        closer |= zip(some, zip(seen.float().cpu(), classes(batch, names), strict=True), strict=True)
    # A part that fills nearly all of its picture gets the picture's class.
    full = [number for number, own in enumerate(windows) if any((number, window) not in closer for window in own)]
    class_of = {}
    if full and names_of_wholes is not None:
        class_of = dict(zip(full, classes(squashed[full], names_of_wholes[full]), strict=True))

    for number, (image, whole) in enumerate(zip(images, wholes, strict=True)):
        seen = [closer.get((number, window)) for window in windows[number]]
        yield _merge(whole, class_of.get(number, 0), parts[number], windows[number], seen, image.shape[:2])


def _merge(
    whole: torch.Tensor,
    class_of_whole: int,
    parts: Sequence[np.ndarray],
    windows: Sequence[Window],
    closer: Sequence[tuple[torch.Tensor, int] | None],
    size: tuple[int, int],
) -> Probabilities:
    """Combine both looks at one picture.

    closer: of every part the probabilities in its window and the class of the whole part, or None where the whole
    picture shows it as well; then its class is class_of_whole. Class 0: the pixels keep their own classes.
    """
    named = [seen[1] if seen else class_of_whole for seen in closer]  # the class of every part

    def merged(rows: slice) -> torch.Tensor:
        result = resize_rows(whole, size, rows)
        weight = torch.ones(1, *result.shape[1:])
        owner = torch.full(result.shape[1:], -1)  # the part that a pixel belongs to
        for number, (part, window, seen) in enumerate(zip(parts, windows, closer, strict=True)):
            left, top, right, bottom = window
            first, last = max(top, rows.start), min(bottom, rows.stop)
            if first < last:
                box = slice(first - rows.start, last - rows.start), slice(left, right)
                if seen:
                    inside = slice(first - top, last - top)
                    result[:, *box] += WEIGHT * resize_rows(seen[0], (bottom - top, right - left), inside)
                    weight[:, *box] += WEIGHT
                owner[box][owner[box] < 0] = number  # of what only the window shows
            owner[resize_rows(torch.from_numpy(part)[None].float(), size, rows)[0] > 0] = number
        result /= weight
        for number, its_class in enumerate(named):
            if its_class:
                here = owner == number
                thing = result[1:, here].sum(0)
                result[1:, here] = 0
                result[its_class, here] = thing
        return result

    return merged


def parts_of(found: np.ndarray) -> list[np.ndarray]:
    """The connected parts of what was found, bool (h, w), largest first: bool (h, w) each."""
    labels, _ = ndimage.label(found)
    sizes = np.bincount(labels.ravel())[1:]
    return [labels == part + 1 for part in np.argsort(-sizes)[:PARTS] if sizes[part] >= SMALLEST * found.size]


def nearly_all(window: Window, size: tuple[int, int]) -> bool:
    left, top, right, bottom = window
    return (right - left) * (bottom - top) > NEARLY_ALL * size[0] * size[1]


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
