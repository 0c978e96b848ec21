"""report.html in a real browser: all of it is drawn, on every screen, and nothing is fetched."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.smoke.browser import complaints, look
from tests.unit.finished_run import FinishedRun

pytestmark = pytest.mark.slow
REFUSED = ("models", "errors", "answers", "training", "labels", "split", "time", "lineage")


def page_of(run: FinishedRun) -> Path:
    return run.run.folder / "report.html"


@pytest.mark.parametrize("width", [400, 1280])
def test_every_part_is_drawn_and_nothing_sticks_out(
    finished_run: FinishedRun, tmp_path: Path, width: int
) -> None:
    seen = look(page_of(finished_run), tmp_path, width=width)
    assert seen.width == width
    assert seen.closed <= seen.room
    assert seen.open <= seen.room
    assert tuple(seen.sections) == (*REFUSED[:-1], "service", "lineage")
    for name, (across, down) in seen.sections.items():
        assert across > 300, name
        assert down > 60, name
    titles = [title for title, *_ in seen.pictures]
    for title in ("relevant.f1", "Loss by step", "What ran when"):
        assert title in titles
    assert sum("Reliability" in title for title in titles) == 3
    assert all(across > 100 and down > 10 for _, across, down in seen.pictures)
    assert seen.smallest >= 9, "a text in a picture is too small to read"


def test_a_refused_run_has_its_report(refused_run: FinishedRun, tmp_path: Path) -> None:
    assert refused_run.raised is not None
    seen = look(page_of(refused_run), tmp_path, width=1280)
    assert tuple(seen.sections) == REFUSED
    text = page_of(refused_run).read_text(encoding="utf-8")
    assert "Refused: the candidate does not go live" in text
    assert "rules is 0.9" in text.split("<section", maxsplit=1)[0]


def test_dark_and_light_differ(finished_run: FinishedRun, tmp_path: Path) -> None:
    light, dark = (
        look(page_of(finished_run), tmp_path, width=1280, dark=each) for each in (False, True)
    )
    assert (light.dark, dark.dark) == (False, True)
    assert (light.ground, dark.ground) == ("rgb(255, 255, 255)", "rgb(20, 23, 27)")
    assert light.ink != dark.ink


def test_the_browser_has_nothing_to_complain_about(
    finished_run: FinishedRun, tmp_path: Path
) -> None:
    assert complaints(page_of(finished_run), tmp_path) == []


def test_a_request_would_be_complained_about(finished_run: FinishedRun, tmp_path: Path) -> None:
    """What the test above rests on."""
    text = page_of(finished_run).read_text(encoding="utf-8")
    asking = tmp_path / "asking.html"
    asking.write_text(text.replace("</body>", '<img src="http://192.0.2.1/x.png"></body>'))
    (line,) = complaints(asking, tmp_path)
    assert "192.0.2.1" in line


def test_it_is_small_and_one_file(finished_run: FinishedRun) -> None:
    text = page_of(finished_run).read_text(encoding="utf-8")
    assert len(text.encode()) < 1_000_000
    for link in ("src=", "url(", "@import", "<script", "<link", 'href="http'):
        assert link not in text
