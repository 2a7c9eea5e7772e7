from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree

from hypothesis import given
from hypothesis import strategies as st

from tgi_cli.runtime.bench.report.svg import HEIGHT, WIDTH, Chart, Series, render

NUMBERS = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True, width=32), st.integers(-3, 10**9).map(float)
)
SCALES = st.sampled_from(["linear", "log"])


@given(st.lists(st.tuples(NUMBERS, NUMBERS), max_size=30), SCALES, SCALES)
def test_any_points_give_a_drawing_within_its_frame(points, x_scale, y_scale) -> None:
    series = [Series("a<b", points), Series("dots", points[:3], is_points_only=True)]
    chart = Chart("t&t", "x", "y", series, x_scale, y_scale, y_lines=[(3.0, "limit")])

    figure = render(chart)

    ElementTree.fromstring(figure)  # well formed, and so escaped
    places = [float(value) for value in re.findall(r'\b(?:c?[xy][12]?)="([^"]+)"', figure)]
    assert all(-1 <= place <= max(WIDTH, HEIGHT) + 1 for place in places)


def test_every_point_says_what_it_is() -> None:
    chart = Chart("t", "users", "ms", [Series("p50", [(1.0, 20.5), (2.0, math.inf)])])

    figure = render(chart)

    assert re.findall(r'data-tip="([^"]+)"', figure) == ["p50: 20.5 at 1 users"]


def test_one_point_and_none_are_charts_too() -> None:
    assert "<circle" in render(Chart("t", "x", "y", [Series("a", [(3.0, 4.0)])], "log", "log"))
    assert "nothing to draw" in render(Chart("t", "x", "y", [Series("a", [])]))
