"""The versions of the served model, as lines that no width cuts: what they name is to be copied."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from driver import served
from driver.report.console import WrittenConsole
from driver.unfinished import Unfinished
from driver.versions import Version
from serving.engine import full_tag

_SHOWN_SCORES = 4
_NOTHING = Unfinished()


def show(found: Sequence[Version], name: str, live: str, unfinished: Unfinished = _NOTHING) -> None:
    """Print the versions, the newest first; `live` is the digest that the alias names, or "".

    Then whatever of a deployment is not finished.
    """
    console = WrittenConsole(markup=False, highlight=False, soft_wrap=True)
    for line in _lines(found, unfinished):
        console.print(line)
    if not found:
        console.print(f"There is no version of {name} in the serving engine yet.")
    if live and not any(each.live for each in found):
        console.print(
            f"Live is none of these: {full_tag(name)} names digest {live[:12]}, "
            "which is no version here. `driver rollback` goes back, and keeps it a name."
        )
    for line in unfinished.lines:
        console.print(f"! {line}")


def _lines(found: Sequence[Version], unfinished: Unfinished) -> Iterator[str]:
    """Yield of each version its name, digest, size and state; below, what was measured of it."""
    widest = max((len(each.tag) for each in found), default=0)
    for each in found:
        size = f"{each.size_bytes / 1e9:6.2f} GB"
        state = _state(each, _main(found, each.digest, unfinished), unfinished)
        yield f"{each.tag:<{widest}}  {each.digest[:12]}  {size}  {state}".rstrip()
        scores = _figures(list(each.scores.items())[:_SHOWN_SCORES])
        yield f"    scores: {scores or 'not known here'}"
        if each.errors:
            yield f"    errors (less is better): {_figures(each.errors.items())}"


def _main(found: Sequence[Version], digest: str, unfinished: Unfinished) -> str:
    """Return the version that stands for a model: what is being verified, else the newest one."""
    same = [each.tag for each in found if each.digest == digest]
    return unfinished.version if unfinished.version in same else max(same, key=served.age)


def _figures(found: Iterable[tuple[str, float]]) -> str:
    return ", ".join(f"{measure} {value:.2f}" for measure, value in found)


def _state(version: Version, main: str, unfinished: Unfinished) -> str:
    told = [
        _live(version, unfinished) if version.tag == main else f"same model as {main}",
        "taken back" if version.rejected else "",
        f"forced: {' '.join(version.forced.split())}" if version.forced else "",
    ]
    return ", ".join(each for each in told if each)


def _live(version: Version, unfinished: Unfinished) -> str:
    if not version.live:
        return ""
    return "live, not verified" if version.digest == unfinished.digest else "live"
