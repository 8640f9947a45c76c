"""Loss for segmentation with void pixels."""

import torch
import torch.nn.functional as F

from utils.classes import VOID


def segmentation_loss(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Cross-entropy + soft Dice. logits (N, C, h, w), resized to masks (N, H, W) int64 with VOID; scalar."""
    logits = logits.float().contiguous()  # not channels_last: the softmax is over 3 channels
    if logits.shape[-2:] != masks.shape[-2:]:
        logits = F.interpolate(logits, size=masks.shape[-2:], mode="bilinear", align_corners=False)
    if not (masks != VOID).any():  # cross-entropy over no pixel is 0 / 0
        return logits.sum() * 0.0
    cross_entropy = F.cross_entropy(logits, masks, ignore_index=VOID)
    return cross_entropy + soft_dice_loss(logits, masks)


def soft_dice_loss(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """1 - soft Dice (Milletari et al., 3DV 2016), over the batch, mean over the classes that occur in it.

    logits (N, C, H, W); masks (N, H, W) int64. Void pixels are masked out of both, classes without a pixel
    in the batch's masks are left out of the mean.
    """
    probabilities = logits.softmax(1)
    valid = (masks != VOID)[:, None]
    target = torch.stack([masks == index for index in range(logits.shape[1])], 1)  # (N, C, H, W)
    overlap = (probabilities * target).sum((0, 2, 3))
    size = target.sum((0, 2, 3))
    dice = 2 * overlap / ((probabilities * valid).sum((0, 2, 3)) + size).clamp(min=1e-6)
    return 1 - dice[size > 0].mean()
