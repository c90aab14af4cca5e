"""Generate a transparent clip from a prompt.

    python examples/inference_rgba.py --wan Wan2.1-T2V-1.3B --vae_lora_path decoder.bin --adapter adapter.safetensors \\
        --prompt "The background is transparent. A red balloon rises. Cartoon style. Medium shot." --output_path results

The same as `wan-alpha generate`, which knows more options.
"""

import argparse
import sys

from wan_alpha.cli.guard import run_recipe
from wan_alpha.errors import ConfigError
from wan_alpha.training.config import load_recipe
from wan_alpha.training.recipes import GenerateRecipe

OPTIONS = {
    # option: (dotted name in the recipe, help)
    "base_vae_path": ("model.base_vae", "Wan VAE weights; by default the Wan folder's own"),
    "vae_lora_path": ("model.decoder_lora", "decoder.bin: the two decoders' LoRA"),
    "feature_merge_checkpoint": ("model.rgba_weights", "trained RGBA VAE (safetensors or released .bin)"),
    "adapter": ("model.adapter", "DoRA or LoRA of stage 2"),
    "adapter_scale": ("model.adapter_scale", "strength of the adapter (default 1)"),
    "distillation_lora": ("model.distillation_lora", "step-distillation LoRA; use 4 steps and guidance 1 with it"),
    "prompt": ("prompt", "what to show"),
    "prompts_file": ("prompts_file", "text file, one prompt a line"),
    "negative_prompt": ("negative_prompt", "what to avoid"),
    "num_frames": ("num_frames", "frames, 4n+1 (default 81)"),
    "height": ("height", "pixels, a multiple of 16 (default 480)"),
    "width": ("width", "pixels, a multiple of 16 (default 832)"),
    "num_steps": ("num_steps", "sampling steps (default 50)"),
    "guidance": ("guidance", "classifier-free guidance (default 5)"),
    "solver": ("solver", "unipc or euler"),
    "mask": ("mask", "gauss_mask file, or ellipse:cx,cy,rx,ry[,dx,dy]"),
    "noise_shift": ("noise_shift", "how far the noise is raised outside the mask (Wan-Alpha v2: 0.05)"),
    "seed": ("seed", "seed of the first clip's noise (default 0)"),
    "device": ("device", "auto, cuda, mps or cpu"),
    "precision": ("precision", "auto, fp32 or bf16"),
}


def read_recipe(arguments=None):
    """The command line as a GenerateRecipe."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wan", required=True, help="Wan folder, list of files as JSON, or model_id:pattern,...")
    parser.add_argument("--output_path", required=True, help="folder of the results")
    for option, (_, text) in OPTIONS.items():
        parser.add_argument(f"--{option}", help=text)
    given = parser.parse_args(arguments)
    overrides = {"model.wan": given.wan, "output_dir": given.output_path}
    for option, (dotted, _) in OPTIONS.items():
        if getattr(given, option) is not None:
            overrides[dotted] = getattr(given, option)
    if "model.base_vae" not in overrides:
        overrides["model.base_vae"] = _own_vae(given.wan)
    return load_recipe(GenerateRecipe, None, overrides)


def _own_vae(wan):
    from wan_alpha.weights.wan_layout import find_wan_files

    vae = find_wan_files(wan).vae
    if not vae:
        raise ConfigError(f"--wan {wan} holds no VAE: give --base_vae_path")
    return str(vae[0])


def run(recipe):
    from wan_alpha.inference.generate import generate

    return generate(recipe)


def main(arguments=None):
    return run_recipe("inference_rgba.py", lambda: read_recipe(arguments), run)


if __name__ == "__main__":
    sys.exit(main())
