"""What a checkpoint holds: the trained tensors, the optimizer's, their average, and whatever is exported beside them.

The state file and the way to the disk are those of :mod:`wan_alpha.training.checkpoint_folder`.
"""

from wan_alpha.errors import CheckpointError
from wan_alpha.weights.io import load_state_dict
from wan_alpha.weights.safetensors_stream import safetensors_stream

MODEL_FILE = "model.safetensors"
OPTIMIZER_FILE = "optimizer.safetensors"
AVERAGE_FILE = "ema.safetensors"


def trained_parameters(module):
    """Name -> parameter of everything with a gradient, in the module's order."""
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


def optimizer_tensors(optimizer, parameters):
    """The optimizer's state as ``<parameter>/<field>`` -> tensor."""
    return {
        f"{name}/{field}": value
        for name, parameter in parameters.items()
        for field, value in optimizer.state[parameter].items()
    }


def checkpoint_tensors(step, parameters, optimizer, average=None, exported=None):
    """The tensors of a checkpoint, as they are in use.

    Args:
        step: optimizer steps done; parameters: name -> parameter; optimizer: theirs.
        average: a WeightAverage, or None.
        exported: file name -> (tensors, metadata): files for others to read.

    Returns:
        file name -> (name -> tensor, metadata).
    """
    metadata = {"step": str(step)}
    files = {MODEL_FILE: (dict(parameters), metadata)}
    files[OPTIMIZER_FILE] = (optimizer_tensors(optimizer, parameters), metadata)
    if average is not None:
        files[AVERAGE_FILE] = (average.tensors(), metadata)
    return {**(exported or {}), **files}


def checkpoint_contents(files):
    """``file name -> (tensors, metadata)`` as ``file name -> (number of bytes, chunks)``."""
    return {name: safetensors_stream(*content) for name, content in files.items()}


def load_checkpoint(checkpoint, parameters, optimizer, average=None):
    """Put a checkpoint's tensors into parameters, optimizer and average.

    Raises:
        CheckpointError: names or shapes are not those of the parameters.
    """
    for name, tensor in _fitting_tensors(checkpoint / MODEL_FILE, parameters).items():
        parameters[name].data.copy_(tensor)
    if average is not None:
        average.load(_fitting_tensors(checkpoint / AVERAGE_FILE, parameters))
    fields = {}
    for key, value in load_state_dict(checkpoint / OPTIMIZER_FILE).items():
        name, field = key.rsplit("/", 1)
        # A copy: the optimizer would go on with the mapped file itself, which is deleted one day.
        fields.setdefault(name, {})[field] = value.clone()
    # Through load_state_dict, which puts each tensor where the optimizer wants it.
    state = optimizer.state_dict()
    names = list(parameters)
    state["state"] = {index: fields[name] for index, name in enumerate(names) if name in fields}
    optimizer.load_state_dict(state)


def _fitting_tensors(path, parameters):
    tensors = load_state_dict(path)
    differing = sorted(set(tensors) ^ set(parameters)) or [
        name for name, parameter in parameters.items() if parameter.shape != tensors[name].shape
    ]
    if differing:
        raise CheckpointError(
            f"{path}: holds other parameters than this run trains, first {differing[0]} "
            f"({len(tensors)} there, {len(parameters)} here): it was made with another model or mode"
        )
    return tensors
