"""Separable filters and moving windows over planes, made of shifted sums: exact on every device, quick in a cache."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

# About what a core's second-level cache holds of the few planes that a filter works on at once.
CACHE_PIXELS = 64_000


def row_strips(planes: Tensor, window: int) -> Iterator[tuple[slice, slice]]:
    """Cut planes (N, H, W) so that a filter over `window` rows works in the cache: a CPU waits for memory otherwise.

    Yields:
        planes and their output rows, as slices; row r of the output needs the rows r to r + window - 1 of the input.
        On an accelerator everything at once.
    """
    num_planes, height, width = planes.shape
    num_rows = height - window + 1
    if planes.device.type != "cpu":
        yield slice(0, num_planes), slice(0, num_rows)
        return
    step = max(1, min(num_rows, CACHE_PIXELS // width))
    at_a_time = max(1, CACHE_PIXELS // (height * width))
    for first in range(0, num_planes, at_a_time):
        for row in range(0, num_rows, step):
            yield slice(first, min(num_planes, first + at_a_time)), slice(row, min(num_rows, row + step))


def with_margin(rows: slice, window: int) -> slice:
    """The input rows that an output strip of `row_strips` needs."""
    return slice(rows.start, rows.stop + window - 1)


def differing_box(pred: Tensor, target: Tensor) -> tuple[slice, slice]:
    """Rows and columns outside of which two sets of planes (N, H, W) are equal, so that there is nothing to compute.

    On an accelerator, where asking costs more than it saves, everything.
    """
    height, width = pred.shape[1:]
    if pred.device.type != "cpu":
        return slice(0, height), slice(0, width)
    # As bytes: their maximum takes a tenth of what `any` takes.
    differs = (pred != target).view(torch.uint8).amax(dim=0)
    spans = []
    for dim in (1, 0):
        places = differs.amax(dim=dim).nonzero()[:, 0]
        spans.append(slice(int(places[0]), int(places[-1]) + 1) if len(places) else slice(0, 0))
    return tuple(spans)


def reached(span: slice, before: int, after: int, length: int) -> slice:
    """A span grown to both sides, within `length`; an empty one stays empty."""
    if span.start == span.stop:
        return span
    return slice(max(0, span.start - before), min(length, span.stop + after))


def correlate(planes: Tensor, taps: Sequence[float], dim: int) -> Tensor:
    """out[i] = sum_k taps[k] * in[i + k] along one dimension, only where the taps fit."""
    length = planes.shape[dim] - len(taps) + 1
    total = planes.narrow(dim, 0, length) * taps[0]
    for offset in range(1, len(taps)):
        if taps[offset]:
            total.add_(planes.narrow(dim, offset, length), alpha=taps[offset])
    return total


def _slide(values: Tensor, length: int, dim: int, combine) -> Tensor:
    """Combine `length` neighbours along a dimension by doubling: log2(length) steps instead of length."""
    reached = 1
    while reached < length:
        step = min(reached, length - reached)
        size = values.shape[dim] - step
        values = combine(values.narrow(dim, 0, size), values.narrow(dim, step, size))
        reached += step
    return values


def dilate(masks: Tensor, radius: int) -> Tensor:
    """Grow masks (N, H, W) bool by `radius` pixels to all sides, in squares; nothing grows in from outside."""
    grown = torch.nn.functional.pad(masks, (radius, radius, radius, radius))
    for dim in (-1, -2):
        grown = _slide(grown, 2 * radius + 1, dim, torch.logical_or)
    return grown


def box_sums(planes: Tensor, radius: int) -> Tensor:
    """Sums over the square of 2*radius + 1 pixels around each one; outside counts as 0. (..., H, W) -> the same."""
    sums = torch.nn.functional.pad(planes, (radius, radius, radius, radius))
    for dim in (-1, -2):
        sums = _window_sums(sums, 2 * radius + 1, dim)
    return sums


def _window_sums(values: Tensor, length: int, dim: int) -> Tensor:
    """Sums of `length` neighbours: sums of 1, 2, 4, ... of them, put together as the bits of `length` say."""
    num_out = values.shape[dim] - length + 1
    total, done, reached = None, 0, 1
    while True:
        if length & reached:
            part = values.narrow(dim, done, num_out)
            total, done = part if total is None else total + part, done + reached
        if done == length:
            return total
        size = values.shape[dim] - reached
        values = values.narrow(dim, 0, size) + values.narrow(dim, reached, size)
        reached *= 2
