"""Premultiplied colour made straight without fringes, and the verdict which of the two a clip is."""

import numpy as np
import pytest

from wan_alpha.media.bleed import bleed_outwards
from wan_alpha.media.premultiplied import premultiply, unpremultiply
from wan_alpha.media.read import find_state, read_rgba
from wan_alpha.media.state_verdict import judge_state
from wan_alpha.media.write import LosslessWriter


def soft_disc(size=48, colour=(220, 90, 40), dtype=np.uint8):
    """One colour everywhere under a disc with a wide soft edge."""
    y, x = np.mgrid[:size, :size]
    distance = np.hypot(y - size / 2 + 0.5, x - size / 2 + 0.5)
    top = np.iinfo(dtype).max
    frame = np.empty((size, size, 4), dtype)
    frame[..., :3] = np.array(colour) * (top // 255)
    frame[..., 3] = np.clip((size / 3 - distance) / 10 + 0.5, 0, 1) * top
    return frame


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_premultiplying_again_gives_the_stored_values_back(dtype):
    rng = np.random.default_rng(0)
    straight = rng.integers(0, np.iinfo(dtype).max, (40, 50, 4), dtype, endpoint=True)
    straight[..., 3].flat[:256] = np.arange(256) * (np.iinfo(dtype).max // 255)
    stored = premultiply(straight)
    assert np.array_equal(premultiply(unpremultiply(stored)), stored)
    assert np.array_equal(unpremultiply(stored)[..., 3], straight[..., 3])


def test_premultiply_rounds_and_keeps_both_ends():
    pixels = np.array([[255, 100, 3, 255], [255, 100, 3, 0], [255, 100, 3, 128]], np.uint8)
    assert premultiply(pixels).tolist() == [[255, 100, 3, 255], [0, 0, 0, 0], [128, 50, 2, 128]]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_no_fringe_at_faint_edges_or_under_clear_pixels(dtype):
    """Dividing alone would give black under zero alpha and, at alpha 1, colours of 0 or 255 only."""
    disc = soft_disc(dtype=dtype)
    back = unpremultiply(premultiply(disc)).astype(int)
    unit = np.iinfo(dtype).max // 255
    assert (disc[..., 3] == 0).any() and ((disc[..., 3] > 0) & (disc[..., 3] < 16 * unit)).any()
    assert np.abs(back - disc)[..., :3].max() <= 9 * unit
    assert np.abs(back - disc)[disc[..., 3] < 16 * unit][..., :3].mean() <= 3 * unit


def test_colour_bleeds_from_the_nearest_side():
    frame = np.zeros((32, 64, 4), np.float32)
    frame[8:24, 2:10] = (1, 0, 0, 1)
    frame[8:24, 54:62] = (0, 0, 1, 1)
    colour = bleed_outwards(frame[..., :3], frame[..., 3:])
    assert (colour[16, 13] - (1, 0, 0) < 0.2).all() and (np.abs(colour[16, 51] - (0, 0, 1)) < 0.2).all()
    assert np.array_equal(colour[8:24, 2:10], frame[8:24, 2:10, :3])
    assert (colour[..., 0] + colour[..., 2] > 0.99).all()  # no black anywhere


def test_a_clear_frame_stays_clear():
    assert not unpremultiply(np.zeros((8, 8, 4), np.uint8)).any()


def dark(disc):
    return disc // np.array([20, 20, 20, 1], np.uint8)


def opaque(disc):
    disc[..., 3] = 255
    return disc


def faint(disc):
    disc[..., 3] //= 4
    return disc


CASES = {
    "straight": (lambda disc: disc, "straight", "brighter than their alpha"),
    "premultiplied": (premultiply, "premultiplied", "times alpha"),
    "straight, too dark to exceed alpha": (dark, "straight", "levels away"),
    "premultiplied and dark": (
        lambda disc: premultiply(disc // np.array([8, 8, 8, 1], np.uint8)),
        "premultiplied",
        "times alpha",
    ),
    "black": (lambda disc: disc * np.array([0, 0, 0, 1], np.uint8), "unknown", "too dark"),
    "nothing semi-transparent": (opaque, "unknown", "only 0 semi-transparent"),
    "premultiplied, nothing opaque": (lambda disc: premultiply(faint(disc)), "unknown", "nothing opaque"),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("wide", [False, True], ids=["8 bit", "16 bit"])
def test_verdicts_and_their_evidence(name, wide):
    make, state, evidence = CASES[name]
    frame = make(soft_disc())
    verdict = judge_state([frame.astype(np.uint16) * 257 if wide else frame] * 2)
    assert verdict.state == state and evidence in verdict.evidence


def test_real_fur_is_told_apart(real_media):
    lemur = read_rgba(real_media / "lemur_cutout.png")
    assert judge_state(lemur).state == "straight"
    stored = premultiply(lemur)
    assert judge_state(stored).state == "premultiplied"
    noisy = stored.astype(int) + np.random.default_rng(0).integers(-3, 4, stored.shape)
    noisy[..., 3] = stored[..., 3]
    assert judge_state(np.clip(noisy, 0, 255).astype(np.uint8)).state == "premultiplied"  # as a lossy codec leaves it
    back = unpremultiply(stored[0]).astype(int)
    seen = lemur[0, ..., 3] >= 16
    assert np.abs(back - lemur[0])[seen][..., :3].max() <= 8


@pytest.mark.parametrize("declared", ["premultiplied", "auto"])
def test_files_are_read_straight(tmp_path, declared):
    disc = np.stack([soft_disc()] * 3)
    for name, clip in (("straight.mkv", disc), ("premultiplied.mkv", premultiply(disc))):
        with LosslessWriter(tmp_path / name) as writer:
            writer.write(clip)
    path = tmp_path / "premultiplied.mkv"
    assert np.array_equal(read_rgba(path), premultiply(disc))  # as stored, where nothing else is said
    back = read_rgba(path, source_state=declared).astype(int)
    assert np.array_equal(back[..., 3], disc[..., 3]) and np.abs(back - disc).max() <= 9
    assert find_state(path).state == "premultiplied"
    assert np.array_equal(read_rgba(tmp_path / "straight.mkv", source_state="auto"), disc)
