"""LoRA and DoRA on a Wan DiT: put in, trained through PEFT, saved, loaded, merged and taken out again."""

import torch
from torch import nn

from wan_alpha.errors import CheckpointError, ConfigError
from wan_alpha.models.precision import in_autocasts_type
from wan_alpha.weights.adapters import read_adapter, write_adapter

DEFAULT_TARGETS = ("q", "k", "v", "o", "ffn.0", "ffn.2")
KINDS = ("dora", "lora")
_ADAPTER_MARK = ".lora_"


def add_adapter(dit, kind="dora", rank=32, alpha=32, targets=DEFAULT_TARGETS):
    """Freeze a model and put a LoRA or DoRA beside every target layer, in float32 whatever the model's dtype.

        LoRA: y = (W + s*B*A) x        DoRA: y = m * (W + s*B*A) / ||W + s*B*A|| x,  s = alpha / rank

    (Hu et al. 2022; Liu et al. 2024, norms per output row.) At first B is zero and m the row norms: nothing changes,
    not by a bit, in bfloat16 either.

    Args:
        dit: the model, changed in place.
        kind: "dora" or "lora".
        rank, alpha: size and strength of the update.
        targets: ends of the names of the linear layers to adapt.

    Returns:
        The trainable parameters, float32.

    Raises:
        ConfigError: an unknown kind, a rank below 1, or targets that the model has not.
    """
    from peft import LoraConfig, inject_adapter_in_model

    from wan_alpha.models.dora import use_factored_dora

    if kind not in KINDS:
        raise ConfigError(f"adapter kind {kind!r} is unknown: choose one of {', '.join(KINDS)}")
    if adapter_state_dict(dit):
        raise ConfigError("the model carries an adapter already: merge that one first, or train it on")
    if rank < 1:
        raise ConfigError(f"adapter rank {rank} is impossible: give 1 or more")
    names = [name for name, module in dit.named_modules() if isinstance(module, nn.Linear)]
    absent = [target for target in targets if not any(f".{name}".endswith(f".{target}") for name in names)]
    if absent or not targets:
        raise ConfigError(f"adapter targets {', '.join(absent) or '()'} name no linear layer of the model")
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(targets), use_dora=kind == "dora")
    inject_adapter_in_model(config, dit)
    use_factored_dora(dit)
    cast_inputs_once(dit)
    parameters = []
    for name, parameter in dit.named_parameters():
        parameter.requires_grad_(_ADAPTER_MARK in name)
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
            parameters.append(parameter)
    return parameters


def cast_inputs_once(model):
    """Under autocast every adapted layer casts its input once, for the base layer and for A alike.

    PEFT would make it A's float32 first, and autocast would then make it what it was: copies of the widest activations
    that there are, kept for the backward pass, and the same again there. The output is the same to the bit; of a
    float32 input (autocast's norms give it on CUDA) the gradient is summed in autocast's type.
    """
    from peft.tuners.lora import LoraLayer

    for module in model.modules():
        if isinstance(module, LoraLayer):
            module.register_forward_pre_hook(_take_autocasts_type)


def _take_autocasts_type(layer, inputs):
    x, *others = inputs
    layer.cast_input_dtype_enabled = not torch.is_autocast_enabled(x.device.type)
    return in_autocasts_type(x), *others


def adapter_state_dict(dit):
    """Adapter tensors of an adapted model, detached, named ``blocks.N.self_attn.q.lora_A.default.weight`` and so on."""
    return {name: parameter.detach() for name, parameter in dit.named_parameters() if _ADAPTER_MARK in name}


def save_adapter(dit, path, *, kind, rank, alpha, base_sha256, targets=DEFAULT_TARGETS, recipe=None):
    """Write the adapter of an adapted model as safetensors: released naming, what its reuse needs as metadata.

    Raises:
        CheckpointError: the model carries no adapter.
    """
    tensors = adapter_state_dict(dit)
    if not tensors:
        raise CheckpointError(f"{path}: the model carries no adapter to save; add_adapter comes first")
    write_adapter(
        tensors, path, kind=kind, rank=rank, alpha=alpha, targets=targets, base_sha256=base_sha256, recipe=recipe
    )


