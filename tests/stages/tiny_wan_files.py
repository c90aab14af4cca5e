"""A Wan folder in the real layout with random weights small enough for a test, and a dataset of RGBA clips for it."""

import json

import miniature_wan
import torch
from diffsynth.models.wan_video_dit import WanModel
from diffsynth.models.wan_video_text_encoder import WanTextEncoder
from miniature_wan import save_tokenizer
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from wan_alpha.data.synthetic import ShapeClip, draw_shape_clip
from wan_alpha.media.write import LosslessWriter
from wan_alpha.models.base_vae import WAN22_VAE
from wan_alpha.models.tiny import initialise_vae

# Narrower than the miniature of the tests of loading, for these train; and captions come letter by letter.
DIT_SIZES = miniature_wan.DIT_SIZES | {"dim": 24, "ffn_dim": 32, "text_dim": 16, "freq_dim": 16, "num_heads": 2}
NUM_TOKENS = 48


def write_tokenizer(folder):
    """A byte-level tokenizer of NUM_TOKENS tokens; returns the size of its vocabulary."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(["<pad>", "</s>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    save_tokenizer(tokenizer, folder, NUM_TOKENS)
    return len(vocabulary)


def write_dit(folder, seed=0, **sizes):
    """A DiT with random weights of its own, and the config.json that tells its heads."""
    sizes = DIT_SIZES | sizes
    folder.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        save_file(WanModel(**sizes).state_dict(), folder / "diffusion_pytorch_model.safetensors")
    (folder / "config.json").write_text(json.dumps({"num_heads": sizes["num_heads"]}))


def write_text_encoder(folder, seed=0):
    vocabulary_size = write_tokenizer(folder / "google" / "umt5-xxl")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        text = WanTextEncoder(vocab=vocabulary_size, dim=16, dim_attn=16, dim_ffn=16, num_heads=2, num_layers=1)
    torch.save(text.state_dict(), folder / "models_t5_umt5-xxl-enc-bf16.pth")


def write_wan(folder, seed=0, **sizes):
    """The folder of a Wan2.1-T2V model without its VAE; ``sizes`` in place of ``DIT_SIZES``."""
    write_text_encoder(folder, seed)
    write_dit(folder, seed, **sizes)
    return folder


def write_experts(folder):
    """The folder of a Wan2.2-T2V-A14B without its VAE, with experts that differ."""
    write_text_encoder(folder)
    for seed, name in ((1, "high_noise_model"), (2, "low_noise_model")):
        write_dit(folder / name, seed)
    return folder


def write_wan22(folder):
    """The folder of a Wan2.2-TI2V-5B with its VAE."""
    write_wan(folder, in_dim=48, out_dim=48)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vae = initialise_vae(WAN22_VAE.build(8, 16))
    torch.save(vae.state_dict(), folder / "Wan2.2_VAE.pth")
    return folder


def write_dataset(folder, num_clips=3, num_frames=5, size=32, first_seed=0, subject="circle"):
    """`X_rgb.mkv` beside `X_alpha.mkv`, lossless, and a metadata.csv with the columns video and prompt."""
    folder.mkdir(parents=True)
    lines = ["video,prompt"]
    for index in range(num_clips):
        clip = ShapeClip("circle", ("red", "blue", "green")[index % 3], "large", "solid", "moving left")
        generator = torch.Generator().manual_seed(first_seed + index)
        rgb, alpha = draw_shape_clip(clip, num_frames, size, size, generator)
        rgba = torch.cat([(rgb + 1) / 2, alpha]).permute(1, 2, 3, 0)
        frames = (rgba * 255).round().byte().numpy()
        for name, stream in ((f"{index:03d}_rgb.mkv", "rgb"), (f"{index:03d}_alpha.mkv", "matte")):
            with LosslessWriter(folder / name, 16, stream) as writer:
                writer.write(frames)
        lines.append(f'{index:03d}_rgb.mkv,"a {clip.color} {subject}, moving"')
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return folder
