"""Train the feature merge block against the released decoders, with the flags of the Wan-Alpha training notes.

    python examples/train_feature_merge.py --dataset_base_path D --base_vae_path Wan2.1_VAE.pth \\
        --vae_lora_path decoder.bin --output_path OUT

The same on several GPUs: put ``accelerate launch`` in front. `wan-alpha train-vae --config stage1_merge_only` is the
same run with every option of a recipe.
"""

import argparse
import sys

from wan_alpha.cli.guard import run_recipe
from wan_alpha.errors import ConfigError
from wan_alpha.training.config import load_recipe
from wan_alpha.training.recipes import TrainVAERecipe

FLAGS = {
    # flag: (option of the recipe, default, help)
    "dataset_base_path": ("data.base_path", None, "folder of the dataset"),
    "dataset_metadata_path": ("data.metadata", "none", "manifest; none = metadata.csv in that folder"),
    "dataset_repeat": ("data.repeat", "1", "times each clip occurs in an epoch"),
    "base_vae_path": ("model.base_vae", None, "Wan2.1_VAE.pth"),
    "vae_lora_path": ("model.decoder_lora", None, "the released decoder.bin"),
    "height": ("data.height", "272", "pixels, a multiple of 16"),
    "width": ("data.width", "272", "pixels, a multiple of 16"),
    "num_frames": ("data.num_frames", "17", "frames per clip, 4n+1"),
    "learning_rate": ("training.learning_rate", "1e-4", "of AdamW"),
    "num_epochs": ("training.num_epochs", "10", "passes over the data"),
    "batch_size": ("training.batch_size", "1", "clips per device"),
    "num_workers": ("training.num_workers", "0", "processes that load clips"),
    "perceptual": ("loss.perceptual", "auto", "vgg16, lpips, none, or auto = vgg16 if its weights are here, else none"),
    "perceptual_weights": (
        "loss.perceptual_weights",
        "none",
        "file of that network's weights; none = torchvision's cache",
    ),
    "seed": ("seed", "0", "of all randomness"),
    "output_path": ("output_dir", None, "folder of checkpoints, metrics.jsonl and the trained weights"),
}


def choose_perceptual(overrides):
    """Settle "auto", and say so where the perceptual terms are left out."""
    from wan_alpha.losses.backbone_weights import find_backbone_weights

    weights = overrides["loss.perceptual_weights"]
    try:
        find_backbone_weights("vgg16", None if weights == "none" else weights, "--perceptual vgg16")
    except ConfigError as error:
        if weights != "none":
            raise
        print(f"training without the perceptual terms: {error}", file=sys.stderr)
        return "none"
    return "vgg16"


def recipe_from(options):
    """The recipe that the flags stand for."""
    overrides = {option: options[flag] for flag, (option, _, _) in FLAGS.items()}
    if options["perceptual"] == "auto":
        overrides["loss.perceptual"] = choose_perceptual(overrides)
    return load_recipe(TrainVAERecipe, overrides=overrides | {"model.mode": "merge"})


def train(recipe):
    from wan_alpha.stages.stage1_vae import train_vae

    train_vae(recipe)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for flag, (_, default, text) in FLAGS.items():
        shown = f"{text} (required)" if default is None else f"{text} (default: {default})"
        parser.add_argument(f"--{flag}", default=default, required=default is None, metavar="VALUE", help=shown)
    options = vars(parser.parse_args(argv))
    return run_recipe(parser.prog, lambda: recipe_from(options), train)


if __name__ == "__main__":
    sys.exit(main())
