import numpy as np
import pytest
from encode import counting_clip, encode, numbers_of, run_ffmpeg
from PIL import Image

from wan_alpha.media.animation_times import frame_durations
from wan_alpha.media.probe import probe
from wan_alpha.media.read import iter_indices
from wan_alpha.media.timeline import parse_packets, resample


@pytest.mark.parametrize(
    "times, duration, fps, expected",
    [
        ([0, 1, 2, 3], 4, 1, [0, 1, 2, 3]),
        ([5, 6, 7, 8], 4, 1, [0, 1, 2, 3]),  # a clock that does not start at 0
        ([0, 1, 2, 3], 4, 0.5, [0, 2]),
        ([0, 1, 2], 3, 2, [0, 0, 1, 1, 2, 2]),
        ([0, 0.033, 0.067, 0.1], 0.133, 30, [0, 1, 2, 3]),  # milliseconds, rounded either way
        ([0, 0.034, 0.066, 0.101], 0.133, 30, [0, 1, 2, 3]),
        ([0, 0.1, 1.0, 1.1], 1.2, 10, [0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 3]),  # a long pause is held
        ([0], 0.04, 25, [0]),
        ([0, 0.04], 0.08, 1, [0]),
    ],
)
def test_resampling_shows_what_was_on_screen(times, duration, fps, expected):
    assert resample(times, duration, fps) == expected


def packets(*rows, base="1/10"):
    return f"#tb 0: {base}\n" + "\n".join(f"0, {dts}, {pts}, 1, 99, 0x0{flags}" for dts, pts, flags in rows)


def test_packets_in_decoding_order_become_frames_in_showing_order():
    text = packets((0, 0, ""), (1, 3, ", F=0x0"), (2, 1, ", F=0x0"), (3, 2, ", F=0x0"), (4, 4, ""))
    timeline = parse_packets(text, "mov,mp4", "h264", 10.0)
    assert timeline.times.tolist() == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert timeline.keyframes == (0, 4) and timeline.can_seek and timeline.duration == pytest.approx(0.5)


def test_a_keyframe_that_frames_before_it_depend_on_is_no_entry_for_h264():
    text = packets((0, 0, ""), (1, 4, ""), (2, 2, ", F=0x0"), (3, 3, ", F=0x0"), (4, 5, ", F=0x0"))
    assert parse_packets(text, "mov,mp4", "h264", 10.0).keyframes == (0,)
    assert parse_packets(text, "mov,mp4", "hevc", 10.0).keyframes == (0, 3)


def test_without_times_frames_are_counted():
    timeline = parse_packets(packets((0, -(2**63), ""), (1, -(2**63), ", F=0x0")), "avi", "h264", 10.0)
    assert timeline.times.tolist() == [0, 0.1] and timeline.keyframes == (0,) and not timeline.can_seek
    assert parse_packets(packets(), "mov,mp4", "h264", 10.0) is None


@pytest.mark.parametrize("name", ["varying.mp4", "varying.mkv"])
def test_a_varying_frame_rate_is_seen_and_resampled_by_time(tmp_path, name):
    encode(tmp_path / "even.mkv", counting_clip(40), "-c:v", "ffv1", fps=10)
    # Every frame of the first second, then every third.
    dropped = "select=lt(n\\,10)+not(mod(n\\,3))"
    codec = ["-c:v", "libx264", "-crf", "1"] if name.endswith("mp4") else ["-c:v", "ffv1"]
    path = tmp_path / name
    run_ffmpeg("-i", tmp_path / "even.mkv", "-vf", dropped, "-fps_mode", "vfr", *codec, "-pix_fmt", "yuv420p", path)
    info = probe(path)
    assert info.num_frames == 20 and info.is_variable_rate
    assert not probe(tmp_path / "even.mkv").is_variable_rate
    wanted = resample(info.timeline.times, info.timeline.duration, 10)
    shown = dict(zip(range(20), numbers_of(iter_indices(path, range(20), "rgb24")), strict=True))
    # Whatever is on screen is the latest frame that there is.
    for moment, index in enumerate(wanted[:38]):
        assert shown[index] == (moment if moment < 10 else moment // 3 * 3 if moment >= 12 else 9)


@pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
def test_times_of_animations(tmp_path, suffix):
    frames = [Image.fromarray(np.full((8, 8, 3), 40 * t, np.uint8)) for t in range(4)]
    path = tmp_path / f"a.{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=[100, 200, 100, 400], lossless=True)
    assert frame_durations(path) == pytest.approx([0.1, 0.2, 0.1, 0.4])
    info = probe(path)
    assert info.fps == 5 and info.duration == pytest.approx(0.8) and info.is_variable_rate
    assert resample(info.timeline.times, info.duration, 10) == [0, 1, 1, 2, 3, 3, 3, 3]


def test_a_still_has_no_times(tmp_path):
    Image.new("RGBA", (8, 8)).save(tmp_path / "a.png")
    info = probe(tmp_path / "a.png")
    assert info.fps == 0 and info.duration == 0 and info.timeline is None
