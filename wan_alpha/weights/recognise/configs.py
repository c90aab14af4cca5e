"""The small JSON files beside the weights: what they should say by the shapes, and how they are mended."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from wan_alpha.errors import CheckpointError
from wan_alpha.weights.recognise.folder import DIFFUSERS_FOLDERS, MODEL_INDEX
from wan_alpha.weights.registry import known_models
from wan_alpha.weights.shards import read_json

_REAL_HEAD_SIZE, _SMALLEST_REAL_DIM = 128, 1536
_CLASSES = {
    "dit": ["diffusers", "WanTransformer3DModel"], "dit_low_noise": ["diffusers", "WanTransformer3DModel"],
    "text_encoder": ["transformers", "UMT5EncoderModel"], "tokenizer": ["transformers", "T5TokenizerFast"],
    "vae": ["diffusers", "AutoencoderKLWan"], "image_encoder": ["transformers", "CLIPVisionModel"],
}  # fmt: skip
_TOLD_BY_SHAPES = {
    "dim", "ffn_dim", "in_dim", "out_dim", "num_heads", "num_layers", "freq_dim", "in_channels", "out_channels",
    "num_attention_heads", "attention_head_dim", "text_dim", "added_kv_proj_dim",
}  # fmt: skip


@dataclass(frozen=True)
class ConfigPlan:
    """A JSON file that is missing or wrong.

    Attributes:
        path: where it belongs; content: what it should say; reason: "missing", or what is wrong with the one there.
    """

    path: Path
    content: dict
    reason: str


def plan_configs(found):
    """The files beside the weights of a ``folder.Recognised`` that are missing or contradict the shapes.

    Returns:
        list of ConfigPlan, empty where all is right or where the layout has no such files.
    """
    if not found.path.is_dir() or found.layout not in ("original", "diffusers"):
        return []
    is_diffusers = found.layout == "diffusers"
    plans = []
    for component in found.components:
        if component.kind in ("dit", "dit_low_noise") and not component.problems:
            path = component.paths[0].with_name("config.json")
            num_heads = _num_heads(component.sizes["dim"], path, is_diffusers)
            if num_heads is None:
                continue
            config = (_diffusers_config if is_diffusers else _original_config)(component.sizes, num_heads)
            plans.append(_compare(path, config))
    if is_diffusers:
        plans.append(_compare(found.path / MODEL_INDEX, _model_index(found)))
    return [plan for plan in plans if plan is not None]


def write_configs(plans):
    """Write what :func:`plan_configs` found; a file that was there stays beside it as ``<name>.old``.

    Returns:
        list of (path, the old file's path or None).
    """
    written = []
    for plan in plans:
        kept = None
        if plan.path.exists():
            number, kept = 1, plan.path.with_name(f"{plan.path.name}.old")
            while kept.exists():
                number, kept = number + 1, plan.path.with_name(f"{plan.path.name}.old{number}")
            os.replace(plan.path, kept)
        partial = plan.path.with_name(f".{plan.path.name}.partial")
        partial.write_text(json.dumps(plan.content, indent=2) + "\n", encoding="utf-8")
        os.replace(partial, plan.path)
        written.append((plan.path, kept))
    return written


def stated_num_heads(path):
    """What a ``config.json`` says of a DiT's heads, in Wan's or diffusers' words; None where it says nothing.

    Raises:
        CheckpointError: no JSON object, or no whole number of heads.
    """
    config = read_json(path, "Wan's config.json")
    stated = config.get("num_heads", config.get("num_attention_heads"))
    if stated is not None and (not str(stated).isdigit() or int(stated) < 1):
        raise CheckpointError(f"{path}: expected a whole number of heads, found num_heads = {stated!r}")
    return None if stated is None else int(stated)


def _num_heads(dim, path, is_diffusers):
    if dim >= _SMALLEST_REAL_DIM:
        return dim // _REAL_HEAD_SIZE
    try:
        return stated_num_heads(path)
    except CheckpointError:
        return None  # of a tiny model the shapes do not tell


def _compare(path, expected):
    if not path.is_file():
        return ConfigPlan(path, expected, "missing")
    try:
        there = read_json(path, "a config")
    except CheckpointError:
        return ConfigPlan(path, expected, "not JSON")
    wrong = [name for name in _TOLD_BY_SHAPES & expected.keys() if there.get(name, expected[name]) != expected[name]]
    absent = [name for name in expected if name not in there and (name in _TOLD_BY_SHAPES or path.name == MODEL_INDEX)]
    if wrong:
        return ConfigPlan(
            path, there | expected, f"{wrong[0]} is {there[wrong[0]]}, the weights say {expected[wrong[0]]}"
        )
    return ConfigPlan(path, expected | there, f"{absent[0]} is missing") if absent else None


def _original_config(sizes, num_heads):
    kind = "i2v" if sizes["in_dim"] == 36 else "ti2v" if sizes["in_dim"] == 48 else "t2v"
    return {
        "_class_name": "WanModel", "model_type": kind, "dim": sizes["dim"], "ffn_dim": sizes["ffn_dim"],
        "in_dim": sizes["in_dim"], "out_dim": sizes["out_dim"], "num_heads": num_heads,
        "num_layers": sizes["num_layers"], "freq_dim": sizes["freq_dim"], "text_len": 512, "eps": 1e-6,
    }  # fmt: skip


def _diffusers_config(sizes, num_heads):
    has_image = sizes["image_input"]
    return {
        "_class_name": "WanTransformer3DModel", "added_kv_proj_dim": sizes["dim"] if has_image else None,
        "attention_head_dim": sizes["dim"] // num_heads, "cross_attn_norm": True, "eps": 1e-6,
        "ffn_dim": sizes["ffn_dim"], "freq_dim": sizes["freq_dim"], "image_dim": 1280 if has_image else None,
        "in_channels": sizes["in_dim"], "num_attention_heads": num_heads, "num_layers": sizes["num_layers"],
        "out_channels": sizes["out_dim"], "patch_size": [1, 2, 2], "qk_norm": "rms_norm_across_heads",
        "text_dim": sizes["text_dim"],
    }  # fmt: skip


def _model_index(found):
    kinds = [kind for kind in DIFFUSERS_FOLDERS if found.part(kind) is not None]
    family = known_models().get(found.families[0]) if found.families else None
    is_image = family is not None and "-I2V" in family.name
    index = {"_class_name": "WanImageToVideoPipeline" if is_image else "WanPipeline"}
    if "dit_low_noise" in kinds:
        index["boundary_ratio"] = found.boundary if found.boundary is not None else family and family.boundary
    if family is not None and family.name == "Wan2.2-TI2V-5B":
        index["expand_timesteps"] = True
    index["scheduler"] = ["diffusers", "UniPCMultistepScheduler"]
    return index | {DIFFUSERS_FOLDERS[kind]: _CLASSES[kind] for kind in kinds}
