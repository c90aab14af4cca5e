import os
import subprocess

import numpy as np
import pytest
from PIL import Image

from wan_alpha.errors import ConfigError, DataError
from wan_alpha.media import ffmpeg
from wan_alpha.media.probe import probe
from wan_alpha.media.read import iter_frames, read_matte, read_rgb, read_rgba
from wan_alpha.media.verify import check_alpha
from wan_alpha.media.write import (
    LosslessWriter,
    MatteWriter,
    OpaqueWriter,
    PngSequenceWriter,
    PreviewWriter,
    ProResWriter,
    WebmAlphaWriter,
    write_png,
)

# Largest and mean difference from what was written, in levels of 255: (alpha, mean alpha, mean colour).
TOLERANCE = {
    "rgba.mkv": (0, 0, 0),
    "frames": (0, 0, 0),
    "clip.mov": (1, 0.5, 0.5),
    "clip.webm": (8, 1.0, 1.5),
}
WRITERS = {
    "rgba.mkv": LosslessWriter,
    "frames": PngSequenceWriter,
    "clip.mov": ProResWriter,
    "clip.webm": WebmAlphaWriter,
}


def encode(path, clip, *arguments):
    """Write RGBA frames with an encoder the package has no writer for."""
    command = [ffmpeg.executable(), "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgba", "-framerate", "10"]
    command += ["-video_size", f"{clip.shape[2]}x{clip.shape[1]}", "-i", "pipe:0", *arguments, str(path)]
    subprocess.run(command, input=clip.tobytes(), check=True)
    return path


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("cut", [(0, 0), (1, 3)], ids=["even", "odd"])
def test_rgba_round_trip(tmp_path, disc, name, cut):
    clip = np.ascontiguousarray(disc[:, cut[0] :, cut[1] :])
    path = tmp_path / name
    with WRITERS[name](path) as writer:
        writer.write(clip[:4])
        writer.write(clip[4:])
    back = read_rgba(path).astype(int)
    assert back.shape == clip.shape
    alpha_error = np.abs(back[..., 3] - clip[..., 3])
    visible = clip[..., 3] > 0
    largest, mean, colour = TOLERANCE[name]
    assert alpha_error.max() <= largest
    assert alpha_error.mean() <= mean
    assert np.abs(back - clip)[..., :3][visible].mean() <= colour


@pytest.mark.parametrize("name", ["rgba.mkv", "clip.mov", "clip.webm"])
def test_check_alpha_measures_what_the_round_trip_did(tmp_path, disc, name):
    path = tmp_path / name
    with WRITERS[name](path, fps=12) as writer:
        writer.write(disc)
    whole, first = check_alpha(path, disc), check_alpha(path, disc[:1, ..., 3])
    assert whole.num_frames == 9 and first.num_frames == 1
    assert whole.max_error <= TOLERANCE[name][0]
    assert whole.psnr >= 45  # dB
    assert check_alpha(path, 255 - disc[..., 3]).mean_error > 50
    assert probe(path).fps == 12 and probe(path).num_frames == 9 and probe(path).has_alpha


def test_opaque_stays_opaque_and_clear_stays_clear(tmp_path):
    clip = np.full((5, 32, 32, 4), 200, np.uint8)
    clip[:, :, :16, 3], clip[:, :, 16:, 3] = 0, 255
    for name in ("clip.mov", "clip.webm"):
        with WRITERS[name](tmp_path / name) as writer:
            writer.write(clip)
        alpha = read_rgba(tmp_path / name)[..., 3]
        assert (alpha[:, :, :12] == 0).all() and (alpha[:, :, 20:] == 255).all()


@pytest.mark.parametrize(
    "name, arguments",
    [
        ("qtrle.mov", ["-c:v", "qtrle"]),
        ("png.mov", ["-c:v", "png"]),
        ("ffv1.avi", ["-c:v", "ffv1", "-pix_fmt", "bgra"]),
        ("clip.apng", ["-f", "apng", "-plays", "0"]),
    ],
)
def test_reads_other_lossless_rgba_exactly(tmp_path, disc, name, arguments):
    path = encode(tmp_path / name, disc, *arguments)
    assert probe(path).has_alpha and probe(path).num_frames == 9
    assert np.array_equal(read_rgba(path)[..., 3], disc[..., 3])
    assert np.array_equal(read_rgb(path)[disc[..., 3] > 0], disc[..., :3][disc[..., 3] > 0])


