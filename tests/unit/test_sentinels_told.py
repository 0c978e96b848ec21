"""Every sentinel that a stage can name is in the reference, and no other."""

from __future__ import annotations

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
