"""ItemDetails.vue: a fragment that shows an answer, to be placed into a page and styled there."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

from driver.task.render import types
from driver.task.shape import Field, Kind, Shape
from driver.task.source import Source


def render(source: Source) -> str:
    """Return a component with one property, `answer`; what is null or empty is not shown."""
    words = ["titles", *(types.meanings(name) for name in source.choices)]
    body = [line for field in source.fields for line in _field(field, "answer", "titles", "    ")]
    lines = [
        f"<!-- {source.mark} -->",
        '<script setup lang="ts">',
        f'import type {{ {source.answer} }} from "./types";',
        f'import {{ {", ".join(words)} }} from "./types";',
        "",
        f"defineProps<{{ answer: Partial<{source.answer}> }}>();",
        "</script>",
        "",
        "<template>",
        f'  <dl class="{_kebab(source.answer)}">',
        *body,
        "  </dl>",
        "</template>",
    ]
    return "\n".join(lines) + "\n"


def _field(field: Field, of: str, titles: str, indent: str) -> Iterator[str]:
    value = f"{of}.{field.name}"
    there = f"{value}?.length" if field.shape.kind is Kind.LIST else f"{value} != null"
    title = f"{{{{ titles.{field.name} }}}}" if titles else _text(field.title)
    yield f'{indent}<template v-if="{there}">'
    yield f"{indent}  <dt>{title}</dt>"
    yield from _value(field.shape, value, "dd", f"{indent}  ", f' class="{_kebab(field.name)}"')
    yield f"{indent}</template>"


def _value(shape: Shape, value: str, tag: str, indent: str, attributes: str) -> Iterator[str]:
    if shape.kind is Kind.LIST and shape.entry:
        each = f"each{value.count('each') + 1}" if value.startswith("each") else "each"
        loop = f' v-for="({each}, at) in {value}" :key="at"'
        yield f"{indent}<{tag}{attributes}>"
        yield f"{indent}  <ul>"
        yield from _value(shape.entry, each, "li", f"{indent}    ", loop)
        yield f"{indent}  </ul>"
        yield f"{indent}</{tag}>"
    elif shape.kind is Kind.OBJECT:
        yield f"{indent}<{tag}{attributes}>"
        yield f"{indent}  <dl>"
        for field in shape.fields:
            yield from _field(field, value, "", f"{indent}    ")
        yield f"{indent}  </dl>"
        yield f"{indent}</{tag}>"
    else:
        yield f"{indent}<{tag}{attributes}{_explained(shape, value)}>{_shown(shape, value)}</{tag}>"


def _explained(shape: Shape, value: str) -> str:
    if shape.kind is Kind.CHOICE and shape.name:
        return f' :title="{types.meanings(shape.name)}[{value}]"'
    return ""


def _shown(shape: Shape, value: str) -> str:
    if shape.kind is Kind.FLAG:
        return f"{{{{ {value} ? '✓' : '✗' }}}}"
    if shape.kind is Kind.DATE:
        return f'<time :datetime="{value}">{{{{ {value} }}}}</time>'
    return f"{{{{ {value} }}}}"


def _text(text: str) -> str:
    return html.escape(text).replace("{{", "&#123;&#123;")  # no expression of Vue's


def _kebab(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|_", "-", name).lower()
