"""One clip, wherever its alpha is: every way of storing it reads as the same frames."""

import numpy as np
import pytest
from encode import encode

from wan_alpha.errors import ConfigError, DataError
from wan_alpha.media.alpha_source import AlphaSource, describe_source, find_source_state, iter_source, read_source
from wan_alpha.media.examine import examine
from wan_alpha.media.limits import MediaLimits, check_limits, refusals
from wan_alpha.media.packed import join, unpack
from wan_alpha.media.premultiplied import premultiply
from wan_alpha.media.probe import probe
from wan_alpha.media.raw_frames import with_gray
from wan_alpha.media.write import LosslessWriter, OpaqueWriter


def lossless(path, clip, stream="rgba"):
    with LosslessWriter(path, 10, stream) as writer:
        writer.write(clip)
    return path


def packed_file(path, clip, packing):
    colour, matte = clip[..., :3], np.repeat(clip[..., 3:], 3, axis=-1)
    halves = (colour, matte) if packing in ("alpha_right", "alpha_below") else (matte, colour)
    return encode(
        path, np.concatenate(halves, axis=2 if "t" in packing[-5:] else 1), "-c:v", "ffv1", "-pix_fmt", "bgr0"
    )


def pair(folder, clip):
    return lossless(folder / "x_rgb.mkv", clip, "rgb"), lossless(folder / "x_alpha.mkv", clip, "matte")


@pytest.mark.parametrize("stored", ["plane", "pair", "alpha_right", "alpha_left", "alpha_below", "alpha_above"])
def test_every_way_of_storing_alpha_reads_the_same(tmp_path, disc, stored):
    clip = np.ascontiguousarray(disc[:, :24])
    if stored == "plane":
        source = AlphaSource(lossless(tmp_path / "x.mkv", clip))
    elif stored == "pair":
        source = AlphaSource(*pair(tmp_path, clip))
    else:
        source = AlphaSource(packed_file(tmp_path / "x.mkv", clip, stored), packing=stored)
    info = describe_source(source)
    assert (info.width, info.height, info.num_frames, info.has_alpha) == (32, 24, 9, True)
    assert np.array_equal(read_source(source), clip)
    assert np.array_equal(read_source(source, [1, 2, 7]), clip[[1, 2, 7]])
    assert np.array_equal(np.stack(list(iter_source(source, 3, 2))), clip[3:5])
    assert np.array_equal(read_source(source, [4], depth=16), clip[4:5].astype(np.uint16) * 257)
    found = examine(source, max_frames=None)
    assert found.alpha_survives and found.alpha_counts == tuple(np.bincount(clip[..., 3].flat, minlength=256))
    assert found.state.state == "straight" and sum(found.shares.values()) == pytest.approx(1)


@pytest.mark.parametrize("stored", ["plane", "pair", "alpha_right"])
@pytest.mark.parametrize("declared", ["premultiplied", "auto"])
def test_premultiplied_sources_are_read_straight(tmp_path, disc, stored, declared):
    flat = disc.copy()
    flat[..., :3] = (200, 90, 40)
    clip = premultiply(flat)
    if stored == "plane":
        source = AlphaSource(lossless(tmp_path / "x.mkv", clip), source_state=declared)
    elif stored == "pair":
        source = AlphaSource(*pair(tmp_path, clip), source_state=declared)
    else:
        source = AlphaSource(packed_file(tmp_path / "x.mkv", clip, stored), packing=stored, source_state=declared)
    assert find_source_state(source) == "premultiplied"
    assert np.abs(read_source(source).astype(int) - flat).max() <= 9
    found = examine(source)
    assert found.state.state == "premultiplied" and "times alpha" in found.state.evidence


def limited(alpha):
    return np.rint(16 + alpha.astype(float) * 219 / 255).astype(np.uint8)


def test_a_matte_of_limited_range_is_expanded(tmp_path, disc):
    clip = disc.copy()
    clip[..., 3] = limited(disc[..., 3])
    colour, matte = pair(tmp_path, clip)
    for matte_range in ("auto", "limited"):
        alpha = read_source(AlphaSource(colour, matte, matte_range=matte_range))[..., 3].astype(int)
        assert np.abs(alpha - disc[..., 3]).max() <= 1
        assert (alpha[disc[..., 3] == 0] == 0).all() and (alpha[disc[..., 3] == 255] == 255).all()
    assert np.array_equal(read_source(AlphaSource(colour, matte, matte_range="full"))[..., 3], clip[..., 3])
    assert any("16 to 235" in warning for warning in examine(AlphaSource(colour, matte)).warnings)
    wide = read_source(AlphaSource(colour, matte, matte_range="limited"), depth=16)[..., 3].astype(int)
    assert np.abs(wide - disc[..., 3].astype(int) * 257).max() <= 300
    side = AlphaSource(packed_file(tmp_path / "p.mkv", clip, "alpha_below"), packing="alpha_below")
    assert np.abs(read_source(side)[..., 3].astype(int) - disc[..., 3]).max() <= 1


