"""The report in a browser: opened from disk in headless Chromium, looked at pixel by pixel, used by mouse and keys."""

import shutil

import numpy as np
import pytest
from headless_browser import Page, require_chromium
from shown_runs import HEIGHT, NUM_FRAMES, PROMPT, WIDTH, moving_square, write_runs

from wan_alpha.evaluation.report import write_report
from wan_alpha.evaluation.report_clips import write_handover
from wan_alpha.media.write import WebmAlphaWriter, write_png

# Points of the clip, (x, y): clear in all frames; in the strip of alpha 128; in the square of frame 0 and of frame 4.
CLEAR, STRIP, SQUARE_FIRST, SQUARE_LAST = (30, 1), (16, 21), (5, 8), (26, 8)
REFERENCE, FIRST, SECOND = "r0", "c0", "c1"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    require_chromium()
    root = tmp_path_factory.mktemp("report")
    first, second, true = write_runs(root)
    return write_report([first, second], root / "page", reference=true).page


@pytest.fixture(scope="module")
def page(written):
    with Page() as page:
        page.open(written)
        yield page
        assert page.errors == []


@pytest.fixture(autouse=True)
def as_opened(page):
    page.resize(1280, 900)
    page.evaluate("wanReport.timeline.go(0); scrollTo(0, 0); document.activeElement.blur(); wanReport.zoom.reset()")
    choose(page, background="checker", view="picture", frame=0)


def choose(page, frame=None, **choices):
    """Press the buttons of a background or a view, and wait until every player shows it."""
    for name, value in choices.items():
        page.evaluate(f"document.querySelector('button[data-{name}=\"{value}\"]').click()")
    settled(page, frame)


def settled(page, frame=None):
    wanted = "wanReport.state.view + ' ' + wanReport.state.background"
    number = "" if frame is None else f" && p.canvas.dataset.frame === '{frame}'"
    page.wait(f"wanReport.players.active().every(p => p.canvas.dataset.shows === {wanted}{number})")
    # What was asked for is drawn in the next frame of the screen at the latest.
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done())))")


def pixel(page, clip, point):
    """RGBA of the canvas where the clip has its pixel `point`, at zoom 1."""
    x, y = ((value + 0.5) / size for value, size in zip(point, (WIDTH, HEIGHT), strict=True))
    return page.evaluate(
        f"(() => {{ const c = document.querySelector('canvas[data-clip={clip}]'); return [...c.getContext('2d')"
        f".getImageData(Math.floor({x} * c.width), Math.floor({y} * c.height), 1, 1).data]; }})()"
    )


def test_what_lies_under_the_clip_shows_through(page):
    for name, (red, green, blue) in {"black": (0, 0, 0), "magenta": (255, 0, 255), "green": (0, 177, 64)}.items():
        choose(page, background=name)
        for clip in (REFERENCE, FIRST, SECOND):
            assert pixel(page, clip, CLEAR) == [red, green, blue, 255]
            assert pixel(page, clip, SQUARE_FIRST) == [255, 0, 0, 255]
        strip = 128 / 255
        mixed = [red * (1 - strip), green * (1 - strip), 255 * strip + blue * (1 - strip), 255]
        assert pixel(page, FIRST, STRIP) == pytest.approx(mixed, abs=2)
    page.evaluate(
        "(() => { const i = document.querySelector('input[type=color]'); i.value = '#123456';"
        " i.dispatchEvent(new Event('input')); })()"
    )
    settled(page)
    assert pixel(page, FIRST, CLEAR) == [0x12, 0x34, 0x56, 255]


def test_frames_are_stepped_together(page):
    choose(page, background="black")
    assert pixel(page, SECOND, SQUARE_FIRST) == [255, 0, 0, 255] and pixel(page, SECOND, SQUARE_LAST)[0] == 0
    page.key("ArrowRight")
    settled(page, frame=1)
    page.key("End")
    settled(page, frame=NUM_FRAMES - 1)
    for clip in (REFERENCE, FIRST, SECOND):
        assert pixel(page, clip, SQUARE_LAST) == [255, 0, 0, 255] and pixel(page, clip, SQUARE_FIRST)[0] == 0
    assert page.evaluate("document.querySelector('#transport output').textContent") == "frame 5 of 5"
    page.evaluate("document.getElementById('next').click()")
    settled(page, frame=0)
    page.key("ArrowLeft")
    settled(page, frame=NUM_FRAMES - 1)


def test_alpha_alone_is_grey(page):
    choose(page, background="magenta")
    choose(page, view="alpha")
    expected = {CLEAR: 0, STRIP: 128, SQUARE_FIRST: 255}
    for point, level in expected.items():
        assert pixel(page, FIRST, point) == pytest.approx([level, level, level, 255], abs=1)
    page.key("1")
    settled(page)
    assert pixel(page, FIRST, CLEAR) == [255, 0, 255, 255]


def test_difference_to_the_reference_is_a_heat_map(page):
    choose(page, view="alpha difference")
    nowhere = pixel(page, FIRST, STRIP)
    assert nowhere == [0, 0, 0, 255], "this clip is the reference's equal"
    assert pixel(page, SECOND, CLEAR) == nowhere
    assert sum(pixel(page, SECOND, STRIP)[:3]) > 400, "100 levels are more than the brightest 64"
    truth, other = moving_square()[0].astype(float), moving_square(228)[0].astype(float)
    alpha_mean = np.abs(truth - other)[..., 3].mean()
    assert f"differs from reference by {alpha_mean:.2f} of 255" in note(page, SECOND)
    # Over some background: blue times alpha differs by 100 over black, and what shines through by 100 over white.
    choose(page, view="difference")
    assert float(note(page, SECOND).split(" by ")[1].split()[0]) == pytest.approx(alpha_mean, rel=0.02)
    assert note(page, REFERENCE) == "this is what the others are compared with"


