"""One miniature Wan written in every layout that is around, with the same weights in each."""

import json
from functools import cache
from pathlib import Path

import torch
from miniature_wan import DIT_SIZES, TEXT_SIZES, make_dit, write_tokenizer
from safetensors.torch import save_file

from wan_alpha.weights.dit_names import to_diffusers
from wan_alpha.weights.encoder_names import text_from_transformers
from wan_alpha.weights.vae_names import up_resnet_from_diffusers, vae_from_diffusers

RECORDED = json.loads((Path(__file__).parent / "diffusers_names.json").read_text())
IMAGE_DIT_SIZES = DIT_SIZES | {"in_dim": 36, "has_image_input": True}
TI2V_DIT_SIZES = DIT_SIZES | {"in_dim": 48, "out_dim": 48}
IMAGE_WIDTH, IMAGE_PATCH, IMAGE_SIDE = 160, 4, 3
PREFIX = "model.diffusion_model."


@cache
def states(kind="t2v"):
    """{part: state dict under Wan's names} of a miniature Wan: "t2v", "ti2v" or "i2v"; two DiTs for every kind."""
    from diffsynth.models.wan_video_dit import WanModel
    from diffsynth.models.wan_video_text_encoder import WanTextEncoder
    from diffsynth.models.wan_video_vae import VideoVAE38_, VideoVAE_

    torch.manual_seed(1)
    sizes = {"t2v": DIT_SIZES, "ti2v": TI2V_DIT_SIZES, "i2v": IMAGE_DIT_SIZES}[kind]
    dits = [WanModel(**sizes).eval() for _ in range(2)] if kind != "t2v" else [make_dit(0), make_dit(1)]
    vae = VideoVAE38_(dim=8, z_dim=48, dec_dim=8) if kind == "ti2v" else VideoVAE_(dim=8, z_dim=16)
    found = {"dit": dits[0], "dit_low_noise": dits[1], "text_encoder": WanTextEncoder(**TEXT_SIZES), "vae": vae}
    found = {name: module.state_dict() for name, module in found.items()}
    if kind == "i2v":
        found["image_encoder"] = image_encoder_state()
    return found


def image_encoder_state():
    from wan_alpha.models.image_encoder import build_image_encoder

    shapes = {
        "model.visual.patch_embedding.weight": (IMAGE_WIDTH, 3, IMAGE_PATCH, IMAGE_PATCH),
        "model.visual.pos_embedding": (1, IMAGE_SIDE**2 + 1, IMAGE_WIDTH),
        "model.visual.transformer.0.mlp.0.weight": (4 * IMAGE_WIDTH, IMAGE_WIDTH),
        "model.visual.transformer.1.mlp.0.weight": (4 * IMAGE_WIDTH, IMAGE_WIDTH),
    }
    generator = torch.Generator().manual_seed(2)
    meta = build_image_encoder(shapes, "here").state_dict()
    return {
        name.removeprefix("model."): torch.randn(tensor.shape, generator=generator) * 0.05
        for name, tensor in meta.items()
    }


def write_original(folder, kind="t2v", experts=False, index=True):
    """As Wan's own repositories: pickled encoders and VAE, the DiT in two shards."""
    found = states(kind)
    if experts:
        for name, sub in (("dit", "high_noise_model"), ("dit_low_noise", "low_noise_model")):
            write_shards(folder / sub, "diffusion_pytorch_model", found[name], index)
            write_config(folder / sub)
    else:
        write_shards(folder, "diffusion_pytorch_model", found["dit"], index)
        write_config(folder)
    torch.save(found["text_encoder"], folder / "models_t5_umt5-xxl-enc-bf16.pth")
    torch.save(found["vae"], folder / ("Wan2.2_VAE.pth" if kind == "ti2v" else "Wan2.1_VAE.pth"))
    if kind == "i2v":
        torch.save(found["image_encoder"], folder / "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth")
    write_tokenizer(folder / "google" / "umt5-xxl")
    return folder


