"""Each check finds the fault that it is named after, and none of them objects to a sound clip."""

import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from wan_alpha.data.doctor import colour_checks, dataset_checks
from wan_alpha.data.doctor.checks import CHECKS
from wan_alpha.data.doctor.evidence import fingerprint, fingerprint_distance
from wan_alpha.data.doctor.row import examine_row
from wan_alpha.data.manifest import Row
from wan_alpha.media.limits import NO_LIMITS, MediaLimits
from wan_alpha.media.write import LosslessWriter, MatteWriter, OpaqueWriter, ProResWriter

SIZE, LENGTH = 96, 13


def draw(length=LENGTH, backdrop=None, speed=3.0, seed=0):
    """A textured, soft-edged disc that moves, straight RGBA (T, H, W, 4) uint8; colour under clear is `backdrop`."""
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float64)
    grain = np.random.default_rng(seed).normal(0, 6, (SIZE, SIZE, 3))
    clip = np.empty((length, SIZE, SIZE, 4), np.uint8)
    for t in range(length):
        centre_x, centre_y = SIZE / 2 + 14 * np.sin(speed * t / 7), SIZE / 2 + 10 * np.cos(speed * t / 5)
        distance = np.hypot(x - centre_x, y - centre_y)
        alpha = np.clip((SIZE / 4 - distance) / 6 + 0.5, 0, 1)
        colour = np.stack([200 + 0 * x, 150 - x / 4, 90 + y / 4], -1) + grain
        if backdrop is not None:
            colour = np.where(alpha[..., None] > 0, colour, backdrop)
        clip[t, ..., :3] = np.clip(colour, 0, 255)
        clip[t, ..., 3] = np.rint(255 * alpha)
    return clip


def write_rgba(folder, clip, fps=16):
    with LosslessWriter(folder / "x.mkv", fps) as writer:
        writer.write(clip)
    return Row(1, folder / "x.mkv", None, "a ball")


def write_two(folder, colour, matte, fps=(16, 16)):
    paths = folder / "x_rgb.mkv", folder / "x_alpha.mkv"
    for path, clip, stream, rate in zip(paths, (colour, matte), ("rgb", "matte"), fps, strict=True):
        with LosslessWriter(path, rate, stream) as writer:
            writer.write(clip)
    return Row(1, *paths, "a ball")


def with_alpha(clip, change):
    changed = clip.copy()
    changed[..., 3] = change(changed[..., 3].astype(np.float64))
    return changed


def premultiply(clip):
    changed = clip.astype(np.float64)
    changed[..., :3] *= changed[..., 3:] / 255
    return np.rint(changed).astype(np.uint8)


def keyed_from_green(clip):
    """What a keyer leaves that finds alpha but not the edges' own colour."""
    changed, alpha = clip.astype(np.float64), clip[..., 3:] / 255.0
    changed[..., :3] = alpha * changed[..., :3] + (1 - alpha) * np.array([0, 177, 64])
    return np.rint(changed).astype(np.uint8)


def noisy(clip, top=6):
    noise = np.random.default_rng(1).integers(0, top + 1, clip.shape[:3])
    return with_alpha(clip, lambda alpha: np.maximum(alpha, noise))


def found(row, root, limits=NO_LIMITS):
    return {finding.check: finding for finding in examine_row(row, root, limits).findings}


def shift(clip, frames):
    return np.concatenate([clip[frames:], clip[:frames]])


def out_link(folder, clip):
    outside = folder.parent / "elsewhere"
    outside.mkdir()
    row = write_rgba(outside, clip)
    (folder / "x.mkv").symlink_to(row.foreground)
    return Row(1, folder / "x.mkv", None, "a ball")


def no_alpha(folder, clip):
    with OpaqueWriter(folder / "x.mp4") as writer:
        writer.write(clip)
    return Row(1, folder / "x.mp4", None, "a ball")


def ten_bit(folder, clip):
    with ProResWriter(folder / "x.mov") as writer:
        writer.write(clip)
    return Row(1, folder / "x.mov", None, "a ball")


