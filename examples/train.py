"""Stage 2 in one command: cache the clips' latents, then train a DoRA (or LoRA, or all) of a Wan DiT on them.

    accelerate launch examples/train.py --rgba_mode \\
        --dataset_base_path D --dataset_metadata_path D/metadata.csv --data_file_keys video \\
        --height 272 --width 272 --num_frames 17 --dataset_repeat 100 \\
        --model_id_with_origin_paths "Wan-AI/Wan2.1-T2V-1.3B:diffusion_pytorch_model*.safetensors,..." \\
        --base_vae_path Wan2.1_VAE.pth --vae_lora_path decoder.bin --feature_merge_checkpoint FM.safetensors \\
        --use_dora --dora_rank 32 --learning_rate 1e-4 --num_epochs 15 --remove_prefix_in_ckpt "pipe.dit." \\
        --output_path OUT

The flags are those of diffsynth's training examples where they exist there. `wan-alpha cache` and `wan-alpha train-dit`
do the same in two steps, from recipes, with every option.
"""

import argparse
import sys
from pathlib import Path

from wan_alpha.cli.guard import run_recipe
from wan_alpha.errors import ConfigError
from wan_alpha.training.config import load_recipe
from wan_alpha.training.recipes import ADAPTER_TARGETS, CacheRecipe, TrainDiTRecipe
from wan_alpha.weights.wan_layout import find_wan_files

PREFIX_IN_MODULE = "pipe.dit."


