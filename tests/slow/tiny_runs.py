"""Both stages on the tiny family that comes with the package: clips, a cache, and recipes as a user writes them."""

import torch

from wan_alpha.data.manifest import write_manifest
from wan_alpha.data.synthetic import draw_shape_clip, random_shape_clip
from wan_alpha.media.write import LosslessWriter
from wan_alpha.models.tiny import tiny_wan_folder
from wan_alpha.stages.cache_latents import build_cache
from wan_alpha.stages.stage1_vae import train_vae
from wan_alpha.stages.stage2_dit import train_dit
from wan_alpha.training.config import load_recipe
from wan_alpha.training.recipes import CacheRecipe, TrainDiTRecipe, TrainVAERecipe

NUM_CLIPS, NUM_FRAMES, SIZE = 5, 5, 32
NUM_STEPS = 24
COMMANDS = {"vae": "train-vae", "dit": "train-dit"}
RECIPES = {"vae": TrainVAERecipe, "dit": TrainDiTRecipe}
TRAIN = {"vae": train_vae, "dit": train_dit}
TRAINING = f"""
[training]
max_steps = {NUM_STEPS}
learning_rate = 1e-3
schedule = "cosine"
warmup_steps = 3
checkpoint_every = 5
ema_decay = 0.9
device = "cpu"
"""
# One sample a process is what is left of some epochs' last steps, none at all of others.
VAE = """
seed = 3
[model]
base_vae = "{tiny}/Wan2.1_VAE.pth"
lora_rank = 4
[data]
base_path = "{folder}"
num_frames = 5
height = 32
width = 32
augment = true
[loss]
perceptual = "none"
{training}
gradient_accumulation = 2
"""
DIT = """
seed = 3
cache = "{folder}/cache"
[model]
wan = "{tiny}"
[adapter]
rank = 4
alpha = 8
[objective]
caption_dropout = 0.2
{training}
batch_size = 2
"""


def write_tiny_runs(folder):
    """Write clips, latent cache, ``vae.toml`` and ``dit.toml``; returns the folder."""
    folder.mkdir(exist_ok=True)
    rows = []
    for index in range(NUM_CLIPS):
        generator = torch.Generator().manual_seed(index)
        clip = random_shape_clip(generator)
        rgb, alpha = draw_shape_clip(clip, NUM_FRAMES, SIZE, SIZE, generator)
        frames = (torch.cat([(rgb + 1) / 2, alpha]).permute(1, 2, 3, 0) * 255).round().byte().numpy()
        names = {"video_fgr": f"{index}_rgb.mkv", "video_pha": f"{index}_alpha.mkv"}
        for name, stream in zip(names.values(), ("rgb", "matte"), strict=True):
            with LosslessWriter(folder / name, 16, stream) as writer:
                writer.write(frames)
        rows.append(names | {"prompt": clip.caption})
    write_manifest(folder / "metadata.csv", rows)
    for name, text in (("vae", VAE), ("dit", DIT)):
        (folder / f"{name}.toml").write_text(text.format(folder=folder, tiny=tiny_wan_folder(), training=TRAINING))
    train_vae(load_recipe(TrainVAERecipe, folder / "vae.toml", {"output_dir": folder / "v", "training.max_steps": 1}))
    cache = {
        "output_dir": folder / "cache", "model.wan": str(tiny_wan_folder()), "data.base_path": folder,
        "model.base_vae": tiny_wan_folder() / "Wan2.1_VAE.pth", "data.num_frames": NUM_FRAMES, "data.height": SIZE,
        "model.rgba_weights": folder / "v" / "rgba_vae.safetensors", "data.width": SIZE, "device": "cpu",
    }  # fmt: skip
    build_cache(load_recipe(CacheRecipe, overrides=cache))
    return folder
