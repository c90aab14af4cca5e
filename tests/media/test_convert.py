"""One clip into another format: what is read, written, read back and said about it."""

import json
import os

import numpy as np
import pytest
from hard_clip import draw_hard_clip
from PIL import Image

from wan_alpha.errors import ConfigError, DataError
from wan_alpha.media import outputs as outputs_module
from wan_alpha.media.alpha_source import AlphaSource
from wan_alpha.media.backgrounds import iter_plates, parse_background
from wan_alpha.media.convert import convert_clip
from wan_alpha.media.embedded import read_texts, xmp_packet
from wan_alpha.media.formats import FORMATS, format_for
from wan_alpha.media.outputs import ClipOutputs, manifest_path, output_sha256, read_manifest
from wan_alpha.media.preview import composite_over
from wan_alpha.media.read import read_rgb, read_rgba
from wan_alpha.media.write import LosslessWriter, MatteWriter, OpaqueWriter, write_png

RECORD = {"prompt": "a red ball, «ça» 猫 <b>\x01", "seed": 7, "settings": {"num_steps": 4}}


@pytest.fixture
def source(tmp_path, disc):
    with LosslessWriter(tmp_path / "in.mkv", 10) as writer:
        writer.write(disc)
    return AlphaSource(tmp_path / "in.mkv")


def convert(source, path, name=None, **options):
    return convert_clip(source, path, format_for(path, name), **options)


@pytest.mark.parametrize("name", ["out", "out.webp", "out.apng", "out.mov", "out.zip"])
def test_a_clip_is_converted_and_described(tmp_path, source, disc, name):
    converted = convert(source, tmp_path / name, prompt="a disc")
    written, described = converted.written, read_manifest(tmp_path / name)
    assert (written.num_frames, written.fps, written.width) == (9, 10, 32) and converted.notes == ()
    assert written.alpha_error.num_frames == 9 and str(written.path) in str(written)
    assert (described["format"], described["prompt"], described["fps"]) == (written.output_format.name, "a disc", 10)
    assert described["sha256"] == output_sha256(tmp_path / name) and described["colour"] == "straight"
    assert described["converted_from"]["foreground"] == str(source.foreground)
    if name != "out.zip":
        assert np.array_equal(read_rgba(tmp_path / name)[..., 3], disc[..., 3])


def test_frames_are_chosen_by_number_and_by_time(tmp_path, source, disc):
    convert(source, tmp_path / "cut", start=2, num_frames=3)
    assert np.array_equal(read_rgba(tmp_path / "cut"), disc[2:5])
    half = convert(source, tmp_path / "half", fps=5)
    assert half.written.num_frames in (4, 5) and "10 per second became 5" in half.notes[0]
    assert np.array_equal(read_rgba(tmp_path / "half"), disc[::2][: half.written.num_frames])
    double = convert(source, tmp_path / "double", fps=20).written
    assert double.num_frames == 18 and np.array_equal(read_rgba(tmp_path / "double"), np.repeat(disc, 2, axis=0))
    with pytest.raises(DataError, match="frames 7 to 10 were asked for, the file has 9"):
        convert(source, tmp_path / "more", start=7, num_frames=4)


def test_a_folder_takes_the_rate_that_is_named(tmp_path, source, disc):
    convert(source, tmp_path / "frames")
    again = convert(AlphaSource(tmp_path / "frames"), tmp_path / "again.apng", fps=25).written
    assert (again.num_frames, again.fps) == (9, 25)
    with Image.open(tmp_path / "again.apng") as image:
        assert image.n_frames == 9 and image.info["duration"] == 40


def test_the_rate_that_a_manifest_names_is_kept(tmp_path, source):
    assert convert(source, tmp_path / "out").notes == ()
    frames = AlphaSource(tmp_path / "out")
    assert convert(frames, tmp_path / "again.mkv").written.fps == 10
    manifest_path(tmp_path / "out").unlink()
    converted = convert(frames, tmp_path / "guessed.mkv")
    assert converted.written.fps == 16 and "names no frame rate" in converted.notes[-1]


