"""Key names of RGBA VAE weights: this project's own and the released training's and inference's.

Own names, in memory and in safetensors::

    merge.<FeatureMergeBlock parameter>
    foreground.<decoder convolution>.lora_A | lora_B        (alpha.<...> for the alpha decoder)

Released names::

    middle.block.<FeatureMergeBlock parameter>
    vae_fgr.decoder.<decoder convolution>[.conv3D].lora_A.default.weight         (vae_pha for alpha)

where ``.conv3D`` stands behind causal convolutions. A full released checkpoint also holds the frozen base: the
decoders' ``base_layer`` weights and norms, the encoder and ``conv2``.
"""

import re
from dataclasses import dataclass, field

import torch

from wan_alpha.errors import CheckpointError
from wan_alpha.weights.io import load_state_dict, read_metadata

FORMAT = "wan_alpha.rgba_vae"
FORMAT_VERSION = "1"
STREAMS = {"foreground": "vae_fgr", "alpha": "vae_pha"}
_RELEASED_LORA = re.compile(r"(vae_fgr|vae_pha)\.decoder\.(.+?)(?:\.conv3D)?\.lora_(A|B)(?:\.default)?\.weight")
_RELEASED_BASE = re.compile(r"vae_(?:fgr|pha)\.(.+)")


@dataclass
class RGBAVAEWeights:
    """What a file holds: LoRA factors and merge block under own names, and frozen base weights under the VAE's."""

    trained: dict
    base: dict = field(default_factory=dict)
    metadata: dict = field(default_factory=dict)

    def part(self, prefix):
        """The tensors of "merge", "foreground" or "alpha", prefix removed."""
        return {name[len(prefix) + 1 :]: value for name, value in self.trained.items() if name.startswith(prefix + ".")}


def read_rgba_vae(path):
    """Read RGBA VAE weights in any of the names above; LoRA part, full checkpoint or own safetensors.

    Raises:
        CheckpointError: unreadable, or with keys that belong to none of these formats.
    """
    state = load_state_dict(path)
    trained, base, strangers = {}, {}, []
    for key, value in state.items():
        key = key.removeprefix("module.")
        if key.split(".")[0] in ("merge", *STREAMS):
            trained[key] = value
        elif key.startswith("middle.block."):
            trained["merge." + key.removeprefix("middle.block.")] = value
        elif match := _RELEASED_LORA.fullmatch(key):
            stream = "foreground" if match[1] == "vae_fgr" else "alpha"
            trained[f"{stream}.{match[2]}.lora_{match[3]}"] = value
        elif match := _RELEASED_BASE.fullmatch(key):
            base.setdefault(match[1].replace(".conv3D", "").replace(".base_layer", ""), value)
        else:
            strangers.append(key)
    if strangers or not trained:
        found = ", ".join(strangers[:3]) or "no trained weights"
        raise CheckpointError(
            f"{path}: not RGBA VAE weights; expected middle.block.*, vae_fgr.decoder.*, vae_pha.decoder.* (released) "
            f"or merge.*, foreground.*, alpha.* (own), found {found}"
        )
    return RGBAVAEWeights(trained, base, read_metadata(path))


def lora_rank(factors, path):
    """Rank of a decoder's LoRA factors (:meth:`RGBAVAEWeights.part`).

    Raises:
        CheckpointError: the factors disagree.
    """
    ranks = {value.shape[0] for name, value in factors.items() if name.endswith("lora_A")}
    if len(ranks) != 1:
        raise CheckpointError(f"{path}: expected one LoRA rank for all convolutions, found {sorted(ranks) or 'none'}")
    return ranks.pop()


def released_names(trained, causal_convolutions):
    """Own names to released names.

    Args:
        trained: tensors under own names; causal_convolutions: decoder convolutions that are causal 3-D ones.
    """
    renamed = {}
    for name, value in trained.items():
        stream, rest = name.split(".", 1)
        if stream == "merge":
            renamed[f"middle.block.{rest}"] = value
            continue
        conv, factor = rest.rsplit(".", 1)
        wrapped = f"{conv}.conv3D" if conv in causal_convolutions else conv
        renamed[f"{STREAMS[stream]}.decoder.{wrapped}.{factor}.default.weight"] = value
    return renamed


def check_same_base(found, expected, path):
    """Compare a full checkpoint's frozen weights with the base VAE's, in the coarser dtype of the two.

    Raises:
        CheckpointError: a weight is unknown, of another shape, or has another value.
    """
    for name, value in found.items():
        own = expected.get(name)
        if own is None or own.shape != value.shape:
            shape = "no such weight" if own is None else f"shape {tuple(own.shape)}"
            raise CheckpointError(f"{path}: holds {name} {tuple(value.shape)}, but the base VAE has {shape}")
        coarse = min(value.dtype, own.dtype, key=lambda dtype: torch.finfo(dtype).bits)
        # On the CPU: the VAE may be on an accelerator, files are read here.
        theirs, ours = (tensor.cpu().to(coarse).float() for tensor in (value, own))
        if not torch.allclose(theirs, ours, rtol=1e-2, atol=1e-3):
            raise CheckpointError(f"{path}: {name} differs from the base VAE's; it was trained on another base VAE")
