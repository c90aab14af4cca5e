import json

import pytest

from wan_alpha.data.manifest import COLUMNS, Row, find_matte_beside, parse_row, read_manifest, write_manifest
from wan_alpha.errors import DataError


@pytest.fixture
def folder(tmp_path):
    for name in ("a.mp4", "b.mp4", "c_rgb.mp4", "c_alpha.mp4", "d.mov", "e.png"):
        (tmp_path / name).touch()
    return tmp_path


def write(folder, text, name="metadata.csv", encoding="utf-8"):
    (folder / name).write_bytes(text.encode(encoding))
    return folder / name


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_csv_of_pairs(folder, encoding, newline):
    text = newline.join(
        ["video_fgr,video_pha,prompt,type", 'a.mp4,b.mp4,"a fox, running",', "e.png,,ein Füchschen,static", ""]
    )
    assert read_manifest(write(folder, text, encoding=encoding)) == [
        Row(1, folder / "a.mp4", folder / "b.mp4", "a fox, running", "video"),
        Row(2, folder / "e.png", None, "ein Füchschen", "static"),
    ]


def test_csv_of_single_videos_finds_the_matte_beside(folder):
    rows = read_manifest(write(folder, "video,prompt\nc_rgb.mp4,one\nd.mov,two\n"))
    assert [row.files for row in rows] == [(folder / "c_rgb.mp4", folder / "c_alpha.mp4"), (folder / "d.mov",)]


def test_prompt_and_type_may_be_absent(folder):
    assert read_manifest(write(folder, "video_fgr,video_pha\na.mp4,b.mp4\n"))[0].prompt == ""


def test_jsonl_and_json(folder):
    records = [{"video_fgr": "a.mp4", "video_pha": "b.mp4", "prompt": "x"}, {"video": "d.mov", "prompt": None}]
    lines = write(folder, "\n".join(map(json.dumps, records)) + "\n", "m.jsonl")
    whole = write(folder, json.dumps(records), "m.json")
    assert (
        read_manifest(lines)
        == read_manifest(whole)
        == [
            Row(1, folder / "a.mp4", folder / "b.mp4", "x"),
            Row(2, folder / "d.mov"),
        ]
    )


def test_base_path_other_than_the_manifests_folder(folder, tmp_path_factory):
    manifest = write(tmp_path_factory.mktemp("elsewhere"), "video\nd.mov\n")
    assert read_manifest(manifest, folder)[0].foreground == folder / "d.mov"
    with pytest.raises(DataError, match="no such file"):
        read_manifest(manifest)


def test_an_absolute_path_inside_the_base_and_a_link_out_of_it_are_fine(folder, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "far.mov"
    outside.touch()
    (folder / "near.mov").symlink_to(outside)
    rows = read_manifest(write(folder, f"video\n{folder / 'd.mov'}\nnear.mov\n"))
    assert [row.foreground.name for row in rows] == ["d.mov", "near.mov"]


def test_pandas_empty_cells(folder):
    record = {"video_fgr": "e.png", "video_pha": float("nan"), "prompt": float("nan"), "type": "static"}
    assert parse_row(7, record, folder) == Row(7, folder / "e.png", None, "", "static")


BAD = {
    "missing file": ("video\nd.mov\nnone.mov\n", "row 2: .*none.mov: no such file"),
    "missing matte": ("video_fgr,video_pha\na.mp4,none.mp4\n", "row 1: .*none.mp4: no such file"),
    "leaves the base": ("video\n../d.mov\n", "row 1: ../d.mov: the path leaves the dataset folder"),
    "leaves it in a detour": ("video\nx/../../d.mov\n", "leaves the dataset folder"),
    "absolute path outside": ("video\n/etc/hostname\n", "row 1: /etc/hostname: the path leaves"),
    "the base itself": ("video\n.\n", "leaves the dataset folder"),
    "no file named": ("video_fgr,video_pha,prompt\n,,x\n", "row 1: no file is named"),
    "matte alone": ("video_fgr,video_pha\n,b.mp4\n", "row 1: video_pha names a matte, but video_fgr is empty"),
    "unknown type": ("video,type\nd.mov,moving\n", "row 1: type 'moving' is not one of video, static"),
    "comma in a prompt": ("video,prompt\nd.mov,a fox, running\n", "row 1: more values than columns"),
    "open quote": ('video,prompt\nd.mov,ok\nd.mov,"a fox\n', "row 2: not valid CSV"),
    "no rows": ("video,prompt\n", "no rows"),
    "empty file": ("", "the header needs video_fgr or video, it has nothing"),
    "other columns": ("file,caption\nd.mov,x\n", "the header needs video_fgr or video, it has file, caption"),
}


@pytest.mark.parametrize("text, message", BAD.values(), ids=BAD)
def test_bad_csv(folder, text, message):
    with pytest.raises(DataError, match=message) as caught:
        read_manifest(write(folder, text))
    assert "metadata.csv" in str(caught.value)


@pytest.mark.parametrize(
    "name, data, message",
    [
        ("m.csv", "video\nFüchschen.mov\n".encode("latin-1"), "not UTF-8"),
        ("m.jsonl", b'{"video": "d.mov"}\n{"video"\n', "row 2: not valid JSON"),
        ("m.jsonl", b"[1]\n", "row 1: not an object"),
        ("m.json", b'{"video": "d.mov"}', "must hold a list"),
        ("m.txt", b"d.mov", "is a .csv, .jsonl or .json file"),
        ("m.json", b'[{"video": "d\\u0000.mov"}]', "zero byte"),
    ],
)
def test_bad_encodings_and_formats(folder, name, data, message):
    (folder / name).write_bytes(data)
    with pytest.raises(DataError, match=message):
        read_manifest(folder / name)


def test_no_manifest(tmp_path):
    with pytest.raises(DataError, match="no such manifest"):
        read_manifest(tmp_path / "metadata.csv")


def test_two_possible_mattes(folder):
    (folder / "f_rgb.mov").touch()
    for suffix in ("mkv", "webm"):
        (folder / f"f_alpha.{suffix}").touch()
    with pytest.raises(DataError, match="several mattes could be meant: f_alpha.mkv, f_alpha.webm"):
        find_matte_beside(folder / "f_rgb.mov")
    (folder / "f_alpha.mov").touch()
    assert find_matte_beside(folder / "f_rgb.mov") == folder / "f_alpha.mov"


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
def test_write_then_read(folder, name):
    prompt = 'two\nlines, "quoted" and Ünïcode\u2028'
    record = dict.fromkeys(COLUMNS, "") | {
        "video_fgr": "a.mp4",
        "video_pha": "b.mp4",
        "prompt": prompt,
        "num_frames": 9,
    }
    write_manifest(folder / name, [record, record])
    rows = read_manifest(folder / name)
    assert [row.index for row in rows] == [1, 2]
    assert rows[1].prompt == prompt.strip()
    assert rows[1].files == (folder / "a.mp4", folder / "b.mp4")


def test_a_failed_write_leaves_nothing(tmp_path):
    with pytest.raises(DataError, match="columns are video_fgr"):
        write_manifest(tmp_path / "metadata.csv", [{"video_fgr": "a.mp4", "colour": "red"}])
    assert list(tmp_path.iterdir()) == []
