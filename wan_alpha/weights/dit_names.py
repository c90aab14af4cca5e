"""Names of a Wan DiT's layers and parameters: Wan's own, diffusers', and kohya's with underscores for dots.

Wan's own are the names used everywhere else here. diffusers renamed the layers when it took the model over::

    blocks.0.self_attn.q        blocks.0.attn1.to_q
    blocks.0.cross_attn.o       blocks.0.attn2.to_out.0
    blocks.0.ffn.0              blocks.0.ffn.net.0.proj
    blocks.0.norm3              blocks.0.norm2               (the norm before the cross-attention)
    head.head                   proj_out

kohya's trainers write a layer's dots as underscores behind ``lora_unet_``, of either naming.
"""

import re

_ATTENTIONS = {"self_attn": "attn1", "cross_attn": "attn2"}
_PROJECTIONS = {
    "q": "to_q", "k": "to_k", "v": "to_v", "o": "to_out.0", "k_img": "add_k_proj", "v_img": "add_v_proj",
    "norm_q": "norm_q", "norm_k": "norm_k", "norm_k_img": "norm_added_k",
}  # fmt: skip
# Within a block: Wan's name -> diffusers'.
_BLOCK = {
    f"{wan}.{layer}": f"{theirs}.{name}" for wan, theirs in _ATTENTIONS.items() for layer, name in _PROJECTIONS.items()
} | {"ffn.0": "ffn.net.0.proj", "ffn.2": "ffn.net.2", "norm3": "norm2", "modulation": "scale_shift_table"}
# Outside the blocks.
_OUTSIDE = {
    "patch_embedding": "patch_embedding",
    "text_embedding.0": "condition_embedder.text_embedder.linear_1",
    "text_embedding.2": "condition_embedder.text_embedder.linear_2",
    "time_embedding.0": "condition_embedder.time_embedder.linear_1",
    "time_embedding.2": "condition_embedder.time_embedder.linear_2",
    "time_projection.1": "condition_embedder.time_proj",
    "head.head": "proj_out",
    "head.modulation": "scale_shift_table",
    "img_emb.proj.0": "condition_embedder.image_embedder.norm1",
    "img_emb.proj.1": "condition_embedder.image_embedder.ff.net.0.proj",
    "img_emb.proj.3": "condition_embedder.image_embedder.ff.net.2",
    "img_emb.proj.4": "condition_embedder.image_embedder.norm2",
    "img_emb.emb_pos": "condition_embedder.image_embedder.pos_embed",
}
_BLOCK_BACK = {theirs: wan for wan, theirs in _BLOCK.items()}
_OUTSIDE_BACK = {theirs: wan for wan, theirs in _OUTSIDE.items()}
_FLAT = {
    name.replace(".", "_"): wan
    for table in (_BLOCK, _OUTSIDE)
    for wan, theirs in table.items()
    for name in (wan, theirs)
}


def to_diffusers(name):
    """diffusers' name of a layer of Wan's, without ``.weight``; None where diffusers has no such layer."""
    return _renamed(name, _BLOCK, _OUTSIDE)


def from_diffusers(name):
    """Wan's name of a layer that diffusers names so; None where that is no layer of diffusers' Wan."""
    return _renamed(name, _BLOCK_BACK, _OUTSIDE_BACK)


def from_flat(name):
    """Wan's name of a layer whose dots became underscores (``blocks_0_self_attn_q``); None for any other text."""
    match = re.fullmatch(r"_?blocks_(\d+)_(.+)", name)
    inner = _FLAT.get(match[2] if match else name)
    return inner if inner is None or match is None else f"blocks.{match[1]}.{inner}"


def is_diffusers(name):
    """Whether a layer's name is diffusers' and cannot be Wan's."""
    return from_diffusers(name) not in (None, name) and not name.endswith(".norm2")


def _renamed(name, block, outside):
    match = re.fullmatch(r"blocks\.(\d+)\.(.+)", name)
    if match is None:
        return outside.get(name)
    inner = block.get(match[2])
    return None if inner is None else f"blocks.{match[1]}.{inner}"


def parameter_from_diffusers(name):
    """Wan's name of a parameter of diffusers' (``blocks.0.attn1.to_q.weight``); None where that is none."""
    layer, dot, kind = name.rpartition(".")
    if kind not in ("weight", "bias"):
        return from_diffusers(name)
    found = from_diffusers(layer)
    return None if found is None else f"{found}{dot}{kind}"
