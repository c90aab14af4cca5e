"""A Wan model far smaller than the tiny family, in the real layout: what tests of loading and generating run on."""

import json

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

DIT_SIZES = {
    "dim": 48, "in_dim": 16, "ffn_dim": 64, "out_dim": 16, "text_dim": 24, "freq_dim": 32, "eps": 1e-6,
    "patch_size": (1, 2, 2), "num_heads": 4, "num_layers": 2, "has_image_input": False,
}  # fmt: skip
TEXT_SIZES = {"vocab": 64, "dim": 24, "dim_attn": 16, "dim_ffn": 32, "num_heads": 2, "num_layers": 2}
NUM_TOKENS = 12
WORDS = ["<pad>", "</s>", "<unk>", "a", "red", "blue", "ball", "on", "transparent", "background"]


def make_dit(seed=0):
    from diffsynth.models.wan_video_dit import WanModel

    torch.manual_seed(seed)
    return WanModel(**DIT_SIZES).eval()


def write_tokenizer(folder):
    """A word-level tokenizer that ends each prompt with </s> and pads to NUM_TOKENS."""
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    save_tokenizer(tokenizer, folder, NUM_TOKENS, unk_token="<unk>")


def save_tokenizer(tokenizer, folder, num_tokens, **config):
    """Write a tokenizer whose vocabulary begins with <pad> and </s>: it ends each prompt and pads, as UMT5's does."""
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config |= {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": num_tokens}
    config |= {"pad_token": "<pad>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def write_wan_folder(folder, base_vae=None):
    """A Wan download: DiT in two shards with index and config.json, .pth text encoder, tokenizer, a VAE if given."""
    from diffsynth.models.wan_video_text_encoder import WanTextEncoder

    tensors = sorted(make_dit().state_dict().items())
    weight_map = {}
    for number, part in ((1, tensors[:20]), (2, tensors[20:])):
        name = f"diffusion_pytorch_model-0000{number}-of-00002.safetensors"
        save_file({key: tensor.contiguous() for key, tensor in part}, folder / name)
        weight_map |= {key: name for key, _ in part}
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps({"num_heads": DIT_SIZES["num_heads"]}))
    torch.manual_seed(1)
    torch.save(WanTextEncoder(**TEXT_SIZES).state_dict(), folder / "models_t5_umt5-xxl-enc-bf16.pth")
    write_tokenizer(folder / "google" / "umt5-xxl")
    if base_vae is not None:
        torch.save(load_file(base_vae), folder / "Wan2.1_VAE.pth")
    return folder
