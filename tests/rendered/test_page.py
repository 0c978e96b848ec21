"""types.ts and ItemDetails.vue, by TypeScript's and Vue's own compilers, and as they show."""

from __future__ import annotations

import html
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from contracts.files import ROOT, read_jsonl
from tests.rendered.kinds import KINDS

_RENDER_PAGE = Path(__file__).parent / "node" / "render_page.js"
_SAMPLE = ROOT / "examples" / "liga-sample" / "labels.jsonl"


def _use(name: str, answers: list[dict[str, Any]], wrong: dict[str, Any]) -> str:
    """Return TypeScript that is right only if the answers are, and `wrong` is not, of the type."""
    return (
        f'import type {{ {name} }} from "./types";\n'
        f"export const answers: {name}[] = {json.dumps(answers)};\n"
        "// @ts-expect-error\n"
        f"export const wrong: {name} = {json.dumps(wrong)};\n"
    )


def _pages(folder: Path, rendered: Path, node_modules: Path, answers: list[Any]) -> list[str]:
    for name in ("types.ts", "ItemDetails.vue"):
        shutil.copy(rendered / name, folder)
    (folder / "node_modules").symlink_to(node_modules)
    done = subprocess.run(
        ["node", _RENDER_PAGE, folder],
        input=json.dumps(answers),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [html.unescape(page) for page in json.loads(done.stdout)]


def test_the_news_task(tmp_path: Path, rendered: Path, node_modules: Path) -> None:
    answers = [row["label"] for row in read_jsonl(_SAMPLE)]
    some = [
        next(a for a in answers if a["relevant"]),
        next(a for a in answers if not a["relevant"]),
    ]
    wrong = some[0] | {"priority": "critical"}
    (tmp_path / "use.ts").write_text(_use("LigaRelevance", some, wrong), encoding="utf-8")
    relevant, irrelevant = _pages(tmp_path, rendered, node_modules, some)
    for text in (some[0]["summary"], some[0]["detailed_analysis"], *some[0]["argumentationskette"]):
        assert text in relevant
    assert "Zusammenfassung" in relevant
    assert "Zusammenfassung" not in irrelevant
    assert some[1]["reasoning"] in irrelevant


def test_every_kind_of_field(tmp_path: Path, rendered_kinds: Path, node_modules: Path) -> None:
    partial = {name: value for name, value in KINDS.items() if name != "parts"}
    (tmp_path / "use.ts").write_text(_use("Kinds", [KINDS], partial), encoding="utf-8")
    whole, part = _pages(tmp_path, rendered_kinds, node_modules, [KINDS, partial])
    assert '<time datetime="2026-12-01">2026-12-01</time>' in whole
    assert "it's {{ calm }}" in whole
    assert f'title="{_meaning("angry")}"' in whole
    assert "cap" in whole
    assert "cap" not in part


def _meaning(value: str) -> str:
    return f'"{value}" */ --> </script> ${{x}} | \\'
