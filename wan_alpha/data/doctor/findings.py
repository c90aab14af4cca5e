"""What a check says about a row."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """One thing that a check found.

    Attributes:
        check: name of the check.
        severity: "error", training would fail or learn something wrong; "warning", probably not what was meant;
            "note", worth knowing. Errors and warnings make a dataset unclean.
        file: name of the file it is about.
        message: what is wrong, and what would be right.
        repair: what --fix does about it (a key of repair.REPAIRS), None where nothing can be done.
        figures: the measured values behind it, and what the repair needs to know.
    """

    check: str
    severity: Severity
    file: str
    message: str
    repair: str | None = None
    figures: dict[str, float | int | list] = field(default_factory=dict)

    @property
    def is_clean(self) -> bool:
        return self.severity == "note"

    def as_dict(self) -> dict:
        return {
            "check": self.check,
            "severity": self.severity,
            "file": self.file,
            "message": self.message,
            "repair": self.repair,
            "figures": self.figures,
        }


def worst_first(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Errors, then warnings, then notes; within each the order they came in."""
    return tuple(sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity)))
