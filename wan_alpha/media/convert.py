"""One clip from any format that is read into any that is written."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wan_alpha.errors import ConfigError, DataError
from wan_alpha.media.alpha_source import AlphaSource, describe_source, iter_source
from wan_alpha.media.embedded import SOFTWARE, read_texts
from wan_alpha.media.formats import OutputFormat
from wan_alpha.media.outputs import ClipOutputs, WrittenOutput, read_manifest, write_manifest
from wan_alpha.media.probe import MediaInfo, probe
from wan_alpha.media.read import iter_frames
from wan_alpha.media.sprite_sheet import sheet_warning
from wan_alpha.media.timeline import resample

DEFAULT_FPS = 16.0  # Wan's own, for sources that name no frame rate
_CARRIED_OVER = ("prompt", "seed", "models", "adapter", "settings")


@dataclass(frozen=True)
class ConvertedClip:
    """The output, what it was made from, and a sentence for each thing that a user should know."""

    written: WrittenOutput
    info: MediaInfo
    notes: tuple[str, ...] = ()


def describe_input(source: AlphaSource) -> MediaInfo:
    """What will be converted. A single file without alpha is taken as opaque.

    Raises:
        DataError: it cannot be read, or a matte does not fit its colour video.
    """
    return describe_source(source) if _is_joined(source) else probe(source.foreground)


def convert_clip(
    source: AlphaSource, output, output_format: OutputFormat, *, fps: float | None = None, start: int = 0,
    num_frames: int | None = None, premultiplied: bool = False, background="checkerboard", prompt: str | None = None,
    progress: Callable[[int], None] | None = None, verified: Callable[[int], None] | None = None,
) -> ConvertedClip:  # fmt: skip
    """Read, write, read back, and write a manifest beside the output. A few frames are in memory at a time.

    Args:
        source: files to read; output, output_format: where to, and as what.
        fps: frames per second of the output. A source with another rate is resampled by time; one without is taken to
            have it. None for the source's own, or 16.
        start, num_frames: which frames of the source; None for all that follow.
        premultiplied: store colour multiplied by alpha.
        background: of a preview: "checkerboard", (R, G, B) in 0..255, or the path of a picture or clip.
        prompt: for the manifest; None for what the source says of itself.
        progress: called with the number of frames written; verified: with 1 when the output has been read back.

    Raises:
        ConfigError: the output would be written over its source, or an option without effect.
        DataError: reading or writing failed, or the output lost its alpha.
    """
    output, info = Path(output), describe_input(source)
    inputs = [path for path in (source.foreground, source.matte) if path is not None]
    if any(output.exists() and Path(path).exists() and output.samefile(path) for path in inputs):
        raise ConfigError(f"{output}: is the source itself; write to another name")
    if background != "checkerboard" and output_format.name != "preview":
        raise ConfigError(f"background has no effect on the format {output_format.name}; leave it out")
    described = read_manifest(source.foreground)
    if described.get("colour") == "premultiplied" and source.source_state == "straight":
        said = "its manifest says that its colour is premultiplied"
        raise ConfigError(f"{source.foreground}: {said}; give --source_state premultiplied")
    if output_format.suffix == "":
        _refuse_foreign_folder(output)
    # A folder of frames names no rate: it is what is asked for, else what its manifest says.
    own_rate = info.fps or fps or described.get("fps") or DEFAULT_FPS
    rate = fps or own_rate
    indices = _chosen_frames(info, own_rate, rate, start, num_frames)
    record = _record(source, start, indices, own_rate, rate, prompt)
    depth = 16 if output_format.depth == 16 and info.bit_depth > 8 else 8
    outputs = ClipOutputs(
        [(output, output_format)], rate, premultiplied=premultiplied, background=background, num_frames=len(indices),
        record=record,
    )  # fmt: skip
    done = 0
    with outputs:
        for frame in _iter_chosen(source, indices, depth):
            outputs.write(frame[None])
            done += 1
            if progress is not None:
                progress(done)
    (written,) = outputs.verify(verified)
    write_manifest(written, record)
    notes = list(_notes(info, output_format, rate, own_rate))
    if not (info.fps or described.get("fps") or fps or info.is_still):
        notes.append(f"{info.path} names no frame rate: {rate:g} per second were taken; --fps says another")
    return ConvertedClip(written, info, tuple(notes))


def _refuse_foreign_folder(folder: Path) -> None:
    """Frames go into a folder that is new, empty, or was written by this package: nothing else may be lost in it."""
    if folder.is_dir() and any(folder.iterdir()) and read_manifest(folder).get("software") != SOFTWARE:
        raise ConfigError(f"{folder}: has files in it that are not of this program; give a new folder")


def _chosen_frames(info: MediaInfo, own_rate: float, rate: float, start: int, num_frames: int | None) -> list[int]:
    """Numbers of the source's frames, ascending, a frame as often as it is shown."""
    end = info.num_frames if num_frames is None else start + num_frames
    if start >= info.num_frames:
        raise DataError(
            f"{info.path}: start = {start}, the file has {info.num_frames} frames, 0 to {info.num_frames - 1}"
        )
    if end > info.num_frames:
        raise DataError(f"{info.path}: frames {start} to {end - 1} were asked for, the file has {info.num_frames}")
    if info.num_frames == 1 or (rate == own_rate and not info.is_variable_rate):
        return list(range(start, end))
    if info.timeline is not None:
        times = info.timeline.times[start:end]
        end_time = info.timeline.times[end] if end < info.num_frames else info.timeline.times[0] + info.duration
    else:
        times = np.arange(start, end) / own_rate
        end_time = end / own_rate
    return [start + index for index in resample(times, float(end_time - times[0]), rate)]


