"""Weight files of the real sizes with headers and nothing behind them: sparse files of gigabytes that take no room."""

import json
import math
import struct

import torch

T5_FILE = "models_t5_umt5-xxl-enc-bf16.pth"
CLIP_FILE = "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth"
_COMMON = {"text_dim": 4096, "freq_dim": 256, "eps": 1e-6, "patch_size": (1, 2, 2), "out_dim": 16}
_14B = {**_COMMON, "dim": 5120, "ffn_dim": 13824, "num_heads": 40, "num_layers": 40}
# Family -> (sizes of its DiT, folders of its DiTs, shards of each, VAE).
FAMILIES = {
    "Wan2.1-T2V-1.3B": (
        {**_COMMON, "dim": 1536, "ffn_dim": 8960, "num_heads": 12, "num_layers": 30, "in_dim": 16}, (".",), 1, "2.1",
    ),
    "Wan2.1-T2V-14B": ({**_14B, "in_dim": 16}, (".",), 6, "2.1"),
    "Wan2.2-T2V-A14B": ({**_14B, "in_dim": 16}, ("high_noise_model", "low_noise_model"), 6, "2.1"),
    "Wan2.2-TI2V-5B": (
        {**_COMMON, "dim": 3072, "ffn_dim": 14336, "num_heads": 24, "num_layers": 30, "in_dim": 48, "out_dim": 48},
        (".",), 3, "2.2",
    ),
    "Wan2.1-I2V-14B": ({**_14B, "in_dim": 36, "has_image_input": True}, (".",), 7, "2.1"),
}  # fmt: skip


def dit_shapes(sizes):
    """Name -> shape of a DiT's tensors."""
    from diffsynth.models.wan_video_dit import WanModel

    with torch.device("meta"):
        model = WanModel(**{"has_image_input": False, **sizes})
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def write_sparse(path, shapes, dtype="BF16", width=2):
    """A safetensors file of these shapes whose tensors are a hole in the file."""
    header, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + width * math.prod(shape)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)


def write_sparse_shards(folder, shapes, num_shards):
    """As :func:`write_sparse`, in so many shards with an index."""
    if num_shards == 1:
        return write_sparse(folder / "diffusion_pytorch_model.safetensors", shapes)
    names, weight_map = list(shapes), {}
    for number in range(num_shards):
        file = f"diffusion_pytorch_model-{number + 1:05d}-of-{num_shards:05d}.safetensors"
        part = names[number::num_shards]
        write_sparse(folder / file, {name: shapes[name] for name in part})
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))


def write_sparse_pickle(path, module, dtype=torch.bfloat16, rename=None):
    """What torch.save writes of a meta module's state dict, its storages a hole in the file."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    shapes = {(rename or str)(name): tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    with FakeTensorMode():
        state = {name: torch.empty(shape, dtype=dtype) for name, shape in shapes.items()}
    with torch.serialization.skip_data(materialize_fake_tensors=True):
        torch.save(state, path)


def write_family(folder, family):
    """A folder of one family as its makers ship it, all sizes real."""
    from diffsynth.models.wan_video_text_encoder import WanTextEncoder
    from diffsynth.models.wan_video_vae import VideoVAE38_, VideoVAE_

    sizes, subs, num_shards, vae = FAMILIES[family]
    shapes = dit_shapes(sizes)
    for sub in subs:
        (folder / sub).mkdir(parents=True, exist_ok=True)
        write_sparse_shards(folder / sub, shapes, num_shards)
    with torch.device("meta"):
        text = WanTextEncoder()
        video = VideoVAE_(dim=96, z_dim=16) if vae == "2.1" else VideoVAE38_(dim=160, z_dim=48, dec_dim=256)
    write_sparse_pickle(folder / T5_FILE, text)
    write_sparse_pickle(folder / f"Wan{vae}_VAE.pth", video, torch.float32)
    if sizes.get("has_image_input"):
        write_sparse_pickle(folder / CLIP_FILE, clip(), torch.float16, lambda name: name.removeprefix("model."))
    tokenizer = folder / "google" / "umt5-xxl"
    tokenizer.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "spiece.model"):
        (tokenizer / name).write_text("{}")
    return folder


def clip():
    """ViT-H as Wan has it, on the meta device."""
    from wan_alpha.models.image_encoder import build_image_encoder

    shapes = {f"model.visual.transformer.{n}.mlp.0.weight": (5120, 1280) for n in range(32)}
    shapes |= {"model.visual.patch_embedding.weight": (1280, 3, 14, 14), "model.visual.pos_embedding": (1, 257, 1280)}
    return build_image_encoder(shapes, "here")
