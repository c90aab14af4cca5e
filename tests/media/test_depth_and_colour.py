"""Levels: alpha of every depth comes through exactly, colour by the matrix and range that the file names."""

import numpy as np
import pytest
from encode import encode, run_ffmpeg
from PIL import Image, ImageOps

from wan_alpha.errors import ConfigError
from wan_alpha.media.pixel_depth import narrow, scaling_table, widen
from wan_alpha.media.probe import probe
from wan_alpha.media.read import iter_frames, read_matte, read_rgb, read_rgba
from wan_alpha.media.stills import upright


def ramp(bits, height=16, width=64):
    """Two RGBA frames of full 16-bit scale whose alpha passes through levels of `bits` bits, from none to full."""
    top = (1 << bits) - 1
    levels = np.linspace(0, top, 2 * height * width).round().astype(np.int64).reshape(2, height, width)
    clip = np.full((2, height, width, 4), 30000, np.uint16)
    clip[..., 3] = (levels * 65535 + top // 2) // top
    return clip, levels, top


PLANAR = {"gbrap10le": 10, "gbrap12le": 12, "gbrap16le": 16}


@pytest.mark.parametrize("pix_fmt, bits", PLANAR.items())
def test_deep_rgba_keeps_every_level(tmp_path, pix_fmt, bits):
    clip, levels, top = ramp(bits)
    raw = np.stack([np.full_like(levels, top // 3)] * 3 + [levels], axis=1).astype("<u2")
    path = tmp_path / "deep.mkv"
    run_ffmpeg(
        "-f", "rawvideo", "-pix_fmt", pix_fmt, "-framerate", "10", "-video_size", "64x16", "-i", "pipe:0",
        "-c:v", "ffv1",
        path, feed=raw.tobytes(),
    )  # fmt: skip
    assert probe(path).bit_depth == bits and probe(path).has_alpha
    assert np.array_equal(read_rgba(path, depth=16)[..., 3], clip[..., 3])
    eight = read_rgba(path)[..., 3]
    assert np.array_equal(eight, np.rint(levels * 255 / top)) and eight.min() == 0 and eight.max() == 255


@pytest.mark.parametrize("pix_fmt, bits", [("yuva420p10le", 10), ("yuva444p10le", 10), ("yuva444p12le", 12)])
def test_deep_alpha_beside_yuv_is_rounded_not_cut(tmp_path, pix_fmt, bits):
    clip, levels, top = ramp(bits)
    chroma = levels[:, ::2, ::2] if "420" in pix_fmt else levels
    planes = [
        np.full_like(levels, top // 2),
        np.full_like(chroma, (top + 1) // 2),
        np.full_like(chroma, (top + 1) // 2),
    ]
    raw = b"".join(plane[t].astype("<u2").tobytes() for t in range(2) for plane in [*planes, levels])
    path = tmp_path / "deep.mkv"
    run_ffmpeg(
        "-f", "rawvideo", "-pix_fmt", pix_fmt, "-framerate", "10", "-video_size", "64x16", "-i", "pipe:0",
        "-c:v", "ffv1",
        path, feed=raw,
    )  # fmt: skip
    assert np.array_equal(read_rgba(path, depth=16)[..., 3], clip[..., 3])
    assert np.array_equal(read_rgba(path)[..., 3], np.rint(levels * 255 / top))


def test_eight_bits_fill_sixteen(tmp_path):
    clip = np.arange(256, dtype=np.uint8).repeat(4).reshape(1, 16, 16, 4)
    path = encode(tmp_path / "a.mkv", clip, "-c:v", "ffv1", "-pix_fmt", "bgra")
    assert np.array_equal(read_rgba(path, depth=16), widen(clip))
    assert next(iter_frames(path, "gray", depth=16)).dtype == np.uint16


@pytest.mark.parametrize(
    "codec, pix_fmt, tolerance",
    [("ffv1", "yuv420p10le", 192), ("libx264", "yuv420p10le", 800), ("ffv1", "gray16le", 256)],  # of 65535
)
def test_deep_opaque_colour(tmp_path, codec, pix_fmt, tolerance):
    clip = np.empty((2, 16, 64, 3), np.uint16)
    clip[...] = np.linspace(0, 65535, 64)[None, None, :, None]
    path = encode(tmp_path / "a.mkv", clip, "-c:v", codec, "-pix_fmt", pix_fmt)
    assert probe(path).bit_depth == int(pix_fmt.removesuffix("le")[-2:])
    back = read_rgb(path, depth=16).astype(int)
    assert np.abs(back - clip).max() < tolerance and len(np.unique(back)) > 60
    assert np.abs(read_matte(path, depth=16).astype(int) - clip[..., 0]).max() < tolerance
    assert np.abs(read_rgb(path).astype(int) - narrow(clip)).max() <= 1 + tolerance / 257


@pytest.mark.parametrize("matrix, name", [("bt709", "bt709"), ("smpte170m", "smpte170m"), ("bt601", "")])
@pytest.mark.parametrize("color_range", ["tv", "pc"])
def test_colour_matrix_and_range_are_honoured(tmp_path, matrix, name, color_range):
    colours = np.array([(255, 0, 0), (0, 255, 0), (30, 60, 200), (255, 255, 255), (0, 0, 0), (128, 128, 128)], np.uint8)
    clip = np.repeat(np.repeat(colours, 16, axis=0)[None, None], 16, axis=1)
    tags = ["-colorspace", matrix] if name else []
    path = encode(
        tmp_path / "a.mkv", clip, "-vf", f"scale=out_color_matrix={matrix}:out_range={color_range}:flags=accurate_rnd",
        "-pix_fmt", "yuv444p", "-c:v", "libx264", "-qp", "0", *tags, "-color_range", color_range,
    )  # fmt: skip
    info = probe(path)
    assert info.color_range == {"tv": "limited", "pc": "full"}[color_range]
    assert np.abs(read_rgb(path).astype(int) - clip).max() <= 3
    if name:
        assert info.color_matrix == name


@pytest.mark.parametrize("color_range", ["tv", "pc"])
def test_a_matte_spans_the_full_range_however_it_is_stored(tmp_path, color_range):
    clip = np.repeat(np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1), 3, axis=-1)
    path = encode(
        tmp_path / "m.mkv", clip, "-vf", f"scale=out_range={color_range}:flags=accurate_rnd", "-pix_fmt", "yuv420p",
        "-c:v", "ffv1", "-color_range", color_range,
    )  # fmt: skip
    error = np.abs(read_matte(path).astype(int) - clip[..., 0])
    assert error.max() <= 1 and read_matte(path).min() == 0 and read_matte(path).max() == 255


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotation_tags_are_applied(tmp_path, degrees):
    clip = np.zeros((2, 16, 32, 3), np.uint8)
    clip[:, :8, :16] = 255  # top left
    encode(tmp_path / "flat.mp4", clip, "-c:v", "libx264", "-crf", "4", "-pix_fmt", "yuv420p")
    run_ffmpeg("-display_rotation", -degrees, "-i", tmp_path / "flat.mp4", "-c", "copy", tmp_path / "turned.mp4")
    info = probe(tmp_path / "turned.mp4")
    assert info.rotation == degrees and (info.width, info.height) == ((32, 16) if degrees == 180 else (16, 32))
    wanted = np.rot90(clip, -degrees // 90, axes=(1, 2))  # clockwise
    for frames in (read_rgb(tmp_path / "turned.mp4"), read_matte(tmp_path / "turned.mp4")[..., None]):
        assert np.abs(frames.astype(int) - wanted[..., : frames.shape[-1]]).mean() < 6


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [3, 4])
def test_sixteen_bit_stills_and_sequences(tmp_path, suffix, channels):
    clip, *_ = ramp(16)
    folder = tmp_path / "frames"
    folder.mkdir()
    for t, frame in enumerate(clip[..., :channels]):
        encode(folder / f"{t}{suffix}", frame[None], "-frames:v", "1")
    wanted = clip.copy()
    if channels == 3:
        wanted[..., 3] = 65535
    assert probe(folder).bit_depth == 16 and probe(folder).has_alpha == (channels == 4)
    assert np.array_equal(read_rgba(folder, depth=16), wanted)
    assert np.array_equal(read_rgba(folder / f"1{suffix}", depth=16), wanted[1:])
    assert np.array_equal(read_rgba(folder), narrow(wanted))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_wide_stills_are_turned_as_pillow_turns_others(orientation):
    picture = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    image = Image.fromarray(picture)
    image.getexif()[0x0112] = orientation
    assert np.array_equal(upright(picture, orientation), np.asarray(ImageOps.exif_transpose(image)))


@pytest.mark.parametrize("bits, depth", [(8, 16), (10, 8), (12, 16), (16, 8)])
def test_scaling_tables_reach_both_ends_and_round(bits, depth):
    table, top = scaling_table(bits, depth), (1 << depth) - 1
    assert table[0] == 0 and table[-1] == top
    exact = np.arange(len(table)) * top / (len(table) - 1)
    assert np.abs(table - exact).max() <= 0.5


def test_narrow_undoes_widen():
    levels = np.arange(256, dtype=np.uint8)
    assert np.array_equal(narrow(widen(levels)), levels)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"depth": 10}, "depth = 10 is not 8 or 16"),
        ({"pix_fmt": "bgr24"}, "rgba, rgb24, gray"),
        ({"source_state": "maybe"}, "straight, premultiplied, auto"),
    ],
)
def test_unknown_options(tmp_path, options, message):
    Image.new("RGBA", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(ConfigError, match=message):
        next(iter_frames(tmp_path / "a.png", **options))
