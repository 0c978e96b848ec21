"""What a user is told of a failure, and of the failure before it."""

from __future__ import annotations

import pytest

from contracts.errors import BackendUnavailable, RetrainError, StageFailed, Unforeseen
from driver.report.display import complain


def failed_twice(second: Exception) -> BaseException:
    """Return what is raised where a stage fails, and then the service does not come back."""
    try:
        try:
            raise StageFailed("train broke", why="nan")
        finally:
            _start(second)
    except Exception as error:  # noqa: BLE001  # as main does
        return error


def _start(second: Exception) -> None:
    """Fail as Window.close does: the engine's answer, and two errors made of it."""
    try:
        try:
            raise OSError("no such network")
        except OSError as error:
            raise BackendUnavailable("the container does not start", why=str(error)) from error
    except BackendUnavailable as error:
        raise second from error


def said(capsys: pytest.CaptureFixture[str]) -> list[str]:
    lines = capsys.readouterr().err.splitlines()
    return [line for line in lines if line.startswith(("first", "error"))]


def test_the_stage_comes_first_and_nothing_twice(capsys: pytest.CaptureFixture[str]) -> None:
    error = failed_twice(
        BackendUnavailable("news is down", why="the container does not start: no such network")
    )
    assert isinstance(error, RetrainError)
    complain(error)
    assert said(capsys) == ["first train broke", "error news is down"]


def test_a_cause_that_is_not_repeated_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    complain(Unforeseen("unforeseen ValueError"), failed_twice(ValueError("odd")))
    assert said(capsys) == [
        "first train broke",
        "first the container does not start",
        "error unforeseen ValueError",
    ]


def test_one_failure_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    complain(StageFailed("train broke"))
    assert said(capsys) == ["error train broke"]
