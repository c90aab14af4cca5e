"""DoRA's magnitudes between two programs that divide them by different norms.

    DoRA, PEFT, LyCORIS, this project:   W' = m * (W + s*B*A) / ||W + s*B*A||        "adapted"
    ComfyUI (as of 0.3.77):              W' = d * (W + s*B*A) / ||W||                "base"

per output row, so d = m * ||W|| / ||W + s*B*A||. ComfyUI takes alpha into s as everybody does; for magnitudes a column
it divides by the adapted weight, for magnitudes a row by the base's.
"""

from dataclasses import replace

import torch

from wan_alpha.errors import CheckpointError


def with_dora_norm(adapter, norm, base=None, callback=None):
    """The same adapter with magnitudes to be divided by another norm.

    Args:
        adapter: from ``read_adapter``; norm: "adapted" or "base", see above.
        base: name -> weight of the model that the adapter is for; needed where the norms differ.
        callback: called as callback("converting", layers done, layers in all) where norms are computed.

    Returns:
        an Adapter; the one given where nothing is to be done. Changed magnitudes are float32.

    Raises:
        CheckpointError: a base is needed and none is given, or the adapter is for another one.
    """
    if adapter.dora_norm == norm or all(module.magnitude is None for module in adapter.modules.values()):
        return replace(adapter, dora_norm=norm)
    if base is None:
        raise CheckpointError(
            f"{adapter.path}: ComfyUI divides a DoRA's magnitudes by the base's row norms, others by the adapted "
            "weight's: give --base with the model it is for and the numbers agree, or --dora_norm adapted to take the "
            "magnitudes as they are (LyCORIS's meaning; ComfyUI's result then differs)"
        )
    modules = {}
    for done, (layer, module) in enumerate(adapter.modules.items(), start=1):
        weight = base.get(f"{layer}.weight")
        if weight is None or tuple(weight.shape) != tuple(module.shape):
            found = "no such weight" if weight is None else tuple(weight.shape)
            raise CheckpointError(
                f"{adapter.path}: {layer}: expected a weight of shape {tuple(module.shape)} in the base, found {found}"
                "; is the adapter for another base model?"
            )
        plain, adapted = _norms(weight.float()), _norms(weight.float() + module.update())
        factor = plain / adapted if norm == "base" else adapted / plain
        modules[layer] = replace(module, magnitude=module.magnitude.float() * factor)
        if callback is not None:
            callback("converting", done, len(adapter.modules))
    return replace(adapter, modules=modules, dora_norm=norm)


def _norms(weight):
    return torch.linalg.vector_norm(weight.flatten(1), dim=1).clamp_min(torch.finfo(torch.float32).tiny)
