"""The pictures: right places, described in words, and sound for odd data."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree as ET

import pytest

from driver.report import charts, svg
from driver.report.charts import Span


def parsed(picture: str) -> ET.Element:
    """Return the picture as XML, which it has to be as well."""
    return ET.fromstring(picture)  # noqa: S314  # our own


def test_a_picture_is_described_and_escaped() -> None:
    found = parsed(svg.picture([svg.words(0, 1, "<&>")], title='"a" < b', text="c & d", height=9))
    assert found.get("role") == "img"
    assert (found.findtext("title"), found.findtext("desc")) == ('"a" < b', "c & d")
    assert found.findtext("text") == "<&>"


@pytest.mark.parametrize(
    ("hits", "rows", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_the_interval_of_a_share_is_wilsons(hits: int, rows: int, low: float, high: float) -> None:
    """The examples of Newcombe (1998), Statistics in Medicine 17:857, table I, method 3."""
    assert charts.wilson(hits / rows, rows) == pytest.approx((low, high), abs=0.0001)


def test_a_measure_has_its_dot_and_its_line_at_their_places() -> None:
    models = {
        "candidate": {"value": 0.5, "low": 0.25, "high": 0.75},
        "champion": {"value": 1.2, "low": -0.3, "high": 2.0},
    }
    found = parsed(charts.intervals("kappa", models))
    dots = [each.get("cx") for each in found.iter("circle")]
    assert dots == ["50.00%", "100.00%"], "a kappa below 0 or a value above 1 stays in the picture"
    whiskers = [
        (each.get("x1"), each.get("x2"))
        for each in found.iter("line")
        if "whisker" in str(each.get("class"))
    ]
    assert whiskers == [("25.00%", "75.00%"), ("0.00%", "100.00%")]
    assert "candidate 0.500 (0.250 to 0.750)" in str(found.findtext("desc"))


def test_reliability_without_an_answer_has_only_its_frame() -> None:
    found = parsed(charts.reliability("candidate", "score", "good", []))
    assert not list(found.iter("circle"))
    assert "share good" in [each.text for each in found.iter("text")]


def test_the_perfectly_calibrated_stands_on_the_diagonal() -> None:
    bins = [{"stated": 0.5, "true": 0.5, "rows": 8}]
    (dot,) = parsed(charts.reliability("candidate", "score", "good", bins)).iter("circle")
    ideal = parsed(charts.reliability("candidate", "score", "good", [])).find("polyline")
    assert ideal is not None
    ends = [tuple(map(float, each.split(","))) for each in str(ideal.get("points")).split()]
    middle = [(one + other) / 2 for one, other in zip(*ends, strict=True)]
    assert [float(str(dot.get("cx"))), float(str(dot.get("cy")))] == pytest.approx(middle)


def test_losses_leave_out_what_is_not_finite() -> None:
    training = [(1.0, 2.0), (2.0, math.nan), (3.0, 1.0), (4.0, math.inf)]
    found = parsed(charts.losses(training, [(2.0, 1.5), (4.0, 1.25)], best=4))
    lines = [str(each.get("points")).split() for each in found.iter("polyline")]
    assert [len(line) for line in lines] == [2, 2]
    assert "training from 2.000 to 1.000; validation from 1.500 to 1.250" in str(
        found.findtext("desc")
    )
    assert charts.losses([], []) == ""
    assert charts.losses([(1.0, math.nan)], []) == ""


@pytest.mark.parametrize("loss", [0.0, 1e-4, 0.37, 12.5, 40_000.0])
def test_losses_fit_their_axes_whatever_their_size(loss: float) -> None:
    found = parsed(charts.losses([(1.0, loss), (1000.0, loss / 2)], []))
    heights = [float(place) for place in re.findall(r",([\d.]+)", str(found[-1].get("points")))]
    assert all(12 <= each <= 250 for each in heights)
    assert 3 <= len(list(found.iter("text"))) <= 14


def test_many_points_are_drawn_thin_and_smoothed() -> None:
    jumpy = [(float(step), 2.0 + step % 2) for step in range(200)]
    found = parsed(charts.losses(jumpy, []))
    raw, smooth = (
        [float(place) for place in re.findall(r",([\d.]+)", str(each.get("points")))]
        for each in found.iter("polyline")
    )
    assert max(raw) - min(raw) > 4 * (max(smooth) - min(smooth))


def test_the_time_that_the_service_was_away_is_cut_to_the_run() -> None:
    """A run that goes on with another's window began when the service was away already."""
    rows = [Span("train", 0, 50, "done"), None, Span("verify", 99.9, 100, "failed")]
    found = parsed(charts.timeline(rows, [(-500, 50)], 100))
    bars = {str(each.get("class")): each for each in found.iter("rect")}
    assert bars["away"].get("x") == "0.00%"
    assert bars["away"].get("width") == "50.00%"
    assert bars["span done"].get("width") == "50.00%"
    assert float(str(bars["span failed"].get("y"))) > 2 * charts.TRACK
    assert "train from 0 s to 50 s" in str(found.findtext("desc"))


@pytest.mark.parametrize("whole", [0.0, 0.4, 9.0, 55.0, 3600.0, 5 * 3600.0, 9 * 86400.0])
def test_any_length_has_a_few_ticks(whole: float) -> None:
    found = parsed(charts.timeline([Span("fetch", 0, whole, "done")], [], whole))
    ticks = [each.text for each in found.iter("text")]
    assert ticks[0] == "0"
    assert len(ticks) <= 10
    assert len(set(ticks)) == len(ticks)
