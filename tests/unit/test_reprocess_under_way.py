"""Whether a stop would lose a bulk reprocess, as the backend's log tells it; or does not."""

from __future__ import annotations

import pytest

from driver.service import under_way

ASKED = 'INFO:     10.0.0.7:51234 - "POST /api/items/reprocess?force=true HTTP/1.1" 200 OK'
ASKED_PLAINLY = '10.0.0.7 - - "POST /api/items/reprocess HTTP/1.1" 200'
DONE = "INFO: Reprocessing complete: 12 processed, 0 errors"
HEALTH = '10.0.0.7 - - [27/Nov/2026:20:00:00] "GET /health HTTP/1.1" 200 15'
HOUR_S = 3600.0


def told(*lines: str, every_s: float = 1.0) -> bool | None:
    """Return what is told of lines that came one after the other, up to now."""
    times = [each * every_s for each in range(len(lines) + 1)]
    return under_way(zip(times[:-1], lines, strict=True), times[-1])


@pytest.mark.parametrize("asked", [ASKED, ASKED_PLAINLY])
def test_one_that_was_asked_for_is_under_way_until_it_is_done(asked: str) -> None:
    assert told(HEALTH) is False
    assert told(HEALTH, asked) is True
    assert told(HEALTH, asked, DONE) is False
    assert told(asked, asked, DONE) is True


def test_a_log_without_access_lines_tells_nothing() -> None:
    """The driver has just asked for the health."""
    assert told() is None
    assert told("Starting gunicorn 21.2.0", "Listening at: http://0.0.0.0:8000 (1)") is None


def test_one_that_was_done_before_the_log_begins_tells_of_a_log_that_was_rotated() -> None:
    assert told(DONE, HEALTH) is None
    assert told(DONE, ASKED) is True
    assert told(DONE, ASKED, DONE) is None


def test_one_that_had_nothing_to_do_and_never_ends_does_not_count_for_ever() -> None:
    assert told(ASKED, HEALTH, every_s=2 * HOUR_S) is True
    assert told(ASKED, HEALTH, every_s=3 * HOUR_S) is False
    assert told(ASKED, HEALTH, HEALTH, ASKED, DONE, every_s=2 * HOUR_S) is False
