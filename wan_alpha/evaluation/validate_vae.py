"""Reconstruct one RGBA clip with a trained RGBA VAE and judge the result."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from wan_alpha.alpha.composite import BACKGROUND_COLORS, background_color, checkerboard, hard_render, over
from wan_alpha.alpha.ranges import alpha_to_model, model_to_uint8, model_to_unit, rgba_frames
from wan_alpha.data.clips import describe_clip
from wan_alpha.data.manifest import Row, parse_row
from wan_alpha.data.operators import LoadRGBAVideoPair
from wan_alpha.data.sampling import seeded_generator
from wan_alpha.evaluation.evaluate import numbers
from wan_alpha.evaluation.evaluation_files import by_region
from wan_alpha.media.write import OpaqueWriter, write_png
from wan_alpha.metrics.mae import MAE_BARS, Verdict, mae_verdict
from wan_alpha.metrics.reconstruction import ReconstructionMeter, ReconstructionQuality
from wan_alpha.metrics.reference_meter import ReferenceMeter
from wan_alpha.models.devices import announce, choose_compute
from wan_alpha.models.rgba_vae import RGBAlphaVAE
from wan_alpha.training.config import GRID
from wan_alpha.training.json_figures import json_figures
from wan_alpha.training.progress import StepProgress


@dataclass(frozen=True)
class ValidationReport:
    """How well a clip came back.

    Attributes:
        quality: figures of colour (over grey) and alpha.
        rgb_verdict, alpha_verdict: what their mean absolute errors mean.
        files: what was written.
    """

    quality: ReconstructionQuality
    rgb_verdict: Verdict
    alpha_verdict: Verdict
    files: list[Path]

    @property
    def passed(self) -> bool:
        """Both verdicts are at least "good"."""
        return "poor" not in (self.rgb_verdict, self.alpha_verdict)


def find_clip(recipe) -> Row:
    """The clip that a ValidateVAERecipe names: a pair, or one RGBA file."""
    if recipe.alpha_video is not None:
        return parse_row(0, {"video_fgr": str(recipe.rgb_video), "video_pha": str(recipe.alpha_video)})
    return parse_row(0, {"video": str(recipe.rgb_video)})


def load_clip(recipe, row, say=print):
    """Read the clip at the recipe's size and length, or its own cut to what the VAE takes.

    Returns:
        rgb (1, 3, T, H, W) straight in [-1, 1] and alpha (1, 1, T, H, W) in [0, 1].

    Raises:
        DataError: the files are bad, or fit each other in neither size nor length.
    """
    info = describe_clip(row)
    num_frames = recipe.num_frames or (info.num_frames - 1) // 4 * 4 + 1
    if recipe.num_frames is None and num_frames < info.num_frames:
        say(f"the VAE takes 4n+1 frames: the last {info.num_frames - num_frames} of {info.num_frames} are left out")
    height = recipe.height or max(GRID, info.height // GRID * GRID)
    width = recipe.width or max(GRID, info.width // GRID * GRID)
    sample = LoadRGBAVideoPair(num_frames=num_frames, height=height, width=width)(row)
    return sample["rgb"][None], sample["alpha"][None]


def choose_background(recipe):
    """RGB in [-1, 1] of the encoder's hard render; "random" follows from the recipe's seed."""
    if recipe.background == "random":
        return BACKGROUND_COLORS[int(torch.randint(8, (), generator=seeded_generator(recipe.seed, "hard")))]
    return background_color(recipe.background)


def comparison_frames(rgb, alpha, pred_rgb, pred_alpha):
    """Four pictures a frame: input and reconstruction over a checkerboard, and below each its alpha.

    Args:
        rgb, pred_rgb: (1, 3, T, H, W) straight in [-1, 1]; alpha, pred_alpha: (1, 1, T, H, W) in [0, 1].

    Returns:
        (T, 2H, 2W, 3) uint8.
    """
    board = checkerboard(*rgb.shape[3:])[None, :, None].to(rgb)
    colours = torch.cat([over(rgb, alpha, board), over(pred_rgb, pred_alpha, board)], dim=-1)
    mattes = torch.cat([alpha_to_model(alpha), alpha_to_model(pred_alpha)], dim=-1)
    return model_to_uint8(torch.cat([colours, mattes], dim=-2)[0]).permute(1, 2, 3, 0).cpu().numpy()


@torch.no_grad()
def reconstruct(vae, rgb, alpha, background, threshold, chunk_size):
    """Encode the hard render and alpha, then decode chunk by chunk.

    Args:
        vae: a :class:`RGBAlphaVAE`; rgb: (1, 3, T, H, W) straight in [-1, 1]; alpha: (1, 1, T, H, W) in [0, 1].
        background, threshold: of the hard render; chunk_size: latent frames at a time, None for all.

    Yields:
        pred_rgb, pred_alpha, rgb, alpha of the same frames, float32 on the CPU.
    """
    vae.chunk_size = chunk_size
    rendered = hard_render(rgb, alpha, background, threshold)
    device = vae.latent_mean.device
    latents = vae.encode(rendered.to(device), alpha.to(device))
    start = 0
    for pred_rgb, pred_alpha in vae.iterate_decode(latents, chunk_size or latents.shape[2]):
        frames = slice(start, start + pred_rgb.shape[2])
        start = frames.stop
        yield pred_rgb.float().cpu(), pred_alpha.float().cpu(), rgb[:, :, frames], alpha[:, :, frames]


def print_report(report, console=None):
    """The figures and verdicts as a table."""
    table = Table(title="Reconstruction")
    for heading in ("stream", "MAE (0-255)", "PSNR (dB)", "SSIM", "verdict", "bars (MAE)"):
        table.add_column(heading)
    for stream, verdict in (("rgb", report.rgb_verdict), ("alpha", report.alpha_verdict)):
        quality = getattr(report.quality, stream)
        excellent, good = MAE_BARS[stream]
        bars = f"< {good:g} good, < {excellent:g} excellent"
        name = "RGB" if stream == "rgb" else "alpha"
        table.add_row(name, f"{quality.mae:.2f}", f"{quality.psnr:.2f}", f"{quality.ssim:.4f}", verdict, bars)
    console = console or Console()
    console.print(table)
    console.print("RGB is compared over grey, where it is visible.")
    for file in report.files:
        console.print(str(file), markup=False, highlight=False, soft_wrap=True)


def validate_vae(recipe) -> ValidationReport:
    """Reconstruct a clip; print the figures; write a comparison video, PNGs and a JSON file.

    The JSON file holds, beside the table's figures, every figure of `ReferenceMeter`, by the names of evaluation.json.

    Args:
        recipe: a ValidateVAERecipe. Files are named ``<output_dir>/<output_prefix>_...``.

    Raises:
        ConfigError, DataError, CheckpointError: what is wrong with recipe, clip or weights.
    """
    row = find_clip(recipe)
    rgb, alpha = load_clip(recipe, row)
    compute = announce(choose_compute(recipe.device, recipe.precision))
    device, dtype = compute.device, compute.dtype
    model = recipe.model
    vae = RGBAlphaVAE.from_pretrained(
        model.base_vae, model.rgba_weights, model.decoder_lora, dtype=dtype, device=device
    )

    prefix = recipe.output_dir / recipe.output_prefix
    prefix.parent.mkdir(parents=True, exist_ok=True)
    meter, details = ReconstructionMeter(), ReferenceMeter()
    files = [prefix.with_name(f"{prefix.name}_comparison.mp4")]
    num_frames = rgb.shape[2]
    stills = sorted({0, num_frames // 2, num_frames - 1})
    chunks = reconstruct(vae, rgb, alpha, choose_background(recipe), recipe.hard_threshold, recipe.chunk_size)
    with OpaqueWriter(files[0], recipe.fps) as video, StepProgress("validating", num_frames, unit="frames") as progress:
        done = 0
        for pred_rgb, pred_alpha, true_rgb, true_alpha in chunks:
            clips = model_to_unit(pred_rgb), pred_alpha, model_to_unit(true_rgb), true_alpha
            meter.update(*clips)
            details.update(*clips)
            comparison = comparison_frames(true_rgb, true_alpha, pred_rgb, pred_alpha)
            video.write(comparison)
            reconstruction, truth = rgba_frames(pred_rgb, pred_alpha), rgba_frames(true_rgb, true_alpha)
            for frame in [frame for frame in stills if done <= frame < done + len(comparison)]:
                at = frame - done
                files += write_stills(prefix, frame, comparison[at], reconstruction[at], truth[at])
            done += len(comparison)
            progress.update(done)

    quality = meter.quality()
    verdicts = mae_verdict("rgb", quality.rgb.mae), mae_verdict("alpha", quality.alpha.mae)
    files.append(prefix.with_name(f"{prefix.name}_metrics.json"))
    content = by_region(numbers(details.means())) | asdict(quality)
    content |= {"rgb_verdict": verdicts[0], "alpha_verdict": verdicts[1], "num_frames": num_frames}
    files[-1].write_text(json.dumps(json_figures(content), indent=2) + "\n", encoding="utf-8")
    report = ValidationReport(quality, *verdicts, files)
    print_report(report)
    return report


def write_stills(prefix, frame, comparison, rgba, truth):
    """Write one frame's comparison, opaque, and its reconstruction and input as straight RGBA; returns the paths."""
    opaque = np.concatenate([comparison, np.full((*comparison.shape[:2], 1), 255, np.uint8)], axis=-1)
    paths = [prefix.with_name(f"{prefix.name}_{kind}_{frame:05d}.png") for kind in ("comparison", "rgba", "input")]
    for path, picture in zip(paths, (opaque, rgba, truth), strict=True):
        write_png(path, picture)
    return paths
