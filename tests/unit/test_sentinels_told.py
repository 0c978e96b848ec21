"""Every sentinel says what, why and what to do, and is in the reference; no other is."""

from __future__ import annotations

import ast
import re

from contracts.files import ROOT

_NAMED = re.compile(r"sentinel ([a-z_]+): ")
_BY_DRIFT = re.compile(r'drift\.check\(\s*"([a-z_]+)"')


def test_the_reference_has_every_sentinel() -> None:
    source = "".join(
        path.read_text(encoding="utf-8")
        for room in ("images", "contracts")
        for path in sorted((ROOT / room).rglob("*.py"))
    )
    named = {*_NAMED.findall(source), *_BY_DRIFT.findall(source)}
    page = (ROOT / "docs/reference/sentinels.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.*?`) \| \w+", page, re.MULTILINE)
    told = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert len(named) > 30
    assert named == told


def test_every_message_says_why_and_what_to_do() -> None:
    calls = {
        f"{path.relative_to(ROOT)}:{call.lineno}": {each.arg for each in call.keywords}
        for room in ("images", "contracts")
        for path in sorted((ROOT / room).rglob("*.py"))
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "SentinelTripped"
    }
    assert len(calls) > 50
    assert {place for place, told in calls.items() if told != {"why", "todo"}} == set()
