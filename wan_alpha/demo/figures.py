"""What the demo must reach, and the closing table that says whether it did."""

from dataclasses import dataclass

from rich.table import Table

# dB on held-out clips; shares of pixels. Stage 1 has a minute or three, so these are floors, not the best it can do.
ALPHA_GAIN, ALPHA_PSNR, RGB_PSNR = 12.0, 21.0, 26.0
CLEAR_SHARES = (0.30, 0.97)


@dataclass(frozen=True)
class Figure:
    """One measured value beside what it must reach."""

    name: str
    before: str
    after: str
    bar: str
    passed: bool


def stage1_figures(before, after):
    """Figures of stage 1 from two validations (dicts of rgb_psnr, alpha_psnr, ... over held-out clips)."""
    gain = after["alpha_psnr"] - before["alpha_psnr"]
    return [
        Figure(
            "stage 1: alpha PSNR", f"{before['alpha_psnr']:.2f} dB", f"{after['alpha_psnr']:.2f} dB ({gain:+.1f})",
            f"+{ALPHA_GAIN:g} and {ALPHA_PSNR:g} dB", gain >= ALPHA_GAIN and after["alpha_psnr"] >= ALPHA_PSNR,
        ),
        Figure(
            "stage 1: RGB PSNR over grey", f"{before['rgb_psnr']:.2f} dB", f"{after['rgb_psnr']:.2f} dB",
            f"{RGB_PSNR:g} dB", after["rgb_psnr"] >= RGB_PSNR,
        ),
        Figure(
            "stage 1: alpha MAE (0-255)", f"{before['alpha_mae']:.2f}", f"{after['alpha_mae']:.2f}", "falls",
            after["alpha_mae"] < before["alpha_mae"],
        ),
    ]  # fmt: skip


def stage2_figures(before, after):
    """Figures of stage 2 from two validations (dicts of loss over held-out clips)."""
    return [
        Figure(
            "stage 2: held-out loss",
            f"{before['loss']:.4f}",
            f"{after['loss']:.4f}",
            "falls",
            after["loss"] < before["loss"],
        )
    ]


def clip_figures(clips, transparencies):
    """Per generated clip, how much of it is clear, semi-transparent and opaque: a subject, cut out of nothing.

    Args:
        clips: list of GeneratedClip; transparencies: of each, what `TransparencyMeter` says.
    """
    low, high = CLEAR_SHARES
    figures = []
    for index, (clip, transparency) in enumerate(zip(clips, transparencies, strict=True)):
        shares, collapse = clip.coverage, transparency["collapse"]
        after = f"{shares.clear:.0%} / {shares.semi_transparent:.0%} / {shares.opaque:.0%}"
        after += f", {collapse}" if collapse is not None else ""
        passed = low <= shares.clear <= high and collapse is None
        bar = f"clear {low:.0%} to {high:.0%}"
        figures.append(Figure(f"clip {index}: clear / semi / opaque", "", after, bar, passed))
    return figures


def figures_table(figures):
    """The closing table."""
    table = Table(title="wan-alpha demo")
    for heading in ("figure", "before", "after", "must reach", ""):
        table.add_column(heading)
    for figure in figures:
        mark = "[green]met[/green]" if figure.passed else "[bold red]missed[/bold red]"
        table.add_row(figure.name, figure.before, figure.after, figure.bar, mark)
    return table