def write_diffusers(folder, kind="t2v", experts=False):
    """As diffusers' save_pretrained: a folder for each part, their names, model_index.json."""
    found = states(kind)
    for name, sub in (("dit", "transformer"), *([("dit_low_noise", "transformer_2")] if experts else [])):
        write_shards(folder / sub, "diffusion_pytorch_model", dit_to_diffusers(found[name]))
        write_config(folder / sub, {"num_attention_heads": DIT_SIZES["num_heads"]})
    for sub, file, state in (
        ("vae", "diffusion_pytorch_model", vae_to_diffusers(found["vae"])),
        ("text_encoder", "model", text_to_transformers(found["text_encoder"])),
        *([("image_encoder", "model", image_to_transformers(found["image_encoder"]))] if kind == "i2v" else []),
    ):
        (folder / sub).mkdir()
        save_file(contiguous(state), folder / sub / f"{file}.safetensors")
    write_tokenizer(folder / "tokenizer")
    index = {"_class_name": "WanPipeline", "transformer": ["diffusers", "WanTransformer3DModel"]}
    index |= {"boundary_ratio": 0.9, "transformer_2": ["diffusers", "WanTransformer3DModel"]} if experts else {}
    index |= {"scheduler": ["diffusers", "UniPCMultistepScheduler"], "vae": ["diffusers", "AutoencoderKLWan"]}
    index |= {"text_encoder": ["transformers", "UMT5EncoderModel"], "tokenizer": ["transformers", "T5TokenizerFast"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def write_comfyui(folder, kind="t2v", experts=False):
    """As ComfyUI's models folder: one file a part, the DiT's names behind a prefix."""
    found = states(kind)
    for sub in ("diffusion_models", "text_encoders", "vae", "clip_vision"):
        (folder / sub).mkdir(parents=True)
    names = ("high_noise", "low_noise") if experts else ("t2v",)
    for name, part in zip(names, ("dit", "dit_low_noise"), strict=False):
        prefixed = {PREFIX + key: tensor for key, tensor in found[part].items()}
        path = folder / "diffusion_models" / f"wan_{name}_14B_fp16.safetensors"
        save_file(contiguous(prefixed), path, {"num_heads": str(DIT_SIZES["num_heads"])})
    text = text_to_transformers(found["text_encoder"]) | {"spiece_model": torch.zeros(9, dtype=torch.uint8)}
    del text["encoder.embed_tokens.weight"]
    save_file(contiguous(text), folder / "text_encoders" / "umt5_xxl_fp16.safetensors")
    save_file(contiguous(found["vae"]), folder / "vae" / "wan_vae.safetensors")
    if kind == "i2v":
        image = image_to_transformers(found["image_encoder"])
        save_file(contiguous(image), folder / "clip_vision" / "clip_vision_h.safetensors")
    write_tokenizer(folder / "google" / "umt5-xxl")
    return folder


def write_all_in_one(folder, kind="t2v", experts=False):
    """As ComfyUI's checkpoints: DiT, VAE and text encoder in one file."""
    found = states(kind)
    content = {PREFIX + name: tensor for name, tensor in found["dit"].items()}
    content |= {f"vae.{name}": tensor for name, tensor in found["vae"].items()}
    text = text_to_transformers(found["text_encoder"])
    content |= {f"text_encoders.umt5xxl.transformer.{name}": tensor for name, tensor in text.items()}
    save_file(contiguous(content), folder / "wan_aio.safetensors", {"num_heads": str(DIT_SIZES["num_heads"])})
    write_tokenizer(folder / "google" / "umt5-xxl")
    return folder


def write_pickles(folder, kind="t2v", experts=False):
    """pytorch_model.bin with an index of shards for the DiT; state dicts wrapped once for the rest."""
    found = states(kind)
    write_shards(folder, "pytorch_model", found["dit"], suffix=".bin")
    write_config(folder)
    torch.save({"state_dict": found["text_encoder"]}, folder / "text_encoder.bin")
    torch.save({"model_state": found["vae"]}, folder / "vae.ckpt", _use_new_zipfile_serialization=False)
    write_tokenizer(folder / "google" / "umt5-xxl")
    return folder


def write_shards(folder, stem, state, index=True, suffix=".safetensors"):
    """A state dict in two shards, with an index or by their numbers alone."""
    folder.mkdir(parents=True, exist_ok=True)
    names, weight_map = sorted(state), {}
    for number, part in ((1, names[: len(names) // 2]), (2, names[len(names) // 2 :])):
        file = f"{stem}-0000{number}-of-00002{suffix}"
        content = contiguous({name: state[name] for name in part})
        (save_file if suffix == ".safetensors" else torch.save)(content, folder / file)
        weight_map |= dict.fromkeys(part, file)
    if index:
        (folder / f"{stem}{suffix}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def write_config(folder, content=None):
    (folder / "config.json").write_text(json.dumps(content or {"num_heads": DIT_SIZES["num_heads"]}))


LAYOUTS = {
    "original": write_original, "diffusers": write_diffusers, "comfyui": write_comfyui, "all in one": write_all_in_one,
    "pickles": write_pickles,
}  # fmt: skip


def contiguous(state):
    return {name: tensor.contiguous().clone() for name, tensor in state.items()}


def dit_to_diffusers(state):
    renamed = {}
    for name, tensor in state.items():
        layer, _, parameter = name.rpartition(".")
        whole, outer = to_diffusers(name), to_diffusers(layer)
        renamed[whole if whole is not None else f"{outer}.{parameter}"] = tensor
    return renamed


def vae_to_diffusers(state):
    nested = any(name.startswith("encoder.downsamples.0.downsamples.") for name in state)
    back = {}
    for theirs in RECORDED[f"AutoencoderKLWan, {48 if nested else 16} channels"]:
        back[up_resnet_from_diffusers(theirs, nested) or vae_from_diffusers(theirs)] = theirs
    return {back[name]: tensor for name, tensor in state.items()}


def text_to_transformers(state):
    from transformers import UMT5Config, UMT5EncoderModel

    sizes = {
        "num_layers": TEXT_SIZES["num_layers"],
        "d_model": 8,
        "num_heads": 1,
        "d_kv": 8,
        "d_ff": 8,
        "vocab_size": 8,
    }
    with torch.device("meta"):
        names = UMT5EncoderModel(UMT5Config(**sizes)).state_dict()
    back = {text_from_transformers(theirs): theirs for theirs in names}
    renamed = {back[name]: tensor for name, tensor in state.items()}
    return renamed | {"encoder.embed_tokens.weight": state["token_embedding.weight"]}


def image_to_transformers(state):
    """CLIPVisionModel's names, with query, key and value apart."""
    simple = {
        "attn.proj": "self_attn.out_proj", "norm1": "layer_norm1", "norm2": "layer_norm2", "mlp.0": "mlp.fc1",
        "mlp.2": "mlp.fc2",
    }  # fmt: skip
    outer = {
        "pre_norm.weight": "pre_layrnorm.weight", "pre_norm.bias": "pre_layrnorm.bias",
        "post_norm.weight": "post_layernorm.weight", "post_norm.bias": "post_layernorm.bias",
        "patch_embedding.weight": "embeddings.patch_embedding.weight",
    }  # fmt: skip
    renamed = {
        "embeddings.class_embedding": state["visual.cls_embedding"].flatten(),
        "embeddings.position_embedding.weight": state["visual.pos_embedding"][0],
    }
    for name, tensor in state.items():
        name = name.removeprefix("visual.")
        if name in outer:
            renamed[outer[name]] = tensor
        elif name.startswith("transformer."):
            _, number, layer = name.split(".", 2)
            layer, _, parameter = layer.rpartition(".")
            start = f"encoder.layers.{number}"
            if layer == "attn.to_qkv":
                for one, third in zip("qkv", tensor.chunk(3), strict=True):
                    renamed[f"{start}.self_attn.{one}_proj.{parameter}"] = third
            else:
                renamed[f"{start}.{simple[layer]}.{parameter}"] = tensor
    return {f"vision_model.{name}": tensor for name, tensor in renamed.items()}
