"""The tensors of one part of a Wan model under Wan's own names, from files of any layout, never all at once twice."""

import torch
from safetensors import safe_open

from wan_alpha.errors import CheckpointError
from wan_alpha.weights.headers import read_header
from wan_alpha.weights.io import load_state_dict
from wan_alpha.weights.parts import KINDS, find_part, find_parts
from wan_alpha.weights.recognise.files import merged_tensors, recognise_headers
from wan_alpha.weights.recognise.foreign import foreign_model, image_vae

GROUP_BYTES = 128 * 2**20  # read from the file, changed and let go of before the next are read
_NAMES = {"dit": "DiT", "text_encoder": "UMT5 text encoder", "vae": "VAE", "image_encoder": "CLIP image encoder"}


def find_part_in(paths, kind):
    """The ``parts.Part`` of one kind in the shards of a model, from their headers.

    Raises:
        CheckpointError: a file that cannot be read, or another model, named as what it is.
    """
    headers = [read_header(path) for path in paths]
    tensors, _ = merged_tensors(headers)
    part = find_part(tensors, kind)
    if part is None:
        raise CheckpointError(f"{paths[0]}: expected a Wan {_NAMES[kind]}, found {_found_instead(headers, tensors)}")
    return part


def iterate_part(paths, part, device="cpu", dtype=None):
    """Yield the tensors of a part, a group at a time, on their device and in their dtype.

    Files are memory-mapped: what needs no change is the file's own pages, read when they are used; what is changed is
    at most :data:`GROUP_BYTES` twice in memory.

    Args:
        paths: the files; part: from :func:`find_part_in` of the same files.
        device: where to; dtype: the floats' type, None for the files' own.

    Yields:
        dict of Wan's name -> tensor.
    """
    where = {name: path for path in paths for name in read_header(path).tensors}
    group, num_bytes = [], 0
    for wan, info in part.tensors.items():
        group.append(wan)
        num_bytes += info.num_bytes
        if num_bytes >= GROUP_BYTES:
            yield _read_group(part, group, where, device, dtype)
            group, num_bytes = [], 0
    if group:
        yield _read_group(part, group, where, device, dtype)


def part_state(path, kind):
    """All tensors of one part in one file or its shards, under Wan's names, in the file's dtypes.

    Raises:
        CheckpointError: as :func:`find_part_in`.
    """
    part = find_part_in([path], kind)
    return {name: tensor for group in iterate_part([path], part) for name, tensor in group.items()}


def _read_group(part, group, where, device, dtype):
    needed = {}
    for wan in group:
        for name in (*part.sources[wan], *filter(None, [part.scales.get(wan)])):
            needed.setdefault(where[name], []).append(name)
    raw = {name: tensor for path, names in needed.items() for name, tensor in _read(path, names).items()}
    return {wan: _whole(part, wan, raw, device, dtype) for wan in group}


def _read(path, names):
    if path.suffix == ".safetensors":
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in names}
    state = load_state_dict(path)
    return {name: state[name] for name in names}


def _whole(part, wan, raw, device, dtype):
    tensors = [raw[name] for name in part.sources[wan]]
    tensor = tensors[0] if len(tensors) == 1 else torch.cat(tensors)
    if wan in part.scales:
        tensor = tensor.float() * raw[part.scales[wan]].float()
    dtype = dtype if tensor.is_floating_point() else None
    return tensor.reshape(part.tensors[wan].shape).to(device=device, dtype=dtype)


def _found_instead(headers, tensors):
    others = find_parts(tensors)
    if others:
        return f"a Wan {_NAMES[others[0].kind]}; give the file of the other"
    image = image_vae(tensors)
    if image is not None:
        return f"an image VAE of {image[0]}, which knows no time; take Wan2.1_VAE.pth, or Wan2.2_VAE.pth for TI2V-5B"
    foreign = foreign_model(tensors)
    if foreign is not None:
        return f"{foreign}; this toolkit runs Wan2.1 and Wan2.2 alone"
    found = recognise_headers(headers)[0]
    if found.kind != "unknown":
        return f"{found.title} ({found.kind}); give it in the option that is meant for it"
    return f"{min(tensors, default='nothing')}: no Wan model; see `wan-alpha inspect {headers[0].path}`"


assert set(_NAMES) == set(KINDS)
