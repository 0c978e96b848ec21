"""What a checkout may well have that is no drift: `driver task check` refuses no run for it."""

from __future__ import annotations

from pathlib import Path

from driver.task.check.finding import Severity
from driver.task.render import parser
from tests.unit.checkout import SOURCE, findings


def _refused(checkout: Path) -> list[str]:
    return [each.differs for each in findings(checkout) if each.severity is Severity.BREAKS]


def test_the_rendered_parser_is_no_processor(tmp_path: Path) -> None:
    (tmp_path / "parser.py").write_text(parser.render(SOURCE))
    assert _refused(tmp_path) == []
