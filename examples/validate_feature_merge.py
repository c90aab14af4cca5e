"""Reconstruct one clip with a trained merge block and judge the result, with the flags of the Wan-Alpha training notes.

    python examples/validate_feature_merge.py --base_vae_path Wan2.1_VAE.pth --vae_lora_path decoder.bin \\
        --feature_merge_checkpoint OUT/rgba_vae.safetensors \\
        --test_rgb_video 001_rgb.mp4 --test_alpha_video 001_alpha.mp4

`wan-alpha validate-vae` is the same with every option. Exit code 1: an error is above its bar.
"""

import argparse
import sys
from pathlib import Path

from wan_alpha.cli.guard import run_recipe
from wan_alpha.training.config import load_recipe
from wan_alpha.training.recipes import ValidateVAERecipe

FLAGS = {
    # flag: (option of the recipe, default, help)
    "base_vae_path": ("model.base_vae", None, "Wan2.1_VAE.pth"),
    "vae_lora_path": (
        "model.decoder_lora",
        "none",
        "the released decoder.bin; none = the checkpoint holds the decoders",
    ),
    "feature_merge_checkpoint": ("model.rgba_weights", None, "weights that training wrote"),
    "test_rgb_video": ("rgb_video", None, "colour video, or one RGBA file"),
    "test_alpha_video": ("alpha_video", "none", "its matte; none = beside the colour video, or in the file"),
    "num_frames": ("num_frames", "none", "frames from the start, 4n+1; none = the whole clip"),
    "height": ("height", "none", "pixels, a multiple of 16; none = the clip's own"),
    "width": ("width", "none", "pixels, a multiple of 16; none = the clip's own"),
    "device": ("device", "auto", "auto, cuda, mps or cpu"),
}


def recipe_from(options):
    """The recipe that the flags stand for."""
    overrides = {option: options[flag] for flag, (option, _, _) in FLAGS.items()}
    prefix = options["output_prefix"]
    overrides |= {"output_dir": str(prefix.parent), "output_prefix": prefix.name}
    return load_recipe(ValidateVAERecipe, overrides=overrides)


def validate(recipe):
    from wan_alpha.evaluation.validate_vae import validate_vae

    return validate_vae(recipe)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for flag, (_, default, text) in FLAGS.items():
        shown = f"{text} (required)" if default is None else f"{text} (default: {default})"
        parser.add_argument(f"--{flag}", default=default, required=default is None, metavar="VALUE", help=shown)
    parser.add_argument(
        "--output_prefix", type=Path, default=Path("validation"), help="start of the names of what is written"
    )
    options = vars(parser.parse_args(argv))
    return run_recipe(parser.prog, lambda: recipe_from(options), validate)


if __name__ == "__main__":
    sys.exit(main())
