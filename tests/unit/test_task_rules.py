"""The label rules as a whole: severities, messages, what they may import, how they grow."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tasks.liga_relevance import Article, LigaRelevance
from tasks.liga_relevance.rules import LIBRARIES, RULES, check
from tests.unit.test_task_rules_cases import GOOD, IRRELEVANT, NEUTRAL, SHORT

ROOT = Path(__file__).parents[2]
HEAVY = ("sentencex", "rapidfuzz", "py3langid", "numpy")
TABLE_ROW = re.compile(r"\| `([a-z-]+)` \| (error|warning) \| (.+) \| (.+) \|")


def broken(content: str = SHORT, answer: dict[str, Any] = GOOD, **changes: Any) -> set[str]:
    """Return the ids of the rules that the changed answer breaks."""
    article = Article(id="1", title="Kita schließt", content=content)
    return {v.rule for v in check(article, LigaRelevance.model_validate({**answer, **changes}))}


def test_severities_and_messages() -> None:
    assert len({rule.id for rule in RULES}) == len(RULES)
    assert {rule.severity for rule in RULES} == {"error", "warning"}
    assert len({rule.message for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert len(rule.message) >= 15
        assert rule.message[-1] not in ".:"


def test_a_violation_says_what_was_found() -> None:
    article = Article(id="1", title="Kita schließt", content=SHORT)
    answer = LigaRelevance.model_validate({**GOOD, "summary": "97 Kinder leiden …"})
    messages = {v.rule: v.message for v in check(article, answer)}
    assert messages["ungrounded-number"] == (
        "Eine Zahl steht nicht im Artikel; lass sie weg: summary nennt 97"
    )
    assert "summary endet auf" in messages["ellipsis"]


def test_a_rule_names_a_few_findings_only() -> None:
    article = Article(id="1", title="Kita schließt", content=SHORT)
    numbers = ", ".join(str(number) for number in range(200, 260))
    answer = LigaRelevance.model_validate({**GOOD, "summary": f"Es sind {numbers}."})
    assert sum(v.rule == "ungrounded-number" for v in check(article, answer)) == 5


def test_a_title_alone_carries_an_answer() -> None:
    article = Article(id="1", title="Die Kita in Fulda schließt")
    answer = {
        **GOOD,
        "summary": "Eine Kita in Fulda schließt.",
        "detailed_analysis": "Die Kita steht in Fulda.",
    }
    assert check(article, LigaRelevance.model_validate(answer)) == []


@pytest.mark.parametrize(
    ("rule", "far", "near"),
    [
        ("ungrounded-number", "555 Kinder.", "555 Kinder sind betroffen."),
        ("ungrounded-date", "Es war der 3. Mai.", "Es war der 3. Mai."),
        ("ungrounded-quote", "Wir sind am Ende.", "„Wir sind am Ende“, heißt es."),
        ("ungrounded-name", "Petra Meier kam.", "Petra Meier kam."),
    ],
)
def test_only_what_the_model_sees_grounds_an_answer(rule: str, far: str, near: str) -> None:
    answer = {**GOOD, **NEUTRAL, "summary": near}
    assert rule not in broken(content=f"Die Kita schließt. {far}", answer=answer)
    assert rule in broken(content=f"Die Kita schließt. {'x' * 6000} {far}", answer=answer)


def test_title_source_and_date_ground_an_answer() -> None:
    article = Article(
        id="1",
        title="Petra Meier ist 40",
        content="Die Kita in Fulda schließt.",
        source="Agentur Kassel",
        published_at="2026-03-05T10:00:00",
    )
    answer = {
        **GOOD,
        "summary": "Petra Meier wird 40. Das meldet die Agentur in Kassel am 5. März 2026.",
        "detailed_analysis": "Die Kita schließt.",
    }
    assert check(article, LigaRelevance.model_validate(answer)) == []


def test_an_irrelevant_answer_has_no_prose_to_judge() -> None:
    assert broken(answer=IRRELEVANT, content="A football match ended 3:1 in Berlin.") == set()


@pytest.mark.parametrize(
    "command", ["import tasks.liga_relevance.rules", "import driver.__main__, driver.plan"]
)
def test_heavy_libraries_load_only_when_a_text_is_judged(command: str) -> None:
    code = f"{command}\nimport sys\nprint(sorted({set(HEAVY)!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_german_answers_do_without_the_language_model() -> None:
    code = (
        "import sys\n"
        "from tests.unit.test_task_rules import broken\n"
        "assert broken() == set()\n"
        "print('py3langid' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"


def test_what_the_prompts_say_of_a_field_is_no_text_for_it() -> None:
    prompts = ROOT / "tasks/liga_relevance/prompts"
    guide = (prompts / "label.md").read_text(encoding="utf-8")
    system = (prompts / "system.md").read_text(encoding="utf-8")
    for name in ("summary", "detailed_analysis", "argumentationskette", "reasoning"):
        of_field = [guide.partition(f"## {name}\n")[2], system.partition(f"- {name}: ")[2]]
        for text in of_field:
            line = text.splitlines()[0]
            value: Any = [line, "Kinder leiden."] if name == "argumentationskette" else line
            assert "placeholder" in broken(**{name: value}), line


def test_pins_are_the_versions_that_the_rules_name() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    image = (ROOT / "images/labeler/requirements.txt").read_text(encoding="utf-8").splitlines()
    for name, version in LIBRARIES.items():
        assert f"{name}=={version}" in project["dependencies"]
        assert f"{name}=={version}" in image


def test_the_reference_lists_the_rules() -> None:
    page = (ROOT / "docs/reference/label-rules.md").read_text(encoding="utf-8")
    rows = TABLE_ROW.findall(page)
    assert [(rule, severity) for rule, severity, _, _ in rows] == [
        (rule.id, rule.severity) for rule in RULES
    ]
    for _, _, what, example in rows:
        assert what.strip()
        assert example.strip()


# Each is repeated to a length; a rule whose work grows with its square would take minutes for it.
# Unclosed quotes are such a thing for sentencex, runs of names and dates for regular expressions.
HOSTILE = (
    "„", "“", "`", "A. ", "1. ", "3. Mai ", "Petra ", "Liga könnte Ansicht der ", "könnte sich ",
    "Kinder leiden sehr oft hier. ", "[…] ", "\n", "'a ", "‚a‘ ", "“, sagte Petra ",
    "Leiter Petra ", "keine weitere ", "The Kinder ", "könnte - ", "Liga hat ",
    "Eltern könnten droht. ", "ende des ",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("where", ["answer", "article"])
def test_hostile_texts_of_100_000_characters_are_judged(where: str) -> None:
    """Time grows with the length, not with its square: else this would run into its limit."""
    code = (
        "import sys\n"
        "from tests.unit.test_task_rules import HOSTILE, judge_hostile\n"
        "print(sum(judge_hostile(piece, sys.argv[1], 100_000) for piece in HOSTILE))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, where],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert int(done.stdout) > len(HOSTILE)


def judge_hostile(piece: str, where: str, length: int) -> int:
    """Judge a text made of one piece; its lengths are past what the output model lets through."""
    text = (piece * length)[:length]
    if where == "answer":
        values = {**GOOD, "summary": text, "detailed_analysis": text, "reasoning": text}
        values["argumentationskette"] = [text]
        article = Article(id="1", title="Kita", content=SHORT)
        return len(check(article, LigaRelevance.model_construct(None, **values)))
    article = Article.model_construct(None, id="1", title=text, content=text, source=text)
    article = article.model_copy(update={"published_at": text})
    return 1 + len(check(article, LigaRelevance.model_validate(GOOD)))
