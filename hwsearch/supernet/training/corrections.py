"""The second click of interactive segmentation: where the first answer was wrong."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def corrective_clicks(
    logits: Tensor, masks: Tensor, inside: Tensor, *, cell: float, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """One click for each prompt, drawn evenly from the cells where the prediction is wrong.

    A missed cell gets a foreground click, a false one a background click (Segment Anything, arXiv
    2304.02643, appendix A). Where nothing is wrong, the click confirms the object.

    Args:
        logits: B×P×S×S mask logits.
        masks: B×P×S×S soft masks.
        inside: B×S×S, False on the padding, which nobody clicks on.
        cell: pixels of the input frame that a cell is wide.
        rng: source of the draw.

    Returns:
        B×P×1×2 points, (x, y) as pixel indices of the input frame, and B×P×1 labels, 1 or 0.
    """
    # A mask thinner than half a cell everywhere is where it is thickest.
    thickest = masks.amax(dim=(-2, -1), keepdim=True)
    truth = masks > torch.where(thickest > 0.5, 0.5, thickest / 2)
    wrong = ((logits > 0) != truth) & inside.unsqueeze(1)
    faultless = ~wrong.flatten(2).any(dim=-1)[..., None, None]
    wanted = torch.where(faultless, masks, wrong.float()).flatten(2)
    lot = torch.from_numpy(rng.random(wanted.shape, np.float32)).to(wanted.device)
    chosen = (wanted * (0.5 + lot)).argmax(dim=-1, keepdim=True)
    row, column = chosen // masks.shape[-1], chosen % masks.shape[-1]
    points = (torch.stack([column, row], dim=-1).float() + 0.5) * cell - 0.5
    hit = truth.flatten(2).gather(-1, chosen) | faultless[..., 0]
    return points, hit.long()
