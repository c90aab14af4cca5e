"""``wan-alpha perf compare A B``: which stages became slower or hungrier, beyond noise.

A stage of B is slower where its median time is above A's by more than the bar, and by more than three deviations of
the difference of the two medians. A median of n times deviates by 1.2533·s/√n, s being the deviation of a single time,
taken from the record's own spread (1.4826 times the median deviation from the median). Of fewer than five times the
spread says nothing: there the bar is ``few_bar``. It is hungrier where its most memory is above A's by more than
``memory_bar`` and by 64 MiB.
"""

import json
import math
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table

from wan_alpha.training.performance import read_performance

NOISE = 3.0  # deviations of the difference of two medians
FEW = 5  # times, below which a spread says nothing
LEAST_MEMORY = 64 * 2**20
_MEDIAN_DEVIATION = math.sqrt(math.pi / 2)  # of a normal distribution's median, times s/sqrt(n)


@dataclass(frozen=True)
class StageChange:
    """A stage of both records.

    Attributes:
        time_ratio, memory_ratio: B by A, None where A has none; time, memory: "worse", "better" or "same".
    """

    stage: str
    seconds: tuple[float, float]
    time_ratio: float | None
    time: str
    memory_bytes: tuple[int, int]
    memory_ratio: float | None
    memory: str


@dataclass(frozen=True)
class Comparison:
    """Two records.

    Attributes:
        changes: of the stages that both have; only_in: (record, stage) of the others.
        hardware: (what, in A, in B) that differs; passed: nothing became worse.
    """

    changes: list[StageChange]
    only_in: list[tuple[str, str]]
    hardware: list[tuple[str, str, str]]
    passed: bool


def perf(recipe):
    """Compare the records of a PerfRecipe and print the result; returns a :class:`Comparison`.

    Raises:
        DataError: one of them is none.
    """
    found = compare_records(
        read_performance(recipe.before), read_performance(recipe.after), recipe.bar, recipe.few_bar, recipe.memory_bar
    )
    if recipe.print_json:
        print(json.dumps(asdict(found), indent=1))
    else:
        _print(found)
    return found


def compare_records(before, after, bar=0.1, few_bar=0.5, memory_bar=0.05):
    """The :class:`Comparison` of two contents of performance.json; bars: shares, 0.1 for a tenth."""
    own, other = before["stages"], after["stages"]
    changes = [_change(name, own[name], other[name], bar, few_bar, memory_bar) for name in own if name in other]
    only_in = [("A", name) for name in own if name not in other] + [("B", name) for name in other if name not in own]
    places = [name for name in before["hardware"] if before["hardware"][name] != after["hardware"].get(name)]
    hardware = [(name, before["hardware"][name], after["hardware"].get(name, "not said")) for name in places]
    if before["command"] != after["command"]:
        hardware.insert(0, ("command", before["command"], after["command"]))
    return Comparison(changes, only_in, hardware, all("worse" not in (one.time, one.memory) for one in changes))


def _change(name, before, after, bar, few_bar, memory_bar):
    old, new = before["median_seconds"], after["median_seconds"]
    are_few = min(before["samples"], after["samples"]) < FEW
    noise = 0.0 if are_few else NOISE * math.hypot(_deviation(before), _deviation(after))
    share = max(bar, few_bar) if are_few else bar
    memory = before["memory_bytes"], after["memory_bytes"]
    return StageChange(
        name, (old, new), new / old if old else None, _judge(old, new, share, noise),
        memory, memory[1] / memory[0] if memory[0] else None, _judge(*memory, memory_bar, LEAST_MEMORY),
    )  # fmt: skip


def _judge(old, new, share, least):
    if new > old * (1 + share) and new - old > least:
        return "worse"
    return "better" if old > new * (1 + share) and old - new > least else "same"


def _deviation(stage):
    return _MEDIAN_DEVIATION * stage["deviation"] / math.sqrt(stage["samples"])


def _print(found):
    console = Console(soft_wrap=True, highlight=False, markup=False)
    for name, before, after in found.hardware:
        console.print(f"differs: {name}: {before} in A, {after} in B; times and memory are not those of one machine")
    table = Table("stage", "seconds A", "seconds B", "B/A", "", "memory A", "memory B", "B/A", "")
    words = {"worse": ("slower", "hungrier"), "better": ("faster", "leaner"), "same": ("", "")}
    for one in found.changes:
        table.add_row(
            one.stage, *(f"{value:.4g}" for value in one.seconds), _ratio(one.time_ratio), words[one.time][0],
            *(f"{value / 2**30:.2f} GiB" for value in one.memory_bytes), _ratio(one.memory_ratio), words[one.memory][1],
        )  # fmt: skip
    console.print(table)
    for record, stage in found.only_in:
        console.print(f"{stage}: in {record} alone")
    worse = [f"{one.stage} is slower" for one in found.changes if one.time == "worse"]
    worse += [f"{one.stage} is hungrier" for one in found.changes if one.memory == "worse"]
    console.print("; ".join(worse) if worse else "nothing became slower or hungrier beyond noise")


def _ratio(value):
    return "" if value is None else f"{value:.2f}"
