"""The weights of a Wan DiT as it lies on disk, one tensor at a time, under Wan's names whatever the file's are."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from wan_alpha.errors import CheckpointError
from wan_alpha.weights.dit_names import parameter_from_diffusers
from wan_alpha.weights.io import load_state_dict, read_metadata, rounded_sha256
from wan_alpha.weights.safetensors_stream import DTYPES
from wan_alpha.weights.wan_layout import DITS, find_wan_files, part_files

_PREFIXES = ("model.diffusion_model.", "diffusion_model.")
_SCALES = ("scale_weight", "weight_scale", "scale_input", "input_scale")
_MARK = "patch_embedding.weight"


class BaseWeights(Mapping):
    """Name -> tensor of one DiT. Looking a name up reads that tensor and nothing else; no tensor is kept.

    Args:
        source: a weight file (or one of its shards) in Wan's, ComfyUI's or diffusers' naming, or whatever
            ``find_wan_files`` knows.
        expert: "high_noise" or "low_noise" where the source holds two; else None.

    Attributes:
        shards: the files; keys_of: Wan's name -> (file, its own key).

    Raises:
        CheckpointError: no Wan DiT, unreadable, quantised, or two experts and none named.
    """

    def __init__(self, source, expert=None):
        self.source = source
        self.shards = _find_shards(source, expert)
        self.keys_of, self._outlines, self._unpickled = {}, {}, {}
        for shard in self.shards:
            self._open(shard)
        if _MARK not in self.keys_of:
            raise CheckpointError(
                f"{source}: expected a Wan DiT, found no {_MARK}; found {min(self, default='nothing')}"
            )

    def __getitem__(self, name):
        path, key = self.keys_of[name]
        if path in self._unpickled:
            return self._unpickled[path][key]
        try:
            with safe_open(path, framework="pt") as file:
                return file.get_tensor(key)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path}: {key} cannot be read ({error}); download the file again") from error

    def __iter__(self):
        return iter(self.keys_of)

    def __len__(self):
        return len(self.keys_of)

    def outlines(self):
        """Name -> tensor on the meta device: shapes and dtypes without the weights."""
        return dict(self._outlines)

    def metadata(self):
        """The metadata (str to str) of all shards."""
        return {key: value for shard in self.shards for key, value in read_metadata(shard).items()}

    def sha256(self):
        """Hash of the weights rounded to bfloat16, as training records it: the same for a float32 file and its copy in
        bfloat16. Reads everything once."""
        return rounded_sha256(self)

    def _open(self, path):
        if path.suffix == ".safetensors":
            outlines = _read_outlines(path)
        else:
            self._unpickled[path] = load_state_dict(path)
            outlines = {key: tensor.to("meta") for key, tensor in self._unpickled[path].items()}
        is_diffusers = any(key.startswith("condition_embedder.") or ".attn1." in key for key in outlines)
        for key, outline in outlines.items():
            name = key
            for prefix in _PREFIXES:
                name = name.removeprefix(prefix)
            name = (parameter_from_diffusers(name) or name) if is_diffusers else name
            # A whole checkpoint of ComfyUI's holds other models beside the DiT, whose weights may be what they are.
            if name.startswith("blocks.") and (not outline.is_floating_point() or name.endswith(_SCALES)):
                raise CheckpointError(
                    f"{path}: {key}: quantised weights cannot take an adapter; give the model in bf16, fp16 or float32"
                )
            if name in self.keys_of:
                raise CheckpointError(f"{path}: {key} is in {self.keys_of[name][0]} too; are these files of one model?")
            self.keys_of[name], self._outlines[name] = (path, key), outline


def _find_shards(source, expert):
    if isinstance(source, (str, Path)) and Path(source).is_file():
        return part_files(source, "dit")
    files = find_wan_files(source, parts=DITS)
    if not files.dit:
        raise CheckpointError(f"{source}: expected a DiT there, found none")
    if files.dit_low_noise and expert is None:
        raise CheckpointError(
            f"{source}: holds two experts, and an adapter is for one of them: give --expert high_noise or low_noise"
        )
    if not files.dit_low_noise and expert is not None:
        raise CheckpointError(f"{source}: holds one model, no experts; leave expert = {expert!r} out")
    return files.dit_low_noise if expert == "low_noise" else files.dit


def _read_outlines(path):
    read_metadata(path)  # says what is wrong with a file that is missing or broken
    with safe_open(path, framework="pt") as file:
        return {key: _outline(file.get_slice(key), path, key) for key in file.keys()}  # noqa: SIM118 (not a dict)


def _outline(tensor, path, key):
    dtype = DTYPES.get(tensor.get_dtype())
    if dtype is None:
        raise CheckpointError(f"{path}: {key}: weights of type {tensor.get_dtype()} are not read")
    return torch.empty(tensor.get_shape(), dtype=dtype, device="meta")
