"""A folder of clips as it was found -> a checked dataset with metadata.csv and metadata.jsonl (see dataset_files).

Pairs are copied as they are; all else is split into two FFV1 streams, which keep every level of alpha. The same call
again continues: rows whose files and settings have not changed are not worked on a second time.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from wan_alpha.data.dataset_files import SkippedRow, finish_dataset, start_dataset, unique_names
from wan_alpha.data.discover import Source, discover_sources
from wan_alpha.data.doctor.dataset_checks import near_pairs
from wan_alpha.data.manifest import leaves_root
from wan_alpha.data.parallel import map_rows
from wan_alpha.data.prepare_journal import drop_part
from wan_alpha.data.prepare_row import Part, PrepareSettings, prepare_row
from wan_alpha.errors import ConfigError, DataError


@dataclass(frozen=True)
class PrepareReport:
    """What became of a folder.

    `num_rows`: rows written; `num_without_prompt`: those of them without a caption; `skipped`: sources and scenes left
    out; `num_kept`: sources whose files an earlier run had written; `warnings`: what a user should know, one sentence
    each.
    """

    metadata_path: Path
    num_rows: int
    num_without_prompt: int
    skipped: tuple[SkippedRow, ...]
    num_kept: int = 0
    warnings: tuple[str, ...] = ()


def prepare_dataset(
    source_dir,
    out_dir,
    *,
    skip_bad: bool = False,
    link: bool = False,
    workers: int | None = 1,
    progress: Callable[[int, int, str], None] | None = None,
    settings: PrepareSettings | None = None,
    caption_column: str | None = None,
    drop_near_duplicates: bool = False,
) -> PrepareReport:
    """Check every clip of `source_dir` frame by frame and write a dataset.

    Args:
        source_dir: a folder or a manifest; see discover.discover_sources for the layouts.
        out_dir: created if missing; must not lie inside source_dir. Files of an earlier run with the same names are
            replaced, or kept where neither source nor settings have changed.
        skip_bad: leave bad rows out and list them, instead of stopping at the first.
        link: hard-link pair files instead of copying them, where the file system can.
        workers: processes; None = one per core. More than 1 needs a script that keeps its work under
            ``if __name__ == "__main__"``, as multiprocessing asks.
        progress: called as progress(done, total, name) after each row.
        settings: how sources are read and cut; PrepareSettings() if None.
        caption_column: see discover_sources.
        drop_near_duplicates: leave out clips that look like an earlier one, and list them.

    Raises:
        ConfigError: out_dir lies inside source_dir, or workers below 1.
        DataError: a row is bad (its number, file and reason are named), or no row is good. No list is written then;
            what was finished is kept for the next run.
    """
    source_dir, out_dir = Path(source_dir), Path(out_dir)
    root = source_dir.parent if source_dir.is_file() else source_dir
    if out_dir.resolve().is_relative_to(root.resolve()):
        raise ConfigError(f"{out_dir}: the prepared dataset must lie outside its source folder {root}")
    if workers is not None and workers < 1:
        raise ConfigError(f"workers = {workers} must be at least 1")
    sources = discover_sources(source_dir, caption_column)
    names = unique_names(source.name for source in sources)
    start_dataset(out_dir)
    jobs = [
        (index, source, name, out_dir, link, settings or PrepareSettings(), drop_near_duplicates)
        for index, (source, name) in enumerate(zip(sources, names, strict=True), 1)
    ]
    parts, skipped, num_kept = [], [], 0
    for (index, source, *_), outcome in zip(jobs, map_rows(prepare_row, jobs, workers), strict=True):
        if isinstance(outcome, DataError):
            if not skip_bad:
                raise DataError(f"row {index} ({source.foreground.name}): {outcome}") from outcome
            skipped.append(SkippedRow(index, source.foreground, str(outcome)))
        else:
            num_kept += outcome.was_kept
            parts += [(index, source, part) for part in outcome.parts]
            skipped += [SkippedRow(index, source.foreground, reason) for reason in outcome.left_out]
        if progress:
            progress(index, len(sources), source.name)
    if drop_near_duplicates:
        parts = _drop_near_duplicates(parts, skipped, out_dir, jobs, workers)
    if not parts:
        skipped.sort(key=lambda row: row.row)
        finish = skipped[0].reason if skipped else "nothing was found"
        raise DataError(f"{source_dir}: none of {len(sources)} rows is good; the first: {finish}")
    records = [part.record | {"prompt": source.prompt} for _, source, part in parts]
    metadata = finish_dataset(out_dir, records, skipped)
    without_prompt = sum(not record["prompt"] for record in records)
    warnings = _link_warnings(sources, root)
    return PrepareReport(metadata, len(records), without_prompt, tuple(skipped), num_kept, warnings)


def _drop_near_duplicates(
    parts: list[tuple[int, Source, Part]], skipped: list[SkippedRow], out_dir: Path, jobs: list, workers: int | None
) -> list[tuple[int, Source, Part]]:
    """The parts without those that look like an earlier one; their files are removed, `skipped` names them.

    What an earlier run dropped and this one keeps, because the clip that it looked like has gone, is written again.
    """
    dropped = set()
    for later, earlier, difference in near_pairs([part.fingerprint for _, _, part in parts]):
        index, source, part = parts[later]
        like = parts[earlier]
        reason = f"looks like row {like[0]} ({like[1].foreground.name}): {difference:.1%} of it differs"
        skipped.append(SkippedRow(index, source.foreground, reason))
        dropped.add(later)
    kept = [part for place, part in enumerate(parts) if place not in dropped]
    missing = {index for index, _, part in kept if not all((out_dir / file).exists() for file in part.files)}
    for outcome in map_rows(prepare_row, [(*job[:-1], False) for job in jobs if job[0] in missing], workers):
        if isinstance(outcome, DataError):
            raise outcome
    for place in dropped:
        index, _, part = parts[place]
        drop_part(out_dir, jobs[index - 1][2], part)
    return kept


def _link_warnings(sources: list[Source], root: Path) -> tuple[str, ...]:
    usable = [source for source in sources if source.problem is None]
    files = [file for source in usable for file in (source.foreground, source.matte) if file is not None]
    targets = [(file, leaves_root(file, root)) for file in files]
    return tuple(f"{file}: a link that leaves the source folder, to {target}" for file, target in targets if target)
