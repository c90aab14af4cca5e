"""A whole dataset examined, row by row over processes, then rows against each other."""

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from wan_alpha.data.captions import read_captions
from wan_alpha.data.discover import discover_sources
from wan_alpha.data.doctor import dataset_checks
from wan_alpha.data.doctor.findings import SEVERITIES, worst_first
from wan_alpha.data.doctor.row import RowReport, examine_row
from wan_alpha.data.manifest import BadRow, Row, find_manifest, read_rows
from wan_alpha.data.parallel import map_rows
from wan_alpha.errors import DataError
from wan_alpha.media.limits import NO_LIMITS, MediaLimits
from wan_alpha.media.missing import no_such


@dataclass(frozen=True)
class Dataset:
    """Rows of a dataset, in order, and the folder that they lie in."""

    root: Path
    rows: tuple[Row | BadRow, ...]


@dataclass(frozen=True)
class DoctorReport:
    """What was found. `is_clean`: nothing but notes."""

    dataset: Path
    reports: tuple[RowReport, ...]

    @property
    def is_clean(self) -> bool:
        return all(report.is_clean for report in self.reports)

    @property
    def counts(self) -> dict[str, int]:
        """Findings by severity."""
        found = Counter(finding.severity for report in self.reports for finding in report.findings)
        return {severity: found[severity] for severity in SEVERITIES}

    def as_dict(self) -> dict:
        """Plain JSON values: the content of doctor.json."""
        return {
            "dataset": str(self.dataset),
            "clean": self.is_clean,
            "rows": len(self.reports),
            "clean_rows": sum(report.is_clean for report in self.reports),
            **{f"{severity}s": count for severity, count in self.counts.items()},
            "reports": [report.as_dict() for report in self.reports],
        }


def read_dataset(path) -> Dataset:
    """A dataset's rows: of a manifest, of a folder's metadata.csv (.jsonl, .json), or of a folder as it was found.

    Raises:
        DataError: nothing of the kind, the manifest cannot be read, or the folder holds no media.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(no_such(path, "folder or manifest"))
    if not path.is_dir():
        return Dataset(path.parent, tuple(read_rows(path)))
    if manifest := find_manifest(path):
        return Dataset(path, tuple(read_rows(manifest)))
    rows = []
    for index, source in enumerate(discover_sources(path), 1):
        if source.problem:
            rows.append(BadRow(index, (str(source.foreground.relative_to(path)),), source.problem))
        else:
            prompt, *others = read_captions({"prompt": source.prompt})
            rows.append(Row(index, source.foreground, source.matte, prompt, other_prompts=tuple(others)))
    return Dataset(path, tuple(rows))


def examine_dataset(
    dataset: Dataset,
    *,
    limits: MediaLimits = NO_LIMITS,
    ignore: tuple[str, ...] = (),
    workers: int | None = None,
    num_pictured: int = 200,
    progress: Callable[[int, int, str], None] | None = None,
) -> DoctorReport:
    """Check every row.

    Args:
        dataset: from read_dataset.
        limits: allowed sizes and lengths.
        ignore: names of checks whose findings are left out.
        workers: processes; None = one per core.
        num_pictured: rows whose stills are kept, those with findings before clean ones.
        progress: called as progress(done, total, name) after each row.

    Raises:
        DataError: a working process died.
    """
    reports, pictured = [], defaultdict(int)
    jobs = [(row, dataset.root, limits, num_pictured > 0) for row in dataset.rows]
    for done, report in enumerate(map_rows(examine_row, jobs, workers), 1):
        if isinstance(report, DataError):
            raise report
        report = replace(report, findings=tuple(f for f in report.findings if f.check not in ignore))
        # Pictures are the one part that grows: as many clean and as many unclean rows keep theirs as could be shown.
        pictured[report.is_clean] += 1
        if pictured[report.is_clean] > num_pictured:
            report = replace(report, thumbnails=())
        reports.append(report)
        if progress:
            progress(done, len(jobs), report.names[0] if report.names else "")
    extra = defaultdict(list)
    for check in dataset_checks.CHECKS:
        if check.__name__ not in ignore:
            for index, finding in check(reports):
                extra[index].append(finding)
    reports = [replace(report, findings=worst_first([*report.findings, *extra[report.index]])) for report in reports]
    return DoctorReport(dataset.root, tuple(reports))