def note(page, clip):
    return page.evaluate(f"document.querySelector('figure[data-clip={clip}] .note').textContent")


def test_a_dropped_picture_lies_under_the_clips(page, tmp_path):
    picture = np.full((10, 40, 4), (10, 200, 90, 255), np.uint8)
    write_png(tmp_path / "plate.png", picture)
    page.drop_file(600, 450, tmp_path / "plate.png")
    page.wait("wanReport.state.background === 'picture'")
    settled(page)
    assert pixel(page, FIRST, CLEAR) == [10, 200, 90, 255] and pixel(page, SECOND, CLEAR) == [10, 200, 90, 255]
    assert pixel(page, FIRST, SQUARE_FIRST) == [255, 0, 0, 255]
    (tmp_path / "notes.txt").write_text("no picture")
    page.drop_file(600, 450, tmp_path / "notes.txt")
    page.wait("document.getElementById('status').textContent.includes('notes.txt: not a picture')")
    assert pixel(page, FIRST, CLEAR) == [10, 200, 90, 255]


def test_zoom_and_pan_are_linked(page):
    choose(page, background="black")
    page.evaluate("wanReport.zoom.by(4)")
    for _ in range(20):
        page.key("j")
        page.key("i")
    settled(page)
    # The window's corner is the clip's: an eighth of the canvas from it is pixel (1, 0.75), half of it (4, 3).
    for clip in (FIRST, SECOND):
        assert pixel(page, clip, (14, 10)) == [0, 0, 0, 255]
        assert pixel(page, clip, (20, 20)) == [255, 0, 0, 255]
    page.key("0")
    settled(page)
    assert pixel(page, FIRST, SQUARE_FIRST) == [255, 0, 0, 255] and pixel(page, FIRST, (20, 20))[2] > 100


def test_tables_sort(page):
    table = "[...document.querySelectorAll('table')].find(t => t.caption?.textContent === 'Clips')"
    column = "[...{}.querySelectorAll('thead button')].findIndex(b => b.textContent === '{}')"
    read = f"[...{table}.tBodies[0].rows].map(row => row.cells[0].textContent)"
    assert page.evaluate(read) == ["first", "second"]
    seed = column.format(table, "seed")
    for order, names in (("ascending", ["first", "second"]), ("descending", ["second", "first"])):
        page.evaluate(f"{table}.querySelectorAll('thead button')[{seed}].click()")
        assert page.evaluate(read) == names
        assert page.evaluate(f"{table}.querySelectorAll('thead th')[{seed}].getAttribute('aria-sort')") == order


def test_playing_shows_transparent_video(page):
    choose(page, background="magenta")
    page.evaluate("document.getElementById('play').click()")
    page.wait("wanReport.players.all.every(p => p.canvas.dataset.source === 'video')")
    assert pixel(page, FIRST, CLEAR) == [255, 0, 255, 255]
    page.wait("wanReport.state.frame >= 2")
    page.key(" ")
    settled(page)
    assert page.evaluate("wanReport.players.all.every(p => p.canvas.dataset.source === 'frame')"), "it stands: exact"
    frame = page.evaluate("wanReport.state.frame")
    assert pixel(page, FIRST, (5 + 4 * frame, 8)) == [255, 0, 0, 255]


DRAWS_LATE = """{
    const paint = OffscreenCanvasRenderingContext2D.prototype.drawImage;
    let left = 3;
    OffscreenCanvasRenderingContext2D.prototype.drawImage = function(...given) {
        if (left-- <= 0) paint.apply(this, given);
    };
    wanReport.videos.playsAlpha();
}"""


def test_alpha_is_judged_by_a_frame_that_was_drawn(written):
    with Page() as page:
        page.open(written)
        assert page.evaluate(DRAWS_LATE) is True


def test_a_browser_that_loses_alpha_plays_frames(written, tmp_path):
    folder = tmp_path / "page"
    shutil.copytree(written.parent, folder)
    opaque = np.full((2, 16, 16, 4), 255, np.uint8)
    with WebmAlphaWriter(tmp_path / "opaque.webm", 8) as writer:
        writer.write(opaque)
    write_handover(
        folder / "report_files" / "clips" / "probe" / "video.js", "probe/video",
        (tmp_path / "opaque.webm").read_bytes(),
    )  # fmt: skip
    with Page() as page:
        page.open(folder / "index.html")
        assert page.evaluate(DRAWS_LATE) is False
        page.evaluate("document.getElementById('play').click()")
        page.wait("wanReport.state.frame >= 2")
        assert page.evaluate("wanReport.players.all.every(p => p.canvas.dataset.source === 'frame')")
        assert page.errors == []


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
def test_nothing_hangs_over_the_window(page, width, height):
    page.resize(width, height, mobile=width < 600)
    page.wait(f"innerWidth === {width}")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    places = page.evaluate("wanReport.players.all.map(p => [p.canvas.getBoundingClientRect().left])")
    assert len({place[0] for place in places}) >= 2, "clips of one subject stand side by side"


def test_everything_has_a_name_and_text_stays_text(page):
    nameless = page.evaluate(
        "[...document.querySelectorAll('button, input, select, canvas, img, svg[role=img]')].filter(node =>"
        " !(node.getAttribute('aria-label') || node.alt || node.textContent.trim() || node.closest('label')))"
        ".map(node => node.outerHTML)"
    )
    assert nameless == []
    assert page.evaluate("document.querySelector('.group h2').textContent") == PROMPT
    assert page.evaluate("document.querySelectorAll('.group h2 b').length") == 0
