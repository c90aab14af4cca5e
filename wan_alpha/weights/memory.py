"""What each mode of a known model takes at its peak: as measured where it was, else what its weights alone take.

A mode is a row of phases, one after the other; memory holds the largest of them, since what one phase loads is let go
of before the next.
"""

from dataclasses import asdict, dataclass

GIB = 2**30
RANK = 32  # of the adapters that are measured and predicted
# Mode -> its phases, which are what `examples/measure_memory.py` measures.
MODES = {
    "load": ("load",), "cache": ("text", "encoding"), "generate": ("text", "sampling", "decoding"), "lora": ("lora",),
    "dora": ("dora",), "full": ("full",), "textual_inversion": ("textual_inversion",),
}  # fmt: skip
PHASES = tuple(dict.fromkeys(phase for phases in MODES.values() for phase in phases))
_HALF_BYTES, _TRAINED_BYTES = 2, 16  # trained: the weight, its gradient and AdamW's two moments, float32
_ADAPTED_SQUARES = 8  # q, k, v, o of two attentions, each dim x dim


@dataclass(frozen=True)
class Peak:
    """Peak memory of a phase.

    Attributes:
        phase: of PHASES; gib: GiB.
        is_measured: False where only the weights are counted, with activations to come on top.
        conditions: what it was measured with (device, type, clip, day), "" where it was not.
    """

    phase: str
    gib: float
    is_measured: bool
    conditions: str = ""

    def as_dict(self):
        """As JSON values."""
        return asdict(self)

    def describe(self):
        """ "2.66 GiB, measured (CPU, bf16, 2026-11-21)" or "at least 10.58 GiB, predicted from the weights alone"."""
        if self.is_measured:
            return f"{self.gib:.2f} GiB, measured ({self.conditions})"
        return f"at least {self.gib:.2f} GiB, predicted from the weights in bf16 alone"


def phase_peaks(model):
    """Phase -> Peak of a ``KnownModel``, in the order of PHASES."""
    return {phase: _measured(phase, model.memory[phase]) or _predicted(phase, model) for phase in PHASES}


def mode_peaks(model):
    """Mode -> the Peaks of its phases, of which the largest is the mode's."""
    peaks = phase_peaks(model)
    return {mode: tuple(peaks[phase] for phase in phases) for mode, phases in MODES.items()}


def largest(peaks):
    """The largest of a mode's peaks."""
    return max(peaks, key=lambda peak: peak.gib)


def num_adapter_parameters(dit, kind, rank=RANK):
    """Weights of an adapter on q, k, v, o, ffn.0 and ffn.2 of every block.

    Args:
        dit: sizes as in ``KnownModel.dit``; kind: "lora" or "dora", which has a magnitude a row besides.
    """
    dim, ffn_dim = dit["dim"], dit["ffn_dim"]
    weights = rank * (_ADAPTED_SQUARES * 2 * dim + 2 * (dim + ffn_dim))
    rows = _ADAPTED_SQUARES * dim + ffn_dim + dim if kind == "dora" else 0
    return dit["num_layers"] * (weights + rows)


def predicted_bytes(phase, model):
    """Bytes of the weights that a phase holds, in bf16, and of what training adds to the trained ones."""
    count = model.parameters
    if phase in ("lora", "dora"):
        return _HALF_BYTES * count["dit"] + _TRAINED_BYTES * num_adapter_parameters(model.dit, phase)
    return {
        "load": _HALF_BYTES * count["dit"],
        "text": _HALF_BYTES * count["text_encoder"],
        "encoding": _HALF_BYTES * (count["vae"] + count["rgba_vae"]),
        "sampling": _HALF_BYTES * count["dit"] * model.num_experts,
        "decoding": _HALF_BYTES * (count["vae"] + count["rgba_vae"]),
        "full": _TRAINED_BYTES * count["dit"],
        "textual_inversion": _HALF_BYTES * (count["dit"] + count["text_encoder"]),
    }[phase]


def _measured(phase, entry):
    if entry is None:
        return None
    clip = [f"clip of {entry['clip']}"] if entry.get("clip") else []
    adapter = [f"rank {RANK}"] if phase in ("lora", "dora") else []
    told = ", ".join([entry["device"], entry["precision"], *clip, *adapter, entry["date"]])
    return Peak(phase, entry["gib"], True, told)


def _predicted(phase, model):
    return Peak(phase, predicted_bytes(phase, model) / GIB, False)
