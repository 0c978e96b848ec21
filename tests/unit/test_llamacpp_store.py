"""The store of llama.cpp's models: a blob that was changed is found out, and made anew."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from contracts.errors import EngineUnavailable, ModelMissing
from serving.llamacpp import LlamaCpp
from serving.llamacpp_store import ModelStore
from tasks import load_task

MODELFILE = load_task("liga_relevance").modelfile()
CONTENT = b"GGUF" + bytes(1000)
DAMAGED = b"GGUF" + bytes(999) + b"x"


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    path = tmp_path / "some.gguf"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def store(tmp_path: Path, gguf: Path, monkeypatch: pytest.MonkeyPatch) -> ModelStore:
    """Return a store that holds `m`, in a blob of its own, not a link to the GGUF file."""

    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    made = ModelStore(tmp_path / "home")
    made.add("m", gguf, MODELFILE, None)
    return made


def damage(store: ModelStore, *, hidden: bool) -> Path:
    """Change the blob of `m`; `hidden` leaves its time of change as it was."""
    blob = store.blob(store.manifest("m"))
    before = blob.stat().st_mtime_ns
    blob.write_bytes(DAMAGED)
    later = before if hidden else before + 10_000_000_000
    os.utime(blob, ns=(later, later))
    return blob


def test_a_changed_blob_is_no_model_and_is_copied_anew(
    store: ModelStore, gguf: Path, tmp_path: Path
) -> None:
    store.copy("m", "alias")
    blob = damage(store, hidden=False)
    fresh = ModelStore(tmp_path / "home")
    assert fresh.models() == {}
    fresh.add("m", gguf, MODELFILE, None)
    assert blob.read_bytes() == CONTENT
    assert set(fresh.models()) == {"m:latest", "alias:latest"}


def test_a_change_that_does_not_show_is_found_out_before_the_model_is_loaded(
    store: ModelStore, gguf: Path, tmp_path: Path
) -> None:
    blob = damage(store, hidden=True)
    engine = LlamaCpp(tmp_path / "home")
    assert set(engine.models()) == {"m:latest"}
    options = {"num_ctx": 512, "num_predict": 1, "repeat_penalty": 1.0}
    asked = [{"role": "user", "content": "a"}]
    with pytest.raises(ModelMissing, match="m:latest is gone or damaged"):
        engine.chat("m", asked, options=options, timeout_s=1)
    assert engine.models() == {}, "so that a deployment is seen to be gone"
    engine.create("m", gguf, MODELFILE)
    assert blob.read_bytes() == CONTENT


def test_a_manifest_full_of_nul_is_named_in_one_line(store: ModelStore, tmp_path: Path) -> None:
    (path,) = (tmp_path / "home").rglob("latest.json")
    path.write_bytes(b"\0" * 200)
    with pytest.raises(EngineUnavailable, match="the manifest of m:latest is damaged") as caught:
        store.models()
    assert caught.value.why.startswith("Invalid JSON")
    assert "\n" not in caught.value.why


def test_a_blob_that_was_only_touched_is_read_and_kept(store: ModelStore, tmp_path: Path) -> None:
    blob = store.blob(store.manifest("m"))
    os.utime(blob, ns=(blob.stat().st_mtime_ns + 10_000_000_000,) * 2)
    assert set(ModelStore(tmp_path / "home").models()) == {"m:latest"}


def test_a_blob_that_was_read_is_not_read_again(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = store.manifest("m")

    def refuse(*_: object) -> str:
        raise AssertionError("read again")

    monkeypatch.setattr("hashlib.file_digest", refuse)
    assert store.whole_blob("m", manifest).is_file()