def no_caption(folder, clip):
    return Row(1, write_rgba(folder, clip).foreground)


def swapped(folder, clip):
    row = write_two(folder, clip, clip)
    return Row(1, row.matte, row.foreground, "a ball")


FAULTS = {
    "outside_link": (out_link, "warning", "leaves the dataset's folder"),
    "no_alpha": (no_alpha, "error", r"no alpha plane \(h264"),
    "frame_sizes": (lambda f, c: write_two(f, c, c[:, :64]), "error", "sizes differ: 96x96, its matte .* 96x64"),
    "frame_counts": (lambda f, c: write_two(f, c, c[:9]), "error", "frame counts differ: 13, its matte x_alpha.mkv 9"),
    "frame_rates": (lambda f, c: write_two(f, c, c, (16, 24)), "warning", "16 per second, its matte x_alpha.mkv 24"),
    "bit_depth": (ten_bit, "note", "bits per channel"),
    "odd_size": (lambda f, c: write_rgba(f, c[:, :63, :95]), "warning", "odd size 95x63"),
    "empty_caption": (no_caption, "warning", "caption is empty"),
    "colour_matte": (swapped, "error", "swapped"),
    "all_clear": (lambda f, c: write_rgba(f, with_alpha(c, lambda a: 0 * a)), "error", "alpha is 0 everywhere"),
    "all_opaque": (lambda f, c: write_rgba(f, with_alpha(c, lambda a: 0 * a + 254)), "error", "alpha is 254 or more"),
    "flat_matte": (lambda f, c: write_rgba(f, with_alpha(c, lambda a: 0 * a + 68)), "warning", "alpha is 68"),
    "clear_frames": (
        lambda f, c: write_rgba(f, with_alpha(c, lambda a: a * (np.arange(LENGTH) > 3)[:, None, None])),
        "note",
        "4 of 13 frames are clear",
    ),
    "limited_range": (lambda f, c: write_rgba(f, with_alpha(c, lambda a: 16 + a * 219 / 255)), "warning", "16 and 235"),
    "inverted": (
        lambda f, c: write_two(f, draw(backdrop=0), with_alpha(c, lambda a: 255 - a)),
        "error",
        "alpha is inverted",
    ),
    "matte_noise": (lambda f, c: write_rgba(f, noisy(c)), "warning", "suggested hard_threshold 6/255 = 0.0235"),
    "premultiplied": (lambda f, c: write_rgba(f, premultiply(c)), "error", "colour is premultiplied"),
    "fringe": (lambda f, c: write_rgba(f, keyed_from_green(c)), "warning", r"as if \(\d, 17\d, 6\d\) were mixed in"),
    "time_offset": (
        lambda f, c: write_two(f, draw(backdrop=0), shift(c, 3)),
        "warning",
        "the matte is 3 frames early",
    ),
}


@pytest.mark.parametrize("check", FAULTS)
def test_a_fault_is_found_under_its_name(tmp_path, check):
    make, severity, message = FAULTS[check]
    folder = tmp_path / "set"
    folder.mkdir()
    findings = found(make(folder, draw()), folder)
    assert check in findings, list(findings)
    assert findings[check].severity == severity
    assert re.search(message, findings[check].message), findings[check].message
    others = {name for name, finding in findings.items() if not finding.is_clean} - {check}
    assert not others, {name: findings[name].message for name in others}


def opaque_logo(clip):
    changed = clip.copy()
    changed[..., :3] = 240
    return with_alpha(changed, lambda alpha: 255 * (alpha > 127))


def smoke(clip):
    """Nothing opaque, black, soft, faint far out: premultiplied or noise to a careless eye."""
    y, x = np.mgrid[:SIZE, :SIZE]
    thickness = 150 * np.exp(-((x - 48) ** 2 + (y - 48) ** 2) / (2 * 24**2))
    changed = with_alpha(clip, lambda alpha: 0 * alpha + thickness)
    changed[..., :3] = 130
    return changed


