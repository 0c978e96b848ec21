"""A page in a real browser: what is drawn, how wide it is, and what the browser complains about."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_SCRIPT = """
<script>
addEventListener('load', () => {
  const size = each => { const box = each.getBoundingClientRect(); return [box.width, box.height] };
  const wide = () => document.documentElement.scrollWidth;
  const closed = wide();
  document.querySelectorAll('details').forEach(each => { each.open = true });
  const sections = Object.fromEntries(
    [...document.querySelectorAll('section')].map(each => [each.id, size(each)]));
  const pictures = [...document.querySelectorAll('svg')].map(
    each => [each.querySelector('title')?.textContent, ...size(each)]);
  const low = [...document.querySelectorAll('svg text')].map(
    each => each.getBoundingClientRect().height);
  const seen = {width: innerWidth, room: document.documentElement.clientWidth,
    closed, open: wide(), sections, pictures,
    dark: matchMedia('(prefers-color-scheme: dark)').matches,
    ground: getComputedStyle(document.body).backgroundColor,
    ink: getComputedStyle(document.body).color, smallest: Math.min(...low)};
  const told = parent.document.createElement('pre');
  told.id = 'seen';
  told.textContent = JSON.stringify(seen);
  parent.document.body.append(told);
});
</script>
"""


@dataclass(frozen=True)
class Seen:
    """What the browser made of a page, all its details open."""

    width: int
    """Of the screen, in CSS pixels."""
    room: int
    """The same without a scroll bar."""
    closed: int
    """How wide the page is: with more than `room` it has to be scrolled sideways."""
    open: int
    """The same, with every detail open."""
    sections: dict[str, tuple[float, float]]
    """Width and height by id."""
    pictures: list[tuple[str, float, float]]
    """Title, width and height of each."""
    dark: bool
    ground: str
    ink: str
    smallest: float
    """Height of the smallest text in a picture, in pixels."""


def browser() -> str:
    """Return the path of Chromium; without one skip, or fail if REQUIRE_BROWSER=1."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        refuse = pytest.fail if os.environ.get("REQUIRE_BROWSER") == "1" else pytest.skip
        refuse("no Chromium here: apt-get install chromium")
    return found


def look(page: Path, folder: Path, *, width: int, dark: bool = False) -> Seen:
    """Open a copy of the page that measures itself, on a screen of this width.

    The screen is a frame, since a window cannot be as narrow as a telephone.
    """
    text = page.read_text(encoding="utf-8")
    assert _POLICY in text
    text = text.replace(_POLICY, f"{_POLICY}; script-src 'unsafe-inline'")
    measured = html.escape(text.replace("</body>", f"{_SCRIPT}</body>"))
    frame = f'<iframe width="{width}" height="900" style="border: 0" srcdoc="{measured}"></iframe>'
    copy = folder / f"measured-{page.name}"
    copy.write_text(f'<!doctype html><meta charset="utf-8"><body>{frame}', encoding="utf-8")
    shade = ("--blink-settings=preferredColorScheme=0",) if dark else ()
    drawn = _open(copy, folder, "--dump-dom", *shade).stdout
    told = re.search(r'<pre id="seen">(.*?)</pre>', drawn, re.DOTALL)
    assert told is not None, drawn[-2000:]
    found = json.loads(html.unescape(told[1]))
    return Seen(**found)


def complaints(page: Path, folder: Path) -> list[str]:
    """Open the page as it is and return what the browser's console says.

    The page's own policy forbids every request, so one that is tried is among them.
    """
    done = _open(page, folder, "--dump-dom", "--enable-logging=stderr", "--v=0")
    assert "<h1>" in done.stdout
    return [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def _open(page: Path, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [
        browser(),
        "--headless=new",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--user-data-dir={folder / 'profile'}",
        *(("--no-sandbox",) if os.geteuid() == 0 else ()),
        *options,
        page.as_uri(),
    ]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
