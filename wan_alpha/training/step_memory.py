"""The most memory that a training step takes, found by making the step with tensors that have no content.

Forward and backward pass run as they will, on PyTorch's fake tensors, and every tensor is followed (LiveMemory). Of
many equal blocks three are run; what each of the others adds at which time follows from the middle one.
"""

import contextlib
import io
import json
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from wan_alpha.training.config import TrainingSettings
from wan_alpha.training.live_memory import LiveMemory
from wan_alpha.training.optimizers import make_optimizer
from wan_alpha.training.planned_autocast import autocast_rules, backward_under_rules

FLOAT32_BYTES = 4
_SIMULATED_BLOCKS = 3  # a first, a middle and a last one


@dataclass(frozen=True)
class StepMemory:
    """Bytes of one process's device memory, and of host memory what waits there.

    Attributes:
        frozen: weights that are not trained; trained: those that are; state: the optimizer's; average: of the weights.
        kept: what autograd keeps from the forward to the backward pass; peak: the most in all, at any time of a step.
        num_trained: numbers that are trained, in all processes together.
        host: weights and activations that wait in host memory for their block.
    """

    frozen: float
    trained: float
    state: float
    average: float
    kept: float
    peak: float
    num_trained: int
    host: float = 0.0

    @property
    def resident(self):
        """What is there between two steps."""
        return self.frozen + self.trained + self.state + self.average

    def rows(self):
        """Name -> bytes that add up to the last one, the peak."""
        rows = {"frozen weights": self.frozen, "trained weights": self.trained, "optimizer's state": self.state}
        if self.average:
            rows["average of the weights"] = self.average
        return rows | {"gradients, activations, what operations need": self.peak - self.resident, "in all": self.peak}


@dataclass
class _Span:
    """A stretch of the step: its peak, the gradients at its begin, and what the blocks that are left out have there."""

    peak: float
    gradients: float
    has_kept: bool
    has_gradients: bool
    is_backward: bool


@dataclass
class _Record:
    """The spans of a step, told apart by hooks on its blocks."""

    live: LiveMemory
    parameters: list
    spans: list = field(default_factory=list)
    passed: list = field(default_factory=list)  # bytes alive after each block's forward pass, but for casts
    casts: list = field(default_factory=list)  # bytes of each block's weights in autocast's type that only it keeps
    gradients: int = 0
    is_backward: bool = False

    def end_span(self, has_kept, has_gradients):
        peak, gradients = self.live.reset_peak(), self.gradients
        self.gradients = sum(p.grad.numel() * p.grad.element_size() for p in self.parameters if p.grad is not None)
        if not self.is_backward:
            peak += sum(self.casts)
        self.spans.append(_Span(peak, gradients, has_kept, has_gradients, self.is_backward))

    def hook(self, blocks):
        for index, block in enumerate(blocks):
            block.register_forward_hook(lambda *given, index=index: self._after_forward(index, given[-1]))

    def _after_forward(self, index, output):
        if self.is_backward:  # a checkpointed block computes again
            return
        self.end_span(has_kept=index > 0, has_gradients=False)
        # Weights in autocast's type wait for the end of the forward pass, not of the step as what is kept.
        before = self.live.now
        torch.clear_autocast_cache()
        self.casts.append(before - self.live.now)
        self.passed.append(self.live.now)
        if output.requires_grad:
            output.register_hook(lambda _: self._before_backward(index))

    def _before_backward(self, index):
        # The pass of the block after this one ends here; the middle one's, between all kept and all gradients.
        self.end_span(has_kept=True, has_gradients=index == 0)


@dataclass(frozen=True)
class Layout:
    """How a model is spread.

    Attributes:
        copies: models of equal size of which a step takes one (the experts of A14B, trained together).
        processes: that train together; shards: that each weight is in parts over, 1 for none (FSDP2).
        keeps_on_host: what is kept of each block waits in host memory (offloaded activations).
        linear_bytes: bytes a number that the blocks' frozen linear layers are kept in, None for their type's own.
        restores_layer: True where such a layer's weight is restored for itself alone, not for its block's whole pass.
        blocks_on_host: these layers' weights wait in host memory but for those of the block at work.
    """

    copies: int = 1
    processes: int = 1
    shards: int = 1
    keeps_on_host: bool = False
    linear_bytes: float | None = None
    restores_layer: bool = False
    blocks_on_host: bool = False


