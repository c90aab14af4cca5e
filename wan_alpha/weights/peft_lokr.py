"""LoKr for PEFT, which makes the factors' shapes from its configuration and takes no others."""

from wan_alpha.errors import CheckpointError
from wan_alpha.weights.adapter_parts import Kronecker


def lokr_config(adapter):
    """A LoKr's tensors under PEFT's names, and PEFT's LoKrConfig as a dict.

    PEFT splits every layer by one ``decompose_factor`` f into a first factor (f, f) and a second (out/f, in/f), and
    takes the second of low rank where twice the rank is less than its longer side. Files of that form can be said.

    Raises:
        CheckpointError: magnitudes, factors of other shapes, or a first factor of low rank.
    """
    layers, tensors, ranks, alphas = adapter.modules, {}, {}, {}
    strangers = [layer for layer, module in layers.items() if not isinstance(module, Kronecker)]
    if strangers:
        raise CheckpointError(f"{adapter.path}: {strangers[0]} is a LoRA among LoKr; peft holds one kind in a folder")
    factor = next(iter(layers.values())).sides()[0][0]
    for layer, module in layers.items():
        _check(adapter.path, layer, module, factor)
        longer = max(module.sides()[1])
        ranks[layer] = module.rank or (longer + 1) // 2
        alphas[layer] = float(f"{module.scale * ranks[layer]:.12g}")
        tensors |= {f"{layer}.{name}": tensor for name, tensor in module.factors.items()}
    rank, alpha = next(iter(ranks.values())), next(iter(alphas.values()))
    return tensors, {
        "peft_type": "LOKR", "r": rank, "alpha": alpha, "decompose_factor": factor, "decompose_both": False,
        "rank_pattern": ranks, "alpha_pattern": alphas, "target_modules": sorted(layers),
    }  # fmt: skip


def _check(path, layer, module, factor):
    if module.magnitude is not None:
        raise CheckpointError(f"{path}: {layer} has magnitudes, and PEFT's LoKr has none; convert to comfyui instead")
    first, second = module.sides()
    fits = first == (factor, factor) and "lokr_w1" in module.factors and factor <= min(second)
    if not fits or (module.rank is not None and 2 * module.rank >= max(second)):
        raise CheckpointError(
            f"{path}: {layer}: its factors are {first} and {second} of rank {module.rank}; PEFT makes ({factor}, "
            f"{factor}) whole, and the second of low rank below half its longer side, and takes no others"
        )
