"""api_schemas.py: what an API gives and takes of an answer, as pydantic models for FastAPI."""

from __future__ import annotations

from driver.task.render import python
from driver.task.render.python import literal
from driver.task.shape import Field, Kind, Shape, figure
from driver.task.source import Source

_READ = '''

def _none_if_unusable(value: Any, read: ValidatorFunctionWrapHandler) -> Any:
    """Show a stored value of another type as none: one bad row would fail its whole page."""
    try:
        return read(value)
    except ValidationError:
        return None


_Stored = WrapValidator(_none_if_unusable)
'''

_GIVEN = '''

def _given(value: Any) -> Any:
    """Refuse null: whoever does not want to change this field leaves it out."""
    if value is None:
        raise ValueError("null is no value of this field")
    return value


_Given = AfterValidator(_given)
'''


def render(source: Source) -> str:
    """Return one model to read an answer as it is stored, and one to change what people may."""
    edited = [field for field, column in source.columns if column.edited]
    body = "".join(
        [
            _aliases(source),
            _READ,
            _GIVEN if any(not field.shape.nullable for field in edited) else "",
            *(_object(name, shape) for name, shape in source.objects.items()),
            _read(source),
            _edit(source, edited) if edited else "",
        ]
    )
    known = {
        "datetime": ("date",),
        "typing": ("Annotated", "Any", "Literal"),
        "pydantic": (
            *("AfterValidator", "BaseModel", "ConfigDict", "Field", "ValidationError"),
            *("ValidatorFunctionWrapHandler", "WrapValidator"),
        ),
    }
    wanted = {
        module: [name for name in names if python.uses(body, name)]
        for module, names in known.items()
    }
    head = [
        f"# {source.mark}",
        f'"""{source.answer} as an API gives and takes it. Needs pydantic only."""',
        "",
        python.imports({module: names for module, names in wanted.items() if names}),
        "",
    ]
    return "\n".join(head) + body


def annotation(shape: Shape, *, bounded: bool) -> str:
    """Return the Python type of a shape; `bounded` adds the limits that pydantic checks."""
    written = annotation_without_null(shape, bounded=bounded)
    return f"{written} | None" if shape.nullable else written


def annotation_without_null(shape: Shape, *, bounded: bool) -> str:
    """Return the same of a shape whose null is said, or left out, elsewhere."""
    if shape.kind is Kind.CHOICE:
        return shape.name or _choices(shape)
    if shape.kind is Kind.OBJECT:
        return shape.name
    if shape.kind is Kind.LIST and shape.entry:
        plain = f"list[{annotation(shape.entry, bounded=bounded)}]"
    else:
        names = {Kind.TEXT: "str", Kind.NUMBER: "float", Kind.INTEGER: "int", Kind.FLAG: "bool"}
        plain = names.get(shape.kind, "date")
    limits = _limits(shape) if bounded else ""
    return f"Annotated[{plain}, Field({limits})]" if limits else plain


def _limits(shape: Shape) -> str:
    number = shape.kind in {Kind.NUMBER, Kind.INTEGER}
    least, most = ("ge", "le") if number else ("min_length", "max_length")
    said = [(least, shape.least), (most, shape.most)]
    words = [f"{word}={figure(bound)}" for word, bound in said if bound is not None]
    return ", ".join(words + ([f"pattern={literal(shape.pattern)}"] if shape.pattern else []))


def _choices(shape: Shape) -> str:
    return f"Literal[{', '.join(literal(choice.value) for choice in shape.choices)}]"


def _aliases(source: Source) -> str:
    lines = [f"{name} = {_choices(shape)}\n" for name, shape in source.choices.items()]
    return "\n" + "".join(lines) if lines else ""


def _object(name: str, shape: Shape) -> str:
    lines = [
        _line(each, annotation(each.shape, bounded=True), default=False) for each in shape.fields
    ]
    return _class(name, shape.about or f"{name}, inside of an answer.", "", lines)


def _read(source: Source) -> str:
    lines = []
    for each in source.fields:
        plain = annotation_without_null(each.shape, bounded=False)
        lines.append(_line(each, f"Annotated[{plain} | None, _Stored]", default=True))
    about = f"{source.answer} as it is stored; None where there is nothing that can be shown."
    return _class(f"{source.answer}Read", about, "from_attributes=True", lines)


def _edit(source: Source, edited: list[Field]) -> str:
    lines = []
    for each in edited:
        written = annotation(each.shape, bounded=True)
        exact = written if each.shape.nullable else f"Annotated[{written} | None, _Given]"
        lines.append(_line(each, exact, default=True))
    about = "What people may change: `model_dump(exclude_unset=True)` has what they have given."
    return _class(f"{source.answer}Edit", about, 'extra="forbid"', lines)


def _class(name: str, about: str, config: str, lines: list[str]) -> str:
    configured = f"    model_config = ConfigDict({config})\n\n" if config else ""
    documentation = literal(" ".join(about.split()))
    quoted = f'"""{documentation[1:-1]}"""'
    return f"\n\nclass {name}(BaseModel):\n    {quoted}\n\n{configured}{''.join(lines)}"


def _line(field: Field, written: str, *, default: bool) -> str:
    said = ["default=None"] if default else []
    said.append(f"title={literal(field.title)}")
    if field.meaning:
        said.append(f"description={literal(field.meaning)}")
    inner = "".join(f"        {each},\n" for each in said)
    return f"    {field.name}: {written} = Field(\n{inner}    )\n"
