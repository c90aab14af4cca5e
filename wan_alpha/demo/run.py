"""Prepare, train both stages, validate, generate, and show: every command of the road, on the tiny family."""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console

from wan_alpha.data.prepare import prepare_dataset
from wan_alpha.demo.figures import Figure, clip_figures, figures_table, stage1_figures, stage2_figures
from wan_alpha.demo.material import FPS, NUM_FRAMES, SIZE, split_manifest, write_material
from wan_alpha.demo.page import write_page
from wan_alpha.errors import ConfigError
from wan_alpha.evaluation.clip_pairs import find_clips, pair_clips
from wan_alpha.evaluation.evaluate import evaluate_clip
from wan_alpha.evaluation.validate_vae import validate_vae
from wan_alpha.inference.generate import generate
from wan_alpha.models.tiny import tiny_wan_folder
from wan_alpha.stages.cache_latents import build_cache
from wan_alpha.stages.stage1_vae import WEIGHTS_FILE, train_vae
from wan_alpha.stages.stage2_dit import train_dit
from wan_alpha.training.config import load_recipe
from wan_alpha.training.json_figures import json_figures
from wan_alpha.training.progress import StepProgress
from wan_alpha.training.recipes import CacheRecipe, GenerateRecipe, TrainDiTRecipe, TrainVAERecipe, ValidateVAERecipe

PROMPTS = (
    "The background is transparent. Flat illustration, medium shot. A large solid red circle, moving right.",
    "The background is transparent. Flat illustration, medium shot. A large solid blue star, spinning.",
    "The background is transparent. Flat illustration, medium shot. A large translucent green square, growing.",
)


@dataclass(frozen=True)
class DemoReport:
    """What came of a demo: every figure beside its bar, and the page that shows the results."""

    figures: list[Figure]
    page: Path

    @property
    def passed(self) -> bool:
        """Every figure met its bar."""
        return all(figure.passed for figure in self.figures)


def run_demo(recipe):
    """Run the demo; the same call continues one that was interrupted.

    Args:
        recipe: a DemoRecipe.

    Returns:
        a :class:`DemoReport`.

    Raises:
        ConfigError: a source that is no folder.
        WanAlphaError: what the commands it runs raise.
    """
    if recipe.source is not None and not recipe.source.is_dir():
        raise ConfigError(f"source {recipe.source}: no such folder; give a folder of RGBA clips")
    out, started = recipe.output_dir, time.monotonic()
    console = Console()
    tiny = tiny_wan_folder()
    base_vae = tiny / "Wan2.1_VAE.pth"

    console.rule("1/6 prepare")
    write_material(out / "clips", recipe.num_clips, recipe.num_held_out, recipe.seed, recipe.source)
    with StepProgress("checking clips", total=None, unit="clips") as bar:
        report = prepare_dataset(
            out / "clips", out / "dataset", progress=lambda done, total, name: bar.update(done, name, total)
        )
    train_csv, held_out_csv = split_manifest(_read_records(report.metadata_path), out / "dataset")

    console.rule("2/6 stage 1: the RGBA VAE")
    common = {"seed": recipe.seed}
    training = _training(recipe.vae_steps, recipe.vae_learning_rate, recipe.vae_precision, recipe.device)
    stage1 = load_recipe(TrainVAERecipe, "tiny_stage1", common | training | {
        "output_dir": out / "stage1", "model.base_vae": base_vae, "data.base_path": out / "dataset",
        "data.metadata": train_csv, "data.validation_metadata": held_out_csv,
        "data.validation_clips": recipe.num_held_out,
    })  # fmt: skip
    stage1_result = train_vae(stage1)
    rgba_weights = out / "stage1" / WEIGHTS_FILE
    figures = stage1_figures(stage1_result.validation[0], stage1_result.validation[-1])

    console.rule("3/6 validate on the real still")
    size = {"num_frames": NUM_FRAMES, "height": SIZE, "width": SIZE}
    validate_vae(load_recipe(ValidateVAERecipe, None, common | size | {
        "output_dir": out / "validation", "output_prefix": "lemur", "model.base_vae": base_vae,
        "model.rgba_weights": rgba_weights, "rgb_video": out / "clips" / "lemur.png", "fps": FPS,
        "device": recipe.device,
    }))  # fmt: skip

    console.rule("4/6 cache")
    for name, metadata in (("train", train_csv), ("held_out", held_out_csv)):
        build_cache(load_recipe(CacheRecipe, None, common | {
            "output_dir": out / "cache" / name, "model.wan": str(tiny), "model.base_vae": base_vae,
            "model.rgba_weights": rgba_weights, "data.base_path": out / "dataset", "data.metadata": metadata,
            "device": recipe.device, **{f"data.{key}": value for key, value in size.items()},
        }))  # fmt: skip

    console.rule("5/6 stage 2: the diffusion model")
    training = _training(recipe.dit_steps, recipe.dit_learning_rate, recipe.dit_precision, recipe.device)
    stage2_result = train_dit(load_recipe(TrainDiTRecipe, "tiny_stage2", common | training | {
        "output_dir": out / "stage2", "model.wan": str(tiny), "cache": out / "cache" / "train",
        "validation_cache": out / "cache" / "held_out",
    }))  # fmt: skip
    figures += stage2_figures(stage2_result.validation[0], stage2_result.validation[-1])

    console.rule("6/6 generate")
    prompts_file = out / "prompts.txt"
    prompts_file.write_text("\n".join(PROMPTS) + "\n", encoding="utf-8")
    clips = generate(load_recipe(GenerateRecipe, "tiny_generate", common | {
        "output_dir": out / "generated", "prompts_file": prompts_file, "model.wan": str(tiny),
        "model.base_vae": base_vae, "model.rgba_weights": rgba_weights,
        "model.adapter": out / "stage2" / "adapter.safetensors", "device": recipe.device,
    }))  # fmt: skip
    pairs = [pair_clips(find_clips(clip.folder), None)[0] for clip in clips]
    transparencies = [evaluate_clip(pair).transparency for pair in pairs]
    figures += clip_figures(clips, transparencies)

    summary = {
        "seconds": round(time.monotonic() - started, 1),
        "figures": [asdict(figure) for figure in figures],
        "clips": [json_figures(transparency) for transparency in transparencies],
    }
    (out / "demo.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    page = write_page(out)
    console.print(figures_table(figures))
    console.print(f"{summary['seconds']:.0f} s; look at {page}", markup=False, highlight=False, soft_wrap=True)
    return DemoReport(figures, page)


def _training(max_steps, learning_rate, precision, device):
    """A stage's options of [training]: what is None stays the preset's."""
    options = {"max_steps": max_steps, "learning_rate": learning_rate, "precision": precision, "device": device}
    return {f"training.{name}": value for name, value in options.items() if value is not None}


def _read_records(metadata_path):
    import pandas

    return pandas.read_csv(metadata_path, keep_default_na=False).to_dict("records")