SOUND = {
    "straight, colour everywhere": lambda f, c: write_rgba(f, c),
    "a pair": lambda f, c: write_two(f, c, c),
    "a pair over black, in step": lambda f, c: write_two(f, draw(backdrop=0), c),
    "flat logo with hard edges": lambda f, c: write_rgba(f, opaque_logo(c)),
    "smoke": lambda f, c: write_rgba(f, smoke(c)),
    "standing still": lambda f, c: write_two(f, c[:1].repeat(5, 0), c[:1].repeat(5, 0)),
    "a lossy pair": lambda f, c: lossy_pair(f, c),
}


def test_premultiplied_colour_is_found_through_a_lossy_codec(tmp_path):
    clip = draw()
    clip[..., 3] = np.clip(clip[..., 3].astype(int) * 4 - 384, 0, 255)  # sharp edges: chroma spills over them
    dark = premultiply(clip)
    assert "premultiplied" in found(lossy_pair(tmp_path, dark), tmp_path)


def lossy_pair(folder, clip):
    paths = folder / "x_rgb.mp4", folder / "x_alpha.mp4"
    for path, writer_type in zip(paths, (OpaqueWriter, MatteWriter), strict=True):
        with writer_type(path) as writer:
            writer.write(clip)
    return Row(1, *paths, "a ball")


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_clip_is_clean(tmp_path, name):
    report = examine_row(SOUND[name](tmp_path, draw()), tmp_path, NO_LIMITS)
    assert report.is_clean, report.findings
    assert report.thumbnails
    assert sum(report.shares.values()) == pytest.approx(1, abs=2e-4)


def test_the_real_still_is_clean(tmp_path, lemur):
    shutil.copyfile(lemur, tmp_path / "lemur.png")
    report = examine_row(Row(1, tmp_path / "lemur.png", None, "a lemur"), tmp_path, NO_LIMITS)
    assert report.is_clean, report.findings
    assert (report.size["width"], report.size["height"]) == (680, 440)


def test_limits_are_noted(tmp_path):
    limits = MediaLimits(min_side=128, max_side=256, max_seconds=0.5, max_frames=8)
    finding = found(write_rgba(tmp_path, draw()), tmp_path, limits)["limits"]
    assert finding.severity == "note"
    messages = [f.message for f in examine_row(write_rgba(tmp_path, draw()), tmp_path, limits).findings]
    assert len(messages) == 3 and all("96x96" in m or "0.8" in m or "13 frames" in m for m in messages)


@pytest.mark.parametrize("frames", [-4, -1, 1, 5])
def test_offsets_are_measured_in_both_directions(frames):
    colour, matte = draw(21, backdrop=0), shift(draw(21), frames)
    luma, alpha = colour[..., :3].mean(-1), matte[..., 3].astype(float)
    fits = colour_checks.offset_fits(luma, alpha)
    assert max(fits, key=fits.get) == frames


def disc_at(x, y, radius=11.0):
    """Coverage of a soft disc in a frame of 54 x 96, the size of doctor's maps."""
    rows, columns = np.mgrid[:54, :96]
    return np.clip(radius - np.hypot(rows - y, columns - x) + 0.5, 0, 1)


def bar_at(angle):
    rows, columns = np.mgrid[:54, :96] - np.array([27, 48])[:, None, None]
    along, across = columns * np.cos(angle) + rows * np.sin(angle), rows * np.cos(angle) - columns * np.sin(angle)
    return np.clip(20.5 - abs(along), 0, 1) * np.clip(6.5 - abs(across), 0, 1)


MOTIONS = {
    "slowly across": lambda t: disc_at(20 + 0.4 * t, 27),
    "across": lambda t: disc_at(15 + 1.2 * t, 20 + 0.4 * t),
    "fast across": lambda t: disc_at(10 + 2 * t, 27),
    "to and fro": lambda t: disc_at(48 + 16 * np.sin(t / 6), 27 + 6 * np.cos(t / 5)),
    "growing": lambda t: disc_at(48, 27, 6 + 0.4 * t),
    "turning": lambda t: bar_at(t / 12),
    "shaking": lambda t: disc_at(48 + 5 * np.sin(2.1 * t), 27 + 4 * np.cos(1.3 * t)),
}
SCENES = {
    "empty": lambda alpha, colour, _: colour * alpha,
    "standing": lambda alpha, colour, backdrop: colour * alpha + (1 - alpha) * backdrop,
}