def test_vp8_alpha_is_kept(tmp_path, disc):
    path = encode(
        tmp_path / "a.webm", disc, "-c:v", "libvpx", "-pix_fmt", "yuva420p", "-auto-alt-ref", "0", "-crf", "4"
    )
    assert probe(path).decoder == "libvpx"
    assert np.abs(read_rgba(path)[..., 3].astype(int) - disc[..., 3]).mean() < 4


@pytest.mark.parametrize("name", ["rgba.mkv", "clip.webm", "frames", "clip.apng"])
def test_start_and_num_frames_give_the_same_frames_as_a_full_read(tmp_path, disc, name):
    path = tmp_path / name
    if name in WRITERS:
        with WRITERS[name](path) as writer:
            writer.write(disc)
    else:
        encode(path, disc, "-f", "apng", "-plays", "0")
    whole = read_rgba(path)
    assert np.array_equal(read_rgba(path, 3, 2), whole[3:5])
    assert np.array_equal(read_rgba(path, 8, 1), whole[8:])
    assert np.array_equal(read_rgba(path, start=5), whole[5:])
    with pytest.raises(DataError, match="frames 7 to 9 were asked for, the file has 9"):
        read_rgba(path, 7, 3)


def test_stopping_early_leaves_no_process(tmp_path, disc):
    with LosslessWriter(tmp_path / "a.mkv") as writer:
        writer.write(disc)
    frames = iter_frames(tmp_path / "a.mkv")
    assert np.array_equal(next(frames), disc[0])
    frames.close()


def test_matte_and_opaque_writers(tmp_path, disc):
    with MatteWriter(tmp_path / "m.mp4") as matte, OpaqueWriter(tmp_path / "c.mp4") as colour:
        matte.write(disc)
        colour.write(disc)
    error = np.abs(read_matte(tmp_path / "m.mp4").astype(int) - disc[..., 3])
    assert error.mean() < 1.5
    assert check_alpha(tmp_path / "m.mp4", disc, matte=True).mean_error == pytest.approx(error.mean())
    assert np.abs(read_rgb(tmp_path / "c.mp4").astype(int) - disc[..., :3]).mean() < 3
    assert (read_rgba(tmp_path / "c.mp4")[..., 3] == 255).all()
    with pytest.raises(DataError, match="no alpha plane"):
        check_alpha(tmp_path / "m.mp4", disc)


@pytest.mark.parametrize("color", [(255, 0, 0), (0, 255, 0), (30, 60, 200), (255, 255, 255), (0, 0, 0)])
@pytest.mark.parametrize(
    "writer_type, name", [(OpaqueWriter, "c.mp4"), (WebmAlphaWriter, "c.webm"), (ProResWriter, "c.mov")]
)
def test_flat_colours_survive_the_colour_matrix(tmp_path, color, writer_type, name):
    clip = np.full((2, 32, 32, 4), 255, np.uint8)
    clip[..., :3] = color
    with writer_type(tmp_path / name) as writer:
        writer.write(clip)
    assert np.abs(read_rgb(tmp_path / name).astype(int) - clip[..., :3]).max() <= 3


def test_lossless_streams(tmp_path, disc):
    for stream, expected in (("rgb", disc[..., :3]), ("matte", np.repeat(disc[..., 3:], 3, axis=-1))):
        with LosslessWriter(tmp_path / "s.mkv", 16, stream) as writer:
            writer.write(disc)
        assert np.array_equal(read_rgb(tmp_path / "s.mkv"), expected)
    assert np.array_equal(read_matte(tmp_path / "s.mkv"), disc[..., 3])


def test_preview_shows_the_board_where_clear_and_the_subject_where_opaque(tmp_path):
    clip = np.zeros((3, 33, 47, 4), np.uint8)
    clip[..., :3] = (200, 40, 40)
    clip[:, 8:24, 8:24, 3] = 255
    with PreviewWriter(tmp_path / "p.mp4", square=4) as writer:
        writer.write(clip)
    frame = read_rgb(tmp_path / "p.mp4")[0].astype(int)
    assert frame.shape == (34, 48, 3)  # padded to even
    assert np.abs(frame[12:20, 12:20] - (200, 40, 40)).max() < 12
    clear = frame[:6, 28:]
    assert clear.std() > 10 and np.abs(clear[..., 0] - clear[..., 1]).mean() < 8
    with PreviewWriter(tmp_path / "g.mp4", background=(0, 255, 0)) as writer:
        writer.write(clip)
    assert np.abs(read_rgb(tmp_path / "g.mp4")[0, 28:, 30:].astype(int) - (0, 255, 0)).max() < 8


