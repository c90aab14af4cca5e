"""Checks of rows against each other."""

from collections.abc import Iterable, Iterator

import numpy as np

from wan_alpha.data.doctor.evidence import fingerprint_distance
from wan_alpha.data.doctor.findings import Finding
from wan_alpha.data.doctor.row import RowReport

# Part of what two clips show that may differ for them to count as nearly the same.
NEARLY_SAME = 0.03


def duplicate_rows(reports: Iterable[RowReport]) -> Iterator[tuple[int, Finding]]:
    """A row that names the same files as an earlier one: the clip counts twice in training."""
    seen = {}
    for report in reports:
        if report.names and report.names in seen:
            yield report.index, _duplicate("duplicate_rows", report, f"the same files as row {seen[report.names]}")
        else:
            seen[report.names] = report.index


def duplicate_clips(reports: Iterable[RowReport]) -> Iterator[tuple[int, Finding]]:
    """A clip whose decoded frames equal those of an earlier row, under another name or in another container."""
    seen = {}
    for report in reports:
        if not report.digest:
            continue
        index, names = seen.setdefault(report.digest, (report.index, report.names))
        if index != report.index and names != report.names:
            yield report.index, _duplicate("duplicate_clips", report, f"the same frames as row {index} ({names[0]})")


def near_duplicates(reports: Iterable[RowReport]) -> Iterator[tuple[int, Finding]]:
    """A clip that looks nearly like an earlier one: another encoding, size or cut of it."""
    listed = [report for report in reports if report.fingerprint is not None]
    for later, earlier, distance in near_pairs([report.fingerprint for report in listed]):
        if listed[later].digest == listed[earlier].digest:
            continue
        message = f"looks like row {listed[earlier].index} ({listed[earlier].names[0]}): {distance:.1%} of it differs"
        figures = {"row": listed[earlier].index, "difference": round(distance, 4)}
        yield listed[later].index, Finding("near_duplicates", "note", listed[later].names[0], message, figures=figures)


def near_pairs(fingerprints: list[np.ndarray], largest: float = NEARLY_SAME) -> Iterator[tuple[int, int, float]]:
    """(later, earlier, distance) for each fingerprint that has one at most `largest` away before it, with the nearest.

    Two that differ by a part d of what they show have sums that differ by at most that part, so that only neighbours
    in the order of sums are compared.
    """
    sums = np.array([int(one.sum(dtype=np.int64)) for one in fingerprints])
    order = np.argsort(sums, kind="stable")
    nearest = {}
    for place, one in enumerate(order):
        for other in order[place + 1 :]:
            if sums[other] - sums[one] > largest * (sums[other] + sums[one]):
                break
            distance = fingerprint_distance(fingerprints[one], fingerprints[other])
            later, earlier = max(one, other), min(one, other)
            if distance <= largest and distance < nearest.get(later, (0, 2.0))[1]:
                nearest[later] = earlier, distance
    for later in sorted(nearest):
        yield int(later), int(nearest[later][0]), nearest[later][1]


def _duplicate(check: str, report: RowReport, message: str) -> Finding:
    return Finding(check, "warning", report.names[0], message, "leave out")


CHECKS = (duplicate_rows, duplicate_clips, near_duplicates)
