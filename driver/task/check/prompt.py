"""What the backend asks the model: its system prompt, and the form of the user's message."""

from __future__ import annotations

import ast
import re
import string
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from driver.task.check.checkout import SourceFile
from driver.task.check.finding import Compared, Finding
from driver.task.check.messages import messages
from driver.task.check.python_code import Code, Function, last_name
from driver.task.check.tied import Tied
from driver.task.check.walked import walked
from driver.task.source import Source

PLACE = "prompt"
_SHOWN = 60
FORM_LEADS_TO = (
    "the model reads items in another form than in training: the answers are worse than the "
    "scores, and no error shows it"
)


@dataclass(frozen=True)
class Form:
    """A message with its gaps: what stands between what is filled in."""

    texts: tuple[str, ...]
    """One more than there are gaps."""
    limits: tuple[int | None, ...]
    """Of each gap the most characters; None where it is not cut."""
    unseen: str = ""
    """Why it is not known where a gap is cut."""

    def shown(self) -> str:
        """Return it in one line."""
        gaps = [f"{{{'' if limit is None else f':{limit}'}}}" for limit in self.limits]
        parts = [text + gap for text, gap in zip(self.texts, [*gaps, ""], strict=True)]
        return repr("".join(parts))


class _Unclear(Exception):
    """An expression that cannot be followed without running it."""


def form_of_task(source: Source) -> Form:
    """Return the form of the task's message, found by filling marks into the canary's fields.

    Each text field of the item gets a mark of its own, long enough to show where it is cut.
    """
    item = source.task.canary
    marks = {
        name: f"\ue000{number}\ue001" + "x" * 50_000 + "\ue002"
        for number, name in enumerate(type(item).model_fields)
        if name != "id" and isinstance(getattr(item, name), str)
    }
    said = source.task.user_message(item.model_copy(update=marks))
    texts, limits, end = [], list[int | None](), 0
    for found in re.finditer(r"\ue000\d+\ue001x*\ue002?", said):
        texts.append(said[end : found.start()])
        end = found.end()
        limits.append(None if found.group().endswith("\ue002") else len(found.group()))
    return Form((*texts, said[end:]), tuple(limits))


def compare(source: Source, code: Code, tied: Tied) -> Compared:
    """Compare the messages that the code puts together with those that a model is trained on.

    Those of another feature are not: other modules read what the model answers to them.
    """
    findings, unclear, checked = list[Finding](), list[str](), 0
    for role, file, node, around in messages(code):
        if not _is_answered(code, tied, file.path):
            unclear.append(f"{file.at(node.lineno)}: no module near reads the task's fields of it")
            continue
        try:
            form = _Reader(code, file, around).form(node)
        except _Unclear as error:
            unclear.append(f"{file.at(node.lineno)}: the {role} message is {error}")
            continue
        checked += 1
        place = file.at(node.lineno)
        if role == "system":
            findings += differing_system(source, place, "".join(form.texts), form.limits)
        else:
            findings += differing_user(source, place, form)
            unclear += [f"{place}: the {role} message is {form.unseen}"] if form.unseen else []
    if not checked and not unclear:
        unclear.append("no message of the role system or user is put together in the code")
    return Compared(PLACE, tuple(findings), tuple(unclear), checked)


def _is_answered(code: Code, tied: Tied, path: str) -> bool:
    """Return whether a module, one that it imports or one that imports it reads answers.

    So too where none does that is known.
    """
    near = code.imports.reached([path]) | code.imports.users([path])
    return not tied.reading or not tied.reading.isdisjoint(near)


def differing_system(
    source: Source, place: str, said: str, gaps: Sequence[object]
) -> Iterator[Finding]:
    """Yield a finding where a system prompt is another than the task's."""
    wanted = source.task.chat.normalise(source.task.system_prompt).strip()
    found = source.task.chat.normalise(said).strip()
    if found == wanted and not gaps:
        return
    yield Finding(
        place,
        f"the system prompt is another: {_first_difference(found, wanted)}",
        "the model is asked otherwise than it was trained, and its answers are worse than its "
        "scores; this prompt overrides the Modelfile's",
        "Send no system message, so that the Modelfile's counts, or the one that `driver task "
        "render` writes into the Modelfile.",
    )


def differing_user(source: Source, place: str, form: Form) -> Iterator[Finding]:
    """Yield findings where the user's message has another form, or is cut elsewhere."""
    wanted = form_of_task(source)
    todo = "Send exactly the task's form, or change Task.user_message and retrain"
    if form.texts != wanted.texts:
        differs = f"the message is {form.shown()}, and the task's is {wanted.shown()}"
        yield Finding(place, differs, FORM_LEADS_TO, f"{todo}.")
    elif form.limits != wanted.limits and not form.unseen:
        differs = f"the texts are cut at {_cuts(form)} characters, the task's at {_cuts(wanted)}"
        yield Finding(place, differs, FORM_LEADS_TO, f"{todo}.")


def _cuts(form: Form) -> str:
    return ", ".join(str(limit) for limit in form.limits if limit is not None) or "no number of"