def load_adapter(dit, path):
    """Read an adapter file into a model that :func:`add_adapter` has prepared with the same kind, rank, alpha, targets.

    Raises:
        CheckpointError: another kind, scale, rank or set of layers than the model was prepared for.
    """
    adapter = read_adapter(path)
    layers = {name: module for name, module in dit.named_modules() if hasattr(module, "lora_magnitude_vector")}
    if not layers:
        raise CheckpointError(f"{path}: the model is not prepared for an adapter; add_adapter comes first")
    prepared = "dora" if any(len(layer.lora_magnitude_vector) for layer in layers.values()) else "lora"
    if adapter.kind == "dora" and adapter.dora_norm != "adapted":
        raise CheckpointError(
            f"{path}: its magnitudes are for ComfyUI's norm; bring them back with `wan-alpha convert-adapter`, --to "
            "wan-alpha --base and the base model"
        )
    if adapter.kind != prepared or adapter.differences:
        raise CheckpointError(
            f"{path}: expected a {prepared} file, as the model was prepared for, found {adapter.kind}"
        )
    strangers, missing = sorted(adapter.modules.keys() - layers), sorted(layers.keys() - adapter.modules)
    if strangers or missing:
        found = f"and {strangers[0]}, which the model does not adapt" if strangers else f"without {missing[0]}"
        raise CheckpointError(
            f"{path}: expected the {len(layers)} adapted layers of the model, found {len(adapter.modules)} {found}; "
            f"{_way_out(path)}"
        )
    for name, module in adapter.modules.items():
        layer = layers[name]
        scale = layer.scaling["default"]
        if abs(module.scale - scale) > 1e-6 * scale:
            raise CheckpointError(f"{path}: {name}: expected alpha/rank = {scale:g}, found {module.scale:g}")
        pairs = [(layer.lora_A["default"].weight, module.down), (layer.lora_B["default"].weight, module.up)]
        if module.magnitude is not None:
            pairs.append((layer.lora_magnitude_vector["default"].weight, module.magnitude))
        for parameter, tensor in pairs:
            if parameter.shape != tensor.shape:
                raise CheckpointError(
                    f"{path}: {name}: expected shape {tuple(parameter.shape)}, found {tuple(tensor.shape)}; is the "
                    f"adapter for another base model? {_way_out(path)}"
                )
            parameter.data.copy_(tensor)


def merge_adapter(base_state_dict, adapter_path, scale=1.0):
    """Bake an adapter file into the weights of a base model.

        LoRA: W' = W + s*B*A        DoRA: W' = m * (W + s*B*A) / ||W + s*B*A||, norms per output row
        differences: p' = p + d     and all of it in part: p + scale * (p' - p)

    Args:
        base_state_dict: name to tensor, named as Wan names it; not changed.
        adapter_path: LoRA, DoRA or LoKr in any naming that ``weights.adapters`` reads.
        scale: 0 leaves the base, 1 applies the adapter in full.

    Returns:
        A new dict; tensors that the adapter does not touch are shared with the base, dtypes are the base's.

    Raises:
        CheckpointError: the file is no adapter, or one for another base (unknown layers, other shapes).
    """
    merged = dict(base_state_dict)
    merged.update(_merged_tensors(base_state_dict, read_adapter(adapter_path), scale))
    return merged


@torch.no_grad()
def merge_adapter_into(module, adapter_path, scale=1.0, expert=None):
    """As :func:`merge_adapter`, but into a module's own parameters, one at a time: there is never a second model.

    ``expert`` says which half of a file of both experts' adapters is meant, see ``weights.adapters.read_adapter``.

    Raises:
        CheckpointError: as :func:`merge_adapter`; the module is unchanged then.
    """
    parameters = dict(module.named_parameters())
    for name, tensor in _merged_tensors(parameters, read_adapter(adapter_path, expert), scale):
        parameters[name].copy_(tensor)


def adapter_row_norms(base_state_dict, adapter_path):
    """What each magnitude of a DoRA is divided by, ||W + s*B*A|| per output row as a rule: name of the weight -> (out,)
    float32; {} for LoRA."""
    adapter = read_adapter(adapter_path)
    norms = {}
    for name, module in adapter.modules.items():
        if module.magnitude is not None:
            weight, update = _weight_and_update(base_state_dict, adapter, name)
            norms[f"{name}.weight"] = _divisors(adapter, weight.detach().float(), update)
    return norms


