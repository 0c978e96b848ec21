"""YAML texts: a key that comes twice is refused by line, and so is what is no YAML."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from contracts.errors import SettingsInvalid
from contracts.files import ROOT
from driver import yaml_text


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "a"),
        ("train:\n  rank: 4\n\n  # again\n  rank: 8\n", 5, "rank"),
        ("train: {rank: 4, rank: 8}", 1, "rank"),
        ("list:\n  - x: 1\n  - x: 1\n    x: 1\n", 4, "x"),
        ("deep:\n  - {a: {b: [{c: 1,\n    c: 1}]}}\n", 3, "c"),
        ("one: &one {a: 1}\ntwo:\n  <<: *one\n  b: 1\n  b: 2\n", 5, "b"),
        ('"a": 1\na: 1\n', 2, "a"),
    ],
)
def test_a_key_that_comes_twice_is_refused(text: str, line: int, key: str) -> None:
    with pytest.raises(SettingsInvalid) as caught:
        yaml_text.load(text, "s.yaml")
    assert caught.value.what == f"s.yaml:{line}: the key {key} comes twice"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("one: {a: 1}\ntwo: {a: 2}\n", {"one": {"a": 1}, "two": {"a": 2}}),
        ("1: x\n'1': y\n", {1: "x", "1": "y"}),
        (
            "one: &one {a: 1, b: 1}\ntwo: {<<: *one, b: 2}\n",
            {"one": {"a": 1, "b": 1}, "two": {"a": 1, "b": 2}},
        ),
        ("1e-4", "1e-4"),
        ("[1, {a: 1}, {a: 1}]", [1, {"a": 1}, {"a": 1}]),
    ],
)
def test_what_is_no_repetition_is_read(text: str, value: object) -> None:
    assert yaml_text.load(text, "s.yaml") == value


def test_an_alias_of_its_own_mapping_ends() -> None:
    found = yaml_text.load("a: &a\n  b: *a\n", "s.yaml")
    assert found["a"]["b"] is found["a"]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a: 1\nb: [", "s.yaml:2 "),
        ("a: 1\n\tb: 2\n", "s.yaml:2 "),
        ("a: 1\n---\nb: 2\n", "s.yaml:2 "),
        ("a: !!python/object:os.system {}\n", "s.yaml:1 "),
        ("a: 2026-13-45\n", "s.yaml "),
        ("a: \x00\n", "s.yaml "),
        ("[" * 5000, "s.yaml "),
    ],
)
def test_what_is_no_yaml_is_named_with_its_line(text: str, place: str) -> None:
    with pytest.raises(SettingsInvalid) as caught:
        yaml_text.load(text, "s.yaml")
    assert caught.value.what.startswith(f"{place}is not YAML")


def test_the_driver_refuses_settings_that_say_a_thing_twice(tmp_path: Path) -> None:
    config = tmp_path / "s.yaml"
    config.write_text("snapshot: {items: [a]}\nfetch: {path: b}\nfetch: {path: c}\n", "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "driver", "status", "-c", str(config)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == SettingsInvalid.exit_code
    assert f"{config}:3: the key fetch comes twice" in done.stderr
    assert "Traceback" not in done.stderr
