"""``wan-alpha perf compare A B``: which stages became slower or hungrier, beyond noise.

What is compared of a stage are the seconds of a unit of its work, a sampling step, say, so that the two runs need not
have done as much. A stage of B is slower where their median is above A's by more than the bar, and by more than three
deviations of the difference of the two medians. A median of n times deviates by 1.2533·s/√n, s being the deviation of a
single time, taken from the record's own spread (1.4826 times the median deviation from the median). Of fewer than five
times the spread says nothing: there the bar is ``few_bar``. It is hungrier where its most memory is above A's by more
than ``memory_bar`` and by 64 MiB.
"""

import json
import math
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table

from wan_alpha.errors import DataError
from wan_alpha.training.performance_file import read_performance

NOISE = 3.0  # deviations of the difference of two medians
FEW = 5  # times, below which a spread says nothing
LEAST_MEMORY = 64 * 2**20
_MEDIAN_DEVIATION = math.sqrt(math.pi / 2)  # of a normal distribution's median, times s/sqrt(n)


@dataclass(frozen=True)
class StageChange:
    """A stage of both records.

    Attributes:
        unit: of its work; seconds: medians of such a unit, in A and B.
        time_ratio, memory_ratio: B by A, None where A has none; time, memory: "worse", "better" or "same".
        memory_is: what these bytes are in A and B, peaks or not; where it differs they are not judged, "same".
    """

    stage: str
    unit: str
    seconds: tuple[float, float]
    time_ratio: float | None
    time: str
    memory_bytes: tuple[int, int]
    memory_ratio: float | None
    memory: str
    memory_is: tuple[str, str]


@dataclass(frozen=True)
class Comparison:
    """Two records.

    Attributes:
        changes: of the stages that both have; only_in: (record, stage) of the others.
        commands: of A and B where they differ, else None; hardware: (what, in A, in B) that differs.
        passed: nothing became worse.
    """

    changes: list[StageChange]
    only_in: list[tuple[str, str]]
    commands: tuple[str, str] | None
    hardware: list[tuple[str, str, str]]
    passed: bool


def perf(recipe):
    """Compare the records of a PerfRecipe and print the result; returns a :class:`Comparison`.

    Raises:
        DataError: one of them is none, or they have no stage in common.
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
    """The :class:`Comparison` of two contents of performance.json; bars: shares, 0.1 for a tenth.

    Raises:
        DataError: they have no stage in common.
    """
    own, other = before["stages"], after["stages"]
    shared = [name for name in own if name in other and own[name]["unit"] == other[name]["unit"]]
    if not shared:
        found = "; ".join(
            f"{record} is of {content['command']} and has {', '.join(content['stages']) or 'none'}"
            for record, content in (("A", before), ("B", after))
        )
        raise DataError(f"the records have no stage in common, so there is nothing to compare: {found}")
    changes = [_change(name, own[name], other[name], bar, few_bar, memory_bar) for name in shared]
    only_in = [(record, name) for record, names in (("A", own), ("B", other)) for name in names if name not in shared]
    places = [name for name in before["hardware"] if before["hardware"][name] != after["hardware"].get(name)]
    hardware = [(name, before["hardware"][name], after["hardware"].get(name, "not said")) for name in places]
    commands = before["command"], after["command"]
    passed = all("worse" not in (one.time, one.memory) for one in changes)
    return Comparison(changes, only_in, None if commands[0] == commands[1] else commands, hardware, passed)


def _change(name, before, after, bar, few_bar, memory_bar):
    old, new = before["seconds_per_unit"], after["seconds_per_unit"]
    are_few = min(before["samples"], after["samples"]) < FEW
    noise = 0.0 if are_few else NOISE * math.hypot(_deviation(before), _deviation(after))
    share = max(bar, few_bar) if are_few else bar
    memory, memory_is = ((before[key], after[key]) for key in ("memory_bytes", "memory_is"))
    judged = memory if memory_is[0] == memory_is[1] else (0, 0)
    return StageChange(
        name, before["unit"], (old, new), new / old if old else None, _judge(old, new, share, noise),
        memory, judged[1] / judged[0] if judged[0] else None, _judge(*judged, memory_bar, LEAST_MEMORY), memory_is,
    )  # fmt: skip


def _judge(old, new, share, least):
    if new > old * (1 + share) and new - old > least:
        return "worse"
    return "better" if old > new * (1 + share) and old - new > least else "same"


def _deviation(stage):
    return _MEDIAN_DEVIATION * stage["deviation_per_unit"] / math.sqrt(stage["samples"])


def _print(found):
    console = Console(soft_wrap=True, highlight=False, markup=False)
    if found.commands is not None:
        console.print(
            f"differs: the command: {found.commands[0]} in A, {found.commands[1]} in B; a stage of one name may "
            "be other work in each"
        )
    for name, before, after in found.hardware:
        console.print(f"differs: {name}: {before} in A, {after} in B; times and memory are not those of one machine")
    table = Table("stage", "a unit", "its seconds A", "its seconds B", "B/A", "", "memory A", "memory B", "B/A", "")
    words = {"worse": ("slower", "hungrier"), "better": ("faster", "leaner"), "same": ("", "")}
    for one in found.changes:
        table.add_row(
            one.stage, one.unit, *(f"{value:.4g}" for value in one.seconds), _ratio(one.time_ratio), words[one.time][0],
            *(f"{value / 2**30:.2f} GiB" for value in one.memory_bytes), _ratio(one.memory_ratio), words[one.memory][1],
        )  # fmt: skip
    console.print(table)
    for one in found.changes:
        if one.memory_is[0] != one.memory_is[1]:
            kinds = (kind or "not said" for kind in one.memory_is)
            console.print("{}: memory is not compared: {} in A, {} in B".format(one.stage, *kinds))
    for record, stage in found.only_in:
        console.print(f"{stage}: in {record} alone")
    worse = [f"{one.stage} is slower" for one in found.changes if one.time == "worse"]
    worse += [f"{one.stage} is hungrier" for one in found.changes if one.memory == "worse"]
    console.print("; ".join(worse) if worse else "nothing became slower or hungrier beyond noise")


def _ratio(value):
    return "" if value is None else f"{value:.2f}"
