"""Whatever the container, the codec and the times of its frames: frame n is frame n, however it is reached."""

import numpy as np
import pytest
from encode import counting_clip, encode, numbers_of, run_ffmpeg

from wan_alpha.errors import ConfigError, DataError
from wan_alpha.media import decode
from wan_alpha.media.probe import probe
from wan_alpha.media.read import iter_indices, read_rgb

H264 = ["-c:v", "libx264", "-crf", "4", "-pix_fmt", "yuv420p", "-g", "12", "-bf", "3", "-sc_threshold", "0"]
FILES = {
    "closed.mp4": H264,
    "closed.mov": H264,
    "open_groups.mkv": [*H264, "-x264-params", "open-gop=1"],
    "fragments.mp4": [*H264, "-movflags", "frag_keyframe+empty_moov"],
    "no_times.avi": H264,
    "broadcast.ts": H264,
    "old.mpg": ["-c:v", "mpeg2video", "-g", "12", "-bf", "2", "-q:v", "2", "-r", "25"],
    "hevc.mp4": ["-c:v", "libx265", "-crf", "4", "-x265-params", "log-level=none:keyint=12"],
    "vp9.webm": ["-c:v", "libvpx-vp9", "-g", "12", "-b:v", "1M", "-deadline", "realtime", "-cpu-used", "8"],
    "intra.mkv": ["-c:v", "ffv1"],
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """name -> path, each made when it is first asked for."""
    folder, made = tmp_path_factory.mktemp("seeking"), {}

    def make(name):
        if name not in made:
            made[name] = encode(folder / name, counting_clip(60), *FILES[name], fps=25)
        return made[name]

    return make


@pytest.mark.parametrize("name", FILES)
def test_any_start_gives_the_frames_of_a_full_read(files, name):
    path = files(name)
    assert probe(path).num_frames == 60
    whole = read_rgb(path)
    assert numbers_of(whole) == list(range(60))
    for start, count in ((0, 2), (11, 3), (12, 1), (31, 4), (58, 2)):
        assert np.array_equal(read_rgb(path, start, count), whole[start : start + count]), start


@pytest.mark.parametrize("name", ["closed.mp4", "no_times.avi", "vp9.webm"])
def test_frames_far_apart(files, name):
    wanted = [0, 1, 5, 30, 31, 59]
    assert numbers_of(iter_indices(files(name), wanted, "rgb24")) == wanted


def test_seeking_decodes_from_the_keyframe_before(files):
    info = probe(files("closed.mp4"))
    assert info.timeline.can_seek and info.timeline.keyframes == (0, 12, 24, 36, 48)
    assert [decode.entry_frame(info, index) for index in (0, 11, 12, 47, 59)] == [0, 0, 12, 36, 48]
    assert decode.split_into_runs(info, [3, 20, 50]) == [[3, 20], [50]]
    avi = probe(files("no_times.avi"))
    assert not avi.timeline.can_seek and decode.entry_frame(avi, 59) == 0


def test_frames_that_an_edit_list_cuts_off_do_not_count(tmp_path, files):
    run_ffmpeg("-ss", "0.6", "-i", files("closed.mp4"), "-c", "copy", tmp_path / "cut.mp4")
    path = tmp_path / "cut.mp4"
    whole = read_rgb(path)
    assert probe(path).num_frames == len(whole) == 45
    assert numbers_of(whole) == list(range(15, 60))
    assert np.array_equal(read_rgb(path, 30, 3), whole[30:33])


def test_a_stream_that_starts_late_is_seeked_in_by_its_own_clock(tmp_path, files):
    run_ffmpeg(
        "-itsoffset", "0.7", "-i", files("closed.mp4"), "-f", "lavfi", "-i", "sine=d=3", "-map", "0:v", "-map", "1:a",
        "-c:v", "copy", tmp_path / "late.mkv",
    )  # fmt: skip
    assert numbers_of(read_rgb(tmp_path / "late.mkv", 37, 3)) == [37, 38, 39]


@pytest.mark.parametrize(
    "indices, error, message",
    [
        ([], ConfigError, "ascending and at least one"),
        ([3, 2], ConfigError, "ascending"),
        ([2, 2], ConfigError, "ascending"),
        ([-1], ConfigError, "ascending"),
        ([0, 60], DataError, "frame 60 was asked for, the file has 60"),
    ],
)
def test_impossible_frame_numbers(files, indices, error, message):
    with pytest.raises(error, match=message):
        list(iter_indices(files("closed.mp4"), indices))
