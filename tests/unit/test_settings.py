"""Settings: where they come from, and what a user reads when they are wrong."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from contracts import files
from contracts.errors import SettingsInvalid
from driver import invocation, settings
from driver.adapters.items import storage_of
from driver.report import settings as shown
from tasks import load_task

MINIMAL = "snapshot: {items: [a.jsonl]}\nfetch: {path: base}\n"


def load(tmp_path: Path, text: str, *overrides: str, **environ: str) -> settings.Settings:
    file = tmp_path / "s.yaml"
    file.write_text(text, encoding="utf-8")
    return settings.load(file, overrides, environ)


def test_later_sources_win(tmp_path: Path) -> None:
    text = MINIMAL + "train: {learning_rate: 0.1, rank: 4, epochs: 2}\n"
    environ = {"RETRAIN__TRAIN__LEARNING_RATE": "0.2", "RETRAIN__TRAIN__RANK": "8"}
    found = load(tmp_path, text, "train.learning_rate=1e-4", **environ).train
    assert (found.learning_rate, found.rank, found.epochs) == (1e-4, 8, 2)


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("train: {learning_rat: 1}", [], "train.learning_rat: unknown key; did you mean"),
        ("trian: {}", [], "trian: unknown key; did you mean train?"),
        ("train: {rank: many}", [], "train.rank: Input should be a valid integer"),
        ("train: {batch_size: 4, micro_batch_size: 3}", [], "micro_batch_size must divide"),
        ("train: 3", [], "train"),
        ("train: {sharding: fsdp, load_in: bf16, processes: 1}", [], "and there is one"),
        ("gguf: {outtype: []}", [], "outtype names no type"),
        ("", ["=5"], "names no key"),
        ("train: {epochs: .inf}", [], "train.epochs"),
        ("train: {epochs: 1e+308}", [], "train.epochs"),
        ("train: {max_steps: 999999999999}", [], "train.max_steps"),
        ("train: {batch_size: 999999999999}", [], "train.batch_size"),
        ("train: {max_length: 999999999999}", [], "train.max_length"),
        ("", ["train.rank"], "--set train.rank has no value"),
        ("", ["task.x=1"], "task is a value, not a section"),
        ("a: [", [], "is not YAML"),
        ("- 1", [], "not a mapping"),
        ("engine: llamacpp", [], "use runner=process"),
        ("fetch: {path: '', model: a/b, revision: main}", [], "must be the commit"),
        ("snapshot: {source: backend}", [], "needs the section backend"),
        ("backend: {container: ''}", [], "backend.container"),
        ("teachers: ['']", [], "is no address, nor openai+http"),
        ("teachers: [gpu1, 'gpu2 gpu3']", [], "is no address, nor openai+http"),
        ("teachers: ['openai+']", [], "is no address, nor openai+http"),
        ("teachers: ['openai+gpu1:8000/v1']", [], "is no address, nor openai+http"),
        ("teachers: ['openai+http:///v1#m']", [], "is no address, nor openai+http"),
        ("teachers: ['gpu1#qwen3']", [], "is no address, nor openai+http"),
        ("teachers: ['ftp://gpu1']", [], "is no address, nor openai+http"),
        ("teachers: ['http://']", [], "is no address, nor openai+http"),
        ("teachers: [gpu1, gpu1]", [], "teachers: a server is named twice"),
        ("evaluate: {min_valid: 1.5}", [], "evaluate.min_valid"),
    ],
)
def test_bad_settings_name_the_key(
    tmp_path: Path, text: str, overrides: list[str], message: str
) -> None:
    whole = text if text.startswith(("-", "a:")) else _merged(text)
    with pytest.raises(SettingsInvalid) as caught:
        load(tmp_path, whole, *overrides, RETRAIN__TASK="liga_relevance")
    assert message in str(caught.value)
    assert caught.value.todo


def test_teachers_are_addresses_and_urls(tmp_path: Path) -> None:
    named = [
        "gpu1",
        "http://[::1]:11434",
        "openai+https://gpu2/v1/#Qwen/Qwen3-32B",
        "openai+http://gpu3:80",
        "openai+http://gpu3:80#m",
    ]
    assert load(tmp_path, _merged(f"teachers: {named}")).teachers == tuple(named)


def _merged(text: str) -> str:
    return yaml.safe_dump({**yaml.safe_load(MINIMAL), **(yaml.safe_load(text) or {})})


@pytest.mark.parametrize("folder", ["", " "])
def test_an_empty_text_names_no_checkout_of_the_backend(tmp_path: Path, folder: str) -> None:
    found = load(tmp_path, MINIMAL, "backend.container=b", f'backend.repository="{folder}"')
    assert found.backend is not None
    assert found.backend.repository is None


def test_the_advice_for_a_task_without_storage_leads_to_settings_that_are_valid(
    tmp_path: Path,
) -> None:
    with pytest.raises(SettingsInvalid) as refused:
        storage_of(load_task("support_messages"))
    assert "snapshot.items" in refused.value.todo
    advised = re.findall(r"[a-z.]+=[a-z0-9]+", refused.value.todo)
    assert len(advised) == 3
    text = "snapshot: {source: backend}\nbackend: {container: b}\nfetch: {path: base}\n"
    assert load(tmp_path, text, *advised, "snapshot.items=[a.jsonl]").snapshot.source == "files"


def test_the_backends_variables_keep_their_case(tmp_path: Path) -> None:
    compose = "backend: {url: 'http://x', compose: {folder: /srv, service: news}}"
    given = {"RETRAIN__BACKEND__COMPOSE__ENVIRONMENT__OLLAMA_MODEL": "x:latest"}
    settings = load(tmp_path, _merged(compose), **given)
    assert settings.backend is not None
    assert settings.backend.compose is not None
    assert settings.backend.compose.environment == {"OLLAMA_MODEL": "x:latest"}


def test_a_missing_file_is_named() -> None:
    with pytest.raises(SettingsInvalid, match="there is no settings file"):
        settings.load(Path("nowhere.yaml"), (), {})


@pytest.mark.parametrize("ask", [invocation.workspace, invocation.settings])
def test_a_workspace_whose_name_is_not_utf8_is_refused(
    tmp_path: Path, ask: Callable[[argparse.Namespace], object]
) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(MINIMAL, encoding="utf-8")
    asked = argparse.Namespace(config=file, set=[], workspace=Path(os.fsdecode(b"w\xff")))
    with pytest.raises(SettingsInvalid, match="is not UTF-8") as caught:
        ask(asked)
    assert str(caught.value).isascii()


def test_the_shipped_settings_are_valid() -> None:
    production = settings.load(files.ROOT / "retrain.yaml", (), {})
    assert (production.train.load_in, production.train.rank) == ("8bit", 16)
    demo = settings.load(files.ROOT / "examples/liga-sample/demo.yaml", (), {})
    assert (demo.runner, demo.engine) == ("process", "llamacpp")


def test_the_description_is_yaml_that_names_every_key() -> None:
    described = yaml.safe_load(shown.describe())
    assert set(described) == set(settings.Settings.model_fields)
    for name in described:
        if (model := settings.section(name)) is not None:
            assert set(described[name] or {}) == set(model.model_fields), name
            assert set(shown.meanings(model)) == set(model.model_fields), "undocumented"
    assert described["train"]["learning_rate"] == 2e-4


def test_a_wrong_entry_of_a_list_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("gguf: {outtype: q5_0}\n", encoding="utf-8")
    with pytest.raises(SettingsInvalid) as caught:
        settings.load(path, ["snapshot.items=[a.jsonl]"], {})
    of_gguf = [line for line in caught.value.why.split("\n") if "gguf" in line]
    assert len(of_gguf) == 1
    assert "(given: 'q5_0')" in of_gguf[0]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("", "liga-relevance"),
        ("task: support_messages", "support-messages"),
        ("deploy: {keep: 2}\ntask: support_messages", "support-messages"),
        ("deploy: {name: helper}\ntask: support_messages", "helper"),
    ],
)
def test_a_model_is_named_after_its_task(tmp_path: Path, text: str, name: str) -> None:
    assert load(tmp_path, f"{MINIMAL}{text}\n").deploy.name == name
