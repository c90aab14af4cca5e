"""The Wan models that are known, from one data file: ``wan_alpha/assets/wan_models.json``."""

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from wan_alpha.errors import ConfigError


@dataclass(frozen=True)
class KnownModel:
    """One model of the registry.

    Attributes:
        name: ``Wan2.1-T2V-1.3B``; hub: its id at ModelScope and Hugging Face, or None.
        dit: dim, ffn_dim, num_layers, num_heads, in_dim, out_dim and image_input of its DiT (of each expert).
        num_experts: 2 where one DiT takes the high noise and another the low.
        components: part -> the file that holds it in its makers' download.
        shift: timestep shift of its makers' sampling; boundary: sigma below which the low-noise expert takes over.
        fps, num_frames: what it was trained to make; sizes: of frames, (height, width); grid: their common factor.
        commands: of this toolkit that it can serve.
        text_encoder, vae: sizes of these parts; parameters: part -> number of its weights ("rgba_vae": what stage 1
            trains, both decoders' LoRA of rank 128 and the merge block).
        memory: phase -> gib, device, precision, clip, date as ``examples/measure_memory.py`` measured them, None where
            it did not; ``weights.memory`` reads it.
    """

    name: str
    hub: str | None
    dit: dict
    num_experts: int
    components: dict[str, str]
    shift: float
    boundary: float | None
    fps: int
    num_frames: int
    sizes: tuple[tuple[int, int], ...]
    grid: int
    commands: tuple[str, ...]
    text_encoder: dict[str, int]
    vae: dict[str, int]
    parameters: dict[str, int]
    memory: dict[str, dict | None]

    @property
    def facts(self):
        """What ``weights.combinations`` asks of a model; see ``weights.model_facts``."""
        takes_image = self.dit["in_dim"] != self.dit["out_dim"]
        return {
            "num_experts": self.num_experts, "latent_channels": self.dit["out_dim"], "takes_image": takes_image,
        }  # fmt: skip


@cache
def registry_content():
    """The data file as JSON values."""
    return json.loads((files("wan_alpha") / "assets" / "wan_models.json").read_text(encoding="utf-8"))


@cache
def known_models():
    """Name -> KnownModel, in the order of the file."""
    return {name: _model(name, entry) for name, entry in registry_content()["models"].items()}


def known_model(name):
    """One model by its name.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in known_models():
        raise ConfigError(f"model {name!r} is unknown: choose one of {', '.join(known_models())}")
    return known_models()[name]


def families_of(dit, num_experts=None):
    """Names of the models whose DiT has these sizes.

    Args:
        dit: sizes as in ``KnownModel.dit``; a size that is missing or None fits any, others are ignored.
        num_experts: 1 or 2; None for a single file, which may be an expert as well as a model.
    """
    return [
        name
        for name, model in known_models().items()
        if num_experts in (None, model.num_experts)
        and all(dit.get(key) in (None, value) for key, value in model.dit.items())
    ]


def _model(name, entry):
    sizes, commands = tuple(map(tuple, entry["sizes"])), tuple(entry["commands"])
    return KnownModel(name, **{**entry, "commands": commands, "sizes": sizes})
