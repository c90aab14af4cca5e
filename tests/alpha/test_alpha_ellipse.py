import numpy as np
import pytest

from wan_alpha.alpha.ellipse import Ellipse, enlarge_to_cover, fit_ellipse, gaussian, rasterize_ellipse


def covered_by(center_x, center_y, half_major, half_minor, angle, height=40, width=50):
    y, x = np.mgrid[0:height, 0:width]
    turn = np.radians(angle)
    u = (x - center_x) * np.cos(turn) + (y - center_y) * np.sin(turn)
    v = (y - center_y) * np.cos(turn) - (x - center_x) * np.sin(turn)
    return ((u / half_major) ** 2 + (v / half_minor) ** 2 <= 1).astype(float)


@pytest.mark.parametrize("angle", [0, 30, 75, 120])
def test_fit_finds_a_drawn_ellipse(angle):
    fitted = fit_ellipse(covered_by(24.0, 19.0, 12.0, 6.0, angle))
    assert fitted.center_x == pytest.approx(24, abs=0.1) and fitted.center_y == pytest.approx(19, abs=0.1)
    assert fitted.half_major == pytest.approx(12, abs=0.8) and fitted.half_minor == pytest.approx(6, abs=0.8)
    turned = (fitted.angle - angle + 90) % 180 - 90
    assert abs(turned) < 2


def test_direction_comes_from_solid_cells():
    coverage = 0.5 * covered_by(20, 20, 14, 10, 0)
    coverage[8:33, 19:22] = 1
    fitted = fit_ellipse(coverage)
    assert abs(abs(fitted.angle) - 90) < 1
    assert abs((fit_ellipse(coverage, orientation_threshold=1.0).angle + 90) % 180 - 90) < 1


def test_few_cells_give_their_bounding_box_and_none_gives_none():
    coverage = np.zeros((6, 8))
    assert fit_ellipse(coverage) is None
    coverage[2, 1] = coverage[2, 7] = 1
    assert fit_ellipse(coverage) == Ellipse(4.0, 2.0, 3.0, 1.0, 0.0)


@pytest.mark.parametrize(
    ("ellipse", "rows"),
    [
        (Ellipse(2, 2, 1, 1, 0), ["00000", "00100", "01110", "00100", "00000"]),
        (Ellipse(2, 2, 1, 1, 45), ["00000", "01110", "01110", "01110", "00000"]),
        (Ellipse(2, 2, 2, 2, 0), ["00100", "01110", "11111", "01110", "00100"]),
        (Ellipse(4, 0, 1, 1, 0), ["00011", "00001", "00000", "00000", "00000"]),
        (Ellipse(9, 0, 0.2, 0.2, 0), ["00011", "00001", "00000", "00000", "00000"]),
    ],
)
def test_small_ellipses_are_drawn_as_diamonds(ellipse, rows):
    drawn = rasterize_ellipse(ellipse, 5, 5).astype(int)
    assert ["".join(map(str, row)) for row in drawn] == rows


@pytest.mark.parametrize("angle", [0, 20, 65, 110])
def test_large_ellipses_are_drawn_to_the_pixel_outline(angle):
    inner = covered_by(25, 20, 16, 9, angle).astype(bool)
    outer = covered_by(25, 20, 18, 11, angle).astype(bool)
    drawn = rasterize_ellipse(Ellipse(25, 20, 17, 10, angle), 40, 50)
    assert drawn[inner].all() and not drawn[~outer].any()


def test_enlarging_stops_at_the_share_or_keeps_the_best():
    cells = covered_by(25, 20, 8, 8, 0).astype(bool)
    small = Ellipse(25, 20, 5, 5, 0)
    enough = enlarge_to_cover(small, cells)
    factor = enough.half_major / 5
    assert factor == pytest.approx(1.12 ** round(np.log(factor) / np.log(1.12))) and factor > 1.5
    assert rasterize_ellipse(enough, 40, 50)[cells].mean() >= 0.98
    assert rasterize_ellipse(enough.scaled(1 / 1.12), 40, 50)[cells].mean() < 0.98
    assert enlarge_to_cover(small, cells, max_tries=2) == small.scaled(1.12)
    assert enlarge_to_cover(enough, cells) == enough
    out_of_reach = cells.copy()
    out_of_reach[0:4, 0:4] = True
    assert enlarge_to_cover(enough.scaled(1.2), out_of_reach, max_tries=3) == enough.scaled(1.2)


def test_gaussian_has_the_half_axes_as_deviations():
    values = gaussian(Ellipse(25, 20, 6, 3, 0), 41, 51)
    assert values[20, 25] == 1 and values.min() == 0
    assert values[20, 31] == pytest.approx(np.exp(-0.5), abs=1e-4)
    assert values[23, 25] == pytest.approx(np.exp(-0.5), abs=1e-4)
    assert (gaussian(Ellipse(0, 0, 1, 1, 0), 1, 1) == 0).all()
