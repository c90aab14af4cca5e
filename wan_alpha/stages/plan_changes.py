"""What to change so that a run fits: each change is tried by planning again with it."""

from dataclasses import dataclass, replace

from wan_alpha.data.buckets import nearest_frames, nearest_sides
from wan_alpha.models.devices import is_first_process
from wan_alpha.stages.plans import Target
from wan_alpha.stages.shard_limits import can_be_sharded
from wan_alpha.training.config import dotted_fields
from wan_alpha.training.foresight import show_gib
from wan_alpha.training.progress import StepProgress

_CHECKPOINTING = "training.gradient_checkpointing"
_INEXACT = ("model.quantization", "training.optimizer")
_SHARDS = (2, 4, 8)
_LESS = 0.995  # of the peak: what saves less is not worth a line


@dataclass(frozen=True)
class Change:
    """A change that lowers the peak.

    Attributes:
        text: what to write; options: dotted name -> value; processes: to shard over, 1 for none.
        bucket: frames, height, width of the clips, None as they are.
        is_checkpointing, needs_checkpointing: it is gradient checkpointing, or brings it along.
        cost: of what kind: 0 time alone, 1 exactness of frozen weights or of the optimizer, 2 other clips, 3 more
            devices.
    """

    text: str
    options: tuple[tuple[str, object], ...] = ()
    processes: int = 1
    bucket: object = None
    is_checkpointing: bool = False
    needs_checkpointing: bool = False

    @property
    def cost(self):
        if self.processes > 1 or self.bucket is not None:
            return 3 if self.processes > 1 else 2
        return int(any(name in _INEXACT for name, _ in self.options))


@dataclass(frozen=True)
class Advice:
    """What changes bring.

    Attributes:
        single: (text, bytes of the peak with this change alone), those that lower it, in the order to be tried.
        combined: texts of the changes that together fit, or of the one that does; empty where nothing does.
        peak: bytes with these.
        otherwise: what else there is to do, in words; "" for nothing.
    """

    single: list[tuple[str, float]]
    combined: list[str]
    peak: float | None
    otherwise: str = ""

    def lines(self):
        """As text, a line each."""
        lines = [f"{text}: {show_gib(peak)}" for text, peak in self.single]
        if self.combined:
            together = "together" if len(self.combined) > 1 else "with this alone"
            lines.append(f"{together} it fits, {show_gib(self.peak)}: {', '.join(self.combined)}")
        elif not self.otherwise:
            lines.append("all of these together do not make it fit: a smaller model, or a larger device, is needed")
        return [*lines, self.otherwise] if self.otherwise else lines


def advise(recipe, target, bucket, make_plan):
    """Find what makes a recipe fit a target.

    Args:
        recipe: of train-dit, train-vae or cache; target: a Target that it does not fit.
        bucket: of its largest clips, or None.
        make_plan: (recipe, target, bucket) -> Plan.

    Returns:
        an :class:`Advice`.
    """
    start = (recipe, target, None)
    first = make_plan(*start)
    helping = []  # (change, plan with it alone)
    with_checkpointing = first.peak  # what saves beside it has to save more than it does
    changes = list(_changes(recipe, target, bucket))
    with StepProgress("planning changes", len(changes), enabled=is_first_process(), unit="changes") as progress:
        for number, change in enumerate(changes, 1):
            alone = _planned(change, start, make_plan)
            progress.update(number)
            least = with_checkpointing if change.needs_checkpointing else first.peak
            if alone is None or alone.peak >= _LESS * least:
                continue
            if change.is_checkpointing:
                with_checkpointing = alone.peak
            helping.append((change, alone))
    combined, peak = _together(helping, start, first, make_plan)
    if not combined and any(change.processes > 1 for change, _ in helping):
        # What FSDP2 cannot do may have been in its way.
        plain = [(change, alone) for change, alone in helping if can_be_sharded(_apply(change, start)[0])]
        combined, peak = _together(plain, start, first, make_plan)
    fitting = [(change, alone.peak) for change, alone in helping if alone.fits()]
    if len(combined) > 1 and fitting:
        # One change is better than several, unless they cost less than it: time, where it costs devices.
        one, its_peak = min(fitting, key=lambda found: found[0].cost)
        if one.cost <= max(change.cost for change in combined):
            combined, peak = [one], its_peak
    return Advice(
        [(change.text, alone.peak) for change, alone in helping], [change.text for change in combined],
        peak if combined else None, _elsewhere(recipe, target, make_plan),
    )  # fmt: skip


def _together(helping, start, first, make_plan):
    """(changes taken one after the other until it fits, the peak then); no changes where all do not make it fit."""
    state, plan, combined = start, first, []
    for change, alone in helping:
        if plan.fits():
            break
        tried = _apply(change, state)
        made = alone if not combined else None if tried is None else make_plan(*tried)
        if made is not None and made.peak < _LESS * plan.peak:
            state, plan = tried, made
            # Of values of one option, sizes of clips and numbers of processes the last one holds.
            combined = [one for one in combined if not _replaces(change, one)] + [change]
    return (combined if plan.fits() else []), plan.peak


