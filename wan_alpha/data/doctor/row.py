"""One row examined: everything that its files say, as plain values that travel between processes."""

import io
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from wan_alpha.data.doctor import colour_checks, file_checks, matte_checks
from wan_alpha.data.doctor.evidence import Evidence, gather
from wan_alpha.data.doctor.findings import Finding, worst_first
from wan_alpha.data.manifest import BadRow, Row
from wan_alpha.errors import DataError
from wan_alpha.media.limits import MediaLimits, refusals
from wan_alpha.media.probe import MediaInfo, probe

_THUMBNAIL = (240, 160)  # width, height in pixels, at most


@dataclass(frozen=True)
class RowReport:
    """What became of one row.

    Attributes:
        index: row number; names: its files as the manifest names them, relative to the dataset where they lie in it.
        prompt: caption.
        findings: the most severe first.
        size: num_frames, width, height, fps and codec; empty where the file cannot be read.
        shares: {"clear", "semi", "opaque"}: parts of all pixels; empty where there is no alpha.
        digest: hash of the decoded frames, "" where they cannot be decoded; fingerprint: see evidence.fingerprint.
        thumbnails: straight RGBA stills (WebP) spread over the clip.
    """

    index: int
    names: tuple[str, ...]
    prompt: str = ""
    findings: tuple[Finding, ...] = ()
    size: dict = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=dict)
    digest: str = ""
    fingerprint: np.ndarray | None = None
    thumbnails: tuple[bytes, ...] = ()

    @property
    def is_clean(self) -> bool:
        return all(finding.is_clean for finding in self.findings)

    def as_dict(self) -> dict:
        """Plain JSON values, without pictures."""
        return {
            "row": self.index,
            "files": list(self.names),
            "prompt": self.prompt,
            **self.size,
            "alpha": self.shares,
            "findings": [finding.as_dict() for finding in self.findings],
        }


def examine_row(row: Row | BadRow, root, limits: MediaLimits, thumbnails: bool = True) -> RowReport:
    """Decode a row's files to their end and run every check on them.

    Args:
        row: from manifest.read_rows; root: the dataset's folder.
        limits: what sizes and lengths are allowed.
        thumbnails: keep small stills for the contact sheet.
    """
    if isinstance(row, BadRow):
        check = "path_outside" if row.leaves_root else "bad_row"
        name = row.names[0] if row.names else ""
        finding = Finding(check, "error", name, row.reason.removeprefix(f"{name}: "))
        return RowReport(row.index, row.names, row.prompt, (finding,))
    names = tuple(_name_in(root, file) for file in row.files)
    try:
        colour, matte = (probe(file) if file is not None else None for file in (row.foreground, row.matte))
        evidence = gather(row, root, colour, matte)
    except DataError as error:
        # Which of the two it is, the message begins with.
        broken = next((file for file in row.files if str(error).startswith(str(file))), row.foreground)
        finding = Finding("unreadable", "error", broken.name, str(error).removeprefix(f"{broken}: "))
        return RowReport(row.index, names, row.prompt, (finding,))
    findings = [finding for check in file_checks.CHECKS for finding in check(evidence)]
    findings += _limits(colour, limits)
    if evidence.has_alpha:
        faults = [finding for check in matte_checks.CHECKS for finding in check(evidence)]
        if all(finding.is_clean for finding in faults):
            checks = matte_checks.EDGE_CHECKS + colour_checks.CHECKS
            faults += [finding for check in checks for finding in check(evidence)]
        findings += faults
    return RowReport(
        row.index,
        names,
        row.prompt,
        worst_first(findings),
        _size(evidence),
        _shares(evidence.alpha_counts),
        evidence.digest,
        evidence.fingerprint,
        tuple(_thumbnail(frame) for frame in evidence.samples) if thumbnails else (),
    )


def _limits(info: MediaInfo, limits: MediaLimits) -> list[Finding]:
    return [Finding("limits", "note", info.path.name, reason) for reason in refusals(info, limits)]


def _name_in(root, file: Path) -> str:
    root, file = os.path.abspath(root), Path(os.path.abspath(file))
    return file.relative_to(root).as_posix() if file.is_relative_to(root) else str(file)


def _size(evidence: Evidence) -> dict:
    info = evidence.colour
    size = {"num_frames": evidence.num_frames[0], "width": info.width, "height": info.height}
    return size | {"fps": round(info.fps, 3), "codec": info.codec}


def _shares(counts: np.ndarray) -> dict[str, float]:
    total = int(counts.sum())
    if total == 0:
        return {}
    clear, opaque = int(counts[0]) / total, int(counts[255]) / total
    return {"clear": round(clear, 4), "semi": round(1 - clear - opaque, 4), "opaque": round(opaque, 4)}


def _thumbnail(frame: np.ndarray) -> bytes:
    image = Image.fromarray(frame)
    image.thumbnail(_THUMBNAIL)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", lossless=True, quality=60)
    return buffer.getvalue()