def test_a_folder_of_other_files_is_left_alone(tmp_path, source):
    folder = tmp_path / "holidays"
    folder.mkdir()
    (folder / "00007.png").write_bytes(b"mine")
    with pytest.raises(ConfigError, match="holidays: has files in it that are not of this program"):
        convert(source, folder)
    assert [path.read_bytes() for path in folder.iterdir()] == [b"mine"]
    (folder / "00007.png").unlink()
    convert(source, folder)
    convert(source, folder, num_frames=2)
    assert len(list(folder.iterdir())) == 2


def test_what_a_manifest_calls_premultiplied_is_not_taken_as_straight(tmp_path, source):
    convert(source, tmp_path / "pre.mkv", premultiplied=True)
    with pytest.raises(ConfigError, match="its colour is premultiplied; give --source_state premultiplied"):
        convert(AlphaSource(tmp_path / "pre.mkv"), tmp_path / "again.webp")


def test_archives_are_written_not_read(tmp_path, source):
    convert(source, tmp_path / "out.zip")
    with pytest.raises(DataError, match="archives are not read; unpack it"):
        convert(AlphaSource(tmp_path / "out.zip"), tmp_path / "again.webp")


def test_a_pair_becomes_one_file(tmp_path, disc):
    with OpaqueWriter(tmp_path / "a_rgb.mp4", 10) as colours, MatteWriter(tmp_path / "a_alpha.mp4", 10) as mattes:
        colours.write(disc)
        mattes.write(disc)
    pair = AlphaSource(tmp_path / "a_rgb.mp4", tmp_path / "a_alpha.mp4")
    convert(pair, tmp_path / "a.mov")
    assert np.abs(read_rgba(tmp_path / "a.mov").astype(int) - disc)[..., 3].mean() < 1.5


def test_a_stacked_video_comes_back(tmp_path, source, disc):
    convert(source, tmp_path / "s.mp4", "stacked")
    packed = AlphaSource(tmp_path / "s.mp4", packing="alpha_below", matte_range="full")
    convert(packed, tmp_path / "back")
    assert np.abs(read_rgba(tmp_path / "back").astype(int) - disc)[..., 3].mean() < 1.5


def test_premultiplied_and_back(tmp_path, source, disc):
    written = convert(source, tmp_path / "p.webp", "webp_lossless", premultiplied=True).written
    assert written.premultiplied and read_manifest(written.path)["colour"] == "premultiplied"
    convert(AlphaSource(written.path, source_state="premultiplied"), tmp_path / "back")
    back = read_rgba(tmp_path / "back").astype(int)
    solid = disc[..., 3] > 128
    assert np.array_equal(back[..., 3], disc[..., 3]) and np.abs(back - disc)[solid].max() <= 1


def test_sixteen_bits_stay_sixteen(tmp_path):
    wide = draw_hard_clip(3, dtype=np.uint16)
    with LosslessWriter(tmp_path / "in.mkv", 16, depth=16) as writer:
        writer.write(wide)
    written = convert(AlphaSource(tmp_path / "in.mkv"), tmp_path / "out", "png16").written
    assert written.alpha_error.max_error == 0
    assert np.array_equal(read_rgba(tmp_path / "out", depth=16), wide)


def test_prompt_and_settings_travel_along(tmp_path, disc):
    targets = [(tmp_path / "a.webp", FORMATS["webp"]), (tmp_path / "a", FORMATS["png"])]
    with ClipOutputs(targets, 16, record=RECORD) as outputs:
        outputs.write(disc)
    assert len(outputs.verify()) == 2
    for name in ("a.webp", "a"):
        texts = read_texts(tmp_path / name)
        assert json.loads(texts["settings"]) == RECORD and texts["fps"] == "16"
        assert texts["prompt"].rstrip("\x01 ") == "a red ball, «ça» 猫 <b>"
        convert(AlphaSource(tmp_path / name), tmp_path / "next.apng")
        described = read_manifest(tmp_path / "next.apng")
        assert (described["prompt"], described["seed"], described["settings"]) == tuple(RECORD.values())
    convert(AlphaSource(tmp_path / "next.apng"), tmp_path / "third.mov")
    assert read_manifest(tmp_path / "third.mov")["seed"] == 7


