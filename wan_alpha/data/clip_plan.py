"""Which clips a run takes, at which size, how often: decided at its start, said in tables, nothing left out unsaid."""

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from wan_alpha.data.buckets import Bucket, choose_bucket
from wan_alpha.data.clips import describe_clip
from wan_alpha.data.manifest import Row, read_manifest
from wan_alpha.data.mixture import Mixture, Part, share_table
from wan_alpha.data.parallel import num_cores
from wan_alpha.data.sampling import played_frames
from wan_alpha.data.tables import text_table
from wan_alpha.errors import DataError

_LISTED_AT_MOST = 20


@dataclass(frozen=True)
class ClipPlan:
    """The clips of a run.

    Attributes:
        rows: of all datasets, in order, without those left out; shapes: the size that each is brought to.
        mixture: how often each occurs; left_out: (dataset, row, why) of the others.
        summary: the tables, as text.
    """

    rows: list[Row]
    shapes: list[Bucket]
    mixture: Mixture
    left_out: list[tuple[str, Row, str]]
    summary: str


def plan_clips(
    sources: Sequence,
    buckets: Sequence[Bucket],
    ping_pong: bool = True,
    target_fps: float | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ClipPlan:
    """Read the lists of the datasets and give every clip its size, see buckets.choose_bucket.

    Lengths and sizes are taken from the lists, where these have them (the loading holds them to it) and clips play at
    their own rate, and from the files otherwise. With a single bucket and ping-pong neither is needed.

    Args:
        sources: datasets, each with base_path, manifest, repeat and weight (a recipe's DatasetSettings).
        buckets: at least one; ping_pong: clips shorter than all buckets play forward and back, else they are left out.
        target_fps: frames per second that clips are sampled at; None for their own.
        seed: of the mixture; progress: called with (files looked at, of how many).

    Raises:
        DataError: a list or file cannot be read, or a dataset has no clip left.
    """
    by_source = [read_manifest(source.manifest, source.base_path) for source in sources]
    are_needed = len(buckets) > 1 or not ping_pong
    measures = iter(_measure([row for part in by_source for row in part], target_fps, are_needed, progress))
    rows, shapes, left_out, parts, tallies = [], [], [], [], Counter()
    for source, part in zip(sources, by_source, strict=True):
        name, num_before = str(source.manifest), len(rows)
        for row, measured in zip(part, measures, strict=False):
            bucket = buckets[0] if measured is None else choose_bucket(buckets, measured.frames, measured.size)
            if not ping_pong and not measured.is_still and measured.frames < bucket.frames:
                why = f"{measured.frames} frames, the least bucket has {bucket.frames}, and ping_pong is off"
                left_out.append((name, row, why))
                continue
            rows.append(row)
            shapes.append(bucket)
            tallies.update([(bucket, "clips"), (bucket, _length_beside(bucket, measured))])
        if len(rows) == num_before:
            raise DataError(f"{name}: no clip is left: {left_out[-1][2]} (the last of {len(part)} rows)")
        parts.append(Part(name, len(rows) - num_before, source.repeat, source.weight))
    mixture = Mixture(parts, seed)
    summary = "\n".join([_bucket_table(buckets, tallies), _left_out_lines(left_out), *share_table(mixture)])
    return ClipPlan(rows, shapes, mixture, left_out, summary)


def _length_beside(bucket, measured):
    if measured is None:
        return "unknown"
    if measured.frames == bucket.frames:
        return "equal"
    return "longer" if measured.frames > bucket.frames else "shorter"


_UNREAD = (
    "not read: the length of {} clips, each of which would have to be opened; with one size for all a longer clip\n"
    "is cut to it and a shorter one plays forward and back. It is known where the list has num_frames, width and\n"
    "height (`wan-alpha prepare` writes them) and data.target_fps is not given; `wan-alpha doctor` opens every clip"
)


@dataclass(frozen=True)
class _Measures:
    """Of a clip: frames as it plays, (height, width), and whether it is a still, which can be panned over."""

    frames: int
    size: tuple[int, int]
    is_still: bool


def _measure(rows, target_fps, are_needed, progress):
    """The measures of each row, or None where it was not looked at."""
    listed = [_listed(row) if target_fps is None else None for row in rows]
    if not are_needed:
        return listed
    unknown = [place for place, shape in enumerate(listed) if shape is None]

    def look(place):
        row = rows[place]
        try:
            info = describe_clip(row)
        except DataError as error:
            raise DataError(f"row {row.index} ({row.foreground.name}): {error}") from error
        frames = len(played_frames(info, target_fps))
        return _Measures(frames, (info.height, info.width), info.num_frames == 1)

    # Threads are enough: each waits for an ffmpeg of its own.
    with ThreadPoolExecutor(num_cores()) as pool:
        for done, (place, shape) in enumerate(zip(unknown, pool.map(look, unknown), strict=True), 1):
            listed[place] = shape
            progress(done, len(unknown))
    return listed


def _listed(row):
    if row.listed_shape is None:
        return None
    frames, *size = row.listed_shape
    return _Measures(frames, tuple(size), frames == 1 or row.kind == "static")


def _bucket_table(buckets, tallies):
    rows, names = [], ("longer", "shorter")
    for bucket in buckets:
        known = [tallies[bucket, name] for name in names]
        if tallies[bucket, "unknown"]:
            known = [f"{number} or more" if number else "not read" for number in known]
        rows.append([bucket, tallies[bucket, "clips"], *known])
    table = text_table(["bucket (frames x height x width)", "clips", *names], rows)
    unknown = sum(tallies[bucket, "unknown"] for bucket in buckets)
    return f"{table}\n{_UNREAD.format(unknown)}" if unknown else table


def _left_out_lines(left_out):
    if not left_out:
        return "left out: nothing"
    lines = [f"  {name}, row {row.index} ({row.foreground.name}): {why}" for name, row, why in left_out]
    more = [f"  and {len(lines) - _LISTED_AT_MOST} more"] if len(lines) > _LISTED_AT_MOST else []
    return "\n".join([f"left out: {len(left_out)} clips", *lines[:_LISTED_AT_MOST], *more])
