"""RGBA clips as diffsynth data operators: `LoadRGBAVideoPair(...) >> HardRenderRGBA() >> SoftRenderRGBA()`.

Every random choice of a sample follows from its `sample_seed`, which travels in the sample.
Importing this module imports diffsynth's core (seconds); manifest, sampling, clips and dataset do without.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffsynth.core.data.operators import DataProcessingOperator

from wan_alpha.alpha.composite import (
    BACKGROUND_COLOR_NAMES,
    BACKGROUND_COLORS,
    background_color,
    hard_render,
    soft_render,
)
from wan_alpha.data.clips import describe_clip, read_clip, read_frames
from wan_alpha.data.manifest import Row, parse_row
from wan_alpha.data.sampling import (
    FRAME_MODES,
    check_num_frames,
    choose_caption,
    choose_frames,
    choose_geometry,
    derive_seed,
    played_frames,
    render_clip,
    seeded_generator,
)
from wan_alpha.errors import ConfigError, DataError


class LoadRGBAVideoPair(DataProcessingOperator):
    """Read a clip and bring it to one size and length, colour and alpha in exactly the same way.

    Called with a manifest record (dict with `video_fgr, video_pha` or `video`, and `prompt`, `type`), a path (one RGBA
    file, or `X_rgb.*` beside its `X_alpha.*`), a (foreground, matte) tuple, a Row, or {"row": Row, "sample_seed": int}.
    With a "shape", a Bucket, beside these two, this sample has its frames, height and width.

    Args:
        base_path: folder that paths start from and must not leave; "" takes them as they are.
        num_frames: length of the clip, 4n+1.
        height, width: size of the clip in pixels.
        augment: scale by 1 to 2 and cut anywhere; otherwise scale to cover and cut the centre. A still that becomes
            a clip is panned over either way.
        mode: "head", "random", "uniform" or "keyframe" choice of frames; see sampling.frame_indices.
        target_fps: frames per second that clips are sampled at, by the times of their frames; None for their own.
        ping_pong: clips that are too short play forward and back; False refuses them (stills are panned over still).
        seed: with no sample_seed in the data and no generator, the choices follow from this and the file's name: the
            same file always gives the same clip.
        generator: if given, each call draws its sample_seed from it: calls differ, runs repeat.
        cache_clips: keep every decoded clip in memory (T*H*W*4 bytes each, at the file's own size).

    Returns (from a call):
        dict of rgb (3, T, H, W) float32 straight in [-1, 1]; alpha (1, T, H, W) float32 in [0, 1]; prompt (of several
        captions the one that sample_seed chooses); sample_seed; row, the row's number (0 for a bare path); source, the
        foreground's path.

    Raises:
        ConfigError: num_frames is not 4n+1, or mode or size is impossible.
        DataError: (from a call) a file is missing, damaged, without alpha, or the two do not fit each other.
    """

    def __init__(
        self,
        base_path: str | Path = "",
        num_frames: int = 17,
        height: int = 272,
        width: int = 272,
        augment: bool = False,
        mode: str = "head",
        seed: int = 0,
        generator: torch.Generator | None = None,
        cache_clips: bool = False,
        target_fps: float | None = None,
        ping_pong: bool = True,
    ):
        if mode not in FRAME_MODES:
            raise ConfigError(f"mode = {mode!r} is not one of {', '.join(FRAME_MODES)}")
        if height < 1 or width < 1:
            raise ConfigError(f"height = {height} and width = {width} must be at least 1 pixel")
        if target_fps is not None and not target_fps > 0:
            raise ConfigError(f"target_fps = {target_fps} must be above 0 (frames per second)")
        self.target_fps, self.ping_pong = target_fps, ping_pong
        self.base_path = base_path
        self.num_frames = check_num_frames(num_frames)
        self.height, self.width = height, width
        self.augment, self.mode = augment, mode
        self.seed, self.generator = seed, generator
        self._cache = {} if cache_clips else None

    def __call__(self, data) -> dict:
        row, sample_seed = self._resolve(data)
        shape = data.get("shape") if isinstance(data, dict) else None
        num_frames, *size = (self.num_frames, self.height, self.width) if shape is None else (shape.frames, *shape.size)
        info = describe_clip(row)
        self._check_length(row, info, num_frames, shape)
        randomness = seeded_generator(sample_seed, "clip")
        indices = choose_frames(info, num_frames, self.mode, randomness, self.target_fps)
        geometry = choose_geometry(
            (info.height, info.width),
            tuple(size),
            num_frames,
            randomness,
            augment=self.augment,
            pan=info.num_frames == 1 and num_frames > 1,
        )
        rgb, alpha = render_clip(*self._read(row, indices), geometry)
        return {
            "rgb": rgb,
            "alpha": alpha,
            "prompt": row.captions[choose_caption(len(row.captions), sample_seed)],
            "sample_seed": sample_seed,
            "row": row.index,
            "source": str(row.foreground),
        }

    def _check_length(self, row, info, num_frames, shape):
        found = info.num_frames, info.height, info.width
        if shape is not None and row.listed_shape not in (None, found) and row.kind != "static":
            # A bucket was chosen by what the manifest says.
            said, there = ("x".join(map(str, one)) for one in (row.listed_shape, found))
            raise DataError(
                f"the manifest says {said} (frames x height x width), the file has {there}; correct the list"
            )
        available = len(played_frames(info, self.target_fps))
        if not self.ping_pong and info.num_frames > 1 and available < num_frames:
            raise DataError(f"{available} frames are too few for {num_frames}, and ping_pong is off")

    def _resolve(self, data) -> tuple[Row, int]:
        sample_seed = data.get("sample_seed") if isinstance(data, dict) else None
        row = self._find_row(data)
        if sample_seed is None and self.generator is not None:
            sample_seed = int(torch.randint(2**62, (), generator=self.generator))
        if sample_seed is None:
            sample_seed = derive_seed(self.seed, row.foreground.name)
        return row, sample_seed

    def _find_row(self, data) -> Row:
        if isinstance(data, Row):
            return data
        if isinstance(data, dict):
            return data["row"] if isinstance(data.get("row"), Row) else parse_row(0, data, self.base_path)
        if isinstance(data, (str, Path)):
            return parse_row(0, {"video": str(data)}, self.base_path)
        if isinstance(data, tuple) and len(data) == 2:
            return parse_row(0, {"video_fgr": str(data[0]), "video_pha": str(data[1])}, self.base_path)
        raise ConfigError(f"{type(data).__name__} is not a record, a path, a (foreground, matte) tuple or a Row")

    def _read(self, row: Row, indices: list[int]) -> tuple[np.ndarray, list[int]]:
        """Frames that hold those wanted, and where among them each wanted one is."""
        if self._cache is None:
            wanted = sorted(set(indices))
            return read_frames(row, wanted), [wanted.index(index) for index in indices]
        if row.files not in self._cache:
            self._cache[row.files] = read_clip(row)
        return self._cache[row.files], indices


class _RenderRGBA(DataProcessingOperator):
    """Adds `<name>` (3, T, H, W), `<name>_background` (3,) and `<name>_background_index` (-1: none of the eight)."""

    name: str

    def __init__(self, background="random", generator: torch.Generator | None = None):
        self.background = background
        self.generator = generator
        if background != "random":
            _resolve_background(background)

    def render(self, rgb, alpha, background):
        raise NotImplementedError

    def __call__(self, data: dict) -> dict:
        if self.background == "random":
            index = self._draw(data)
            background = BACKGROUND_COLORS[index].clone()
        else:
            background, index = _resolve_background(self.background)
        rendered = self.render(data["rgb"][None], data["alpha"][None], background)[0]
        added = {self.name: rendered, f"{self.name}_background": background, f"{self.name}_background_index": index}
        return {**data, **added}

    def _draw(self, data: dict) -> int:
        generator = self.generator
        if generator is None:
            if "sample_seed" not in data:
                raise ConfigError(
                    "a random background needs data['sample_seed'] (LoadRGBAVideoPair sets it) or a generator"
                )
            generator = seeded_generator(data["sample_seed"], self.name)
        return int(torch.randint(len(BACKGROUND_COLORS), (), generator=generator))


class HardRenderRGBA(_RenderRGBA):
    """Add `hard`, the clip with every pixel above `threshold` kept whole and the rest replaced by one colour.

    Args:
        background: "random" (one of the eight), a name, an index 0..7, or three floats in [-1, 1].
        threshold: largest alpha that counts as clear; see alpha.composite.hard_render.
        generator: source of random backgrounds; the sample's own seed if None.

    Raises:
        ConfigError: no such background.
    """

    name = "hard"

    def __init__(self, background="random", threshold: float = 0.0, generator: torch.Generator | None = None):
        super().__init__(background, generator)
        self.threshold = threshold

    def render(self, rgb, alpha, background):
        return hard_render(rgb, alpha, background, self.threshold)


class SoftRenderRGBA(_RenderRGBA):
    """Add `soft`, the clip composited over one colour. Arguments and errors as HardRenderRGBA."""

    name = "soft"

    def render(self, rgb, alpha, background):
        return soft_render(rgb, alpha, background)


def _resolve_background(background: str | int | Sequence[float]) -> tuple[torch.Tensor, int]:
    if isinstance(background, int):
        if not 0 <= background < len(BACKGROUND_COLORS):
            raise ConfigError(f"background {background} is not an index from 0 to {len(BACKGROUND_COLORS) - 1}")
        return BACKGROUND_COLORS[background].clone(), background
    if isinstance(background, str):
        index = BACKGROUND_COLOR_NAMES.index(background) if background in BACKGROUND_COLOR_NAMES else -1
        return torch.tensor(background_color(background)), index
    color = torch.as_tensor(background, dtype=torch.float32)
    if color.shape != (3,) or color.abs().max() > 1:
        raise ConfigError(f"background {background} must be three floats in [-1, 1]")
    same = (BACKGROUND_COLORS == color).all(dim=1).nonzero()
    return color, int(same[0]) if len(same) else -1
