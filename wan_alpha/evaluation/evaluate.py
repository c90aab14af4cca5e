"""``wan-alpha evaluate``: figures of clips, against references or without, for people, tables and scripts."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from wan_alpha.data.clips import iter_clip
from wan_alpha.errors import ConfigError, DataError
from wan_alpha.evaluation import evaluation_files
from wan_alpha.evaluation.clip_pairs import ClipPair, find_clips, pair_clips, unused_references
from wan_alpha.evaluation.figure_names import BETTER, HIGH, TRANSPARENCY, Bar, check_name, flat_figures, read_bars
from wan_alpha.losses.backbone_weights import find_backbone_weights
from wan_alpha.losses.lpips_loss import lpips_network
from wan_alpha.metrics.reference_meter import ReferenceMeter
from wan_alpha.metrics.ssim import WINDOW
from wan_alpha.metrics.transparency import TransparencyMeter
from wan_alpha.models.devices import choose_device
from wan_alpha.training.progress import StepProgress

# Pixels that are read at a time; four channels, 8 bits and float32.
PIXELS_AT_A_TIME = 3_200_000
LPIPS_SMALLEST = 31


@dataclass(frozen=True)
class EvaluatedClip:
    """One clip's figures.

    Attributes:
        pair: what was compared.
        reference: `ReferenceMeter.means` as numbers, None without a reference.
        transparency: `TransparencyMeter.means`.
        flat: all of them under flat names.
        frames: flat name -> a value per frame.
    """

    pair: ClipPair
    reference: dict | None
    transparency: dict
    flat: dict[str, float]
    frames: dict[str, list[float]]


@dataclass(frozen=True)
class EvaluationReport:
    """What came of an evaluation: clips, worst first; the figures over all by flat names; bars missed; files."""

    clips: list[EvaluatedClip]
    overall: dict[str, float]
    missed: list[Bar]
    files: list[Path]

    @property
    def passed(self) -> bool:
        """No bar was missed."""
        return not self.missed


def evaluate(recipe) -> EvaluationReport:
    """Measure every clip, print a table, write evaluation.json and evaluation.csv.

    Args:
        recipe: an EvaluateRecipe.

    Raises:
        ConfigError: a bar or an order by a figure that is not measured; a device or weights that are not there.
        DataError: clips that cannot be read or do not fit each other, named.
    """
    has_reference = recipe.reference is not None
    measured = [name for name in BETTER if has_reference or name in TRANSPARENCY]
    bars = read_bars(recipe.fail_under, recipe.fail_over, measured)
    order = recipe.worst_by or ("alpha_mad" if has_reference else "flicker")
    check_name("worst_by", order, measured)
    references = find_clips(recipe.reference) if has_reference else None
    pairs = pair_clips(find_clips(recipe.pred), references)
    for pair in pairs:
        if has_reference and min(pair.info.width, pair.info.height) < WINDOW:
            size = f"{pair.info.width}x{pair.info.height}"
            raise DataError(f"{pair.pred.foreground}: frames of {size}; SSIM needs at least {WINDOW}x{WINDOW} pixels")
    console, device = Console(), choose_device(recipe.device)
    distance = _lpips(recipe, device, console) if has_reference else None
    recipe.output_dir.mkdir(parents=True, exist_ok=True)

    clips, done = [], 0
    total = sum(pair.info.num_frames for pair in pairs)
    with StepProgress("evaluating", total, unit="frames") as bar:
        for pair in pairs:

            def progress(frames, name=pair.name, before=done):
                bar.update(before + frames, name)

            clips.append(evaluate_clip(pair, device, recipe.edge_radius, distance, progress))
            done += pair.info.num_frames
    clips.sort(key=lambda clip: _badness(clip, order), reverse=True)

    overall, transparency = {}, evaluation_files.mean_transparency(clips)
    flat = {name: value for name, value in transparency.items() if name in TRANSPARENCY}
    if has_reference:
        means = evaluation_files.mean_of_clips(clips)
        overall = evaluation_files.by_region(means)
        flat |= flat_figures(means)
    overall |= {"transparency": transparency}
    files = [
        evaluation_files.write_json(recipe.output_dir, clips, overall),
        evaluation_files.write_csv(recipe.output_dir, clips),
    ]
    missed = [one for one in bars if not one.is_met(flat.get(one.name, math.nan))]
    console.print(evaluation_files.evaluation_table(clips, flat))
    if unused := unused_references(pairs, references or []):
        listed = ", ".join(unused[:5]) + (", ..." if len(unused) > 5 else "")
        console.print(f"not compared, {len(unused)} references without a clip: {listed}", markup=False, highlight=False)
    for one in bars:
        state = "missed" if one in missed else "met"
        console.print(f"{state}: {one}; it is {flat.get(one.name, math.nan):g}", markup=False, highlight=False)
    for file in files:
        console.print(str(file), markup=False, highlight=False, soft_wrap=True)
    return EvaluationReport(clips, flat, missed, files)


def _badness(clip, order):
    value = clip.flat.get(order, math.nan)
    value = -math.inf if math.isnan(value) else -value if BETTER[order] == HIGH else value
    return clip.transparency["collapse"] is not None and clip.reference is None, value


def _lpips(recipe, device, console):
    """The network, or None where it is not wanted or its weights are not at hand; says so."""
    if recipe.lpips == "off":
        return None
    if recipe.lpips_weights is not None and not recipe.lpips_weights.is_file():
        raise ConfigError(f"lpips_weights {recipe.lpips_weights}: no such file; none = torchvision's cache")
    try:
        weights = find_backbone_weights("alex", recipe.lpips_weights, "lpips")
    except ConfigError:
        console.print("LPIPS is left out: torchvision's AlexNet weights are not in its cache, and none were given")
        return None
    return lpips_network("alex", weights).to(device)


def read_chunks(row, num_pixels, device) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Read a clip a few frames at a time.

    Args:
        row: the clip; num_pixels: of a frame; device: where the frames go.

    Yields:
        rgb straight (1, 3, T, H, W) and alpha (1, 1, T, H, W), float32 in [0, 1].

    Raises:
        DataError: as `iter_clip`.
    """
    frames, at_a_time = iter_clip(row), max(1, PIXELS_AT_A_TIME // num_pixels)
    while chunk := list(islice(frames, at_a_time)):
        levels = np.stack(chunk)
        clip = torch.from_numpy(levels.astype(np.float32)).to(device).permute(3, 0, 1, 2)[None]
        clip = clip / float(np.iinfo(levels.dtype).max)
        yield clip[:, :3], clip[:, 3:]


def evaluate_clip(pair, device="cpu", radius=None, distance=None, progress=None) -> EvaluatedClip:
    """Measure one clip in bounded memory.

    Args:
        pair: what to compare; device: where to compute.
        radius: of the edge band, as in `AlphaMeter`; distance: as in `CompositeMeter`.
        progress: called as progress(frames done) after every few frames.

    Raises:
        DataError: a file cannot be read, or one of the two ends early.
    """
    num_pixels = pair.info.width * pair.info.height
    if min(pair.info.width, pair.info.height) < LPIPS_SMALLEST:
        distance = None
    transparency = TransparencyMeter()
    against = ReferenceMeter(radius=radius, distance=distance) if pair.reference is not None else None
    references = read_chunks(pair.reference, num_pixels, device) if against is not None else None
    done = 0
    for rgb, alpha in read_chunks(pair.pred, num_pixels, device):
        transparency.update(rgb, alpha)
        if against is not None:
            true_rgb, true_alpha = next(references, (rgb[:, :, :0], alpha[:, :, :0]))
            if true_alpha.shape != alpha.shape:
                raise DataError(f"{pair.pred.foreground} and {pair.reference.foreground} differ in length")
            against.update(rgb, alpha, true_rgb, true_alpha)
        done += alpha.shape[2]
        if progress is not None:
            progress(done)
    return summarise(pair, transparency, against)


def summarise(pair, transparency, against) -> EvaluatedClip:
    """The figures of two meters that have seen one clip; `against` is None without a reference."""
    of_clip = transparency.means()[0]
    flat = {name: of_clip[name] for name in TRANSPARENCY}
    frames = {name: values[0].tolist() for name, values in transparency.per_frame().items()}
    if against is None:
        return EvaluatedClip(pair, None, of_clip, flat, frames)
    means = numbers(against.means())
    flat = flat_figures(means) | flat
    of_frames = against.per_frame()
    each = [flat_figures(numbers(of_frames, frame)) for frame in range(len(frames["clear"]))]
    frames = {name: [of_frame[name] for of_frame in each] for name in each[0]} | frames
    return EvaluatedClip(pair, means, of_clip, flat, frames)


def numbers(figures, frame=None):
    """Nested figures of the first sample as numbers: (B,) -> float, or (B, T) -> the float of one frame."""
    if isinstance(figures, dict):
        return {name: numbers(value, frame) for name, value in figures.items()}
    return figures[0].item() if frame is None else figures[0, frame].item()
