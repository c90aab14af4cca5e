"""Temporal consistency: a prediction should change from frame to frame as the target does."""

import torch.nn.functional as F
from torch import Tensor, nn


def temporal_consistency_loss(pred: Tensor, target: Tensor) -> Tensor:
    """L1 distance of the differences of neighbouring frames.

        mean |(p[t+1] - p[t]) - (q[t+1] - q[t])|

    Args:
        pred, target: (B, C, T, H, W), the same range.

    Returns:
        Scalar; 0 for a single frame, which has no neighbour.
    """
    if pred.shape[2] < 2:
        return pred.sum() * 0
    return F.l1_loss(pred.diff(dim=2), target.diff(dim=2))


class TemporalConsistencyLoss(nn.Module):
    """`temporal_consistency_loss` as a module."""

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        return temporal_consistency_loss(pred, target)