def unmerge_adapter(merged_state_dict, adapter_path, row_norms=None, scale=1.0):
    """Take an adapter out of merged weights again: the inverse of :func:`merge_adapter`.

    A merged DoRA has forgotten how long the rows of W + s*B*A were; with these lengths it can be undone,

        W = (W' - scale*(m/n)*s*B*A) / (1 - scale + scale*m/n),   n = ||W + s*B*A||

    Args:
        merged_state_dict: what :func:`merge_adapter` returned with the same file and scale; not changed.
        row_norms: from :func:`adapter_row_norms` on the base, before merging; not needed for LoRA.

    Returns:
        A new dict, the base up to rounding.

    Raises:
        CheckpointError: the file does not fit the weights, or a DoRA comes without its row norms.
    """
    adapter = read_adapter(adapter_path)
    restored = dict(merged_state_dict)
    for name, difference in adapter.differences.items():
        merged = restored[_checked(restored, adapter, name, difference.shape)]
        restored[name] = (merged.float() - scale * difference.to(merged.device).float()).to(merged.dtype)
    for name, module in adapter.modules.items():
        weight, update = _weight_and_update(restored, adapter, name)
        gain = torch.ones((), device=weight.device)
        if module.magnitude is not None:
            if f"{name}.weight" not in (row_norms or {}):
                raise CheckpointError(
                    f"{adapter.path}: unmerging a DoRA needs the row norms of {name}.weight before merging"
                )
            norms = row_norms[f"{name}.weight"].to(weight.device)
            gain = _per_row(module.magnitude.to(weight.device).float() / norms, weight)
        base = (weight.float() - scale * gain * update) / (1 - scale + scale * gain)
        restored[f"{name}.weight"] = base.to(weight.dtype)
    return restored


def check_adapter_fits(weights, adapter):
    """Refuse an adapter for another model, at its first layer that does not fit.

    Args:
        weights: name -> anything with a shape, named as Wan names it.

    Returns:
        names of the parameters that the adapter changes, in its order.

    Raises:
        CheckpointError: a layer that the model has not, or of another shape.
    """
    names = [_checked(weights, adapter, f"{layer}.weight", module.shape) for layer, module in adapter.modules.items()]
    for name, difference in adapter.differences.items():
        _checked(weights, adapter, name, difference.shape)
    return list(dict.fromkeys([*names, *adapter.differences]))


def merged_parameter(weight, adapter, name, scale=1.0):
    """One parameter with an adapter baked in; see :func:`merge_adapter`.

    Args:
        weight: the base's, any floating dtype; adapter: an ``Adapter`` that fits; name: the parameter's.

    Returns:
        a tensor of the base's shape and dtype, computed in float32.
    """
    layer, _, part = name.rpartition(".")
    base = weight.detach().float()
    target, module = base, adapter.modules.get(layer) if part == "weight" else None
    if module is not None:
        update = module.update(base.device)
        target = base + update
        if module.magnitude is not None:
            magnitude = module.magnitude.to(base.device).float()
            target = target * _per_row(magnitude / _divisors(adapter, base, update), base)
    if name in adapter.differences:
        target = target + adapter.differences[name].to(base.device).float()
    return torch.lerp(base, target, scale).to(weight.dtype)


def _merged_tensors(weights, adapter, scale):
    """Yields (name, merged tensor), each parameter once."""
    for name in check_adapter_fits(weights, adapter):
        yield name, merged_parameter(weights[name], adapter, name, scale)


def _weight_and_update(weights, adapter, name):
    module = adapter.modules[name]
    weight = weights[_checked(weights, adapter, f"{name}.weight", module.shape)]
    return weight, module.update(weight.device)


def _checked(weights, adapter, name, shape):
    if name not in weights:
        raise CheckpointError(
            f"{adapter.path}: expected layers of the base model, found {name}, which it has not; is the adapter for "
            f"another base model? {_way_out(adapter.path)}"
        )
    if tuple(weights[name].shape) != tuple(shape):
        raise CheckpointError(
            f"{adapter.path}: {name}: expected shape {tuple(weights[name].shape)} as in the base, found {tuple(shape)}"
            f"; is the adapter for another base model? {_way_out(adapter.path)}"
        )
    return name


def _way_out(path):
    return f"`wan-alpha inspect {path}` says which it fits"


def _divisors(adapter, weight, update):
    return _norms(weight if adapter.dora_norm == "base" else weight + update)


def _norms(weight):
    # A row of zeros stays one: 0/0 would make it NaN.
    return torch.linalg.vector_norm(weight.flatten(1), dim=1).clamp_min(torch.finfo(torch.float32).tiny)


def _per_row(factor, weight):
    return factor.float().view(-1, *[1] * (weight.ndim - 1))
