"""Which DiT of a model is trained: its only one, or of two experts (Wan2.2 A14B) either or both."""

import torch

from wan_alpha.errors import ConfigError
from wan_alpha.models.load import find_boundary, load_wan
from wan_alpha.models.wan import predict_velocity
from wan_alpha.weights.adapter_keys import EXPERTS
from wan_alpha.weights.wan_layout import DITS, find_wan_files

HIGH, LOW = EXPERTS
BOTH = "both"


def load_trained_dits(model, dtype, callback=None):
    """A pipeline with what is trained: as ``dit`` the only DiT or the one expert, or both as ``dit`` and ``dit2``.

    Args:
        model: TrainDiTModel; dtype: of the weights, on the CPU: the loop moves them; callback: as in ``load_wan``.

    Returns:
        the pipeline; its ``boundary`` is where the experts take turns, None without experts.

    Raises:
        ConfigError: a model of two experts without the choice, or the choice of both for a model of one.
        CheckpointError: weights that are not what they claim.
    """
    source, expert = (model.wan if model.dit is None else [str(model.dit)]), model.expert
    files = find_wan_files(source, parts=DITS)
    has_two = bool(files.dit_low_noise)
    if has_two and expert is None:
        raise ConfigError(
            f"model.wan holds two experts: say which is trained, model.expert = {HIGH}, {LOW}, or {BOTH} in one run"
        )
    if expert == BOTH and not has_two:
        raise ConfigError(f"model.expert = {BOTH}: there is one DiT in {source}; name the folder of both experts")
    if has_two and expert in EXPERTS:
        # The other expert is not even read: each is as large as a model.
        source = [[str(path) for path in (files.dit if expert == HIGH else files.dit_low_noise)]]
    pipe = load_wan(source, components=("dit",), device="cpu", dtype=dtype, callback=callback)
    pipe.boundary = None if expert is None else model.boundary or find_boundary(files)
    return pipe


def trained_experts(pipe, expert):
    """(expert, its DiT) of all that is trained; the expert is None for a model's only DiT."""
    if expert == BOTH:
        return [(HIGH, pipe.dit), (LOW, pipe.dit2)]
    return [(expert, pipe.dit)]


def file_of_expert(name, expert):
    """adapter.safetensors -> adapter_low_noise.safetensors; as it is without experts."""
    stem, _, suffix = name.rpartition(".")
    return name if expert is None else f"{stem}_{expert}.{suffix}"


def predict_by_experts(pipe, noisy, timesteps, context, **options):
    """Each sample's velocity by the expert that sampling would ask for its timestep: high noise from the boundary up.

    An expert that no sample of the batch asks for takes part with a gradient of zero, so that processes whose batches
    differ take the same steps.

    Args:
        pipe: of two experts; noisy: (B, C, t, h, w); timesteps: (B,); context: (B, L, text_dim); options: of
            ``predict_velocity``.

    Returns:
        (B, C, t, h, w).
    """
    is_high = timesteps >= 1000 * pipe.boundary
    predicted = torch.zeros_like(noisy)
    for dit, is_asked in ((pipe.dit, is_high), (pipe.dit2, ~is_high)):
        asked = is_asked.nonzero().flatten()
        if len(asked):
            velocity = predict_velocity(dit, noisy[asked], timesteps[asked], context[asked], **options)
            predicted = predicted.index_copy(0, asked, velocity)
        else:
            predicted = predicted + sum(0 * p.sum() for p in dit.parameters() if p.requires_grad)
    return predicted
