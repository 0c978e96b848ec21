"""`driver task check` follows an answer through functions and parsers, and values to their list."""

from __future__ import annotations

from pathlib import Path

import pytest

from driver.task.check.checkout import Checkout
from driver.task.check.finding import Severity
from driver.task.check.mention import mention
from driver.task.check.python_code import Code
from tests.unit.checkout import ASKS, PROCESSOR, SCHEMAS, SOURCE, TYPES, change, findings, unclear

_TAKEN = '            "tags": data.get("tags", []),\n'
_GROUPS = "'AK1' | 'AK2' | 'AK3' | 'AK4' | 'AK5' | 'QAG'"
_NAMES = ["AK1", "AK2", "AK3", "AK4", "AK5"]


def _handed_over(checkout: Path) -> None:
    """Let the processor hand its answer right into the function that stores it."""
    loads = 'json.loads(text[text.index("{") : text.rindex("}") + 1])'
    given = f"self.keep(item, {loads})\n\n    def keep(self, item: Item, data: dict) -> None:"
    change(checkout, PROCESSOR, f"data = {loads}", given)


def test_an_answer_handed_into_a_function_is_followed(checkout: Path) -> None:
    _handed_over(checkout)
    assert findings(checkout) == []
    change(checkout, PROCESSOR, _TAKEN, "")
    assert [each.differs for each in findings(checkout)] == ["tags of an answer is not read"]


def test_an_answer_that_the_function_keeps_as_a_whole_loses_nothing(checkout: Path) -> None:
    _handed_over(checkout)
    change(checkout, PROCESSOR, _TAKEN, "            **data,\n")
    assert findings(checkout) == []


_LISTS = f"""COLUMNS = {(*SOURCE.storage.columns,)[:2]}
KEYS = {(*SOURCE.analysed,)}
"""
_LOOPS = """import json, names
def take(item, text):
    answer = json.loads(text)
    item.priority, item.assigned_aks = answer["priority"], answer["assigned_aks"]
    for column in names.COLUMNS:
        setattr(item, column, answer[column])
    item.meta["llm_analysis"] = {key: answer[key] for key in names.KEYS}
"""


def test_a_module_of_names_is_no_processor_and_counts_for_the_one_that_names_them(
    tmp_path: Path,
) -> None:
    (tmp_path / "names.py").write_text(_LISTS)
    (tmp_path / "store.py").write_text(_LOOPS + ASKS)
    assert findings(tmp_path) == []
    (tmp_path / "names.py").write_text(_LISTS.replace("'tags', ", ""))
    assert any("maybe with tags" in each for each in unclear(tmp_path))


_FIELDS = [field.name for field in SOURCE.fields]
_ASKER = f"""import dataclasses, json
@dataclasses.dataclass
class Answer:
{"".join(f"    {name}: object = None{chr(10)}" for name in _FIELDS)}
def ask(item) -> Answer:
    {ASKS}    return Answer(**{{k: v for k, v in json.loads(text).items() if v}})
"""
_READS = "import asker\ndef put(row, answer: asker.Answer):\n"


def test_attributes_of_an_answers_class_are_read_where_no_keys_are(tmp_path: Path) -> None:
    (tmp_path / "asker.py").write_text(_ASKER)
    lines = [f"    row.x = answer.{name}\n" for name in _FIELDS]
    (tmp_path / "store.py").write_text(_READS + "".join(lines))
    assert findings(tmp_path) == []
    (tmp_path / "store.py").write_text(_READS + "".join(lines).replace("answer.tags", "None"))
    assert [each.differs for each in findings(tmp_path)] == ["tags of an answer is not read"]
    (tmp_path / "store.py").write_text(
        "import asker\ndef put(row):\n    answer = asker.ask(row)\n"
        "    row.x, row.y = answer.summary, answer.priority\n    row.z = dict(answer)\n"
    )
    assert "store.py:5: an answer goes on as a whole" in unclear(tmp_path)


def test_an_enum_that_is_made_of_a_text_is_said_to_raise(tmp_path: Path) -> None:
    enum = "import enum\nclass Priority(enum.Enum):\n    A = 'high'\n    B = 'low'\n"
    (tmp_path / "store.py").write_text(f"{enum}def take(raw):\n    return Priority(raw)\n")
    [found] = findings(tmp_path)
    assert (
        found.leads_to == "the call in store.py:6 raises ValueError for medium, if it is of answers"
    )


def test_a_model_that_is_no_items_may_be_of_what_is_stored(checkout: Path) -> None:
    fields = "".join(f"    {name}: object = None\n" for name in SOURCE.analysed if name != "tags")
    (checkout / "backend/app/details.py").write_text(
        f"from pydantic import BaseModel\nclass Details(BaseModel):\n{fields}"
    )
    [found] = findings(checkout)
    assert found.leads_to == "what is made with it has no tags: it is not stored, or pages lack it"


@pytest.mark.parametrize("kind", ["After", "Before"])
def test_a_response_has_the_values_of_a_small_base(checkout: Path, kind: str) -> None:
    alias = f"Shown = Annotated[Literal['high', 'low', 'none'], {kind}Validator(str)]"
    base = f"{alias}\nclass Row(BaseModel):\n    priority: Shown\nclass ItemResponse(Row):"
    change(checkout, SCHEMAS, "class ItemResponse(BaseModel):", base)
    change(checkout, SCHEMAS, "    priority: Priority = Field(default=Priority.NONE)\n", "")
    [found] = findings(checkout)
    assert found.differs == "Literal does not know medium, of priority"
    assert (found.severity is Severity.BREAKS) == (kind == "After")


def test_the_prompt_of_another_feature_is_not_compared(checkout: Path) -> None:
    (checkout / "backend/app/subject.py").write_text(
        'def subject(t):\n    return ask([{"role": "system", "content": "Ein Betreff."}])\n'
    )
    assert findings(checkout) == []
    assert "subject.py:2: no module near reads the task's fields" in "\n".join(unclear(checkout))


def test_values_of_a_list_of_objects_are_read_and_a_template_is_not(checkout: Path) -> None:
    entries = ", ".join(f"{{ value: '{name}', label: 'x' }}" for name in _NAMES)
    listed = f"(typeof GROUPS)[number]['value']\nexport const GROUPS = [{entries}] as const"
    change(checkout, TYPES, _GROUPS, listed)
    assert ["QAG" in each.differs for each in findings(checkout)] == [True]
    change(checkout, TYPES, listed, "`AK${1 | 2 | 3 | 4 | 5}` | 'QAG'")
    assert findings(checkout) == []
    assert "has a template" in "\n".join(unclear(checkout))


def test_only_what_has_to_do_with_the_task_is_parsed(tmp_path: Path) -> None:
    texts = {
        "model.py": "from limits import MOST\nsummary: str\npriority: str\n",
        "limits.py": "MOST = 5\n",
        "worker.py": "import model\n",
        "main.py": "import worker\n",
        "other.py": "def summary(): ...\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    code = Code.read(Checkout.read(tmp_path), mention(SOURCE))
    assert [file.path for file, _ in code.modules] == ["limits.py", "model.py", "worker.py"]
    assert code.imports.importers(["worker.py"]) == {"main.py"}