def _iter_chosen(source: AlphaSource, indices: list[int], depth: int) -> Iterator[np.ndarray]:
    start, num_frames = indices[0], indices[-1] - indices[0] + 1
    if _is_joined(source):
        frames = iter_source(source, start, num_frames, depth=depth)
    else:
        frames = iter_frames(
            source.foreground, "rgba", start, num_frames, source_state=source.source_state, depth=depth
        )
    wanted = iter(indices)
    following = next(wanted)
    for number, frame in enumerate(frames, start):
        while following == number:
            yield frame
            following = next(wanted, None)


def _is_joined(source: AlphaSource) -> bool:
    return source.matte is not None or source.packing != "none"


def _record(source: AlphaSource, start: int, indices, own_rate: float, rate: float, prompt: str | None) -> dict:
    """Prompt, seed, models and settings that the source brings along, and how it was converted."""
    known = read_manifest(source.foreground) or _embedded_record(source.foreground)
    record = {key: known[key] for key in _CARRIED_OVER if key in known}
    if prompt is not None:
        record["prompt"] = prompt
    files = {key: None if value is None else str(value) for key, value in vars(source).items()}
    record["converted_from"] = files | {
        "first_frame": start, "last_frame": indices[-1], "fps": own_rate, "resampled": rate != own_rate
    }  # fmt: skip
    return record


def _embedded_record(path) -> dict:
    path = Path(path)
    if not path.is_dir() and path.suffix.lower() not in (".png", ".apng", ".webp"):
        return {}
    texts = read_texts(path)
    try:
        record = json.loads(texts.get("settings", "{}"))
    except ValueError:
        record = {}
    if not isinstance(record, dict):
        record = {}
    if "prompt" in texts:
        record = {"prompt": texts["prompt"]} | record
    if "recipe" in record:  # what generate calls it
        record.setdefault("settings", record["recipe"])
    return record


def _notes(info: MediaInfo, output_format: OutputFormat, rate: float, own_rate: float) -> Iterator[str]:
    if warning := sheet_warning(info.path):
        yield warning
    if not info.has_alpha and output_format.alpha is not None:
        yield f"{info.path} has no alpha: the output is opaque everywhere"
    if output_format.alpha is None and info.has_alpha:
        yield f"{output_format.name} holds no alpha: what was clear or semi-transparent cannot be had back from it"
    if output_format.is_binary:
        yield f"{output_format.name} knows no semi-transparent pixels: alpha from 128 on became opaque, below it clear"
    if info.is_variable_rate:
        yield f"{info.path} has a varying frame rate: frames were taken by time, {rate:g} per second"
    elif rate != own_rate:
        yield f"frames were taken by time: {own_rate:g} per second became {rate:g}"
