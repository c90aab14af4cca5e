"""Checks of a row's files, from what their headers say and from how many frames they gave."""

from collections.abc import Iterator

from wan_alpha.data.doctor.evidence import Evidence
from wan_alpha.data.doctor.findings import Finding
from wan_alpha.data.manifest import leaves_root

# Frame rates nearer than this are the same, written differently (23.976 and 24000/1001).
_SAME_RATE = 0.005


def outside_link(evidence: Evidence) -> Iterator[Finding]:
    """A link that leads out of the dataset's folder: the dataset is not whole when it moves."""
    for file in evidence.row.files:
        if target := leaves_root(file, evidence.root):
            yield Finding("outside_link", "warning", file.name, f"a link that leaves the dataset's folder, to {target}")


def no_alpha(evidence: Evidence) -> Iterator[Finding]:
    """One file without an alpha plane and without a matte."""
    colour = evidence.colour
    if evidence.matte is None and not evidence.has_alpha:
        kind = f"{colour.codec}, {colour.pix_fmt}"
        yield Finding(
            "no_alpha", "error", colour.path.name, f"no alpha plane ({kind}) and no matte is named", "re-pair"
        )


def frame_sizes(evidence: Evidence) -> Iterator[Finding]:
    """Colour and matte of two sizes."""
    colour, matte = evidence.colour, evidence.matte
    if matte is not None and (colour.width, colour.height) != (matte.width, matte.height):
        sizes = f"{colour.width}x{colour.height}, its matte {matte.path.name} {matte.width}x{matte.height}"
        yield Finding("frame_sizes", "error", colour.path.name, f"sizes differ: {sizes}")


def frame_counts(evidence: Evidence) -> Iterator[Finding]:
    """Colour and matte of two lengths."""
    num_colour, num_matte = evidence.num_frames
    if evidence.matte is not None and evidence.row.kind != "static" and num_colour != num_matte:
        message = f"frame counts differ: {num_colour}, its matte {evidence.matte_name} {num_matte}"
        figures = {"colour": num_colour, "matte": num_matte}
        yield Finding("frame_counts", "error", evidence.colour.path.name, message, "trim", figures)


def frame_rates(evidence: Evidence) -> Iterator[Finding]:
    """Colour and matte of two frame rates: frame n of one is another moment than frame n of the other."""
    colour, matte = evidence.colour, evidence.matte
    if matte is None or not colour.fps or not matte.fps or abs(colour.fps - matte.fps) <= _SAME_RATE * colour.fps:
        return
    message = f"frame rates differ: {colour.fps:g} per second, its matte {matte.path.name} {matte.fps:g}"
    # With equal counts the frames belong together one by one, and only the matte's clock is wrong.
    repair = "re-pair" if evidence.num_frames[0] == evidence.num_frames[1] else None
    figures = {"colour": colour.fps, "matte": matte.fps}
    yield Finding("frame_rates", "warning", colour.path.name, message, repair, figures)


def variable_frame_rate(evidence: Evidence) -> Iterator[Finding]:
    """Frames at uneven times: brought to their mean rate on the way, some then repeat and others are missing."""
    for info in _infos(evidence):
        if info.is_variable_rate:
            message = f"variable frame rate, brought to its mean ({info.fps:.3g} per second) in training: some frames "
            message += "repeat and others are missing; write the clip at one rate"
            yield Finding("variable_frame_rate", "warning", info.path.name, message)


def rotation_tag(evidence: Evidence) -> Iterator[Finding]:
    """A tag that turns the picture: applied on reading, but only one of a pair may have it by mistake."""
    turns = [info.rotation for info in _infos(evidence)]
    for info in _infos(evidence):
        if info.rotation:
            message = f"a rotation tag turns the frames by {info.rotation} degrees; it is applied on reading"
            severity = "note"
            if len(set(turns)) > 1:
                message, severity = f"{message}, but the other file of the pair has another one", "warning"
            yield Finding("rotation_tag", severity, info.path.name, message, figures={"degrees": info.rotation})


def bit_depth(evidence: Evidence) -> Iterator[Finding]:
    """More than 8 bits per channel."""
    for info in _infos(evidence):
        if info.bit_depth > 8:
            message = f"{info.bit_depth} bits per channel; training works in 8 bits, the rest is rounded away"
            yield Finding("bit_depth", "note", info.path.name, message, figures={"bits": info.bit_depth})


def odd_size(evidence: Evidence) -> Iterator[Finding]:
    """Odd width or height: most delivery codecs (4:2:0) cannot hold it."""
    colour = evidence.colour
    if not colour.is_still and (colour.width % 2 or colour.height % 2):
        message = f"odd size {colour.width}x{colour.height}: most video codecs cannot hold it; one line can be cut off"
        yield Finding("odd_size", "warning", colour.path.name, message, "trim")


def empty_caption(evidence: Evidence) -> Iterator[Finding]:
    """No caption: stage 2 learns nothing from this row."""
    if not evidence.row.prompt:
        message = "the caption is empty; stage 2 learns from captions (stage 1 does not)"
        yield Finding("empty_caption", "warning", evidence.row.foreground.name, message)


def _infos(evidence: Evidence):
    return [info for info in (evidence.colour, evidence.matte) if info is not None]


CHECKS = (
    outside_link, no_alpha, frame_sizes, frame_counts, frame_rates, variable_frame_rate, rotation_tag, bit_depth,
    odd_size, empty_caption,
)  # fmt: skip
