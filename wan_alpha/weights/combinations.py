"""Which options go together, with each other and with a model: pairs with their reasons, from the registry's data file.

    {"verdict": "refused", "options": {"mask": "given", "noise_shift": "left out"}, "reason": "..."}
    {"verdict": "refused", "options": {"height": {"not multiple of": 32}}, "model": {"latent_channels": 48}, ...}

A pair holds where every option named and every fact of the model is as it says. A recipe that has not got one of the
options is no matter of the pair.
"""

from dataclasses import dataclass, field
from functools import cache

from wan_alpha.errors import CheckpointError, ConfigError
from wan_alpha.weights.registry import registry_content

VERDICTS = ("fits", "told", "refused")


@dataclass(frozen=True)
class Combination:
    """One pair.

    Attributes:
        verdict: "fits", "told" (a note is printed) or "refused".
        options: dotted name -> "given", "left out", a list of values, or {"other than", "above", "not multiple of": x}.
        model: facts of the model, of ``weights.model_facts``; {} where the options alone decide.
        reason: why, and where it is refused the way out.
        file: the option whose file is the wrong one, "" where none is.
    """

    verdict: str
    options: dict
    reason: str
    model: dict = field(default_factory=dict)
    file: str = ""

    def holds(self, options, facts=None):
        """Whether this pair is what a recipe and a model are.

        Args:
            options: dotted name -> (value, whether it is the default); facts: of the model, None where it is not known.
        """
        if self.model and (facts is None or any(facts.get(name) != value for name, value in self.model.items())):
            return False
        return all(name in options and _is(condition, *options[name]) for name, condition in self.options.items())

    def message(self, options):
        """The reason, with the nearest size where that is what is wrong."""
        for name, condition in self.options.items():
            if isinstance(condition, dict) and (step := condition.get("not multiple of")):
                value = options[name][0]
                return f"{name} = {value}: {self.reason}; try {max(round(value / step), 1) * step}"
        return self.reason

    def describe(self):
        """ "fits: mask with noise_shift: ..." """
        shown = " with ".join(_shown(name, condition) for name, condition in self.options.items())
        is_named = any(name in self.reason for name in self.options)
        return f"{self.verdict}: {self.reason if is_named else f'{shown}: {self.reason}'}"


@cache
def combinations():
    """Every pair of the data file."""
    return tuple(Combination(**entry) for entry in registry_content()["combinations"])


def combinations_of(facts):
    """The pairs that a model's facts have a part in: facts that are not of the model alone are open."""
    return [
        pair
        for pair in combinations()
        if facts.keys() & pair.model and all(facts.get(name, value) == value for name, value in pair.model.items())
    ]


def check_combinations(options, facts=None):
    """Refuse what does not go together.

    Args:
        options, facts: as in :meth:`Combination.holds`. Without facts, only pairs of options are looked at; with them,
            only those that a model has a part in, since the recipe has looked at the others.

    Returns:
        reasons of the pairs that are told, all of them.

    Raises:
        ConfigError, CheckpointError: a pair that is refused, for an option or for a file.
    """
    told = []
    for pair in combinations():
        if not pair.holds(options, facts):
            continue
        if pair.verdict == "refused" and bool(pair.model) == (facts is not None):
            if pair.file:
                raise CheckpointError(f"{options[pair.file][0]}: {pair.reason}")
            raise ConfigError(pair.message(options))
        if pair.verdict == "told":
            told.append(pair.reason)
    return told


def _is(condition, value, is_default):
    if isinstance(condition, list):
        return value in condition
    if condition in ("given", "left out"):
        # An option that has to be given has no default.
        return (is_default or value in (None, (), "")) == (condition == "left out")
    ((test, limit),) = condition.items()
    return {
        "other than": lambda: value != limit,
        "above": lambda: value > limit,
        "not multiple of": lambda: value % limit != 0,
    }[test]()


def _shown(name, condition):
    if isinstance(condition, list):
        return f"{name} = {' or '.join(map(str, condition))}"
    if isinstance(condition, dict):
        ((test, limit),) = condition.items()
        return f"{name} {test} {limit}"
    return name if condition == "given" else f"{name} {condition}"
