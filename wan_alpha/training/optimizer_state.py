"""An optimizer's state as tensors and JSON values, and back, exactly."""

import torch

from wan_alpha.errors import CheckpointError

# How an optimizer computes, not what: that is the present device's to choose.
_WAYS_TO_COMPUTE = ("fused", "foreach", "capturable", "differentiable")
_GROUP = "group {}/"


def split_state(optimizer, parameters):
    """An optimizer's whole state.

    Args:
        parameters: name -> parameter, all that it optimizes.

    Returns:
        (``<parameter>/<field>`` and ``group <number>/<field>`` -> tensor; all else: {"state": parameter -> field ->
        value, "groups": [field -> value]} of JSON values).

    Raises:
        CheckpointError: it keeps something that is neither.
    """
    tensors, values = {}, {"state": {}, "groups": []}
    for name, parameter in parameters.items():
        others = _take(optimizer.state.get(parameter, {}), f"{name}/", tensors, optimizer)
        if others:
            values["state"][name] = others
    for number, group in enumerate(optimizer.param_groups):
        fields = {field: value for field, value in group.items() if field not in ("params", *_WAYS_TO_COMPUTE)}
        values["groups"].append(_take(fields, _GROUP.format(number), tensors, optimizer))
    return tensors, values


def _take(fields, prefix, tensors, optimizer):
    others = {}
    for field, value in fields.items():
        if isinstance(value, torch.Tensor):
            tensors[prefix + field] = value
        elif _is_plain(value):
            others[field] = value
        else:
            raise CheckpointError(
                f"{type(optimizer).__name__} keeps {prefix}{field} as {type(value).__name__}, which a checkpoint "
                "cannot hold: choose another optimizer, or other options"
            )
    return others


def _is_plain(value):
    if isinstance(value, (list, tuple)):
        return all(_is_plain(part) for part in value)
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(part) for key, part in value.items())
    return value is None or type(value) in (bool, int, float, str)


def restore_state(optimizer, parameters, tensors, values):
    """Give an optimizer the state that :func:`split_state` took.

    Args:
        optimizer: newly made, for the same parameters; tensors, values: as they were returned, tensors anywhere.
    """
    groups = values.get("groups", [])
    fields = {name: dict(others) for name, others in values.get("state", {}).items()}
    group_tensors = {}
    for key, value in tensors.items():
        name, field = key.rsplit("/", 1)
        # A copy: the optimizer would go on with the mapped file itself, which is deleted one day.
        if name in parameters:
            fields.setdefault(name, {})[field] = value.clone()
        else:
            group_tensors.setdefault(name + "/", {})[field] = value.clone()
    # Through load_state_dict, which puts each tensor on the device where this optimizer wants it.
    state = optimizer.state_dict()
    state["state"] = {index: fields[name] for index, name in enumerate(parameters) if name in fields}
    for number, (group, saved) in enumerate(zip(state["param_groups"], groups, strict=False)):
        group |= {field: _like(group.get(field), value) for field, value in saved.items()}
        device = next(iter(parameters.values())).device
        own = group_tensors.get(_GROUP.format(number), {})
        group |= {field: value.to(device) for field, value in own.items()}
    optimizer.load_state_dict(state)
    for name, parameter in parameters.items():
        for field, saved in fields.get(name, {}).items():
            placed = optimizer.state[parameter].get(field)
            if not isinstance(saved, torch.Tensor):
                optimizer.state[parameter][field] = saved  # load_state_dict takes texts and lists apart
            elif placed is not None and placed.dtype != saved.dtype:  # it was cast to the parameter's
                optimizer.state[parameter][field] = saved.to(placed.device)


def _like(present, saved):
    return tuple(saved) if isinstance(present, tuple) else saved