def _first_difference(found: str, wanted: str) -> str:
    same = next(
        (at for at, (a, b) in enumerate(zip(found, wanted, strict=False)) if a != b),
        min(len(found), len(wanted)),
    )
    line = wanted.count("\n", 0, same) + 1
    return (
        f"{len(found)} characters for {len(wanted)}, from line {line} on: "
        f"{found[same : same + _SHOWN]!r} for {wanted[same : same + _SHOWN]!r}"
    )


def _cut(value: ast.expr, format_spec: str) -> ast.expr:
    """Return a value as it is cut by what a gap says of its form: `{content:.6000}`."""
    found = re.search(r"\.(\d+)s?\W*$", format_spec)
    upper = ast.Slice(upper=ast.Constant(int(found[1]))) if found else None
    return ast.Subscript(value, upper, ast.Load()) if upper is not None else value


def _is_read(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Load)


@dataclass
class _Reader:
    """Follows an expression to the text that it makes, with its gaps."""

    code: Code
    file: SourceFile
    around: Function | None
    depth: int = 0

    def form(self, node: ast.expr) -> Form:
        """Return the form; raises `_Unclear`."""
        texts, limits, unseen = [""], list[int | None](), ""
        for part in self.parts(node):
            if isinstance(part, str):
                texts[-1] += part
                continue
            try:
                limits.append(self._limit(part))
            except _Unclear as error:
                limits, unseen = [*limits, None], str(error)
            texts.append("")
        return Form(tuple(texts), tuple(limits), unseen)

    def parts(self, node: ast.expr) -> list[str | ast.expr]:
        """Return the texts and the expressions that fill the gaps; raises `_Unclear`."""
        self.depth += 1
        if self.depth > 200:
            raise _Unclear("put together in too many steps")
        match node:
            case ast.Constant(value=str(text)):
                return [text]
            case ast.JoinedStr(values=values):
                return [part for each in values for part in self._of_joined(each)]
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return [*self.parts(left), *self.parts(right)]
            case ast.Name():
                return self._named(node)
            case ast.Attribute(attr=name) if name.isupper():
                return self._named(node)
            case ast.Call():
                return self._called(node)
        raise _Unclear(f"made by {ast.unparse(node)[:_SHOWN]}, which is not followed")

    def _of_joined(self, node: ast.expr) -> list[str | ast.expr]:
        if isinstance(node, ast.Constant):
            return [str(node.value)]
        if not isinstance(node, ast.FormattedValue):
            raise _Unclear("an f-string of an unknown kind")
        inner = node.value
        if isinstance(inner, ast.Name) and inner.id.isupper():
            return self.parts(inner)
        return [_cut(inner, ast.unparse(node.format_spec) if node.format_spec else "")]

    def _named(self, node: ast.Name | ast.Attribute) -> list[str | ast.expr]:
        if (local := self._local(last_name(node))) is not None:
            return self.parts(local)
        if (value := self.code.constant(self.file, node)) is not None:
            return _Reader(self.code, self.file, None, self.depth).parts(value)
        raise _Unclear(f"the value of {last_name(node)}, which is not a constant")

    def _local(self, name: str) -> ast.expr | None:
        """Return what a local variable is assigned; None where that is not exactly one value."""
        found = list[ast.expr]()
        for node in walked(self.around) if self.around else ():
            match node:
                case (
                    ast.Assign(targets=[ast.Name(id=other)], value=ast.expr() as value)
                    | ast.AnnAssign(target=ast.Name(id=other), value=ast.expr() as value)
                ) if other == name:
                    found.append(value)
                case ast.AugAssign(target=ast.Name(id=other)) if other == name:
                    raise _Unclear(f"{name}, which is put together bit by bit")
        return found[0] if len(found) == 1 else None

    def _called(self, node: ast.Call) -> list[str | ast.expr]:
        match node:
            case ast.Call(func=ast.Attribute(value=inner, attr="strip" | "rstrip"), args=[]):
                return self.parts(inner)
            case ast.Call(func=ast.Attribute(value=between, attr="join"), args=[joined]):
                parts = [[*self.parts(one), *self.parts(between)] for one in self._entries(joined)]
                return [part for each in parts for part in each][:-1]
            case ast.Call(func=ast.Attribute(value=template, attr="format")):
                return self._formatted(template, node)
            case ast.Call(func=ast.Attribute(attr="dedent"), args=[ast.Constant(value=str(text))]):
                return [textwrap.dedent(text)]
            case ast.Call(func=ast.Attribute(value=inner, attr="read_text")):
                return [self._file_named(inner)]
        name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        name = node.func.id if isinstance(node.func, ast.Name) else name
        return self._returned(name)

    def _entries(self, node: ast.expr) -> list[ast.expr]:
        """Return what a list holds: as it is written, or with what a function then appends."""
        match node:
            case ast.List(elts=entries) | ast.Tuple(elts=entries):
                return entries
            case ast.Name(id=name):
                appended = [*self._appended(name)]
                uses = [n for n in ast.walk(self.around or ast.Module([], [])) if _is_read(n, name)]
                if len(uses) > len(appended) + 1:
                    raise _Unclear(f"{name}, which is put together bit by bit")
                value = self._local(name) or self.code.constant(self.file, node)
                if isinstance(value, ast.List | ast.Tuple):
                    return [*value.elts, *appended]
        raise _Unclear(f"joined of {ast.unparse(node)[:_SHOWN]}, which is not followed")

    def _appended(self, name: str) -> Iterator[ast.expr]:
        """Yield what a function appends to a list in any case."""
        for statement in self.around.body if self.around else ():
            match statement:
                case ast.Expr(
                    value=ast.Call(
                        func=ast.Attribute(value=ast.Name(id=other), attr="append"), args=[entry]
                    )
                ) if other == name:
                    yield entry

    def _formatted(self, template: ast.expr, call: ast.Call) -> list[str | ast.expr]:
        """Return what `format` makes of a text, with the values that it is told."""
        texts = self.parts(template)
        said = "".join(each for each in texts if isinstance(each, str))
        if any(isinstance(each, ast.expr) for each in texts):
            raise _Unclear("formatted twice, which is not followed")
        told = {each.arg: each.value for each in call.keywords}
        told |= {str(at): each for at, each in enumerate(call.args)}
        parts, unnamed = list[str | ast.expr](), 0
        for text, gap, said_of, _ in string.Formatter().parse(said):
            parts.append(text)
            if gap is None:
                continue
            name = re.split(r"[.[]", gap)[0]
            if not name:
                name, unnamed = str(unnamed), unnamed + 1
            if name not in told:
                raise _Unclear(f"filled in with {name}, which is not followed")
            value = told[name]
            is_text = isinstance(value, ast.Constant) or last_name(value).isupper()
            parts += self.parts(value) if is_text else [_cut(value, said_of or "")]
        return parts

    def _file_named(self, node: ast.expr) -> str:
        """Return the text of the only file whose path ends with the names in an expression."""
        calls = [each for each in ast.walk(node) if isinstance(each, ast.Call)]
        packages = [arg for call in calls if last_name(call) == "files" for arg in call.args]
        names = [
            each.value.replace(".", "/") if each in packages else each.value
            for each in ast.walk(node)
            if isinstance(each, ast.Constant) and isinstance(each.value, str)
        ]
        # The walk gives the outermost, and so the last, part of `folder / "a" / "b.md"` first.
        ends = {"/".join(names), "/".join(reversed(names))} - {""}
        found = [
            file
            for file in self.code.checkout.files
            if any(f"/{file.path}".endswith(f"/{end.lstrip('/')}") for end in ends)
        ]
        if len(found) != 1:
            raise _Unclear(f"read from {ast.unparse(node)[:_SHOWN]}, which is not in the checkout")
        return found[0].text

    def _returned(self, name: str) -> list[str | ast.expr]:
        """Return what the only function of a name returns, where it has one return."""
        if hasattr(str, name):  # a method of texts, not a function of the same name
            raise _Unclear(f"the result of {name}, which is not followed")
        found = [
            (file, function)
            for file, tree in self.code.modules
            for function in walked(tree)
            if isinstance(function, Function) and function.name == name
        ]
        if len(found) != 1:
            raise _Unclear(f"the result of {name or 'a call'}, which is not followed")
        file, function = found[0]
        returns = [each for each in ast.walk(function) if isinstance(each, ast.Return)]
        if len(returns) != 1 or returns[0].value is None:
            raise _Unclear(f"the result of {name}, which has several ends")
        return _Reader(self.code, file, function, self.depth).parts(returns[0].value)

    def _limit(self, node: ast.expr) -> int | None:
        """Return where a gap's value is cut: `[:6000]`, anywhere in its expression.

        Raises `_Unclear` for a cut that is not followed; `[:-1]` is none.
        """
        for each in ast.walk(node):
            match each:
                case ast.Subscript(slice=ast.Slice(upper=ast.expr() as upper)) if not isinstance(
                    upper, ast.UnaryOp
                ):
                    return self._bound(upper)
            if isinstance(each, ast.Name) and (local := self._local(each.id)) is not None:
                self.depth += 1
                if self.depth < 200 and local is not node:
                    return self._limit(local)
        return None

    def _bound(self, upper: ast.expr) -> int:
        """Return the number that a slice ends at: a constant, or a class's; raises `_Unclear`."""
        value: ast.expr | None = upper
        match upper:
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name):
                classes = [each for each in self.code.each_class() if each.file is self.file]
                told = [a.value for each in classes for a in each.attributes if a.name == name]
                value = told[0] if len(told) == 1 else None
            case ast.Name() | ast.Attribute():
                value = self._local(last_name(upper)) or self.code.constant(self.file, upper)
        if isinstance(value, ast.Constant) and isinstance(value.value, int):
            return value.value
        raise _Unclear(f"cut at {ast.unparse(upper)[:_SHOWN]}, which is not followed")
