"""Which frames of a clip are taken, which part of them and which caption: decided once, applied to colour and alpha."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import get_worker_info

from wan_alpha.data.clips import ClipInfo
from wan_alpha.data.resize import resize_and_cut
from wan_alpha.errors import ConfigError
from wan_alpha.media.timeline import resample

FRAME_MODES = ("head", "random", "uniform", "keyframe")

# A still is enlarged at least this much, so that the pan has room to move.
_PAN_ROOM = 1.25


@dataclass(frozen=True)
class Geometry:
    """Resize to (resized_height, resized_width), then cut (height, width) at `offsets[t]` = (top, left) in frame t."""

    resized_height: int
    resized_width: int
    height: int
    width: int
    offsets: tuple[tuple[int, int], ...]


def derive_seed(*parts) -> int:
    """A seed in [0, 2^63) that depends on every part (numbers, strings) and on nothing else."""
    digest = hashlib.sha256("\x1f".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def seeded_generator(*parts) -> torch.Generator:
    """A CPU generator seeded by derive_seed(*parts)."""
    return torch.Generator().manual_seed(derive_seed(*parts))


def choose_caption(num_captions: int, sample_seed: int) -> int:
    """Which caption a sample takes, each as often: it follows from the sample's seed alone."""
    if num_captions == 1:
        return 0
    return int(torch.randint(num_captions, (), generator=seeded_generator(sample_seed, "caption")))


