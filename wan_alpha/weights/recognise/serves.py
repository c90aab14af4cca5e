"""Which commands of this toolkit a file or folder can serve, with what, and what each still needs."""

from dataclasses import dataclass, field

from wan_alpha.weights.combinations import combinations_of
from wan_alpha.weights.recognise.component import KINDS
from wan_alpha.weights.registry import known_models

_WAN_FILES = {
    "dit": "diffusion_pytorch_model*.safetensors", "text_encoder": "models_t5_umt5-xxl-enc-bf16.pth",
    "tokenizer": "google/umt5-xxl/", "vae": "Wan2.1_VAE.pth",
}  # fmt: skip
_RGBA = ("rgba_vae.safetensors or a released pytorch_model.bin", ("rgba_vae",))
_BASE = ("Wan2.1_VAE.pth", ("vae",))
# Command -> option -> (file that people give, kinds that must all be there); options behind "or" replace each other.
COMMANDS = {
    "train-vae": {"model.base_vae": _BASE},
    "validate-vae": {"model.base_vae": _BASE, "model.rgba_weights": _RGBA},
    "cache": {
        "model.wan": ("a Wan folder", ("text_encoder", "tokenizer")), "model.base_vae": _BASE,
        "model.rgba_weights": _RGBA,
    },
    "train-dit": {"model.wan": ("a Wan folder", ("dit",)), "cache": ("a folder made by `wan-alpha cache`", ("cache",))},
    "generate": {
        "model.wan": ("a Wan folder", ("dit", "text_encoder", "tokenizer")), "model.base_vae": _BASE,
        "model.rgba_weights": _RGBA,
    },
}  # fmt: skip
# What replaces an option, or may be given beside them.
_INSTEAD = {"model.rgba_weights": (("model.decoder_lora", "decoder_lora"),)}
_EXTRAS = {
    "train-vae": {"model.rgba_weights": "rgba_vae", "model.decoder_lora": "decoder_lora", "output_dir": "run"},
    "train-dit": {"output_dir": "run", "model.dit": None},
    "generate": {"model.adapter": "adapter", "model.embeddings": "placeholders", "mask": "gauss_mask"},
    "convert-adapter": {"source": "adapter"},
    "merge": {"adapter": "adapter"},
    "report": {"runs": "run"},
}  # fmt: skip


@dataclass(frozen=True)
class Service:
    """How a path can serve one command.

    Attributes:
        gives: option -> the file or folder for it.
        lacks: part of the model that an option begun here is short of -> file name; the command cannot run from this
            path alone.
        needs: option -> file that has to come from elsewhere.
        refusal: why it cannot serve, or "".
    """

    gives: dict[str, str] = field(default_factory=dict)
    lacks: dict[str, str] = field(default_factory=dict)
    needs: dict[str, str] = field(default_factory=dict)
    refusal: str = ""

    @property
    def can(self):
        return bool(self.gives) and not self.lacks and not self.refusal


def services(found):
    """Command -> Service of a ``folder.Recognised``: every command that it gives something for."""
    offered = {name: service_for(found, name) for name in dict.fromkeys((*COMMANDS, *_EXTRAS))}
    return {name: service for name, service in offered.items() if service.gives or service.lacks}


def service_for(found, command):
    """The Service of one command; its refusal says why where the path cannot serve it at all."""
    gives, lacks, needs = {}, {}, {}
    family = known_models().get(found.families[0]) if found.families else None
    for option, (file, kinds) in COMMANDS.get(command, {}).items():
        there = [kind for kind in kinds if found.part(kind) is not None]
        if there and len(there) == len(kinds):
            gives[option] = _given(found, kinds)
        elif there:
            lacks |= {KINDS[kind]: _file(kind, family, found) for kind in kinds if kind not in there}
        else:
            alternatives = [f"or {name} ({KINDS[kind]})" for name, kind in _INSTEAD.get(option, ())]
            instead = next((found.part(kind) for _, kind in _INSTEAD.get(option, ()) if found.part(kind)), None)
            if instead is not None and command == "generate":
                gives["model.decoder_lora"] = str(instead.paths[0])
            else:
                name = _file("vae", family, found) if kinds == ("vae",) else file
                needs[option] = " ".join([name, *alternatives]) if command == "generate" else name
    for option, kind in _EXTRAS.get(command, {}).items():
        if kind is not None and option not in gives and (component := found.part(kind)) is not None:
            gives[option] = str(component.paths[0])
    refusal = _refusal(found, command, family, gives, lacks)
    return Service(gives, lacks, needs, refusal)


def _given(found, kinds):
    is_model = len(kinds) > 1 or kinds[0] in ("dit", "text_encoder")
    return str(found.path if is_model or found.path.is_file() else found.part(kinds[0]).paths[0])


def _file(kind, family, found):
    if found.layout == "diffusers":
        return {"dit": "transformer/", "text_encoder": "text_encoder/", "tokenizer": "tokenizer/", "vae": "vae/"}[kind]
    return (family.components if family else _WAN_FILES).get(kind, _WAN_FILES[kind])


def _refusal(found, command, family, gives, lacks):
    if command not in COMMANDS and command not in _EXTRAS:
        return f"{command} reads no weights"
    if not gives and not lacks:
        if found.problems:
            return found.problems[0]
        return f"nothing here is for {command}"
    uses_model = "model.wan" in gives
    if uses_model and family is not None and found.part("dit") is not None and command not in family.commands:
        reasons = [pair.reason for pair in combinations_of(found.facts()) if pair.options.keys() == {"model.wan"}]
        return f"{family.name}: {reasons[0] if reasons else f'not for {command}'}"
    return ""
