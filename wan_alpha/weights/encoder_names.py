"""Names of Wan's text and image encoders' parameters: Wan's own, and those of transformers' UMT5 and CLIP."""

import re

_TEXT_PLAIN = {
    "shared.weight": "token_embedding.weight",
    "encoder.final_layer_norm.weight": "norm.weight",
}
_TEXT_LAYERS = {
    "layer.0.SelfAttention.q": "attn.q", "layer.0.SelfAttention.k": "attn.k", "layer.0.SelfAttention.v": "attn.v",
    "layer.0.SelfAttention.o": "attn.o", "layer.0.SelfAttention.relative_attention_bias": "pos_embedding.embedding",
    "layer.0.layer_norm": "norm1", "layer.1.layer_norm": "norm2", "layer.1.DenseReluDense.wi_0": "ffn.gate.0",
    "layer.1.DenseReluDense.wi_1": "ffn.fc1", "layer.1.DenseReluDense.wo": "ffn.fc2",
}  # fmt: skip
_IMAGE_PLAIN = {
    "embeddings.class_embedding": "cls_embedding", "embeddings.position_embedding.weight": "pos_embedding",
    "embeddings.patch_embedding.weight": "patch_embedding.weight", "pre_layrnorm.weight": "pre_norm.weight",
    "pre_layrnorm.bias": "pre_norm.bias", "post_layernorm.weight": "post_norm.weight",
    "post_layernorm.bias": "post_norm.bias",
}  # fmt: skip
_IMAGE_LAYERS = {
    "self_attn.out_proj": "attn.proj", "layer_norm1": "norm1", "layer_norm2": "norm2", "mlp.fc1": "mlp.0",
    "mlp.fc2": "mlp.2",
}  # fmt: skip


def text_from_transformers(name):
    """Wan's name of a parameter that UMT5EncoderModel names so; None for any other name."""
    if name in _TEXT_PLAIN:
        return _TEXT_PLAIN[name]
    match = re.fullmatch(r"encoder\.block\.(\d+)\.(.+)\.weight", name)
    layer = _TEXT_LAYERS.get(match[2]) if match else None
    return f"blocks.{match[1]}.{layer}.weight" if layer else None


def image_from_transformers(name):
    """(Wan's name, place) of a parameter that CLIPVisionModel names so; None for any other name.

    Wan keeps query, key and value in one matrix: ``place`` is 0, 1 or 2 for these, else None.
    """
    name = name.removeprefix("vision_model.")
    if name in _IMAGE_PLAIN:
        return f"model.visual.{_IMAGE_PLAIN[name]}", None
    match = re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)", name)
    if match is None:
        return None
    if match[2] in _IMAGE_LAYERS:
        return f"model.visual.transformer.{match[1]}.{_IMAGE_LAYERS[match[2]]}.{match[3]}", None
    third = re.fullmatch(r"self_attn\.([qkv])_proj", match[2])
    return (f"model.visual.transformer.{match[1]}.attn.to_qkv.{match[3]}", "qkv".index(third[1])) if third else None