def step_memory(
    module, make_loss, settings, dtype, device_type="cpu", blocks=None, layout=Layout(), made=None, other_blocks=None
):  # fmt: skip
    """Make a step of ``module`` without content.

    Args:
        module: on the meta device, trained parameters in float32; its tensors, and ``blocks``, are replaced.
        make_loss: (module) -> scalar that depends on the trained parameters; what it makes has no content.
        settings: TrainingSettings; dtype: torch.bfloat16 for autocast to it, else float32.
        device_type: whose rules of autocast hold.
        blocks: the ``nn.ModuleList`` in module of equal blocks that pass one tensor on, or None.
        layout: of the weights over processes.
        other_blocks: of another model in module, all run, whose linear layers are kept as those of ``blocks``; or None.
        made: a dict that keeps the step that was made, for the next call with one that differs in layout, optimizer or
            average alone.

    Returns:
        a :class:`StepMemory`.
    """
    accumulates = settings.gradient_accumulation > 1
    whole = _Sizes.of(module, settings).times(layout.copies)
    has_middle = blocks is not None and len(blocks) >= _SIMULATED_BLOCKS
    block = _Sizes.of(blocks[1], settings) if has_middle else _Sizes()
    outside = whole.less(block.times(layout.copies * len(blocks))) if has_middle else _Sizes()
    # (linear layers of a block, number of such blocks)
    linears = [(_linear_sizes(blocks[0]), layout.copies * len(blocks))] if blocks is not None else []
    if other_blocks is not None:
        linears.append((_linear_sizes(other_blocks[0]), len(other_blocks)))
    host = sum(number * _kept_bytes(sizes, layout) for sizes, number in linears) if layout.blocks_on_host else 0.0
    num_blocks = len(blocks) if blocks is not None else 0
    left_out = num_blocks - _SIMULATED_BLOCKS if has_middle else 0
    if left_out:
        del blocks[1 : 1 + left_out]
    made = {} if made is None else made
    if not made:
        made["step"] = _make_step(module, make_loss, accumulates, dtype, device_type, blocks)
    simulated, record, kept = made["step"]

    of_block = record.passed[1] - record.passed[0] if has_middle and not layout.keeps_on_host else 0
    if layout.keeps_on_host and len(record.passed) > 1:
        host += num_blocks * (record.passed[1] - record.passed[0])
    casts = record.casts[1] if has_middle else 0
    gradients = whole.trained  # float32 as the weights
    at_work = 0.0
    for sizes, number in linears:
        whole, layer = _as_kept(whole, sizes, layout, number)
        at_work = max(at_work, layer)
    share = 1 / layout.shards
    resident = share * (whole.frozen + whole.trained + whole.state + whole.average)
    resident += at_work
    if layout.shards > 1:
        # In whole: what is in no block, and of the blocks the one at work and the one that comes next.
        resident += outside.frozen + outside.trained + 2 * (block.frozen + block.trained) + 2 * block.trained
    elif layout.processes > 1:
        resident += gradients  # data parallelism averages them in buckets of its own
    peaks = [resident + share * gradients]
    for span in record.spans:
        more = left_out * (of_block + (0 if span.is_backward else casts)) * span.has_kept
        idle = share * (layout.copies - 1) * gradients / layout.copies * span.is_backward
        if accumulates:
            own = share * gradients
        else:
            made = left_out * block.trained * span.has_gradients
            more, idle = max(more, share * made), idle - (1 - share) * span.gradients
            own = 0
        peaks.append(resident + own + idle + more + span.peak - simulated)
    return StepMemory(
        share * whole.frozen, share * whole.trained, share * whole.state, share * whole.average,
        kept + left_out * of_block, max(peaks), whole.num_trained, host,
    )  # fmt: skip


def _linear_sizes(block):
    """(numbers, bytes a number) of a block's frozen linear layers' weights."""
    weights = [part.weight for part in block.modules() if isinstance(part, nn.Linear)]
    return [(weight.numel(), weight.element_size()) for weight in weights if not weight.requires_grad]


def _kept_bytes(linears, layout):
    return sum(number * (layout.linear_bytes or size) for number, size in linears)


def _as_kept(whole, linears, layout, num_blocks):
    """Sizes with the frozen linear layers of all blocks as they are kept, those of the block at work included.

    Returns:
        the sizes, and the bytes of a weight that is restored for its own layer alone.
    """
    plain = sum(number * size for number, size in linears)
    kept, restored, layer = _kept_bytes(linears, layout), 0.0, 0.0
    if layout.linear_bytes is not None:
        restored, layer = (
            (0.0, max(number * size for number, size in linears)) if layout.restores_layer else (plain, 0.0)
        )
    on_device = kept if layout.blocks_on_host else num_blocks * kept
    return replace(whole, frozen=whole.frozen - num_blocks * plain + on_device + restored), layer


