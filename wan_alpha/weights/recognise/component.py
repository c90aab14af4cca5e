"""What was recognised: a component is one model part, adapter, cache, ... in one or more files."""

from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

# What a component can be -> what people call it.
KINDS = {
    "dit": "DiT", "dit_low_noise": "DiT, low-noise expert", "text_encoder": "text encoder", "vae": "VAE",
    "image_encoder": "image encoder", "tokenizer": "tokenizer", "adapter": "adapter", "rgba_vae": "RGBA VAE weights",
    "placeholders": "placeholders of textual inversion",
    "decoder_lora": "decoders of the RGBA VAE", "gauss_mask": "Gaussian mask", "cache": "latent cache",
    "cache_item": "item of a latent cache", "checkpoint": "checkpoint", "run": "run", "recipe": "recipe",
    "image_vae": "image VAE", "foreign": "another model", "unknown": "unknown weights",
}  # fmt: skip


@dataclass(frozen=True)
class Component:
    """One thing that was recognised.

    Attributes:
        kind: of KINDS; title: what it is, in words.
        paths: its files, or its folder.
        naming: how its tensors are named: "wan", "diffusers", "comfyui", or an adapter's dialect.
        families: names of the registry's models that it is of, or that it fits; more than one where shapes cannot tell.
        sizes: a DiT's dim, ffn_dim, num_layers, in_dim, ...
        num_parameters, num_bytes: of its tensors; dtypes: type -> number of parameters.
        details: further facts, name -> value that JSON can hold.
        problems: what keeps it from being used, and the way out.
    """

    kind: str
    title: str
    paths: tuple[Path, ...] = ()
    naming: str = ""
    families: tuple[str, ...] = ()
    sizes: dict = field(default_factory=dict)
    num_parameters: int = 0
    num_bytes: int = 0
    dtypes: dict[str, int] = field(default_factory=dict)
    details: dict = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    def as_dict(self):
        """As JSON values."""
        return asdict(self) | {"paths": [str(path) for path in self.paths]}


def counted(infos):
    """num_parameters, num_bytes and dtypes of TensorInfos, as arguments of Component."""
    infos = list(infos)
    dtypes = Counter()
    for info in infos:
        dtypes[info.dtype] += info.num_elements
    return {
        "num_parameters": sum(dtypes.values()),
        "num_bytes": sum(info.num_bytes for info in infos),
        "dtypes": dict(dtypes.most_common()),
    }
