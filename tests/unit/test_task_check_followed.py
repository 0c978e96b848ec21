"""`driver task check` follows an answer through functions and parsers, and values to their list."""

from __future__ import annotations

from pathlib import Path

from driver.task.check.checkout import Checkout
from driver.task.check.mention import mention
from driver.task.check.python_code import Code
from tests.unit.checkout import PROCESSOR, SOURCE, TYPES, change, findings, unclear

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
