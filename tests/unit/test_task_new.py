"""`driver task new`: what it writes is a whole task, in a copy of the checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from contracts import files
from contracts.errors import SettingsInvalid
from driver.settings import Settings
from driver.task import begin, given

FIELDS = (
    "headline:text:What the item is about.",
    "mood:good|çok kötü|so-so?:How the writer feels",
    "due:date?",
    "urgent:flag",
    "trust:score:How far it is to be trusted, as a part of $1",
    "people:count?",
    "topics:list",
)
_CHECKOUT = ("tasks", "contracts", "driver", "images", "serving", "examples", "tests")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the checkout in which two tasks were begun."""
    root = tmp_path_factory.mktemp("checkout")
    for name in _CHECKOUT:
        left_out = shutil.ignore_patterns("__pycache__", "node_modules", "faults", "e2e")
        shutil.copytree(files.ROOT / name, root / name, ignore=left_out)
    shutil.copy(files.ROOT / "pyproject.toml", root)
    named = [word for each in FIELDS for word in ("--field", each)]
    for words in (
        ["letters_in", *named, "--language", "French"],
        ["verdicts", "--field", "why:text"],
    ):
        done = _run(root, "driver", "task", "new", *words)
        assert done.returncode == 0, done.stderr
        assert f"make demo TASK={words[0]}" in done.stdout
    return root


def _run(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_passes_what_every_task_must(checkout: Path) -> None:
    done = _run(checkout, "pytest", "-q", "-p", "no:cacheprovider", "tests/unit/test_every_task.py")
    assert done.returncode == 0, done.stdout[-3000:]
    assert "passed" in done.stdout


def test_its_code_is_as_the_shipped_one(checkout: Path) -> None:
    for task in ("letters_in", "verdicts"):
        for words in (("ruff", "check"), ("ruff", "format", "--check"), ("mypy",)):
            done = _run(checkout, *words, f"tasks/{task}")
            assert done.returncode == 0, done.stdout + done.stderr


def test_its_answers_are_as_they_were_asked_for(checkout: Path) -> None:
    code = (
        "import tasks\n"
        "task = tasks.load_task('letters_in')\n"
        "assert list(task.output.model_fields) == "
        "['headline', 'mood', 'due', 'urgent', 'trust', 'people', 'topics']\n"
        "assert 'in French' in task.system_prompt and 'How the writer feels' in task.label_prompt\n"
        "good = dict(headline='Ice cream.', mood=None, due='2026-03-01', urgent=True, trust=0.5,"
        " people=3, topics=['ice'])\n"
        "import json\n"
        "answer = task.parse(json.dumps(good))\n"
        "assert (task.stratum(answer), task.positive(answer)) == ('none', True)\n"
        "item = task.item(id='1', title='Ice', text='Ice cream. Who wants 3?')\n"
        "assert task.check(item, answer) == []\n"
        "bad = task.output.model_validate({**good, 'headline': '4 cones …', 'topics': [' ']})\n"
        "print(*sorted(v.rule for v in task.check(item, bad)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["blank", "ellipsis", "ungrounded-number"], done.stderr


@pytest.mark.parametrize(
    "name", ["verdicts", "chat", "support_messages", "Letters", "class", "a/b"]
)
def test_a_name_that_cannot_be_is_refused(checkout: Path, name: str) -> None:
    before = sorted(path.name for path in (checkout / "tasks").iterdir())
    done = _run(checkout, "driver", "task", "new", name, "--field", "why:text")
    assert done.returncode == SettingsInvalid.exit_code, done.stdout + done.stderr
    assert sorted(path.name for path in (checkout / "tasks").iterdir()) == before


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Übung", "Take uebung, say."),
        ("my-task", "Take my_task, say."),
        ("Meine Straße 2", "Take meine_strasse_2, say."),
        ("class", "a word of the Python language"),
        ("2", "Take another one."),
    ],
)
def test_a_name_that_is_refused_is_told_the_nearest_one(name: str, said: str) -> None:
    with pytest.raises(SettingsInvalid) as refused:
        given.task_name(name)
    assert said in f"{refused.value.why} {refused.value.todo}"


@pytest.mark.parametrize(
    ("field", "meaning"),
    [
        ("who:text?:Name; null, wenn keiner", "Name; null, wenn keiner"),
        ("who:text?:The name.", "The name; null if there is none."),
        ("mood:good|bad?:How it is", "How it is: good, bad; null if there is none."),
        ("mood:good|bad", "Mood of the item. One of good, bad."),
    ],
)
def test_what_a_field_means_is_said_once(field: str, meaning: str) -> None:
    parts = begin._Parts("letters_in", given.fields([field]), "English")
    assert f'description="{meaning}"' in parts.package()["output.py"]


