"""A module made on the meta device, filled with the tensors of files."""

from pathlib import Path

import torch

from wan_alpha.errors import CheckpointError
from wan_alpha.weights.part_reader import iterate_part

# What a file may lack: of CLIP's output layer Wan uses nothing.
_UNUSED = {"model.visual.head"}


def fill_module(module, paths, part, device, dtype, callback=None):
    """Replace a meta module's parameters by the files', group by group, each checked against the module.

    Args:
        module: on the meta device; paths, part: as in ``part_reader.iterate_part``.
        device, dtype: where the weights go and in what dtype.
        callback: called with the number of tensors of each group.

    Returns:
        the module, in eval mode, without gradients.

    Raises:
        CheckpointError: tensors missing, left over or of another shape.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    found = {name: info.shape for name, info in part.tensors.items()}
    missing = expected.keys() - found.keys() - _UNUSED
    left_over = [*(found.keys() - expected.keys()), *part.strangers]
    for problem, names in (("missing", missing), ("left over", left_over)):
        if names:
            some = ", ".join(sorted(names)[:3])
            raise CheckpointError(
                f"{paths[0]}: expected the {len(expected)} tensors of a Wan model, {len(names)} {problem}: {some}"
            )
    for name, shape in expected.items():
        if name in found and found[name] != shape:
            raise CheckpointError(f"{paths[0]}: {name}: expected shape {shape}, found {found[name]}")
    for tensors in iterate_part([Path(path) for path in paths], part, device, dtype):
        module.load_state_dict(tensors, strict=False, assign=True)
        if callback is not None:
            callback(len(tensors))
    unused = {
        name: torch.zeros(expected[name], device=device, dtype=dtype) for name in _UNUSED & (expected.keys() - found)
    }
    module.load_state_dict(unused, strict=False, assign=True)
    return module.eval().requires_grad_(False)
