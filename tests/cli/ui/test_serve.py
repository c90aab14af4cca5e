"""``wan-alpha ui`` where it cannot start: one sentence, exit code 2."""

import importlib.util
import socket

import pytest

from wan_alpha.cli.main import main
from wan_alpha.cli.ui import serve
from wan_alpha.errors import ConfigError


def test_without_gradio_the_extra_is_named(monkeypatch, capsys, tmp_path):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(serve, "find_spec", lambda name: None if name == "gradio" else find_spec(name))
    assert main(["ui", "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert 'pip install -e ".[ui]"' in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_port_that_is_taken_is_named(monkeypatch, capsys):
    monkeypatch.setattr(serve, "check_gradio", lambda: None)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["ui", "--port", str(port)]) == 2
    error = capsys.readouterr().err
    assert f"port {port} on 127.0.0.1" in error and "--port" in error and error.count("\n") == 1


def test_results_need_a_folder(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(serve, "check_gradio", lambda: None)
    (tmp_path / "file").write_text("")
    assert main(["ui", "--port", "0", "--out", str(tmp_path / "file")]) == 2
    assert "is a file; results need a folder" in capsys.readouterr().err


def test_only_the_loopback_is_listened_on():
    with serve.listen(0) as listener:
        assert listener.getsockname()[0] == "127.0.0.1" and listener.family == socket.AF_INET


def test_a_port_that_is_none_is_refused(capsys):
    assert main(["ui", "--port", "70000"]) == 2
    assert "port = '70000'" in capsys.readouterr().err


def test_what_the_page_asks_for_is_checked_before_anything_is_made(tmp_path):
    generate_tab = pytest.importorskip("wan_alpha.cli.ui.generate_tab", exc_type=ImportError)
    assert generate_tab._read_options("num_frames = 17\n\n--model.wan some folder\nfail-x=a=b") == {
        "num_frames": "17", "model.wan": "some folder", "fail_x": "a=b",
    }  # fmt: skip
    for wrong, message in (("num_frames", "expected an option"), ("output_dir = /etc", "leave it out")):
        with pytest.raises(ConfigError, match=message):
            generate_tab._read_options(wrong)
