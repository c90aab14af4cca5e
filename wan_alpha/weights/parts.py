"""The parts of a Wan model that a set of tensors holds, whatever they are called there.

A part is told by a few of its names and their shapes; its tensors then get Wan's own names. One file may hold several
parts (ComfyUI's checkpoints), and one part may be in several files (shards): these functions see tensors only.
"""

from dataclasses import dataclass, field

from wan_alpha.weights.dit_names import from_diffusers
from wan_alpha.weights.encoder_names import image_from_transformers, text_from_transformers
from wan_alpha.weights.tensor_info import TensorInfo
from wan_alpha.weights.vae_names import up_resnet_from_diffusers, vae_from_diffusers

KINDS = ("dit", "text_encoder", "vae", "image_encoder")
# What a file may put before the names of each part.
_PREFIXES = {
    "dit": ("", "model.diffusion_model.", "diffusion_model.", "pipe.dit.", "model.", "module."),
    "text_encoder": (
        "", "text_encoders.umt5xxl.transformer.", "text_encoders.umt5xxl.logit.", "cond_stage_model.", "module.",
    ),
    "vae": ("", "first_stage_model.", "vae.", "model.", "module."),
    "image_encoder": ("", "model.", "clip_vision.", "conditioner.embedders.0.", "module."),
}  # fmt: skip
# Names that only this part has, with their number of dimensions.
_SIGNATURES = {
    ("dit", "wan"): {"patch_embedding.weight": 5, "head.head.weight": 2, "text_embedding.0.weight": 2},
    ("dit", "diffusers"): {
        "patch_embedding.weight": 5, "proj_out.weight": 2, "condition_embedder.time_embedder.linear_1.weight": 2,
    },
    ("text_encoder", "wan"): {"token_embedding.weight": 2, "blocks.0.attn.q.weight": 2, "norm.weight": 1},
    ("text_encoder", "diffusers"): {
        "encoder.block.0.layer.0.SelfAttention.q.weight": 2, "encoder.block.0.layer.1.DenseReluDense.wi_0.weight": 2,
    },
    ("vae", "wan"): {"encoder.conv1.weight": 5, "decoder.conv1.weight": 5, "conv2.weight": 5},
    ("vae", "diffusers"): {
        "encoder.conv_in.weight": 5, "post_quant_conv.weight": 5, "decoder.mid_block.resnets.0.norm1.gamma": 4,
    },
    ("image_encoder", "wan"): {"visual.patch_embedding.weight": 4, "visual.cls_embedding": 3},
    ("image_encoder", "diffusers"): {"vision_model.embeddings.patch_embedding.weight": 4},
}  # fmt: skip
_EMBEDDING = "encoder.embed_tokens.weight"
_SCALE_ENDINGS = (".scale_weight", ".weight_scale")
# What a part's files hold beside its parameters: marks of quantisation and the tokenizer's own file.
_IGNORED = ("scaled_fp8", "spiece_model", "log_scale", "logit_scale", "logit_bias")
_IGNORED_NAMES = (_EMBEDDING, "visual_projection.weight", "vision_model.embeddings.position_ids")


@dataclass(frozen=True)
class Part:
    """One part of a Wan model, found in a set of tensors.

    Attributes:
        kind: of KINDS; naming: "wan", "diffusers" or "comfyui".
        tensors: Wan's name -> TensorInfo.
        sources: Wan's name -> the names in the file whose tensors, one below the other, make it up.
        scales: Wan's name -> the name in the file of the number that its 8-bit values are to be multiplied by.
        strangers: names in the file that the part has no place for.
    """

    kind: str
    naming: str
    tensors: dict[str, TensorInfo]
    sources: dict[str, tuple[str, ...]]
    scales: dict[str, str] = field(default_factory=dict)
    strangers: tuple[str, ...] = ()


def find_parts(tensors):
    """The parts of a Wan model among tensors.

    Args:
        tensors: name -> TensorInfo.

    Returns:
        list of Part, in the order of KINDS, each kind once at most.
    """
    parts = []
    for kind in KINDS:
        found = next(
            (
                _part(tensors, kind, naming, prefix)
                for prefix in _PREFIXES[kind]
                for naming in ("wan", "diffusers")
                if _has(tensors, prefix, _SIGNATURES[kind, naming])
            ),
            None,
        )
        if found is not None and not (kind == "text_encoder" and _is_plain_t5(found)):
            parts.append(found)
    return parts


