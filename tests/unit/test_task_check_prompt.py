"""`driver task check` on a user's message that a function puts together."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.checkout import PROCESSOR, change, findings, unclear

_WRITTEN = """        prompt = (
            f"Titel: {item.title}\\n"
            f"Inhalt: {content}\\n"
            f"Quelle: {source_name or 'Unbekannt'}\\n"
            f"Datum: {item.published_at or 'Unbekannt'}"
        )
"""
_LINES = """[
            f"Titel: {item.title}",
            f"Inhalt: {content}",
            f"SOURCE: {source_name or 'Unbekannt'}",
            f"Datum: {item.published_at or 'Unbekannt'}",
        ]
"""
_LAST = "            f\"Datum: {item.published_at or 'Unbekannt'}\",\n"
_APPENDED = "        lines.append(f\"Datum: {item.published_at or 'Unbekannt'}\")\n"
_JOINED = '        prompt = "\\n".join(lines)\n'
_FORMAT = '"Titel: {}\\nInhalt: {content}\\nSOURCE: {source.name}\\nDatum: {0}".format('
_FORMAT = _FORMAT.replace("{}", "{title}").replace("{0}", "{day}")
_TOLD = "title=item.title, content=content, source=item.source, day=item.day)"
_WAYS = {
    "list": f"        lines: list[str] = {_LINES}{_JOINED}",
    "appended": f"        lines = {_LINES.replace(_LAST, '')}{_APPENDED}{_JOINED}",
    "separator": f'        between = "\\n"\n        prompt = between.join({_LINES.strip()})\n',
    "format": f"        prompt = {_FORMAT}{_TOLD}\n",
    "by number": (
        '        prompt = "Titel: {}\\nInhalt: {}\\nSOURCE: {}\\nDatum: {}".format(\n'
        "            item.title, content, source_name, item.day)\n"
    ),
    "format that cuts": (
        '        prompt = "Titel: {}\\nInhalt: {:.6000}\\nSOURCE: {}\\nDatum: {}".format(\n'
        "            item.title, item.content, source_name, item.day)\n"
    ),
    "f-string that cuts": (
        '        prompt = f"Titel: {item.title}\\nInhalt: {item.content:.6000}\\n'
        'SOURCE: {source_name}\\nDatum: {item.day}"\n'
    ),
    "f-string method": "        prompt = self.message(item, content)\n",
}
_METHOD = '''    def message(self, item, content):
        return f"""Titel: {item.title}
Inhalt: {content[:6000]}
SOURCE: {item.source}
Datum: {item.day}"""

    async def ask('''


def _put_together(checkout: Path, way: str, source: str) -> None:
    change(checkout, PROCESSOR, _WRITTEN, way.replace("SOURCE", source))
    change(checkout, PROCESSOR, "    async def ask(", _METHOD.replace("SOURCE", source))


@pytest.mark.parametrize("way", _WAYS.values(), ids=_WAYS)
@pytest.mark.parametrize("source", ["Quelle", "Source"])
def test_a_message_is_followed(checkout: Path, way: str, source: str) -> None:
    _put_together(checkout, way, source)
    found = [each.differs for each in findings(checkout)]
    assert unclear(checkout) == []
    if source == "Quelle":
        assert found == []
    else:
        [differs] = found
        assert "'Titel: {}\\nInhalt: {:6000}\\nSource: {}\\nDatum: {}', and the task's" in differs


def test_a_message_that_a_call_makes_is_compared(checkout: Path) -> None:
    written = '{"role": "user", "content": prompt}'
    change(checkout, PROCESSOR, written, 'Message(role="user", content=prompt)')
    change(checkout, PROCESSOR, "Quelle:", "Source:")
    assert len(findings(checkout)) == 1


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("        if source_name:\n            lines.append(source_name)\n", "lines, which is put"),
        ("        self.extend(lines)\n", "lines, which is put together bit by bit"),
        ("        lines += [source_name]\n", "lines, which is put together bit by bit"),
        ("        lines = sorted(lines)\n", "lines, which is put together bit by bit"),
        ("        lines = self.lines(item)\n", "joined of lines, which is not followed"),
    ],
)
def test_a_list_that_is_not_followed_is_said_to_be(checkout: Path, more: str, told: str) -> None:
    _put_together(checkout, f"        lines = {_LINES}{more}{_JOINED}", "Source")
    assert findings(checkout) == []
    assert f"the user message is {told}" in "\n".join(unclear(checkout))


@pytest.mark.parametrize(
    ("cut", "told"),
    [
        ("self.cut", ""),
        ("self.other", "the user message is cut at self.other, which is not followed"),
    ],
)
def test_a_cut_is_that_of_the_class_or_is_said_not_to_be_followed(
    checkout: Path, cut: str, told: str
) -> None:
    method = _METHOD.replace("content[:6000]", f"item.content[: {cut}]").replace("SOURCE", "Quelle")
    change(checkout, PROCESSOR, _WRITTEN, "        prompt = self.message(item, item.content)\n")
    change(checkout, PROCESSOR, "    async def ask(", f"    cut = 6000\n\n{method}")
    assert findings(checkout) == []
    assert told in "\n".join(unclear(checkout))
    assert bool(told) == bool(unclear(checkout))


def test_a_prompt_may_be_a_resource_of_a_package(checkout: Path) -> None:
    read = 'files("app.prompts").joinpath("analysis.md").read_text'
    written = '(Path(__file__).parent / "prompts" / "analysis.md").read_text'
    change(checkout, PROCESSOR, written, read)
    assert (findings(checkout), unclear(checkout)) == ([], [])
