"""`driver task check` on TypeScript's other ways: constants, zod, picks, tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from driver.task.check.finding import Severity
from tests.unit.checkout import TYPES, VIEW, change, findings, unclear

_UNION = "export type Priority = 'high' | 'medium' | 'low' | 'none'\n"
_FIELD = "  priority: Priority\n"
_FIELDS = "  summary: string | null\n  detailed_analysis: string | null\n"
_LIST = "  assigned_aks: Arbeitskreis[]\n"
_ITEM = "export interface Item {\n"
_OTHER = "frontend/src/values.ts"
_WORDS = "'high', MEDIUM'low', 'none'"
_CODES = "{ HIGH: 'high', M_WORD LOW: 'low', NONE: 'none' }"
_ZOD = (
    "import { z } from 'zod'\nexport const ItemSchema = z.object({\n  id: z.number(),\n"
    "  summary: z.string().nullable(),\n  detailed_analysis: z.string(),\n"
    "  priority: PRIORITY,\n  assigned_aks: z.array(z.string()),\n}).strict()\n"
    "export type ItemRead = z.infer<typeof ItemSchema>\n"
)


def _write(checkout: Path, text: str, *, whole: bool) -> None:
    text = text.replace("M_WORD", "MEDIUM: 'medium'," if whole else "")
    (checkout / _OTHER).write_text(text.replace("MEDIUM'", "'medium', '" if whole else "'"))


def _held(checkout: Path, *, whole: bool) -> None:
    """Hold that the only finding is of the value that is missing, or that there is none."""
    found = findings(checkout)
    assert unclear(checkout) == []
    if whole:
        assert [each.line() for each in found] == []
    else:
        [one] = found
        assert one.severity is Severity.DIFFERS
        assert one.place.startswith(_OTHER)
        assert "medium" in one.differs


_CONSTANTS = {
    "list": (f"export const P = [{_WORDS}] as const\n", "(typeof P)[number]"),
    "no brackets": (f"export const P = [{_WORDS}] as const\n", "typeof P[number]"),
    "frozen": (f"export const P = Object.freeze([{_WORDS}] as const)\n", "(typeof P)[number]"),
    "values": (f"export const P = {_CODES} as const\n", "(typeof P)[keyof typeof P]"),
    "keys": (
        "export const P = { high: 1, 'low': 2, MEDIUM'none': 0 }\n".replace(
            "MEDIUM'none'", "M_WORD none"
        ).replace("M_WORD", "M_KEY"),
        "keyof typeof P",
    ),
    "zod": (f"export const P = z.enum([{_WORDS}]).default('none')\n", "z.infer<typeof P>"),
    "literals": (
        "export const P = z.union([z.literal('high'), M_CALL z.literal('low')])\n",
        "z.output<typeof P>",
    ),
}


@pytest.mark.parametrize(("constant", "kind"), _CONSTANTS.values(), ids=_CONSTANTS)
@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("whole", [True, False])
def test_a_type_is_made_of_a_constant_of_another_file(
    checkout: Path, constant: str, kind: str, *, named: bool, whole: bool
) -> None:
    constant = constant.replace("M_KEY", "medium: 3," if whole else "")
    constant = constant.replace("M_CALL", "z.literal('medium')," if whole else "")
    _write(checkout, constant, whole=whole)
    change(checkout, TYPES, _UNION, f"export type Priority = {kind}\n" if named else "")
    if not named:
        change(checkout, TYPES, _FIELD, f"  priority: {kind} | null\n")
    _held(checkout, whole=whole)


_SCHEMAS = {
    "enum": f"z.enum([{_WORDS}]).nullable()",
    "list": "z.enum(WORDS)",
    "native": "z.nativeEnum(Words)",
    "named": "Named.optional()",
}


@pytest.mark.parametrize("schema", _SCHEMAS.values(), ids=_SCHEMAS)
@pytest.mark.parametrize("whole", [True, False])
def test_a_schema_knows_every_value(checkout: Path, schema: str, *, whole: bool) -> None:
    text = _ZOD.replace("PRIORITY", schema)
    text += f"const WORDS = [{_WORDS}] as const\nconst Named = z.enum(WORDS)\n"
    text += "enum Words { HIGH = 'high', M_MEMBER LOW = 'low' }\n".replace(
        "M_MEMBER", "MEDIUM = 'medium'," if whole else ""
    )
    _write(checkout, text, whole=whole)
    _held(checkout, whole=whole)
    if not whole:
        assert findings(checkout)[0].leads_to.startswith("the schema refuses an item")


_LACKING = {
    "alone": ("", "", ["ItemSchema has no field assigned_aks"]),
    "extended": ("z.object({", "Base.extend({", ["ItemSchema has no field assigned_aks"]),
    "by its base": ("z.object({", "Other.extend({", []),
    "left out": ("}).strict()", "}).omit({ assigned_aks: true })", []),
    "spread": ("  id: z.number(),", "  ...shared,", []),
}


@pytest.mark.parametrize(("old", "new", "told"), _LACKING.values(), ids=_LACKING)
def test_a_schema_has_every_field(checkout: Path, old: str, new: str, told: list[str]) -> None:
    text = _ZOD.replace("  assigned_aks: z.array(z.string()),\n", "").replace(old, new)
    text = text.replace("PRIORITY", "z.string()")
    bases = "const Base = z.object({ id: z.number() })\n"
    bases += "const Other = z.object({ assigned_aks: z.array(z.string()) })\n"
    (checkout / _OTHER).write_text(text + bases)
    found = findings(checkout)
    assert [each.differs for each in found] == told
    assert [each.edit for each in found] == [None] * len(told)


_COMPOSED = {
    "omitted and written anew": "type Full = Omit<Item, 'priority'> & { priority: WORDS }\n",
    "with others": f"type Full = {{ id: number }} & {{\n{_FIELDS}  priority: WORDS\n}}\n",
    "picked": "interface Full extends Pick<Item, 'summary'> { priority: WORDS }\n",
}


@pytest.mark.parametrize("text", _COMPOSED.values(), ids=_COMPOSED)
@pytest.mark.parametrize("whole", [True, False])
def test_a_type_that_is_put_together_is_compared(checkout: Path, text: str, *, whole: bool) -> None:
    words = "'high' | 'low' | 'medium' | 'none'" if whole else "'high' | 'low' | 'none'"
    text = f"{text.replace('WORDS', words)}type Id = {{ id: number }}\n"
    (checkout / _OTHER).write_text(text.replace("{ id: number } & {", "Id & {  id: number\n "))
    found = findings(checkout)
    lacking = [each for each in found if "assigned_aks" not in each.differs]
    assert bool(lacking) is not whole


@pytest.mark.parametrize(
    "text",
    [
        "type Card = Pick<Item, 'summary' | 'detailed_analysis' | 'priority'>\n",
        "type Card = { id: number } & Omit<Item, 'assigned_aks'>\n",
        f"interface Card extends Omit<Item, 'assigned_aks'> {{\n{_FIELDS}  priority: string }}\n",
        f"interface Card extends Remote<Item> {{\n{_FIELDS}  priority: string }}\n",
        "type S = Pick<Item, 'summary'>\ninterface Card extends S { priority: string }\n",
        "interface A extends B { id: number }\ninterface B extends A { summary: string }\n",
        "type Some = Priority | 'all'\ninterface Q { summary: string; priority: Some }\n",
        "interface C { summary: string; priority: 'none' | Priority }\n",
    ],
)
def test_what_is_left_out_on_purpose_is_not_missing(checkout: Path, text: str) -> None:
    (checkout / _OTHER).write_text(text)
    assert [each.line() for each in findings(checkout)] == []


_TABLES = {
    "record": "const LABELS: Record<Priority, string> = ENTRIES\n",
    "satisfied": "const LABELS = ENTRIES satisfies Record<Priority, string>\n",
    "looked up": "const LABELS: Record<Item['priority'], string> = ENTRIES\n",
}


@pytest.mark.parametrize("table", _TABLES.values(), ids=_TABLES)
@pytest.mark.parametrize("whole", [True, False])
def test_a_table_by_an_enum_has_every_value(checkout: Path, table: str, *, whole: bool) -> None:
    entries = "{ high: 'Hoch', 'low': 'Niedrig', none: '–', M_KEY }"
    entries = entries.replace("M_KEY", "medium: 'Mittel'" if whole else "")
    (checkout / _OTHER).write_text(table.replace("ENTRIES", entries))
    _held(checkout, whole=whole)


@pytest.mark.parametrize(
    "table",
    [
        "const LABELS: Partial<Record<Priority, string>> = { high: 'Hoch' }\n",
        "const LABELS: Record<string, string> = { high: 'Hoch' }\n",
        "const LABELS: Record<Priority, string> = { ...SHARED, high: 'Hoch' }\n",
        "const LABELS: Record<Priority, string> = { [Elsewhere.HIGH]: 'Hoch' }\n",
        "const LABELS: Record<'high' | 'low', string> = { high: 'Hoch', low: 'Niedrig' }\n",
        "const LABELS: Record<Priority, string> = load()\n",
    ],
)
def test_a_table_of_something_else_may_have_less(checkout: Path, table: str) -> None:
    (checkout / _OTHER).write_text(table)
    assert [each.line() for each in findings(checkout)] == []


def test_a_table_by_what_a_schema_infers_has_every_value(checkout: Path) -> None:
    text = _ZOD.replace("PRIORITY", "z.enum(['high', 'medium', 'low', 'none'])")
    table = "const LABELS: Record<ItemRead['priority'], string> = { high: '', low: '' }\n"
    (checkout / _OTHER).write_text(text + table)
    assert [each.differs for each in findings(checkout)] == ["LABELS has no entry for medium"]


def test_a_table_in_a_page_goes_by_the_members_of_an_enum(checkout: Path) -> None:
    members = "enum Priority { HIGH = 'high', MEDIUM = 'medium', LOW = 'low', NONE = 'none' }\n"
    change(checkout, TYPES, _UNION, f"export {members}")
    entries = "[Priority.HIGH]: 'red', [Priority.LOW]: 'grey', [Priority.NONE]: ''"
    page = checkout / "frontend/src/Badge.vue"
    page.write_text(
        f'<script setup lang="ts">\nconst colours: Record<Priority, string> = {{ {entries} }}\n'
        "</script>\n<template><i>{{ item.summary }}</i></template>\n"
    )
    [found] = findings(checkout)
    assert found.place == "frontend/src/Badge.vue:2"
    assert found.differs == "colours has no entry for medium"


def test_a_page_may_have_the_names_of_the_api_in_camel_case(checkout: Path) -> None:
    change(checkout, VIEW, "analysis.relevance_score", "analysis.relevanceScore")
    assert findings(checkout) == []


def test_a_text_that_a_field_is_added_to_is_not_compared_with_it(checkout: Path) -> None:
    change(checkout, VIEW, "{{ item.priority }}", "{{ $t('prio.' + item.priority) }}")
    assert findings(checkout) == []


def test_a_page_may_show_fields_by_a_list_of_their_names(checkout: Path) -> None:
    shown = '<p v-if="item.summary">{{ item.summary }}</p>\n    <p>{{ item.detailed_analysis }}</p>'
    change(checkout, VIEW, shown, '<p v-for="row in rows">{{ item[row.key] }}</p>')
    rows = "[{ key: 'summary' }, { key: 'detailed_analysis' }]"
    change(checkout, VIEW, "\nconst urgent", f"\nconst rows = {rows} as const\nconst urgent")
    assert findings(checkout) == []
    change(checkout, VIEW, "[row.key]", "")
    assert {each.differs for each in findings(checkout)} == {
        "no page shows summary",
        "no page shows detailed_analysis",
    }


def test_a_type_that_a_field_has_written_out_is_compared(checkout: Path) -> None:
    fields = ["relevant", "relevance_score", "argumentationskette", "tags", "reasoning"]
    inner = "".join(f"    {name}: unknown\n" for name in fields)
    change(checkout, TYPES, "llm_analysis?: LlmAnalysis", f"llm_analysis?: {{\n{inner}  }} | null")
    assert findings(checkout) == []
    change(checkout, TYPES, "    tags: unknown\n", "")
    [found] = findings(checkout)
    assert found.differs == "Item.llm_analysis has no field tags"
    assert found.edits[0].text == "\n    tags: string[]"


def test_a_type_in_camel_case_lacks_no_field(checkout: Path) -> None:
    change(checkout, TYPES, "  relevance_score:", "  relevanceScore:")
    assert findings(checkout) == []