def find_part(tensors, kind):
    """The part of one kind, or None."""
    return next((part for part in find_parts(tensors) if part.kind == kind), None)


def _has(tensors, prefix, signature):
    return all(
        (info := tensors.get(prefix + name)) is not None and len(info.shape) == dimensions
        for name, dimensions in signature.items()
    )


def _is_plain_t5(part):
    # T5 v1.1 has position biases in its first block alone, UMT5 in every block.
    return part.naming == "diffusers" and "blocks.1.attn.q.weight" in part.tensors and not (
        "blocks.1.pos_embedding.embedding.weight" in part.tensors
    )  # fmt: skip


def _part(tensors, kind, naming, prefix):
    own = {key[len(prefix) :]: info for key, info in tensors.items() if key.startswith(prefix)}
    others = tuple(one for one in _PREFIXES_OF_OTHERS if one != prefix)
    rename = _RENAMES[kind, naming](own)
    pieces, scales, strangers = {}, {}, []
    for name in own:
        ending = next((one for one in _SCALE_ENDINGS if name.endswith(one)), None)
        if ending is not None:
            renamed = rename(f"{name.removesuffix(ending)}.weight")
            if renamed is not None:
                scales[renamed[0]] = prefix + name
            continue
        if name.endswith((".scale_input", ".input_scale", ".comfy_quant")) or name.split(".")[-1] in _IGNORED:
            continue
        renamed = rename(name)
        if renamed is None and (name in _IGNORED_NAMES or name.startswith("textual.")):  # CLIP's other half
            continue
        if renamed is not None:
            pieces.setdefault(renamed[0], {})[renamed[1]] = name
        elif not (prefix == "" and name.startswith(others)):
            strangers.append(prefix + name)
    infos, sources = {}, {}
    for wan, found in pieces.items():
        names = [found[place] for place in sorted(found)] if None not in found else [found[None]]
        sources[wan] = tuple(prefix + name for name in names)
        infos[wan] = _below(wan, [own[name] for name in names])
    shown = "comfyui" if prefix.endswith((".", "transformer.")) and prefix not in ("", "model.", "module.") else naming
    return Part(kind, shown, infos, sources, scales, tuple(strangers))


def _below(wan, infos):
    """The shape of tensors one below the other."""
    first = infos[0]
    if wan.endswith(("visual.pos_embedding", "visual.cls_embedding")):
        shape = (1,) * (3 - len(first.shape)) + first.shape
    elif wan.endswith("visual.head") and len(first.shape) == 2:
        shape = first.shape
    else:
        shape = (sum(info.shape[0] for info in infos), *first.shape[1:]) if len(infos) > 1 else first.shape
    return TensorInfo(shape, first.dtype)


def _as_is(own):
    return lambda name: (name, None)


def _dit_from_diffusers(own):
    def rename(name):
        layer, dot, parameter = name.rpartition(".")
        found = from_diffusers(name)
        if found is None and (outer := from_diffusers(layer)) is not None:
            found = f"{outer}{dot}{parameter}"
        return None if found is None else (found, None)

    return rename


def _vae_from_diffusers(own):
    is_nested = any(name.startswith("encoder.down_blocks.0.resnets.") for name in own)

    def rename(name):
        found = up_resnet_from_diffusers(name, is_nested) or vae_from_diffusers(name)
        return None if found is None else (found, None)

    return rename


def _text_from_transformers(own):
    def rename(name):
        if name == _EMBEDDING:  # the same tensor as shared.weight, and alone in some files
            return None if "shared.weight" in own else ("token_embedding.weight", None)
        found = text_from_transformers(name)
        return None if found is None else (found, None)

    return rename


def _image_as_is(own):
    return lambda name: None if name.startswith("textual.") else (f"model.{name}", None)


def _image_from_transformers(own):
    return image_from_transformers


_RENAMES = {
    ("dit", "wan"): _as_is, ("dit", "diffusers"): _dit_from_diffusers, ("text_encoder", "wan"): _as_is,
    ("text_encoder", "diffusers"): _text_from_transformers, ("vae", "wan"): _as_is,
    ("vae", "diffusers"): _vae_from_diffusers, ("image_encoder", "wan"): _image_as_is,
    ("image_encoder", "diffusers"): _image_from_transformers,
}  # fmt: skip
_PREFIXES_OF_OTHERS = tuple({prefix for prefixes in _PREFIXES.values() for prefix in prefixes if prefix})