def _elsewhere(recipe, target, make_plan):
    """A cache may be built on a CPU too, in hours rather than weeks; "" for what trains."""
    if hasattr(recipe, "training") or target.device_type == "cpu":
        return ""
    there = recipe.model_copy(update={"device": "cpu", "precision": "bf16", "offload_blocks": False})
    peak = make_plan(there, Target("cpu", "a CPU", None), None).peak
    return f"device = cpu with precision = bf16, here or on another machine: {show_gib(peak)} of its memory"


def _replaces(change, earlier):
    options, others = ({name for name, _ in one.options} - {_CHECKPOINTING} for one in (change, earlier))
    return (
        (change.bucket is not None and earlier.bucket is not None)
        or (change.processes > 1 and earlier.processes > 1)
        or bool(options & others)
    )


def _changes(recipe, target, bucket):
    """Changes in the order of what they cost: time alone, then another optimizer, other clips, more cards."""

    def option(name, value):
        return Change(f"{name} = {str(value).lower() if isinstance(value, bool) else value}", ((name, value),))

    if not hasattr(recipe, "training"):
        # Clips and captions come one after the other: what lowers one alone may leave the peak where it is.
        savings = [option("tiled", True)] if not recipe.tiled else []
        if not recipe.offload_blocks and target.device_type == "cuda":
            savings.append(option("offload_blocks", True))
        yield from savings
        if len(savings) == 2:
            yield Change(", ".join(one.text for one in savings), sum((one.options for one in savings), ()))
        yield from _smaller_clips(bucket)
        return
    known = {name for name, _ in dotted_fields(type(recipe))}
    settings = recipe.training

    if _CHECKPOINTING in known and not settings.gradient_checkpointing:
        yield replace(option(_CHECKPOINTING, True), is_checkpointing=True)
    if settings.batch_size > 1:
        accumulation = settings.gradient_accumulation * settings.batch_size
        yield Change(
            f"training.batch_size = 1 with gradient_accumulation = {accumulation}",
            (("training.batch_size", 1), ("training.gradient_accumulation", accumulation)),
        )
    if settings.ema_decay is not None and not settings.ema_on_cpu and target.device_type == "cuda":
        yield option("training.ema_on_cpu", True)
    if "training.offload_activations" in known and target.device_type == "cuda":
        yield from _with_checkpointing(recipe, "training.offload_activations", True)
    if "adapter.kind" in known and recipe.adapter.kind != "full" and target.device_type == "cuda":
        # nf4 last: it costs the most of the result, and blocks that wait in host memory are none of its own.
        if recipe.model.quantization is None:
            yield from _with_checkpointing(recipe, "model.quantization", "fp8")
        yield from _with_checkpointing(recipe, "training.offload_blocks", True)
        if recipe.model.quantization is None:
            yield from _with_checkpointing(recipe, "model.quantization", "nf4")
    if settings.optimizer == "adamw" and target.device_type == "cuda":
        yield option("training.optimizer", "adamw_8bit")
    if bucket is not None:
        yield from _smaller_clips(bucket)
    if "adapter.kind" in known and target.device_type == "cuda":
        for processes in (number for number in _SHARDS if number > target.shards):
            yield Change(f"FSDP2 over {processes} processes", processes=processes)


def _with_checkpointing(recipe, name, value):
    text = f"{name} = {str(value).lower() if isinstance(value, bool) else value}"
    options = ((name, value),)
    if not recipe.training.gradient_checkpointing:
        text, options = f"{text} (with gradient_checkpointing)", (*options, (_CHECKPOINTING, True))
    yield Change(text, options, needs_checkpointing=True)


def _smaller_clips(bucket):
    for share in (0.75, 0.5):
        height, width = (nearest_sides(int(share * side), 32)[0] for side in bucket.size)
        yield _clips(replace(bucket, height=height, width=width))
    frames = nearest_frames((bucket.frames + 1) // 2)[0]
    if frames < bucket.frames:
        yield _clips(replace(bucket, frames=frames))
        height, width = (nearest_sides(side // 2, 32)[0] for side in bucket.size)
        yield _clips(replace(bucket, frames=frames, height=height, width=width))


def _clips(bucket):
    return Change(f"clips of {bucket}", bucket=bucket)


def _apply(change, state):
    """(recipe, target, bucket) with a change; None where the recipe, or FSDP2, refuses it."""
    recipe, target, bucket = state
    content = recipe.as_dict()
    for name, value in change.options:
        table, _, leaf = name.rpartition(".")
        (content[table] if table else content)[leaf] = value
    try:
        recipe = type(recipe).model_validate(content)
    except ValueError:  # pydantic's own is one
        return None
    if change.processes > 1:
        target = replace(target, processes=change.processes, shards=change.processes)
    if target.shards > 1 and not can_be_sharded(recipe):
        return None
    return recipe, target, change.bucket or bucket


def _planned(change, state, make_plan):
    changed = _apply(change, state)
    return None if changed is None else make_plan(*changed)