@pytest.mark.parametrize("low, high", [(0, 235), (16, 255), (16, 180), (40, 235)])
def test_other_levels_are_left_as_they_are(tmp_path, disc, low, high):
    clip = disc.copy()
    clip[..., 3] = np.rint(low + disc[..., 3] / 255 * (high - low))
    assert np.array_equal(read_source(AlphaSource(*pair(tmp_path, clip))), clip)


def unequal_sizes(folder, clip):
    return AlphaSource(lossless(folder / "a.mkv", clip, "rgb"), lossless(folder / "b.mkv", clip[:, :16], "matte"))


def unequal_counts(folder, clip):
    return AlphaSource(lossless(folder / "a.mkv", clip, "rgb"), lossless(folder / "b.mkv", clip[:5], "matte"))


def colour_as_matte(folder, clip):
    return AlphaSource(lossless(folder / "a.mkv", clip, "matte"), lossless(folder / "b.mkv", clip, "rgb"))


def odd_packed(folder, clip):
    return AlphaSource(lossless(folder / "a.mkv", clip[:, :, :31], "rgb"), packing="alpha_right")


def opaque(folder, clip):
    with OpaqueWriter(folder / "a.mp4") as writer:
        writer.write(clip)
    return AlphaSource(folder / "a.mp4")


@pytest.mark.parametrize(
    "make, message",
    [
        (unequal_sizes, "a.mkv: sizes differ: 32x32, its matte b.mkv 32x16"),
        (unequal_counts, "a.mkv: frame counts differ: 9, its matte b.mkv 5"),
        (colour_as_matte, "b.mkv: a matte is grey.*swapped"),
        (odd_packed, "a.mkv: 31x32 cannot be halved: with packing alpha_right the width is even, not 31"),
        (opaque, "a.mp4: no alpha plane .h264, yuv420p. and no matte is named"),
    ],
)
def test_sources_that_do_not_fit(tmp_path, disc, make, message):
    with pytest.raises(DataError, match=message):
        read_source(make(tmp_path, disc))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"packing": "beside"}, "packing = 'beside' is not one of none, alpha_right"),
        ({"source_state": "odd"}, "source_state"),
        ({"matte_range": "tv"}, "matte_range"),
        ({"matte": "m.mp4", "packing": "alpha_left"}, "not both"),
    ],
)
def test_contradictory_sources(options, message):
    with pytest.raises(ConfigError, match=message):
        AlphaSource("x.mp4", **options)


def test_join_and_unpack_are_inverse(disc):
    frame = disc[0]
    side = with_gray(np.concatenate([frame[..., :3], np.repeat(frame[..., 3:], 3, axis=-1)], axis=1))
    assert np.array_equal(unpack(side, "alpha_right"), frame)
    assert np.array_equal(join(frame[..., :3], frame[..., 3]), frame)


@pytest.mark.parametrize(
    "limits, reasons",
    [
        ({"min_side": 16, "max_side": 64}, []),
        ({}, ["32x32 is smaller than 256 pixels per side (min_side)"]),
        ({"min_side": None, "max_side": 31}, ["32x32 is larger than 31 pixels per side (max_side)"]),
        ({"min_side": None, "max_seconds": 0.5}, ["0.90 s is longer than 0.5 s (max_seconds)"]),
        ({"min_side": None, "max_seconds": 0.9, "max_frames": 8}, ["9 frames are more than 8 (max_frames)"]),
        (
            {"min_side": 33, "max_frames": 1},
            ["32x32 is smaller than 33 pixels per side (min_side)", "9 frames are more than 1 (max_frames)"],
        ),
    ],
)
def test_limits_and_their_reasons(tmp_path, disc, limits, reasons):
    info = probe(lossless(tmp_path / "a.mkv", disc))
    assert refusals(info, MediaLimits(**limits)) == reasons
    if reasons:
        with pytest.raises(DataError, match="a.mkv: refused: "):
            check_limits(info, MediaLimits(**limits))


@pytest.mark.parametrize("limits", [{"max_side": 2049}, {"min_side": 300, "max_side": 200}, {"max_seconds": 0}])
def test_impossible_limits(limits):
    with pytest.raises(ConfigError):
        MediaLimits(**limits)