def parse_arguments(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--rgba_mode", action="store_true", help="train on RGBA clips; required, for this script does nothing else")

    add("--dataset_base_path", required=True, help="folder of the dataset")
    add("--dataset_metadata_path", help="manifest; default <dataset_base_path>/metadata.csv")
    add("--data_file_keys", default="video", help='"video" or "video_fgr,video_pha": the manifest says by itself which')
    add("--dataset_repeat", type=int, default=1, help="times each clip occurs in an epoch; default 1")
    add("--dataset_num_workers", type=int, default=0, help="processes that load cache items; default 0")
    add("--height", type=int, default=480, help="pixels, a multiple of 16; default 480")
    add("--width", type=int, default=832, help="pixels, a multiple of 16; default 832")
    add("--num_frames", type=int, default=81, help="frames per clip, 4n+1; default 81")
    add("--hard_threshold", type=float, default=0.0, help="alpha, 0 to 1, up to which a pixel is clear; default 0")

    add("--model_paths", help="JSON list of local files, a list in it for one model in several files")
    add("--model_id_with_origin_paths", help="model_id:pattern,... as in diffsynth, or a Wan folder")
    add("--tokenizer_path", help="tokenizer folder; default google/umt5-xxl beside the models")
    add("--base_vae_path", required=True, help="Wan2.1_VAE.pth or safetensors")
    add("--vae_lora_path", help="decoder.bin: both decoders' LoRA; not needed if the next file holds them")
    add("--feature_merge_checkpoint", required=True, help="RGBA VAE weights of stage 1 (.safetensors or .bin)")

    add("--use_dora", action="store_true", help="train a DoRA; without it a LoRA")
    add("--dora_rank", type=int, help="rank of the DoRA; default 32")
    add("--lora_rank", type=int, help="rank of the LoRA; default 32")
    add("--lora_target_modules", default=",".join(ADAPTER_TARGETS), help=f"default {','.join(ADAPTER_TARGETS)}")
    add("--trainable_models", choices=["dit"], help="dit: train every weight instead of an adapter")
    add("--noise_shift", type=float, default=0.0, help="noise added outside the subject; Wan-Alpha v2: 0.05; default 0")
    add("--caption_dropout", type=float, default=0.0, help="share of samples with the empty caption; default 0")

    add("--learning_rate", type=float, default=1e-4, help="default 1e-4")
    add("--weight_decay", type=float, default=0.01, help="default 0.01")
    add("--num_epochs", type=int, default=1, help="passes over the repeated dataset; default 1")
    add("--max_steps", type=int, help="stop earlier, after this many optimizer steps")
    add("--batch_size", type=int, default=1, help="clips per device; default 1")
    add("--gradient_accumulation_steps", type=int, default=1, help="default 1")
    add("--use_gradient_checkpointing", action="store_true", help="less memory, more time")
    add("--seed", type=int, default=0, help="default 0")
    add("--device", default="auto", help="auto, cuda, mps or cpu; default auto")
    add(
        "--precision",
        default="auto",
        help="auto, fp32 or bf16; auto = bf16 on CUDA cards that have it, float32 elsewhere",
    )

    add("--output_path", default="./models", help="folder of checkpoints, metrics.jsonl and the trained weights")
    add("--cache_path", help="folder of the latent cache; default <output_path>/cache")
    add("--save_steps", type=int, default=500, help="optimizer steps between checkpoints; default 500")
    add("--remove_prefix_in_ckpt", default=PREFIX_IN_MODULE, help=f'only "{PREFIX_IN_MODULE}", as released names need')
    return parser.parse_args(arguments)


def check_arguments(args):
    """Raises:
    ConfigError: options that do not go together, or that this script does not have.
    """
    if not args.rgba_mode:
        raise ConfigError(
            "give --rgba_mode: this script trains on RGBA clips only; for plain RGB video use diffsynth's own examples"
        )
    if (args.model_paths is None) == (args.model_id_with_origin_paths is None):
        raise ConfigError("give --model_paths (local files) or --model_id_with_origin_paths, one of the two")
    keys = {key.strip() for key in args.data_file_keys.split(",")}
    if not keys <= {"video", "video_fgr", "video_pha"}:
        raise ConfigError(f'--data_file_keys {args.data_file_keys}: give "video" or "video_fgr,video_pha"')
    if args.remove_prefix_in_ckpt != PREFIX_IN_MODULE:
        given = args.remove_prefix_in_ckpt
        raise ConfigError(f'--remove_prefix_in_ckpt {given!r}: released names need "{PREFIX_IN_MODULE}"')
    if args.dora_rank is not None and not args.use_dora:
        raise ConfigError("--dora_rank has no effect without --use_dora")
    if args.lora_rank is not None and args.use_dora:
        raise ConfigError("--lora_rank has no effect with --use_dora: give --dora_rank")
    if args.trainable_models and (args.use_dora or args.lora_rank is not None):
        raise ConfigError("--trainable_models dit trains every weight: leave --use_dora and the ranks out")


def wan_source(args):
    """The models as a recipe names them."""
    source = args.model_paths or args.model_id_with_origin_paths
    if args.tokenizer_path is None:
        return source
    files = find_wan_files(source, args.tokenizer_path)
    models = [files.dit, files.dit_low_noise, files.text_encoder, files.vae]
    return [*([str(shard) for shard in model] for model in models if model), str(files.tokenizer)]


def recipes_from(args):
    """The two recipes that the arguments stand for.

    Returns:
        (CacheRecipe, TrainDiTRecipe).
    """
    check_arguments(args)
    cache_path = args.cache_path or str(Path(args.output_path) / "cache")
    shared = {"seed": args.seed, "model.wan": wan_source(args)}
    cache = {
        "output_dir": cache_path,
        "model.base_vae": args.base_vae_path,
        "model.rgba_weights": args.feature_merge_checkpoint,
        "model.decoder_lora": args.vae_lora_path,
        "data.base_path": args.dataset_base_path,
        "data.metadata": args.dataset_metadata_path,
        "data.num_frames": args.num_frames,
        "data.height": args.height,
        "data.width": args.width,
        "hard_threshold": args.hard_threshold,
        "device": args.device,
        "precision": args.precision,
    }
    train = {
        "output_dir": args.output_path,
        "cache": cache_path,
        "repeat": args.dataset_repeat,
        "objective.noise_shift": args.noise_shift,
        "objective.caption_dropout": args.caption_dropout,
        "training.learning_rate": args.learning_rate,
        "training.weight_decay": args.weight_decay,
        "training.num_epochs": args.num_epochs,
        "training.max_steps": args.max_steps,
        "training.batch_size": args.batch_size,
        "training.gradient_accumulation": args.gradient_accumulation_steps,
        "training.gradient_checkpointing": args.use_gradient_checkpointing,
        "training.checkpoint_every": args.save_steps,
        "training.num_workers": args.dataset_num_workers,
        "training.device": args.device,
        "training.precision": args.precision,
    }
    if args.trainable_models:
        train["adapter.kind"] = "full"
    else:
        rank = (args.dora_rank if args.use_dora else args.lora_rank) or 32
        train |= {"adapter.kind": "dora" if args.use_dora else "lora", "adapter.rank": rank, "adapter.alpha": rank}
        train["adapter.targets"] = args.lora_target_modules
    return load_recipe(CacheRecipe, overrides=shared | cache), load_recipe(TrainDiTRecipe, overrides=shared | train)


def cache_and_train(recipes):
    """Under accelerate every process encodes its share of the clips; all go on when the cache is whole."""
    from wan_alpha.stages.cache_latents import build_cache
    from wan_alpha.stages.stage2_dit import train_dit

    cache_recipe, train_recipe = recipes
    build_cache(cache_recipe)
    train_dit(train_recipe)


def main(arguments=None):
    args = parse_arguments(arguments)
    return run_recipe("train.py", lambda: recipes_from(args), cache_and_train)


if __name__ == "__main__":
    sys.exit(main())
