"""``wan-alpha plan``: what a run will take, and what to change where it will not fit."""

import json
import statistics
from dataclasses import dataclass, field

from wan_alpha.cli.planned_recipe import read_planned_recipe
from wan_alpha.data.buckets import parse_bucket
from wan_alpha.errors import ConfigError


@dataclass(frozen=True)
class PlanResult:
    """What was planned.

    Attributes:
        plan: a Plan; advice: an Advice where it does not fit, else None.
        seconds_per_step, hours: None where nothing says them; source: what says them.
        passed: it fits.
    """

    plan: object
    advice: object = None
    seconds_per_step: float | None = None
    hours: float | None = None
    source: str = ""
    passed: bool = field(default=True)

    def as_dict(self):
        """As JSON values; memory in bytes."""
        plan = self.plan
        return {
            "command": plan.command, "device": plan.target.name, "device_memory": plan.target.memory,
            "memory": plan.memory, "peak": plan.peak, "host_memory": plan.host_memory, "fits": plan.fits(),
            "num_trained": plan.num_trained, "tokens_per_step": plan.tokens, "num_steps": plan.num_steps,
            "seconds_per_step": self.seconds_per_step, "hours": self.hours, "hours_from": self.source,
            "disk": plan.disk, "data": plan.data,
            "assumed": plan.assumed, "not_counted": plan.not_counted,
            "changes": [] if self.advice is None else [
                {"change": text, "peak": peak} for text, peak in self.advice.single
            ],
            "together": [] if self.advice is None else self.advice.combined,
        }  # fmt: skip


def plan(recipe):
    """Plan the recipe of a PlanRecipe and print it; returns a :class:`PlanResult`.

    Raises:
        ConfigError: no recipe of these commands, or one that could be of several; an option that has no effect; what
            the run would refuse.
        CheckpointError, DataError: files that are there and are not what they should be.
    """
    command, planned = read_planned_recipe(recipe.config, recipe.for_command, recipe.overrides)
    result = make_result(recipe, command, planned)
    if recipe.print_json:
        print(json.dumps(result.as_dict(), indent=1))
    else:
        _print(recipe, result)
    return result


def make_result(recipe, command, planned):
    """The :class:`PlanResult` of a recipe that was read, without printing."""
    from wan_alpha.stages.plan_cache import plan_cache
    from wan_alpha.stages.plan_changes import advise
    from wan_alpha.stages.plan_dit import plan_dit
    from wan_alpha.stages.plan_vae import plan_vae
    from wan_alpha.stages.plans import Assumptions

    functions = {"train-vae": plan_vae, "cache": plan_cache, "train-dit": plan_dit}
    _check_effects(recipe, command)
    steps, given = {}, None if recipe.bucket is None else parse_bucket(recipe.bucket)

    def assumptions(bucket):
        return Assumptions(True, bucket, recipe.num_samples, recipe.model, steps)

    def make_plan(planned, target, bucket):
        return functions[command](planned, target, assumptions(bucket or given))

    target, first = _target(recipe, planned, command), assumptions(given)
    made = functions[command](planned, target, first)
    if idle := first.without_effect():
        reason = "what the recipe names is there, and is looked at itself"
        raise ConfigError(f"{', '.join(f'--{name}' for name in idle)}: no effect: {reason}; leave it out")
    advice = None
    if not made.fits_device():
        advice = advise(planned, target, made.bucket, make_plan)
    seconds, source = _step_time(recipe, planned, made)
    hours = None if seconds is None or made.num_steps is None else seconds * made.num_steps / 3600
    return PlanResult(made, advice, seconds, hours, source, made.fits())


def _check_effects(recipe, command):
    trains_nothing = "cache trains nothing and has no steps"
    reasons = {
        "cache": dict.fromkeys(("processes", "sharded", "seconds_per_step", "measured"), trains_nothing),
        "train-vae": {"sharded": "train-vae keeps all weights in each process"},
    }.get(command, {})
    for name, reason in reasons.items():
        if getattr(recipe, name) not in (None, False):
            raise ConfigError(f"--{name}: no effect: {reason}; leave it out")


def _target(recipe, planned, command):
    from wan_alpha.models.devices import choose_device, device_memory, device_name
    from wan_alpha.stages.plans import Target, gib, host_memory_of_process, target_of_run

    own = planned.device if command == "cache" else planned.training.device
    kind, memory = recipe.device if recipe.device != "auto" else own, gib(recipe.device_memory_gib)
    if kind == "auto" and memory is not None:
        kind = "cuda"
    here = choose_device("auto").type
    if kind == "auto" or (kind == here and memory is None):
        found = target_of_run(kind)
        processes = recipe.processes or found.processes
        return Target(
            found.device_type, found.name, found.memory, processes, processes if recipe.sharded else found.shards,
            host_memory_of_process(recipe.processes),
        )  # fmt: skip
    names = {"cuda": "a CUDA device", "mps": "an Apple GPU", "cpu": "a CPU"}
    name = names[kind]
    if kind == here:
        device = choose_device(kind)
        name, memory = device_name(device), memory or device_memory(device)
    processes = recipe.processes or 1
    return Target(kind, name, memory, processes, processes if recipe.sharded else 1)


def _step_time(recipe, planned, made):
    """(seconds of a step or None, where they are from)."""
    from wan_alpha.training.timing import TIMINGS_FILE, read_timings

    if recipe.seconds_per_step is not None:
        return recipe.seconds_per_step, "as given"
    if made.command == "cache":
        return None, ""
    folder = recipe.measured or planned.output_dir
    rows = read_timings(folder)
    if recipe.measured is not None and not rows:
        raise ConfigError(f"measured = {folder}: there is no {TIMINGS_FILE} of a training run")
    if not rows:
        return None, ""
    place = rows[-1].get("place")  # a run may have moved; what it takes where it was last is asked
    seconds = [row["seconds"] for row in rows if row.get("place") == place]
    where = "a device that it does not name" if place is None else place
    return statistics.median(seconds), f"the median of {len(seconds)} steps in {folder} on {where}"


def _print(recipe, result):
    from wan_alpha.stages.plans import print_assumed, print_plan
    from wan_alpha.training.foresight import print_tables

    made, told = result.plan, {}
    print(f"{recipe.config}: {made.command} on {made.target.name}\n")
    print_plan(made)
    if made.command != "cache":
        told["steps"] = "not known without the data; give --num_samples" if made.num_steps is None else made.num_steps
        told["a step"] = "not known: give --seconds_per_step, or --measured FOLDER of an earlier run"
        if result.seconds_per_step is not None:
            told["a step"] = f"{result.seconds_per_step:.4g} s, {result.source}"
        if result.hours is not None:
            told["in all"] = f"{result.hours:.2f} hours"
        if result.seconds_per_step is not None and made.tokens is not None:
            told["tokens a second"] = f"{made.tokens / result.seconds_per_step:.0f}"
        print_tables({"time": told})
    print_assumed(made)
    print(made.verdict())
    if made.target.memory is not None:
        print(
            "(predicted from shapes; what kernels allocate for themselves and an allocator leaves unused is not in it)"
        )
    if result.advice is not None:
        print("\n".join(["", "what lowers the peak, each alone:", *(f"  {line}" for line in result.advice.lines())]))