def test_a_hostile_packet_is_not_expanded(tmp_path, disc):
    entities = b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]>'
    bomb = entities + b'<x:xmpmeta xmlns:x="adobe:ns:meta/">&b;</x:xmpmeta>'
    Image.fromarray(disc[0]).save(tmp_path / "a.webp", xmp=bomb)
    assert read_texts(tmp_path / "a.webp") == {}
    Image.fromarray(disc[0]).save(tmp_path / "b.webp", xmp=b"<broken")
    with pytest.raises(DataError, match="b.webp"):
        read_texts(tmp_path / "b.webp")
    assert b"\x01" not in xmp_packet({"prompt": "a\x01b"})


def test_opaque_sources_and_opaque_outputs_are_told(tmp_path, source, disc):
    assert "holds no alpha" in convert(source, tmp_path / "p.mp4", "preview").notes[0]
    assert "opaque everywhere" in convert(AlphaSource(tmp_path / "p.mp4"), tmp_path / "o.webp").notes[0]
    binary = convert(source, tmp_path / "g.gif")
    assert "no semi-transparent" in binary.notes[0]
    assert binary.written.alpha_summary == "alpha exact once made clear or opaque (semi-transparency is not kept)"


def test_what_makes_no_sense_is_refused(tmp_path, source, disc):
    with pytest.raises(ConfigError, match="is the source itself"):
        convert(source, source.foreground)
    with pytest.raises(ConfigError, match="background has no effect on the format png"):
        convert(source, tmp_path / "a", background=(0, 0, 0))
    with pytest.raises(ConfigError, match="premultiplied has no effect"):
        convert(source, tmp_path / "a.gif", premultiplied=True)
    with pytest.raises(ConfigError, match="two outputs of the same name"):
        ClipOutputs([(tmp_path / "a", FORMATS["png"])] * 2, 16)
    assert np.array_equal(read_rgba(source.foreground), disc)


@pytest.mark.parametrize("name", ["a.webm", "a.gif", "frames"])
def test_what_lost_its_alpha_stays_and_its_manifest_says_so(tmp_path, source, monkeypatch, name):
    """It can be looked at, never be taken for good, and the next attempt writes over it."""
    with monkeypatch.context() as patch:
        patch.setattr(outputs_module, "to_depth", lambda frames, depth: frames ^ np.uint8(255))  # what was "meant"
        with pytest.raises(DataError, match=f"{name}: alpha was lost.*\nwhat was written is still there; its manifest"):
            convert(source, tmp_path / name)
    said = read_manifest(tmp_path / name)
    assert f"{name}: alpha was lost" in said["problem"] and said["alpha_error"] is None and len(said["sha256"]) == 64
    assert (tmp_path / name).exists() and said["converted_from"]["first_frame"] == 0
    convert(source, tmp_path / name)
    assert "problem" not in read_manifest(tmp_path / name)


def test_an_exact_copy_says_inf(tmp_path, source):
    """As every file of figures does: JSON has no infinity, and float() reads the word."""
    convert(source, tmp_path / "frames")
    assert float(read_manifest(tmp_path / "frames")["alpha_error"]["psnr"]) == np.inf


def test_several_formats_at_once_name_every_loss(tmp_path, disc, monkeypatch):
    targets = [(tmp_path / one.clip_name, one) for one in map(FORMATS.get, ("png", "png16", "webp", "preview"))]
    with ClipOutputs(targets, 16) as outputs:
        outputs.write(disc[:4])
        outputs.write(disc[4:])
    written = outputs.verify()
    assert [one.alpha_error is None for one in written] == [False, False, False, True]
    assert np.array_equal(read_rgba(tmp_path / "frames16"), disc)
    with pytest.raises(RuntimeError), ClipOutputs(targets, 16) as outputs:
        outputs.write(disc[:2])
        raise RuntimeError("decoder broke")
    assert np.array_equal(read_rgba(tmp_path / "frames"), disc)  # what was there stays
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


