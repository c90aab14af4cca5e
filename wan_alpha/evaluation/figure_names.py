"""One flat name for every figure, which way it is better, and bars that it must reach."""

import math
from dataclasses import dataclass

from wan_alpha.errors import ConfigError
from wan_alpha.metrics.alpha_meter import FIGURES as ALPHA_FIGURES
from wan_alpha.metrics.composite import BACKGROUNDS
from wan_alpha.metrics.foreground_meter import FIGURES as FOREGROUND_FIGURES
from wan_alpha.metrics.regions import FRAME, REGIONS

HIGH, LOW, NEITHER = "high", "low", "neither"
_PICTURE = {"psnr": HIGH, "ssim": HIGH, "lpips": LOW}
TRANSPARENCY = {
    "clear": NEITHER, "semi_transparent": NEITHER, "opaque": NEITHER, "border_clear": HIGH, "flicker": LOW,
    "edge_width": NEITHER, "colour_fringe": LOW,
}  # fmt: skip


def _names():
    names = dict.fromkeys((*ALPHA_FIGURES, *FOREGROUND_FIGURES), LOW) | {"alpha_psnr": HIGH, "alpha_ssim": HIGH}
    for_regions = names | {"composite_psnr": HIGH, "composite_ssim": HIGH}
    names = names | {f"composite_{kind}": better for kind, better in _PICTURE.items()}
    for background in BACKGROUNDS:
        names |= {f"composite_{background}_{kind}": better for kind, better in _PICTURE.items()}
    for region in REGIONS:
        names |= {f"{region}_{name}": better for name, better in for_regions.items()}
    return names | TRANSPARENCY


BETTER = _names()
"""Figure -> "high", "low" or "neither": which way it is better."""


def flat_figures(of_regions: dict[str, dict]) -> dict[str, float]:
    """Flat names for the figures of a clip or frame.

    Args:
        of_regions: region -> {"mean", "composite", "alpha"}, numbers, as `ReferenceMeter` orders them.

    Returns:
        The frame's figures under their own names, those of a region behind the region's. A composite's figures are the
        means over backgrounds; the frame has those of each background too.
    """
    flat = {}
    for region, figures in of_regions.items():
        prefix = "" if region == FRAME else f"{region}_"
        own = dict(figures["mean"]) | {f"alpha_{kind}": value for kind, value in figures["alpha"].items()}
        composites = figures["composite"]
        for kind in next(iter(composites.values())):
            own[f"composite_{kind}"] = mean_figure(kind, [of_one[kind] for of_one in composites.values()])
        if region == FRAME:
            for background, of_one in composites.items():
                own |= {f"composite_{background}_{kind}": value for kind, value in of_one.items()}
        flat |= {prefix + name: value for name, value in own.items()}
    return flat


def mean_figure(name: str, values: list[float]) -> float:
    """The mean of what is a number: of PSNRs the PSNR of the mean squared errors, so that one perfect clip among bad
    ones does not make the mean infinite. NaN of nothing."""
    values = [value for value in values if not math.isnan(value)]
    if not values:
        return math.nan
    if not name.endswith("psnr"):
        return sum(values) / len(values)
    mean_square = sum(10 ** (-value / 10) for value in values) / len(values)
    return math.inf if mean_square == 0 else -10 * math.log10(mean_square)


@dataclass(frozen=True)
class Bar:
    """A figure's bar: it fails where it is under (or, if `over`, over) the limit, or was not measured."""

    name: str
    limit: float
    over: bool

    def is_met(self, value: float) -> bool:
        """Whether a figure's value meets the bar; NaN does not."""
        return value <= self.limit if self.over else value >= self.limit

    def __str__(self):
        return f"{self.name} {'<=' if self.over else '>='} {self.limit:g}"


def read_bars(fail_under, fail_over, measured) -> list[Bar]:
    """Parse "name=number" bars.

    Args:
        fail_under, fail_over: the texts; measured: names of the figures that this evaluation measures.

    Raises:
        ConfigError: a name that is not measured, or one for which the other option is right.
    """
    bars = []
    for option, texts in (("fail_under", fail_under), ("fail_over", fail_over)):
        for text in texts:
            name, _, number = text.partition("=")
            check_name(option, name, measured)
            if BETTER[name] == (LOW if option == "fail_under" else HIGH):
                better, right = ("smaller", "fail_over") if option == "fail_under" else ("larger", "fail_under")
                raise ConfigError(f"{option}: {name} is the better the {better} it is; write {right} {name}={number}")
            bars.append(Bar(name, float(number), option == "fail_over"))
    return bars


def check_name(option, name, measured):
    """Raise ConfigError where a figure of this name is not measured."""
    if name in measured:
        return
    if name in BETTER:
        why = "it is measured against a reference" if name not in TRANSPARENCY else "it is not measured here"
        raise ConfigError(f"{option}: {name}: {why}, and none was given; measured are {', '.join(measured)}")
    backgrounds = f"composite_BACKGROUND_psnr and so on; prefixes {', '.join(f'{region}_' for region in REGIONS)}"
    short = [other for other in measured if not other.startswith((*REGIONS, "composite_")) or other in TRANSPARENCY]
    raise ConfigError(f"{option}: no figure is called {name}; there are {', '.join(short)}, {backgrounds}")