def _make_step(module, make_loss, accumulates, dtype, device_type, blocks):
    """(bytes before the step, its _Record, bytes kept between its passes)."""
    with FakeTensorMode(allow_non_fake_inputs=True), LiveMemory() as live:
        without_content(module)
        for tensor in (*module.parameters(), *module.buffers()):
            live.note(tensor)
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        if accumulates:
            for parameter in parameters:
                parameter.grad = torch.empty_like(parameter)
        before, record = live.now, _Record(live, [] if accumulates else parameters)
        record.hook(blocks or ())
        live.reset_peak()
        with autocast_rules(device_type):
            with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
                loss = make_loss(module)
            record.end_span(has_kept=True, has_gradients=False)
            kept = live.now - before
            record.is_backward = True
            backward_under_rules(loss)
        del loss
        record.end_span(has_kept=False, has_gradients=True)
    return before, replace(record, live=None, parameters=[]), kept


def pass_memory(module, run, dtype, device_type="cpu"):
    """The most bytes that a pass without gradients takes, the module's weights among them.

    Args:
        module: on the meta device; its tensors are replaced. run: (module) -> anything; dtype, device_type: as in
            :func:`step_memory`.
    """
    with FakeTensorMode(allow_non_fake_inputs=True), LiveMemory() as live, torch.no_grad():
        without_content(module)
        for tensor in (*module.parameters(), *module.buffers()):
            live.note(tensor)
        with autocast_rules(device_type), torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            run(module)
        return live.peak


def without_content(module):
    """Give a module of the meta device tensors of the CPU without content; call it within a FakeTensorMode."""
    for part in module.modules():
        for tensors, make in ((part._parameters, _parameter), (part._buffers, _empty)):
            for name, tensor in tensors.items():
                tensors[name] = None if tensor is None else make(tensor)
    return module


def _empty(tensor):
    return torch.empty(tensor.shape, dtype=tensor.dtype)


def _parameter(tensor):
    return nn.Parameter(_empty(tensor), requires_grad=tensor.requires_grad)


@dataclass(frozen=True)
class _Sizes:
    """Bytes of a module's weights and of what training adds to them."""

    frozen: float = 0.0
    trained: float = 0.0
    state: float = 0.0
    average: float = 0.0
    num_trained: int = 0

    @classmethod
    def of(cls, module, settings):
        tensors = [*module.parameters(), *module.buffers()]
        trained = [tensor.numel() for tensor in tensors if tensor.requires_grad]
        frozen = sum(tensor.numel() * tensor.element_size() for tensor in tensors if not tensor.requires_grad)
        averaged = settings.ema_decay is not None and not settings.ema_on_cpu
        state = sum(state_bytes(tensor.shape, settings) for tensor in tensors if tensor.requires_grad)
        numbers = sum(trained)
        return cls(frozen, FLOAT32_BYTES * numbers, state, FLOAT32_BYTES * numbers * averaged, numbers)

    def times(self, factor):
        return _Sizes(*(factor * getattr(self, one.name) for one in fields(self)))

    def less(self, other):
        return _Sizes(*(getattr(self, one.name) - getattr(other, one.name) for one in fields(self)))


def state_bytes(shape, settings):
    """Bytes of the optimizer's state for one trained weight."""
    per_number = _state_per_number(len(shape) > 1, settings.optimizer, json.dumps(settings.optimizer_options))
    return per_number * shape.numel()


@lru_cache
def _state_per_number(is_matrix, optimizer, options):
    """What an optimizer keeps for each number of a weight, seen on a small one; its fixed few numbers do not count."""
    if optimizer == "adamw_8bit":  # works on CUDA alone: two moments of a byte each
        return 2
    settings = TrainingSettings(
        max_steps=1, optimizer=optimizer, optimizer_options=json.loads(options),
        learning_rate=1.0 if optimizer == "prodigy" else 1e-4,
    )  # fmt: skip
    weight = nn.Parameter(torch.zeros(8, 8) if is_matrix else torch.zeros(64))
    with contextlib.redirect_stdout(io.StringIO()):  # Prodigy greets
        made = make_optimizer(settings, [weight])
    weight.grad = torch.ones_like(weight)
    made.step()
    kept = (value for value in made.state[weight].values() if isinstance(value, torch.Tensor))
    return sum(value.element_size() for value in kept if value.numel() == weight.numel())
