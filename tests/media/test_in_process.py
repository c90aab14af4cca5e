"""Frames decoded by PyAV are those of the ffmpeg program, bit for bit; what it cannot do goes to the program."""

import numpy as np
import pytest
from encode import encode

from wan_alpha.errors import DataError
from wan_alpha.media import in_process
from wan_alpha.media.read import iter_indices, read_rgb

H264 = ["-c:v", "libx264", "-g", "12", "-pix_fmt", "yuv420p"]


def tagged(matrix, color_range):
    scaled = ["-vf", f"scale=out_color_matrix={matrix}:out_range={color_range}"]
    return [*scaled, *H264, "-colorspace", matrix, "-color_range", color_range]


PLAIN = {
    "untagged.mp4": H264,
    "bt709.mp4": tagged("bt709", "tv"),
    "bt709_full.mov": tagged("bt709", "pc"),
    "bt601.mp4": tagged("smpte170m", "tv"),
    "open_groups.mkv": [*H264, "-x264-params", "open-gop=1"],
    "444.mp4": ["-c:v", "libx264", "-pix_fmt", "yuv444p"],
    "vp9.webm": ["-c:v", "libvpx-vp9", "-g", "12", "-b:v", "1M", "-deadline", "realtime", "-cpu-used", "8"],
    "rgb.mkv": ["-c:v", "ffv1", "-pix_fmt", "bgr0"],
    "gray.mkv": ["-c:v", "ffv1", "-pix_fmt", "gray"],
}
OTHERS = {
    "no_times.avi": H264,
    "deep.mkv": ["-c:v", "ffv1", "-pix_fmt", "yuv444p10le"],
    "alpha.mov": ["-c:v", "qtrle"],
}


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    """Makes a file of 40 frames of coloured squares, 62 x 78: no multiple of any block or padded row."""
    squares = np.random.default_rng(0).integers(0, 256, (40, 4, 5, 3), np.uint8).repeat(16, axis=1).repeat(16, axis=2)
    folder, clip = tmp_path_factory.mktemp("files"), squares[:, :62, :78]
    opaque = np.concatenate([clip, np.full_like(clip[..., :1], 200)], axis=-1)
    made = {}

    def file(name):
        if name not in made:
            frames = opaque if name == "alpha.mov" else clip
            made[name] = encode(folder / name, frames, *(PLAIN | OTHERS)[name], fps=25)
        return made[name]

    return file


@pytest.fixture
def taken(monkeypatch):
    """Numbers of frames that PyAV gave, a run each."""
    pytest.importorskip("av")
    counts, decode_run = [], in_process.decode_run

    def counting(*arguments):
        counts.append(0)
        for frame in decode_run(*arguments):
            counts[-1] += 1
            yield frame

    monkeypatch.setattr(in_process, "decode_run", counting)
    return counts


def read_both_ways(monkeypatch, path, indices, layout, depth=8):
    here = list(iter_indices(path, indices, layout, depth=depth))
    with monkeypatch.context() as patch:
        patch.setattr(in_process, "find_pyav", lambda: None)
        return here, list(iter_indices(path, indices, layout, depth=depth))


@pytest.mark.parametrize("name", PLAIN)
def test_the_same_frames(make, taken, monkeypatch, name):
    path = make(name)
    for indices, layout, depth in (
        ([0, 1], "rgba", 8), ([13, 14, 20], "rgb24", 8), ([39], "gray", 8), ([30, 31], "rgba", 16), ([5], "gray", 16),
    ):  # fmt: skip
        here, program = read_both_ways(monkeypatch, path, indices, layout, depth)
        assert taken.pop() == len(indices) == len(program)
        for one, other in zip(here, program, strict=True):
            assert one.dtype == other.dtype and one.strides == other.strides
            assert np.array_equal(one, other), (indices, layout, depth)


@pytest.mark.parametrize("name", OTHERS)
def test_other_files_go_to_the_program(make, taken, monkeypatch, name):
    here, program = read_both_ways(monkeypatch, make(name), [3, 4], "rgba")
    assert not taken and np.array_equal(here, program)


def test_a_long_run_goes_to_the_program(make, taken, monkeypatch):
    monkeypatch.setattr(in_process, "_LONGEST_RUN", 8)
    assert len(read_rgb(make("untagged.mp4"), 0, 9)) == 9
    assert not taken
    assert len(read_rgb(make("untagged.mp4"), 0, 8)) == 8
    assert taken == [8]


def test_the_program_goes_on_where_pyav_gives_up(make, monkeypatch):
    pytest.importorskip("av")
    path, decode_run = make("untagged.mp4"), in_process.decode_run
    whole = read_rgb(path, 4, 9)

    def only_three(*arguments):
        frames = decode_run(*arguments)
        yield from (next(frames) for _ in range(3))

    monkeypatch.setattr(in_process, "decode_run", only_three)
    assert np.array_equal(read_rgb(path, 4, 9), whole)


def test_damage_is_an_error_that_the_program_words(make, tmp_path, taken):
    data = bytearray(make("untagged.mp4").read_bytes())
    middle = len(data) // 2
    data[middle : middle + 600] = bytes(600)
    path = tmp_path / "damaged.mp4"
    path.write_bytes(data)
    with pytest.raises(DataError, match="damaged"):
        read_rgb(path)
    assert taken and taken[0] < 40
