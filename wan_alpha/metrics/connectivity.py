"""Connectivity error: what of a matte hangs on to the rest. The costly one of the field's metrics, made cheap.

Regions are found on runs of pixels, not on pixels: per frame and threshold a few thousand runs, merged where runs of
neighbouring rows touch. All thresholds' runs come from one look at the frame, because they are nested.
"""

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

STEPS = 10
TOLERANCE = 0.15


def connectivity_error(pred: Tensor, alpha: Tensor) -> Tensor:
    """Every pixel's connectivity error (Rhemann et al. 2009).

        level    the last threshold of 0.1, 0.2, ... 1 up to which the pixel belongs, at each threshold, to the largest
                 4-connected region where both mattes reach it; 0 where it belongs to none
        phi(x) = 1 - (x - level) where x - level >= 0.15, else 1
        error  = |phi(pred) - phi(alpha)|

    Args:
        pred, alpha: (N, H, W), [0, 1].

    Returns:
        (N, H, W).
    """
    level = connected_levels(torch.minimum(pred, alpha)) / alpha.new_tensor(STEPS)
    # What is exactly 0.15 counts, whatever rounding made of it.
    pred_excess, excess = (F.threshold_(matte - level, TOLERANCE - 1e-6, 0.0) for matte in (pred, alpha))
    return pred_excess.sub_(excess).abs_()


def connected_levels(lower: Tensor) -> Tensor:
    """How many thresholds of 0.1, 0.2, ... a pixel stays in the largest region for, counted from the lowest.

    Args:
        lower: the smaller of two mattes, (N, H, W), [0, 1].

    Returns:
        (N, H, W) int8, 0 to 10.
    """
    num_frames, height, width = lower.shape
    # An empty column before each row, an empty row after each frame: what lies end to end in memory must not touch.
    reached = F.pad((lower * STEPS).to(torch.int8), (1, 0, 0, 1)).flatten().cpu().numpy()
    places = np.flatnonzero(reached[1:] != reached[:-1]) + 1
    steps = places, reached[places - 1], reached[places]
    starts, stops = _paint(*steps, num_frames, (height + 1) * (width + 1), width + 1)
    change = torch.zeros(len(reached), dtype=torch.int8, device=lower.device)
    for index, value in ((starts, 1), (stops, -1)):
        where = torch.from_numpy(index).to(change.device)
        change.index_add_(0, where, torch.full_like(where, value, dtype=torch.int8))
    count = change.cumsum(0, dtype=torch.int8)
    return count.view(num_frames, height + 1, width + 1)[:, :height, 1:]


def _paint(places, before, after, num_frames, frame_size, row_size):
    """Runs of the regions that count, over all thresholds: where they start and where they stop.

    Args:
        places: where the number of reached thresholds changes, ascending; before, after: from what to what.
    """
    thresholds = range(1, STEPS + 1)
    # Every threshold has its own copy of all frames, one after the other: one search for all.
    span = num_frames * frame_size
    starts, stops = (
        np.concatenate([(t - 1) * span + places[(low < t) & (high >= t)] for t in thresholds])
        for low, high in ((before, after), (after, before))
    )
    is_largest = _in_largest_region(starts, stops, frame_size, row_size)
    starts, stops = starts[is_largest], stops[is_largest]
    alive = np.ones(num_frames, dtype=bool)
    if len(starts) == 0:
        return starts, stops
    of_run = starts // frame_size
    first = _first_of_each(of_run)
    groups = of_run[first]
    kept = np.zeros(STEPS * num_frames, dtype=bool)
    for threshold in range(STEPS):
        here = groups // num_frames == threshold
        frames, pixels = groups[here] % num_frames, starts[first[here]]
        is_there = np.zeros(num_frames, dtype=bool)
        # Regions of nested masks are nested or apart: one pixel tells whether this one lies within the one before.
        is_there[frames] = True if threshold == 0 else _covers(starts, stops, pixels - span)
        alive &= is_there
        kept[threshold * num_frames : (threshold + 1) * num_frames] = alive
    chosen = kept[of_run]
    return starts[chosen] % span, stops[chosen] % span


def _covers(starts, stops, places):
    run = np.searchsorted(starts, places, side="right") - 1
    return (run >= 0) & (places < stops[run])


def _in_largest_region(starts, stops, frame_size, row_size):
    """Which runs belong to their frame's largest region; of equal ones to the first."""
    num_runs = len(starts)
    if num_runs == 0:
        return np.zeros(0, dtype=bool)
    # The runs of the row below that a run touches lie side by side.
    first = np.searchsorted(stops, starts + row_size, side="right")
    num_below = np.searchsorted(starts, stops + row_size, side="left") - first
    bounds = np.concatenate([[0], np.cumsum(num_below)])
    below = np.arange(bounds[-1]) + np.repeat(first - bounds[:-1], num_below)
    touching = csr_matrix((np.ones(len(below), np.int8), below, bounds), shape=(num_runs, num_runs))
    num_regions, region = connected_components(touching, directed=False)
    size = np.bincount(region, weights=stops - starts, minlength=num_regions)
    first_run = np.empty(num_regions, np.int64)
    first_run[region[::-1]] = np.arange(num_runs)[::-1]
    assert (np.diff(first_run) > 0).all(), "regions are numbered in the order of their first runs"
    frame = starts[first_run] // frame_size
    begins = _first_of_each(frame)
    is_best = size == np.repeat(np.maximum.reduceat(size, begins), np.diff(begins, append=num_regions))
    best = np.flatnonzero(is_best)
    is_largest = np.zeros(num_regions, dtype=bool)
    is_largest[best[_first_of_each(frame[best])]] = True
    return is_largest[region]


def _first_of_each(ascending):
    """Places at which a new value begins."""
    return np.flatnonzero(np.diff(ascending, prepend=ascending[0] - 1))
