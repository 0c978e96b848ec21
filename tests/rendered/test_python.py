"""The rendered Python files: compiled, imported on their own, typed strictly, and as they judge."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from fastapi import FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from contracts.files import ROOT, read_jsonl
from tasks import InvalidAnswer, Task, load_task
from tests.rendered.kinds import KINDS
from tests.rendered.kinds_task import KINDS_TASK
from tests.rendered.loaded import taken

_PYTHON = ("parser.py", "api_schemas.py", "columns.py", "migration.py")
_ANSWERS = [row["label"] for row in read_jsonl(ROOT / "examples/liga-sample/labels.jsonl")]
_SOME = [*[a for a in _ANSWERS if a["relevant"]][:10], *_ANSWERS[:3]]


@pytest.fixture(scope="session")
def parser(rendered: Path) -> ModuleType:
    return taken(rendered, "parser")


@pytest.fixture(scope="session")
def kinds_parser(rendered_kinds: Path) -> ModuleType:
    return taken(rendered_kinds, "parser")


@pytest.mark.parametrize("folder", ["rendered", "rendered_kinds"])
def test_each_stands_alone(folder: str, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue(folder)
    program = (
        "import importlib.util as u, pathlib, sys, warnings\n"
        "warnings.simplefilter('error')\n"
        "for name in sys.argv[2:]:\n"
        "    text = (pathlib.Path(sys.argv[1]) / name).read_text(encoding='utf-8')\n"
        "    exec(compile(text, name, 'exec'), {'__name__': name.removesuffix('.py')})\n"
        "print([m for m in ('tasks', 'driver', 'contracts', 'images') if m in sys.modules])\n"
    )
    # parser and schemas need no database, so neither may import one.
    for names in (_PYTHON[:2], _PYTHON[2:]):
        done = subprocess.run(
            [sys.executable, "-I", "-c", program, path, *names],
            capture_output=True,
            text=True,
            check=False,
            cwd=path,
        )
        assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_types_are_strict(
    rendered: Path, rendered_kinds: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    for folder in (rendered, rendered_kinds):
        for name in _PYTHON:
            (tmp_path / f"{folder.name.rstrip('0')}_{name}").write_bytes(
                (folder / name).read_bytes()
            )
    cache = request.config.cache
    assert cache
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--config-file", "", "--cache-dir"),
            *(cache.mkdir("mypy-rendered"), "."),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout


# --- the parser -------------------------------------------------------------------------------
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=4,
)
_NEAR: st.SearchStrategy[Any] = st.sampled_from(
    [
        *("", " ", "null", "none", "AK1", "high", "critical", "x" * 41, "x" * 2501, "2026-02-30"),
        *(0, 1, 1.01, -0.01, 1e400, True, None, {}),
        *("\0", [], [""], ["AK1", "AK1"], ["AK9"], ["x" * 501]),
    ]
)
_AROUND = ["```json\n", "\n```", " ", "//", '{"a": 1}', "\ufeff", "\x00", ",", "NaN", "}"]


@st.composite
def _texts(draw: st.DrawFn, answers: list[dict[str, Any]]) -> str:
    """Draw an answer with some fields changed, and perhaps a text that is broken as such."""
    answer = dict(draw(st.sampled_from(answers)))
    for name in draw(st.lists(st.sampled_from(sorted(answer)), max_size=2, unique=True)):
        way = draw(st.sampled_from(["near", "any", "gone", "other"]))
        if way == "gone":
            del answer[name]
        elif way == "other":
            answer[name] = draw(st.sampled_from(answers))[name]
        else:
            answer[name] = draw(_NEAR if way == "near" else _JSON)
    if draw(st.integers(0, 9)) == 0:
        answer[draw(st.text(max_size=5))] = draw(_JSON)
    text = json.dumps(answer, ensure_ascii=draw(st.booleans()))
    if draw(st.integers(0, 4)) == 0:
        at = draw(st.integers(0, len(text)))
        cut = draw(st.integers(0, 3))
        text = text[:at] + draw(st.sampled_from([*_AROUND, text])) + text[at + cut :]
    return text


def _verdict(parse: Any, refused: type[ValueError], text: str) -> Any:
    try:
        return parse(text).model_dump(mode="json")
    except refused as error:
        return f"refused: {error}"


def _judged_alike(task: Task, parser: ModuleType, text: str) -> Any:
    expected = _verdict(task.parse, InvalidAnswer, text)
    assert _verdict(parser.parse, parser.InvalidAnswer, text) == expected
    return expected


@settings(max_examples=400, deadline=None)
@given(text=_texts(_SOME))
def test_the_parser_judges_as_the_task_does(parser: ModuleType, text: str) -> None:
    _judged_alike(load_task("liga_relevance"), parser, text)


@settings(max_examples=200, deadline=None)
@given(text=_texts([KINDS]))
def test_the_parser_of_every_kind_does_too(kinds_parser: ModuleType, text: str) -> None:
    assert _judged_alike(KINDS_TASK, kinds_parser, json.dumps(KINDS)) == KINDS
    _judged_alike(KINDS_TASK, kinds_parser, text)


def test_the_parser_takes_the_sample_and_refuses_what_contradicts_itself(
    parser: ModuleType,
) -> None:
    task = load_task("liga_relevance")
    for answer in _ANSWERS[:60]:
        assert _judged_alike(task, parser, json.dumps(answer)) == answer
    irrelevant = next(a for a in _ANSWERS if not a["relevant"])
    for wrong in ({"priority": "high"}, {"summary": "Text."}, {"relevant": True}):
        said = _judged_alike(task, parser, json.dumps(irrelevant | wrong))
        assert said.startswith("refused: answer: Value error")


# --- the API's schemas ------------------------------------------------------------------------
def test_a_page_survives_what_a_row_should_not_hold(rendered: Path) -> None:
    schemas = taken(rendered, "api_schemas")
    bad = {**_SOME[0], "assigned_aks": "AK1", "priority": "none", "relevance_score": [], "x": 1}
    rows = TypeAdapter(list[schemas.LigaRelevanceRead])  # type: ignore[name-defined]
    good, mended = rows.dump_python(rows.validate_python([_SOME[0], bad]), mode="json")
    assert good == _SOME[0]
    blank = {"assigned_aks": None, "priority": None, "relevance_score": None}
    assert mended == _SOME[0] | blank
    app = FastAPI()
    app.get("/items", response_model=schemas.LigaRelevanceRead)(lambda: None)
    told = app.openapi()["components"]["schemas"]["LigaRelevanceRead"]
    assert list(told["properties"]) == list(_SOME[0])
    assert ["high", "medium", "low"] in [
        option.get("enum") for option in told["properties"]["priority"]["anyOf"]
    ]
    assert told["properties"]["priority"]["title"] == "Priorität"


@pytest.mark.parametrize(
    ("change", "taken_as"),
    [
        ({}, {}),
        ({"priority": None}, {"priority": None}),
        ({"priority": "low"}, {"priority": "low"}),
        ({"assigned_aks": ["AK1"]}, {"assigned_aks": ["AK1"]}),
        ({"assigned_aks": None}, None),
        ({"assigned_aks": ["AK1", "AK2", "AK3", "AK4"]}, None),
        ({"priority": "critical"}, None),
        ({"summary": "x" * 2501}, None),
        ({"reasoning": "Nobody edits this."}, None),
    ],
)
def test_people_change_what_they_may(
    rendered: Path, change: dict[str, Any], taken_as: dict[str, Any] | None
) -> None:
    schemas = taken(rendered, "api_schemas")
    try:
        found = schemas.LigaRelevanceEdit.model_validate(change).model_dump(exclude_unset=True)
    except ValueError:
        found = None
    assert found == taken_as


def test_limits_inside_of_an_object_hold_for_people_too(rendered_kinds: Path) -> None:
    edit = taken(rendered_kinds, "api_schemas").KindsEdit
    assert edit.model_validate({"parts": KINDS["parts"]}).model_dump(mode="json")["parts"]
    too_long = KINDS["parts"][0] | {"name": "x" * 13}
    with pytest.raises(ValueError, match=r"parts\.0\.name"):
        edit.model_validate({"parts": [too_long]})
