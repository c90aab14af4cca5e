"""The small JSON files beside the weights: what they should say by the shapes, and how they are mended."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from wan_alpha.errors import CheckpointError
from wan_alpha.weights.recognise.config_contents import (
    diffusers_config,
    image_encoder_config,
    model_index,
    original_config,
    scheduler_config,
    text_encoder_config,
    vae_config,
)
from wan_alpha.weights.recognise.folder import MODEL_INDEX
from wan_alpha.weights.registry import known_models
from wan_alpha.weights.shards import read_json

_REAL_HEAD_SIZE, _SMALLEST_REAL_DIM = 128, 1536
_TOLD_BY_SHAPES = {
    "dim", "ffn_dim", "in_dim", "out_dim", "num_heads", "num_layers", "freq_dim", "in_channels", "out_channels",
    "num_attention_heads", "attention_head_dim", "text_dim", "added_kv_proj_dim",
    "z_dim", "base_dim", "decoder_base_dim", "is_residual",
    "d_model", "d_ff", "d_kv", "vocab_size", "relative_attention_num_buckets",
    "hidden_size", "intermediate_size", "num_hidden_layers",
}  # fmt: skip


@dataclass(frozen=True)
class ConfigPlan:
    """A JSON file that is missing or wrong.

    Attributes:
        path: where it belongs; content: what it should say, {} where that cannot be known.
        reason: "missing", or what is wrong with the one there; refusal: why it cannot be written, and the way out.
    """

    path: Path
    content: dict
    reason: str
    refusal: str = ""


def plan_configs(found):
    """The files beside the weights of a ``folder.Recognised`` that are missing or contradict the shapes.

    Wan's layout has one ``config.json`` a DiT, diffusers' one a part, the scheduler's and ``model_index.json``.

    Returns:
        list of ConfigPlan, empty where all is right or where the layout has no such files.
    """
    if not found.path.is_dir() or found.layout not in ("original", "diffusers"):
        return []
    is_diffusers = found.layout == "diffusers"
    plans = []
    for component in found.components:
        if component.kind in ("dit", "dit_low_noise") and not component.problems:
            plans.append(_plan_dit(component, is_diffusers))
        elif is_diffusers and component.kind in _CONFIGS and not component.problems:
            make, unknown = _CONFIGS[component.kind]
            plans.append(_compare(component.paths[0].with_name("config.json"), make(component.sizes), unknown))
    if is_diffusers:
        plans += _plan_pipeline(found)
    return [plan for plan in plans if plan is not None]


def _plan_dit(component, is_diffusers):
    path = component.paths[0].with_name("config.json")
    num_heads = _num_heads(component.sizes["dim"], path, is_diffusers)
    if num_heads is None:
        word = "num_attention_heads" if is_diffusers else "num_heads"
        unknown = f"of a width of {component.sizes['dim']} no shape tells the number of heads: write {word} into it"
        return _compare(path, None, unknown)
    make = diffusers_config if is_diffusers else original_config
    return _compare(path, make(component.sizes, num_heads))


def _plan_pipeline(found):
    """Of diffusers' pipeline as a whole: scheduler, tokenizer and index."""
    family = known_models().get(found.families[0]) if found.families else None
    path = found.path / "scheduler" / "scheduler_config.json"
    unknown = "no known model has these sizes, and no shape tells the shift: copy it from the model's makers"
    # A scheduler that is there is a choice, not a mistake.
    yield None if path.is_file() else _compare(path, scheduler_config(family) if family else None, unknown)
    if not any(one.kind == "tokenizer" for one in found.components):
        learned = "a tokenizer is learned, no shape tells it: copy the folder from any Wan model in this layout"
        yield ConfigPlan(found.path / "tokenizer" / "tokenizer_config.json", {}, "missing", learned)
    yield _compare(found.path / MODEL_INDEX, model_index(found))


def write_configs(plans):
    """Write what :func:`plan_configs` found and can know; a file that was there stays beside it as ``<name>.old``.

    Returns:
        list of (path, the old file's path or None).
    """
    written = []
    for plan in (one for one in plans if not one.refusal):
        plan.path.parent.mkdir(exist_ok=True)
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


def _compare(path, expected, unknown=""):
    """The plan of one file, or None where it is right; ``expected`` None is what cannot be known, ``unknown`` why."""
    try:
        there = read_json(path, "a config") if path.is_file() else None
        problem = "" if path.is_file() else "missing"
    except CheckpointError:
        there, problem = None, "not JSON"
    if expected is None:
        return ConfigPlan(path, {}, problem, unknown) if problem else None
    if problem:
        return ConfigPlan(path, expected, problem)
    wrong = [name for name in _TOLD_BY_SHAPES & expected.keys() if there.get(name, expected[name]) != expected[name]]
    absent = [name for name in expected if name not in there and (name in _TOLD_BY_SHAPES or path.name == MODEL_INDEX)]
    if wrong:
        wrong = min(wrong)
        told = {name: expected[name] for name in _TOLD_BY_SHAPES & expected.keys()}
        reason = f"{wrong} is {there[wrong]}, the weights say {expected[wrong]}"
        return ConfigPlan(path, expected | there | told, reason)
    return ConfigPlan(path, expected | there, f"{absent[0]} is missing") if absent else None


# Part -> (what diffusers' file says of it, why it cannot be known where that is None).
_CONFIGS = {
    "vae": (vae_config, ""),
    "text_encoder": (text_encoder_config, "the encoder's shapes are incomplete: copy it from the model's makers"),
    "image_encoder": (
        image_encoder_config, "of another CLIP than ViT-H no shape tells the number of heads: copy it from its makers",
    ),
}  # fmt: skip
