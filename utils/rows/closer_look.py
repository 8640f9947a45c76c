"""A closer look: every part found in the whole picture is seen a second time, in a crop of its own."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from scipy import ndimage

from utils.inputs.windows import window_around
from utils.rows.row import resized

# pictures -> logits (N, C, h, w), and the logits (N, C - 1) of each as a whole, or None
Look = Callable[[Sequence[np.ndarray]], tuple[torch.Tensor, torch.Tensor | None]]

SMALLEST = 0.002  # skip parts smaller than this fraction of the picture
PARTS = 4  # number of parts at most, the largest ones
WEIGHT = 2.0  # of a crop's probabilities; the whole picture's have weight 1


def look_closer(look: Look, images: Sequence[np.ndarray]) -> Iterator[torch.Tensor]:
    """Pictures uint8 (H, W, 3) of any sizes -> logits (C, H, W) of each.

    Inside a crop the probabilities are the weighted mean of the crop's and the whole picture's (zoom-in of Sofiiuk et
    al., f-BRS, CVPR 2020). If look() also classifies crops as a whole, all pixels of a part get the class of its crop:
    the outline is decided per pixel, the class once per part (as in MaskFormer, Cheng et al., NeurIPS 2021).
    """
    for image, logits in zip(images, look(images)[0], strict=True):
        whole, size = logits.float().softmax(0).cpu(), image.shape[:2]
        parts = parts_of((whole[1:].sum(0) > 0.5).numpy())
        windows = [window_around(part, size) for part in parts]
        crops = [image[top:bottom, left:right] for left, top, right, bottom in windows]
        seen, names = look(crops) if crops else ((), None)
        result, weight = resized(whole, size), torch.ones(1, *size)
        owner = torch.full(size, -1)  # number of the part that a pixel belongs to
        for number, (part, (left, top, right, bottom)) in enumerate(zip(parts, windows, strict=True)):
            box = slice(top, bottom), slice(left, right)
            closer = resized(seen[number].float().softmax(0).cpu(), (bottom - top, right - left))
            result[:, *box] += WEIGHT * closer
            weight[:, *box] += WEIGHT
            owner[box][owner[box] < 0] = number  # pixels found only in the crop
            owner[resized(torch.from_numpy(part)[None], size)[0] > 0] = number
        result /= weight
        for number, class_id in enumerate([] if names is None else (1 + names.argmax(1)).tolist()):
            here = owner == number
            thing = result[1:, here].sum(0)
            result[1:, here] = 0
            result[class_id, here] = thing
        yield result.clamp_(min=1e-30).log_()


def parts_of(found: np.ndarray) -> list[np.ndarray]:
    """The connected parts of a mask, bool (h, w), largest first: bool (h, w) each."""
    labels, _ = ndimage.label(found)
    sizes = np.bincount(labels.ravel())[1:]
    return [labels == part + 1 for part in np.argsort(-sizes)[:PARTS] if sizes[part] >= SMALLEST * found.size]