@pytest.mark.parametrize(
    "text, expected",
    [
        ("checkerboard", "checkerboard"),
        ("magenta", (255, 0, 255)),
        ("grey", (128, 128, 128)),
        ("#0aF010", (10, 240, 16)),
        ("1, 2,3", (1, 2, 3)),
    ],
)
def test_backgrounds_by_name(text, expected):
    assert parse_background(text) == expected


@pytest.mark.parametrize("text", ["plaid", "1,2,300", "#12345", "missing.png", "http://example.org/a.png"])
def test_backgrounds_that_are_none(text):
    with pytest.raises(ConfigError, match="neither checkerboard"):
        parse_background(text)


def test_previews_over_a_colour_a_picture_and_a_clip(tmp_path, source, disc):
    plate = np.zeros((16, 64, 4), np.uint8)
    plate[:, :, 2], plate[..., 3] = 200, 255  # blue, of another shape
    write_png(tmp_path / "plate.png", plate)
    with LosslessWriter(tmp_path / "plates.mkv", 10) as writer:  # two frames, shorter than the clip
        writer.write(np.concatenate([np.full((1, 32, 32, 4), 255, np.uint8), np.full((1, 32, 32, 4), 9, np.uint8)]))
    corner = (slice(0, 4), slice(0, 4))  # clear in every frame
    for background, expected in (
        ((0, 255, 0), [(0, 255, 0)] * 3),
        (tmp_path / "plate.png", [(0, 0, 200)] * 3),
        (tmp_path / "plates.mkv", [(255, 255, 255), (9, 9, 9), (255, 255, 255)]),
    ):
        convert(source, tmp_path / "p.mp4", "preview", background=background)
        shown = read_rgb(tmp_path / "p.mp4").astype(int)
        assert len(shown) == 9
        for frame, color in zip(shown, expected, strict=False):
            assert np.abs(frame[corner] - color).max() < 12


def test_plates_are_cut_to_the_shape_and_not_stretched(tmp_path):
    picture = np.zeros((20, 40, 4), np.uint8)
    picture[:, 10:30, 0], picture[..., 3] = 255, 255  # the middle square is red
    write_png(tmp_path / "a.png", picture)
    plate = next(iter_plates(tmp_path / "a.png", 20, 20))
    assert (plate[..., 0] == 255).all()


def test_compositing_in_whole_numbers_is_rounded_exactly():
    alpha, colour = np.mgrid[:256, :256].astype(np.uint8)
    frame = np.stack([colour, colour, colour, alpha], axis=-1)
    plate = np.stack([255 - colour, alpha, np.full_like(colour, 77)], axis=-1)
    share = alpha[..., None] / 255.0
    expected = np.rint(share * frame[..., :3] + (1 - share) * plate)
    assert np.array_equal(composite_over(frame, plate), expected)


def test_real_files_keep_their_alpha(tmp_path, real_media, squirrel):
    lemur = real_media / "lemur_cutout.png"
    for name in ("lemur.png", "lemur.webp"):
        assert convert(AlphaSource(lemur), tmp_path / name).written.alpha_error.max_error == 0
        assert len(np.unique(read_rgba(tmp_path / name)[..., 3])) == 256
    bear = convert(AlphaSource(real_media / "bear_vp9_alpha.webm"), tmp_path / "bear.mov", start=60, num_frames=4)
    assert bear.written.fps == 30 and (read_rgba(tmp_path / "bear.mov")[..., 3] == 68).all()
    cut = convert(AlphaSource(squirrel), tmp_path / "squirrel.mp4", "rgb", num_frames=3, background="checkerboard")
    assert (cut.written.width, cut.written.height, cut.written.alpha_error) == (832, 480, None)
