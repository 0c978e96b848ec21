"""Which failures are worth another try: by class, and those that differ from theirs."""

from __future__ import annotations

import re

import pytest

import driver.adapters.backend  # these have errors of their own
import driver.task.shape  # noqa: F401
import serving.engine  # noqa: F401
from contracts import errors, files
from contracts.errors import RetrainError
from driver.retry import retried
from serving.http import may_pass

PASSING = {
    "DockerUnavailable": True,  # an engine that is being restarted
    "EngineUnavailable": True,  # the same; a model that loads
    "EngineBusy": True,
    "ModelFailed": True,  # a model that an engine out of memory cannot load
    "AnswerCutOff": True,  # a runner that ended
    "BackendUnavailable": True,  # workers that are starting
    "StageKilled": True,
    "VerifyUnanswered": True,  # silence is no verdict
    "StageTimedOut": True,  # one that hung; one too slow for its limit differs
    # What a person has to mend first:
    "SettingsInvalid": False,
    "ItemsInvalid": False,
    "BaseModelMissing": False,
    "GpuUnavailable": False,  # the lease has waited already
    "ModelMissing": False,
    "ModelNotAsked": False,
    "DiskFull": False,
    "WorkspaceBusy": False,
    "ImageStale": False,
    "FileUnusable": False,
    "OnePassNotCovered": False,  # another way is taken instead
    # What comes of the same input again:
    "StageFailed": False,
    "InputMissing": False,
    "OutputMissing": False,
    "OutOfMemory": False,
    "RowTooLong": False,
    "LabelsMissing": False,
    "SentinelTripped": False,
    "CandidateRefused": False,
    "VerifyFailed": False,  # the model has been taken back
    "RulesNotKept": False,
    "ReprocessFailed": False,
    "NotVerified": False,
    "TaskDrifted": False,
    "TaskInvalid": False,
    "TaskUnrenderable": False,
    "RestoreFailed": False,
    "LineageBroken": False,
    "RunUnreadable": False,
    "Unforeseen": False,
    # What ends a run:
    "WindowOpen": False,
    "Interrupted": False,
}


def test_every_class_says_whether_it_may_pass() -> None:
    found = {sub.__name__: sub.passing for sub in errors._subclasses(RetrainError)}
    assert found == PASSING


def test_the_reference_names_the_codes_that_are_tried_again() -> None:
    text = (files.ROOT / "docs/reference/exit-codes.md").read_text(encoding="utf-8")
    named = re.search(r"A stage that fails with ([\d, or]+) is started\s+again", text)
    assert named
    codes = {sub.exit_code for sub in errors._subclasses(RetrainError) if sub.passing}
    assert set(map(int, re.findall(r"\d+", named[1]))) == codes


@pytest.mark.parametrize(("name", "passing"), PASSING.items())
def test_only_what_may_pass_is_tried_again(name: str, passing: bool) -> None:
    kind = {sub.__name__: sub for sub in errors._subclasses(RetrainError)}[name]
    made: list[int] = []

    def attempt() -> None:
        made.append(1)
        raise kind("no")

    with pytest.raises(kind):
        retried(attempt, 2, 0, lambda *_: None)
    assert len(made) == (3 if passing else 1)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_server_in_trouble_is_asked_again(status: int) -> None:
    assert may_pass(status)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
def test_a_request_that_is_to_blame_is_not_sent_again(status: int) -> None:
    assert not may_pass(status)