def test_a_shorter_sequence_replaces_a_longer_one(tmp_path, disc):
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "notes.txt").write_text("mine")
    for clip in (disc, disc[:3]):
        with PngSequenceWriter(tmp_path / "frames") as writer:
            writer.write(clip)
    assert sorted(os.listdir(tmp_path / "frames")) == ["00000.png", "00001.png", "00002.png", "notes.txt"]
    assert sorted(os.listdir(tmp_path)) == ["frames"]


@pytest.mark.parametrize("name", [*WRITERS, "o.mp4"])
def test_an_error_leaves_nothing_behind(tmp_path, disc, name):
    writer_type = WRITERS.get(name, OpaqueWriter)
    with pytest.raises(RuntimeError, match="decoder broke"):
        with writer_type(tmp_path / name) as writer:
            writer.write(disc)
            raise RuntimeError("decoder broke")
    with pytest.raises(DataError, match="after frames of"):
        with writer_type(tmp_path / name) as writer:
            writer.write(disc)
            writer.write(disc[:, :16])
    with pytest.raises(DataError, match="no frames were written"):
        with writer_type(tmp_path / name):
            pass
    assert os.listdir(tmp_path) == []


def test_a_failed_rewrite_keeps_the_earlier_file(tmp_path, disc):
    path = tmp_path / "a.mkv"
    with LosslessWriter(path) as writer:
        writer.write(disc)
    with pytest.raises(ValueError), LosslessWriter(path) as writer:
        writer.write(disc[:2])
        raise ValueError
    assert np.array_equal(read_rgba(path), disc)


def test_ffmpeg_failure_is_reported_with_its_words(tmp_path, disc):
    class BrokenWriter(LosslessWriter):
        def encoder_arguments(self):
            return ["-c:v", "no_such_encoder"]

    with (
        pytest.raises(DataError, match="(?s)a.mkv: writing failed.*no_such_encoder"),
        BrokenWriter(tmp_path / "a.mkv") as w,
    ):
        for _ in range(200):
            w.write(disc)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda folder: PreviewWriter(folder / "a.webm"), "writes .mp4 files"),
        (lambda folder: OpaqueWriter(folder / "a.mp4", fps=0), "fps = 0 must be above 0"),
        (lambda folder: LosslessWriter(folder / "a.mkv", stream="alpha"), "not one of rgba, rgb, matte"),
    ],
)
def test_wrong_options_are_refused(tmp_path, make, message):
    with pytest.raises(ConfigError, match=message):
        make(tmp_path)


@pytest.mark.parametrize(
    "frames, message",
    [
        (np.zeros((2, 8, 8, 4), np.float32), "uint8"),
        (np.zeros((8, 8, 4), np.uint8), r"\(T, H, W, 4\)"),
        (np.zeros((2, 8, 8, 3), np.uint8), "carries alpha"),
    ],
)
def test_wrong_frames_are_refused(tmp_path, frames, message):
    with pytest.raises(DataError, match=message), WebmAlphaWriter(tmp_path / "a.webm") as writer:
        writer.write(frames)


def test_missing_output_folder_is_named(tmp_path, disc):
    with (
        pytest.raises(DataError, match="nowhere does not exist"),
        MatteWriter(tmp_path / "nowhere" / "a.mp4") as writer,
    ):
        writer.write(disc)


def test_sixteen_bit_grey_keeps_its_scale(tmp_path):
    Image.fromarray(np.array([[0, 128 * 257, 65535]], np.uint16)).save(tmp_path / "m.png")
    assert read_matte(tmp_path / "m.png").tolist() == [[[0, 128, 255]]]


def test_write_png_is_exact(tmp_path, disc):
    write_png(tmp_path / "a.png", disc[0])
    assert np.array_equal(read_rgba(tmp_path / "a.png")[0], disc[0])


def test_names_that_look_like_options_or_addresses(tmp_path, disc, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("-y.mkv", "concat:a|b.mkv", "50%d corrupt truncated.mkv"):
        with LosslessWriter(name) as writer:
            writer.write(disc)
        assert np.array_equal(read_rgba(name), disc)


def test_frames_of_a_killed_run_do_not_join_the_next_clip(tmp_path, disc):
    killed = PngSequenceWriter(tmp_path / "frames")
    killed.write(disc)
    with PngSequenceWriter(tmp_path / "frames") as writer:
        writer.write(disc[:2])
        writer.write(disc[2:3])
    assert np.array_equal(read_rgba(tmp_path / "frames"), disc[:3])
    assert os.listdir(tmp_path) == ["frames"]


def test_stopping_leaves_no_pipe_open(tmp_path, disc):
    writer = LosslessWriter(tmp_path / "a.mkv")
    writer.write(disc)
    process = writer._process
    writer.abort()
    assert process.stdin.closed and process.returncode is not None