def check_num_frames(num_frames: int) -> int:
    """Return `num_frames` if it is 4n+1, as the VAE's temporal stride asks.

    Raises:
        ConfigError: it is not; the nearest valid value is named.
    """
    if num_frames >= 1 and num_frames % 4 == 1:
        return num_frames
    below = max((num_frames - 1) // 4 * 4 + 1, 1)
    nearest = sorted({below, below + 4}, key=lambda valid: (abs(valid - num_frames), valid))
    tie = len({abs(valid - num_frames) for valid in nearest}) == 1
    named = " or ".join(map(str, nearest)) if tie else str(nearest[0])
    raise ConfigError(f"num_frames = {num_frames} is not 4n+1 (1, 5, 9, ...); the nearest valid value is {named}")


def frame_indices(
    available: int, num_frames: int, mode: str, generator: torch.Generator, entries: Sequence[int] = (0,)
) -> list[int]:
    """Choose `num_frames` of `available` frames.

    A clip that is too short plays forward and back: 0 1 2 3 2 1 0 1 ... Otherwise "head" takes the first frames,
    "random" a contiguous run that starts anywhere, "keyframe" a contiguous run that starts at one of `entries`, where
    decoding can start, "uniform" frames spread evenly from the first to the last.

    Args:
        entries: ascending frame numbers that a "keyframe" run may start at; those too close to the end are left out.

    Raises:
        ConfigError: unknown mode.
    """
    if mode not in FRAME_MODES:
        raise ConfigError(f"mode = {mode!r} is not one of {', '.join(FRAME_MODES)}")
    if available < num_frames:
        period = max(2 * (available - 1), 1)
        return [min(t % period, period - t % period) if available > 1 else 0 for t in range(num_frames)]
    if mode == "uniform":
        return [round(i) for i in torch.linspace(0, available - 1, num_frames).tolist()]
    start = 0
    if mode == "random":
        start = int(torch.randint(available - num_frames + 1, (), generator=generator))
    elif mode == "keyframe":
        starts = [entry for entry in entries if entry <= available - num_frames]
        start = starts[int(torch.randint(len(starts), (), generator=generator))]
    return list(range(start, start + num_frames))


def played_frames(info: ClipInfo, target_fps: float | None = None) -> Sequence[int]:
    """The frames of a clip as it plays at a frame rate: frame numbers, some perhaps repeated or left out.

    With a target rate, each frame is the one on screen at its moment. A clip whose frame rate varies is brought to its
    mean rate even without one, for otherwise its motion would jump. Clips without times (folders of frames, stills) are
    taken as they are.

    Args:
        info: from clips.describe_clip; target_fps: frames per second wanted; None for the clip's own.
    """
    rate = target_fps or (info.fps if info.is_variable_rate else None)
    if rate is None or info.timeline is None or info.num_frames == 1:
        return range(info.num_frames)
    return resample(info.timeline.times, info.timeline.duration, rate)


def choose_frames(
    info: ClipInfo, num_frames: int, mode: str, generator: torch.Generator, target_fps: float | None = None
) -> list[int]:
    """Choose frames of a clip, as it plays at a frame rate (see played_frames), in the way of frame_indices.

    Returns:
        `num_frames` frame numbers; frames may repeat.
    """
    entries = info.timeline.keyframes if info.timeline else (0,)
    playing = played_frames(info, target_fps)
    if not isinstance(playing, range):
        entries = np.searchsorted(playing, entries).tolist()
    return [playing[place] for place in frame_indices(len(playing), num_frames, mode, generator, entries)]


def choose_geometry(
    source_size: tuple[int, int],
    size: tuple[int, int],
    num_frames: int,
    generator: torch.Generator,
    augment: bool = False,
    pan: bool = False,
) -> Geometry:
    """Choose scale and crop.

    Without augmentation the frame is scaled to cover `size` and cut in the centre. With it, the scale is that one times
    a uniform draw from [1, 2], and the cut lies anywhere (Wan-Alpha's training). A pan moves the cut in a straight line
    from a place in the outer third of the room to one in the opposite third, by whole pixels, so that edges stay sharp.

    Args:
        source_size: (height, width) of the frames.
        size: (height, width) wanted.
        num_frames: length of the clip.
        generator: source of every random number.
        augment: random scale and place.
        pan: move the cut over time (for stills).
    """
    (source_height, source_width), (height, width) = source_size, size
    scale = max(height / source_height, width / source_width)
    lowest = _PAN_ROOM if pan else 1.0
    if augment:
        scale *= lowest + (2.0 - lowest) * float(torch.rand((), generator=generator))
    else:
        scale *= lowest
    resized_height = max(round(source_height * scale), height)
    resized_width = max(round(source_width * scale), width)
    room = torch.tensor([resized_height - height, resized_width - width], dtype=torch.float64)
    if pan:
        low, high = torch.rand(2, 2, generator=generator, dtype=torch.float64) / 3 + torch.tensor([[0.0], [2 / 3]])
        swap = torch.rand(2, generator=generator) < 0.5
        start, end = torch.where(swap, high, low), torch.where(swap, low, high)
        steps = torch.linspace(0, 1, num_frames, dtype=torch.float64)[:, None]
        path = ((start + (end - start) * steps) * room).round().long()
    else:
        place = torch.rand(2, generator=generator, dtype=torch.float64) if augment else torch.tensor([0.5, 0.5])
        path = (place * room).round().long().expand(num_frames, 2)
    offsets = tuple((top, left) for top, left in path.tolist())
    return Geometry(resized_height, resized_width, height, width, offsets)


def _new_clip(*shape: int) -> torch.Tensor:
    """Memory for a clip, float32, not yet written to; in a loading process it is shared with the one that started it.

    A clip that lay elsewhere would be copied to shared memory on its way, at the price of resizing it once more.
    """
    if get_worker_info() is None:
        return torch.empty(shape)
    count = math.prod(shape)
    storage = torch.UntypedStorage._new_shared(4 * count)  # as torch's own default_collate does
    return torch.empty(0).set_(storage, 0, (count,), (1,)).view(shape)


def render_clip(frames: np.ndarray, indices: Sequence[int], geometry: Geometry) -> tuple[torch.Tensor, torch.Tensor]:
    """Cut a clip out of straight RGBA frames.

    Args:
        frames: (N, H, W, 4) uint8, straight.
        indices: frame of `frames` for each frame of the clip.
        geometry: one place per index.

    Returns:
        rgb (3, T, height, width) float32 straight in [-1, 1]; alpha (1, T, height, width) float32 in [0, 1].
    """
    rgba = _new_clip(4, len(indices), geometry.height, geometry.width)
    size, area = (geometry.resized_height, geometry.resized_width), (geometry.height, geometry.width)
    # A pan over a still: it is resized once, not once a frame.
    is_pan = len(set(indices)) == 1 and len(indices) > 1
    if is_pan:
        still = torch.empty(4, *size)
        resize_and_cut(frames[indices[0]], size, (0, 0, *size), still)
    for t, (index, (top, left)) in enumerate(zip(indices, geometry.offsets, strict=True)):
        if is_pan:
            rgba[:, t] = still[:, top : top + geometry.height, left : left + geometry.width]
        else:
            resize_and_cut(frames[index], size, (top, left, *area), rgba[:, t])
    rgba[:3].mul_(2 / 255).sub_(1)
    rgba[3].div_(255)
    return rgba[:3], rgba[3:]