def test_no_two_texts_of_a_made_up_label_are_the_same() -> None:
    """A tiny model that has written a text twice does not know which field comes next."""
    made = given.fields(["why:text", "urgent:flag", "wish:text", "note:text?"])
    rows = begin._Parts("letters_in", made, "English").sample()["labels.jsonl"].splitlines()
    for row in rows:
        label = json.loads(row)["label"]
        assert len({label[name] for name in ("why", "wish", "note")}) == 3
    assert len(rows) == 120


def test_what_is_refused_is_told_as_it_was_written(checkout: Path) -> None:
    """Colons around a word are no picture."""
    done = _run(
        checkout, "driver", "task", "new", "xy", "--language", "French", "--field", "a:Date:x"
    )
    assert done.returncode == 10
    assert "'a:Date:x'" in done.stderr


def test_without_a_terminal_fields_must_be_named(checkout: Path) -> None:
    done = _run(checkout, "driver", "task", "new", "nothing")
    assert done.returncode == SettingsInvalid.exit_code
    assert "--field NAME:TYPE" in done.stderr


@pytest.mark.parametrize(
    "text",
    [
        "summary",
        ":text",
        "summary:",
        "summary:prose",
        "Summary:text",
        "for:text",
        "json:text",
        "model_kind:text",
        "ok:flag?",
        "kind:one",
        "kind:a|a",
        "kind:a|",
        "kind:a|\x07",
        f"kind:a|{'b' * 41}",
        'why:text:What """they""" say',
    ],
)
def test_a_field_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(SettingsInvalid):
        given.field(text)


def test_a_field_may_have_a_name_of_one_letter() -> None:
    assert given.field("n:count").name == "n"


def test_its_demo_hangs_on_no_single_answer() -> None:
    parts = begin._Parts("letters_in", given.fields(FIELDS), "Türkçe")
    demo = Settings.model_validate(yaml.safe_load(parts.sample()["demo.yaml"]))
    assert demo.verify.constrained, "or one canary that is not valid ends it"
    assert (demo.train.max_steps, demo.evaluate.min_valid) == (300, 0)


def test_values_may_be_of_any_language() -> None:
    values = ("très bon", "kötü", "hayır", "плохо", "2", "a-b", "a_b", 'so "so"')
    parts = begin._Parts("letters_in", given.fields([f"mood:{'|'.join(values)}"]), "Türkçe")
    made_files = parts.package()
    assert given.members(values) == {
        "très bon": "TRES_BON",
        "kötü": "KOETUE",
        "hayır": "HAYIR",
        "плохо": "VALUE_4",
        "2": "VALUE_5",
        "a-b": "A_B",
        "a_b": "VALUE_7",
        'so "so"': "SO_SO",
    }
    made: dict[str, Any] = {}
    exec(made_files["output.py"], made)  # noqa: S102  # the module that was just written
    assert tuple(each.value for each in made["Mood"]) == values
    compile(made_files["__init__.py"], "__init__.py", "exec")


@pytest.mark.parametrize("language", ["", "  ", "a\x00b"])
def test_a_language_must_be_named(language: str) -> None:
    with pytest.raises(SettingsInvalid, match="no language"):
        begin.begin("nothing", ["why:text"], language)


def test_fields_of_one_name_are_refused() -> None:
    for texts in (["why:text", "why:flag"], ["a_b:x|y", "a__b:x|y"]):
        with pytest.raises(SettingsInvalid):
            given.fields(texts)


def test_fields_are_asked_for_at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    typed = iter(["why:text", "kind:prose", "kind:a|b", ""])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda _: next(typed))
    assert [each.name for each in given.fields([])] == ["why", "kind"]


def test_the_end_of_the_input_ends_the_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    typed = iter(["why:text"])

    def read(_: str) -> str:
        for text in typed:
            return text
        raise EOFError

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", read)
    assert [each.name for each in given.fields([])] == ["why"]


@pytest.mark.parametrize("renamed", [0, 1])
def test_a_call_that_was_cut_off_is_ended_by_the_same_call(
    renamed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It dies before the rename of the sample, or before that of the task."""
    for name in ("tasks", "examples"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(files, "ROOT", tmp_path)
    real = Path.rename
    done: list[Path] = []

    def dying(path: Path, target: Path) -> Path:
        if path.suffix == files.UNFINISHED and len(done) == renamed:
            raise KeyboardInterrupt
        done.append(target)
        return real(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", dying)
        patched.setattr("shutil.rmtree", lambda *_, **__: None)  # a kill tidies nothing up
        with pytest.raises(KeyboardInterrupt):
            begin.begin("letters_in", FIELDS, "English")
    assert not (tmp_path / "tasks" / "letters_in").exists()
    assert begin.begin("letters_in", FIELDS, "English") == 0
    names = sorted(
        path.name for folder in ("tasks", "examples") for path in (tmp_path / folder).iterdir()
    )
    assert names == ["letters_in", "letters_in-sample"]
    with pytest.raises(SettingsInvalid, match="taken"):
        begin.begin("letters_in", FIELDS[:2], "English")
