"""diffusers' and transformers' names of Wan's parts onto Wan's own at the real sizes, with the shapes."""

import pytest
import torch
from wan_layouts import RECORDED

from wan_alpha.weights.parts import find_parts
from wan_alpha.weights.tensor_info import TensorInfo


def wans_shapes(kind):
    from diffsynth.models.wan_video_dit import WanModel
    from diffsynth.models.wan_video_text_encoder import WanTextEncoder
    from diffsynth.models.wan_video_vae import VideoVAE38_, VideoVAE_

    dit = {
        "dim": 5120, "in_dim": 36, "ffn_dim": 13824, "out_dim": 16, "text_dim": 4096, "freq_dim": 256, "eps": 1e-6,
        "patch_size": (1, 2, 2), "num_heads": 40, "num_layers": 2, "has_image_input": True,
    }  # fmt: skip
    with torch.device("meta"):
        module = {
            "WanTransformer3DModel": lambda: WanModel(**dit),
            "AutoencoderKLWan, 16 channels": lambda: VideoVAE_(dim=96, z_dim=16),
            "AutoencoderKLWan, 48 channels": lambda: VideoVAE38_(dim=160, z_dim=48, dec_dim=256),
            "UMT5EncoderModel": lambda: WanTextEncoder(),
        }[kind]()
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def theirs(kind):
    if kind in RECORDED:
        return {name: tuple(map(int, shape.split("x"))) for name, shape in RECORDED[kind].items()}
    from transformers import UMT5Config, UMT5EncoderModel

    sizes = {"num_layers": 24, "d_model": 4096, "num_heads": 64, "d_kv": 64, "d_ff": 10240, "vocab_size": 256384}
    with torch.device("meta"):
        return {name: tuple(t.shape) for name, t in UMT5EncoderModel(UMT5Config(**sizes)).state_dict().items()}


KINDS = [*(name for name in RECORDED if name != "from"), "UMT5EncoderModel"]


@pytest.mark.parametrize("kind", KINDS)
def test_their_names_are_wans_names_with_the_same_shapes(kind):
    parts = find_parts({name: TensorInfo(shape, "BF16") for name, shape in theirs(kind).items()})
    assert len(parts) == 1 and parts[0].naming == "diffusers" and not parts[0].strangers
    assert {name: info.shape for name, info in parts[0].tensors.items()} == wans_shapes(kind)


def test_clip_is_wans_image_encoder_with_query_key_and_value_in_one():
    from real_size_headers import clip
    from transformers import CLIPVisionConfig, CLIPVisionModel

    config = CLIPVisionConfig(
        hidden_size=1280, num_hidden_layers=32, num_attention_heads=16, intermediate_size=5120, patch_size=14
    )
    with torch.device("meta"):
        state = CLIPVisionModel(config).state_dict()
    tensors = {
        f"vision_model.{name.removeprefix('vision_model.')}": TensorInfo(tuple(t.shape), "F16")
        for name, t in state.items()
    }
    (part,) = find_parts(tensors | {"visual_projection.weight": TensorInfo((1024, 1280), "F16")})
    expected = {name: tuple(tensor.shape) for name, tensor in clip().state_dict().items()}
    assert part.kind == "image_encoder" and not part.strangers
    assert {name: info.shape for name, info in part.tensors.items()} == {
        name: shape for name, shape in expected.items() if name != "model.visual.head"
    }
    assert part.sources["model.visual.transformer.3.attn.to_qkv.weight"] == tuple(
        f"vision_model.encoder.layers.3.self_attn.{one}_proj.weight" for one in "qkv"
    )


def test_the_recorded_names_are_todays_diffusers():
    diffusers = pytest.importorskip("diffusers")
    with torch.device("meta"):
        vae = diffusers.AutoencoderKLWan()
    found = {name: "x".join(map(str, tensor.shape)) for name, tensor in vae.state_dict().items()}
    assert found == RECORDED["AutoencoderKLWan, 16 channels"]


def test_another_text_encoder_is_not_taken_for_umt5():
    names = theirs("UMT5EncoderModel")
    t5 = {name: shape for name, shape in names.items() if "relative_attention_bias" not in name or "block.0." in name}
    assert find_parts({name: TensorInfo(shape, "BF16") for name, shape in t5.items()}) == []
