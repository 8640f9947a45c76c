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
SMALLEST = 0.002  # of the picture; smaller parts are not looked at
PARTS = 4  # in one picture, the largest ones
WEIGHT = 2.0  # of a window's probabilities, those of the whole picture having 1
NEARLY_ALL = 0.8  # of the picture: such a window would show nothing new


def look_closer(
    look: Look, names_of_mirror: Names | None, images: Sequence[np.ndarray], image_size: int, device: torch.device
) -> Iterator[torch.Tensor]:
    """Pictures uint8 (H, W, 3) of any sizes -> each picture's probabilities (C, H, W), at its own size.

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
) -> torch.Tensor:
    """Combine both looks at one picture: probabilities (C, H, W).

    closer: of every part the probabilities in its window and the class of the whole part, or None where the whole
    picture shows it as well; then its class is class_of_whole. Class 0: the pixels keep their own classes.
    """
    result, weight = _resize(whole, size), torch.ones(1, *size)
    owner, named = torch.full(size, -1), []  # the part that a pixel belongs to, and the class of every part
    for number, (part, window, seen) in enumerate(zip(parts, windows, closer, strict=True)):
        left, top, right, bottom = window
        box = slice(top, bottom), slice(left, right)
        named.append(seen[1] if seen else class_of_whole)
        if seen:
            result[:, *box] += WEIGHT * _resize(seen[0], (bottom - top, right - left))
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
    return result


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