def moving_maps(motion, scene, offset, num_frames=40):
    """Luma of a textured subject in that motion and its alpha `offset` frames early; with a codec's noise."""
    noise, moments = np.random.default_rng(3), range(num_frames + 5)
    coverage = [MOTIONS[motion](t) for t in moments]
    texture = 150 + 30 * np.sin(np.arange(96) / 5)[None] * np.cos(np.arange(54) / 4)[:, None]
    backdrop = 90 + 40 * np.sin(np.arange(96) / 9)[None] + 20 * np.cos(np.arange(54) / 7)[:, None]
    luma = np.stack([SCENES[scene](alpha, texture, backdrop) for alpha in coverage])
    luma, alpha = luma + noise.normal(0, 0.5, luma.shape), 255 * np.stack(coverage)
    return luma[max(-offset, 0) :][:num_frames], alpha[max(offset, 0) :][:num_frames]


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("motion", MOTIONS)
def test_offsets_of_one_to_five_frames_are_found_and_none_where_there_is_none(motion, scene):
    for offset in (0, 1, 2, 3, 5, -1, -2, -5):
        luma, alpha = moving_maps(motion, scene, offset)
        evidence = SimpleNamespace(matte=True, matte_name="x_alpha.mkv", luma=luma, alpha=alpha)
        frames = [finding.figures["frames"] for finding in colour_checks.time_offset(evidence)]
        assert frames == ([offset] if offset else []), offset


@pytest.mark.parametrize("motion", MOTIONS)
def test_colour_that_says_nothing_of_the_matte_gives_no_offset(motion):
    """Bled colour, a still backdrop, or another motion than the subject's."""
    _, alpha = moving_maps(motion, "empty", 0)
    noise = np.random.default_rng(4).normal(0, 2, alpha.shape)
    drifting = np.stack([np.roll(90 + 60 * np.sin(np.arange(96) / 7), t) for t in range(len(alpha))])[:, None]
    for luma in (120 + noise, drifting + noise):
        evidence = SimpleNamespace(matte=True, matte_name="x_alpha.mkv", luma=luma, alpha=alpha)
        assert not list(colour_checks.time_offset(evidence))


def test_no_motion_gives_no_offset():
    still = np.repeat(draw(1)[..., 3].astype(float), 9, axis=0)
    assert colour_checks.offset_fits(still, still) == {}


def test_near_duplicates_are_those_that_look_alike():
    one, other = draw(5), draw(5, speed=1.0)
    again = np.array(one)
    again[..., :3] = np.clip(one[..., :3].astype(int) + 2, 0, 255)
    prints = [fingerprint(list(clip)) for clip in (one, other, again)]
    assert fingerprint_distance(prints[0], prints[0]) == 0
    assert fingerprint_distance(prints[0], np.zeros_like(prints[0])) == 1
    pairs = list(dataset_checks.near_pairs(prints))
    assert [(later, earlier) for later, earlier, _ in pairs] == [(2, 0)]
    # The order of sums only saves comparisons.
    every = {(b, a) for a in range(3) for b in range(a + 1, 3) if fingerprint_distance(prints[a], prints[b]) <= 0.03}
    assert every == {(2, 0)}


def test_every_check_has_a_sentence():
    assert all(text.endswith(".") and len(text) > 15 for text in CHECKS.values())
    assert set(FAULTS) | {
        "path_outside", "bad_row", "unreadable", "limits", "variable_frame_rate", "rotation_tag", "duplicate_rows",
        "duplicate_clips", "near_duplicates",
    } == set(CHECKS)  # fmt: skip
