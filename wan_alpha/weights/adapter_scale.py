"""The factor before B*A that a file's metadata, or the configuration beside it, gives each layer.

First come, first served: a layer's own ``alpha`` tensor (ComfyUI), this project's metadata, diffusers'
``lora_adapter_metadata``, PEFT's ``adapter_config.json``; without any of these the factor is 1, as the release and the
step-distillation files mean it.
"""

import json
import math
import re
from pathlib import Path

from wan_alpha.errors import CheckpointError
from wan_alpha.weights.adapter_keys import TRANSFORMERS

PEFT_CONFIG = "adapter_config.json"
PEFT_STEM = "adapter_model"
DIFFUSERS_METADATA = "lora_adapter_metadata"
# Options of PEFT's that make another adapter of the same tensors.
_UNKNOWN_TO_US = (
    "fan_in_fan_out", "layer_replication", "target_parameters", "trainable_token_indices", "modules_to_save",
    "use_qalora", "use_bdlora", "alora_invocation_tokens", "arrow_config", "kasa_config", "monteclora_config",
    "velora_config", "use_effective_conv2d",
)  # fmt: skip


class PeftConfig:
    """The part of PEFT's LoraConfig or LoKrConfig that says how strong each layer's update is.

    Args:
        values: as PEFT writes them; where: file that they are from, for the messages.

    Raises:
        CheckpointError: no rank or alpha, or options that this project does not know.
    """

    def __init__(self, values, where):
        self.where = where
        used = [name for name in _UNKNOWN_TO_US if values.get(name)]
        if used:
            raise CheckpointError(
                f"{where}: {used[0]} = {values[used[0]]!r} is not supported; merge that adapter into its base with PEFT"
            )
        kind = str(values.get("peft_type") or "LORA")
        if kind not in ("LORA", "LOKR"):
            raise CheckpointError(f"{where}: expected an adapter of the kind LORA or LOKR, found {kind}")
        alpha = "alpha" if kind == "LOKR" else "lora_alpha"
        try:
            self.rank, self.alpha = int(values["r"]), float(values[alpha])
            self.ranks = self._pattern(values, "rank_pattern", int)
            self.alphas = self._pattern(values, "alpha_pattern", float)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(f"{where}: expected PEFT's {alpha}, r and patterns of them ({error})") from error
        self.use_rslora = bool(values.get("use_rslora"))

    def scale(self, layer, rank):
        """The factor of one layer.

        Args:
            layer: its name, as PEFT names it; rank: what its tensors have, None where they do not say.

        Raises:
            CheckpointError: the configuration says another rank than the tensors.
        """
        expected = _by_pattern(self.ranks, layer, self.rank)
        if rank not in (None, expected) or expected < 1:
            raise CheckpointError(f"{self.where}: {layer}: expected rank {expected}, found tensors of rank {rank}")
        alpha = _by_pattern(self.alphas, layer, self.alpha)
        return alpha / (math.sqrt(expected) if self.use_rslora else expected)

    def _pattern(self, values, name, number):
        # PEFT takes the keys as regular expressions for a name's end. The trainers write names, some with ^ and \\.;
        # what a stranger's expression does to a reader nobody knows, so no other is compiled.
        pattern = {}
        for key, value in (values.get(name) or {}).items():
            layer = key.removeprefix("^").removesuffix("$").replace("\\.", ".")
            if not re.fullmatch(r"[\w.]+", layer):
                raise CheckpointError(f"{self.where}: {name}: expected names of layers, found the expression {key!r}")
            pattern[layer] = number(value)
        return pattern


def own_scale(path, metadata, layer):
    """The factor of a layer in a file of this project's: alpha / rank, either of them the layer's own where patterns
    name it.

    Raises:
        CheckpointError: the metadata does not say.
    """
    try:
        patterns = [json.loads(metadata.get(name, "{}")) for name in ("alpha_pattern", "rank_pattern")]
        return float(patterns[0].get(layer, metadata["alpha"])) / float(patterns[1].get(layer, metadata["rank"]))
    except (KeyError, ValueError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise CheckpointError(f"{path}: expected numbers as rank and alpha in the metadata ({error})") from error


def find_peft_config(path, metadata, transformer=TRANSFORMERS[0]):
    """The configuration that goes with an adapter file: diffusers' in its metadata, PEFT's beside it; None without.

    Args:
        path: the file; metadata: its own, str to str.
        transformer: of TRANSFORMERS, whose adapter is read: diffusers keeps a configuration for each.

    Raises:
        CheckpointError: it is not valid JSON, it is of the other transformer alone, or as :class:`PeftConfig`.
    """
    path = Path(path)
    if DIFFUSERS_METADATA in metadata:
        where, text = f"{path}: {DIFFUSERS_METADATA}", metadata[DIFFUSERS_METADATA]
    else:
        config_path = path.with_name(PEFT_CONFIG)
        if path.stem != PEFT_STEM or not config_path.is_file():
            return None
        where, text = str(config_path), config_path.read_text(encoding="utf-8", errors="replace")
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{where}: not valid JSON ({error})") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{where}: expected a table of options, found {type(values).__name__}")
    return PeftConfig(of_transformer(values, transformer, where), where)


def of_transformer(values, transformer, where):
    """The options of one transformer, from a table in which diffusers puts its name before each; a table without such
    names is PEFT's own, and whole.

    Raises:
        CheckpointError: the table has options of the other transformer alone.
    """
    told = {name for name in TRANSFORMERS if any(key.startswith(f"{name}.") for key in values)}
    if not told:
        return values
    if transformer not in told:
        raise CheckpointError(
            f"{where}: expected rank and alpha of {transformer}, whose layers are in the file, found those of "
            f"{told.pop()} alone"
        )
    start = f"{transformer}."
    return {key.removeprefix(start): value for key, value in values.items() if key.startswith(start)}


def _by_pattern(patterns, layer, default):
    return next((value for name, value in patterns.items() if f".{layer}".endswith(f".{name}")), default)
