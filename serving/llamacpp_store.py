"""llama.cpp's models on disk, as Ollama keeps them: blobs by digest, and a manifest for a name.

    blobs/sha256-HEX            GGUF files, hard links where possible
    manifests/NAME/TAG.json     {"gguf": HEX, "bytes": N, "modelfile": {…}}

A model's digest is that of its manifest's content, in which the name does not occur: a copy has
the digest of its source. A blob that does not hold what its name says is no model: that is found
out before it is loaded, and, where it was written to after its manifest, whenever it is listed.

Files are published by rename, so readers need no lock; writers take one, since a blob that no
manifest names is removed, and one that is about to be named looks the same.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from contracts import files
from contracts.errors import EngineUnavailable, ModelMissing
from contracts.stage import Frozen
from serving.engine import Model, Progress, full_tag
from tasks.definition import Modelfile

_CHUNK = 1 << 24


class Manifest(Frozen):
    """What a name stands for."""

    gguf: str
    """SHA-256 of the GGUF file, in hex."""
    bytes: int
    modelfile: Modelfile

    def digest(self) -> str:
        """Return the digest of the model."""
        return files.digest_text(files.canonical_json(self.model_dump(mode="json")))


class ModelStore:
    """The models below one folder."""

    def __init__(self, home: Path) -> None:
        self._blobs = home / "blobs"
        self._manifests = home / "manifests"
        self._digests: dict[Path, files.KnownDigest] = {}
        """Of blobs that were read, which takes half a minute for 15 GB."""

    def models(self) -> dict[str, Model]:
        """Return all models by full tag; one that vanishes meanwhile is left out."""
        found = {}
        for path in sorted(self._manifests.rglob("*.json")):
            name = path.parent.relative_to(self._manifests).as_posix()
            tag = f"{name}:{path.name.removesuffix('.json')}"
            with contextlib.suppress(ModelMissing):
                manifest = self.manifest(tag)
                if not self._looks_whole(manifest, path):
                    continue  # taken away or damaged: it can be made again under this name
                found[tag] = Model(tag, manifest.digest(), manifest.bytes)
        return found

    def manifest(self, tag: str) -> Manifest:
        """Return what a name stands for; raises `ModelMissing`."""
        path = self._path(tag)
        try:
            return Manifest.model_validate_json(files.read_bytes(path))
        except FileNotFoundError:
            raise ModelMissing(
                f"llama.cpp has no model {full_tag(tag)}",
                why=f"{path} is not there",
                todo="Name a model that was made with this store (LLAMACPP_HOME).",
            ) from None
        except ValidationError as error:
            raise EngineUnavailable(
                f"the manifest of {full_tag(tag)} is damaged",
                why=str(error.errors(include_url=False)[0]["msg"]),
                todo=f"Remove {path}.",
                passing=False,
            ) from error

    def blob(self, manifest: Manifest) -> Path:
        """Return the path of a model's GGUF file."""
        return self._blobs / f"sha256-{manifest.gguf}"

    def whole_blob(self, tag: str, manifest: Manifest) -> Path:
        """Return the path of a model's GGUF file, which holds what it was made of.

        A damaged one is removed, so that the model can be made anew: raises `ModelMissing`.
        """
        blob = self.blob(manifest)
        if not self._is_whole(manifest):
            with self._writing():
                if not self._is_whole(manifest):
                    blob.unlink(missing_ok=True)
            raise ModelMissing(
                f"the GGUF file of {full_tag(tag)} is gone or damaged",
                why=f"{blob} does not hold what its name says",
                todo="`python -m driver run` makes the model anew.",
            )
        return blob

    def add(self, tag: str, gguf: Path, modelfile: Modelfile, progress: Progress | None) -> Model:
        """Publish a GGUF file under a name. `progress` counts bytes read for the digest."""
        digest, size = _digest(gguf, progress)
        manifest = Manifest(gguf=digest, bytes=size, modelfile=modelfile)
        with self._writing():
            self._link(gguf, manifest)
            blob = self.blob(manifest)
            self._digests[blob] = files.KnownDigest.of(blob, digest)
            files.write_json(self._path(tag), manifest.model_dump(mode="json"))
        return Model(full_tag(tag), manifest.digest(), size)

    def copy(self, source: str, destination: str) -> None:
        """Let a second name stand for the same model."""
        with self._writing():
            manifest = self.manifest(source)
            files.write_json(self._path(destination), manifest.model_dump(mode="json"))

    def remove(self, tag: str) -> None:
        """Forget a name, and its GGUF file if no other name needs it."""
        with self._writing():
            manifest = self.manifest(tag)
            self._path(tag).unlink()
            if manifest.gguf not in {self.manifest(other).gguf for other in self.models()}:
                self.blob(manifest).unlink(missing_ok=True)

    def _looks_whole(self, manifest: Manifest, path: Path) -> bool:
        """Return whether the blob can be taken for whole; it is read only where it was written to
        after the manifest at `path`.
        """
        try:
            found = self.blob(manifest).stat()
            if found.st_mtime_ns <= path.stat().st_mtime_ns:
                return found.st_size == manifest.bytes
        except FileNotFoundError:
            return False
        return self._is_whole(manifest)

    def _is_whole(self, manifest: Manifest) -> bool:
        """Return whether the blob holds what its name says; it is read once."""
        blob = self.blob(manifest)
        try:
            if blob.stat().st_size != manifest.bytes:
                return False
            digest = files.digest_path(blob, self._digests)
            self._digests[blob] = files.KnownDigest.of(blob, digest)
        except FileNotFoundError:
            return False
        return digest == manifest.gguf

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Keep other writers out, other processes' too; flock(2) ends with its process."""
        self._blobs.mkdir(parents=True, exist_ok=True)
        with (self._blobs.parent / "lock").open("a") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield

    def _path(self, tag: str) -> Path:
        name, _, version = full_tag(tag).partition(":")
        return self._manifests / name / f"{version}.json"

    def _link(self, gguf: Path, manifest: Manifest) -> None:
        """Put the file among the blobs: a hard link costs nothing, a copy works everywhere.

        The workspace's published files never change in place, so a link is safe.
        """
        blob = self.blob(manifest)
        if blob.exists() and (blob.samefile(gguf) or self._is_whole(manifest)):
            return
        folder = Path(tempfile.mkdtemp(dir=self._blobs, prefix=".new-"))
        try:
            try:
                os.link(gguf, folder / blob.name)
            except OSError:  # another file system, or links to others' files are forbidden
                shutil.copyfile(gguf, folder / blob.name)
                files.fsync_path(folder / blob.name)
            (folder / blob.name).replace(blob)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        files.fsync_path(self._blobs)


def _digest(gguf: Path, progress: Progress | None) -> tuple[str, int]:
    total, done, sha = gguf.stat().st_size, 0, hashlib.sha256()
    with gguf.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            sha.update(chunk)
            done += len(chunk)
            if progress:
                progress(done, total)
    return sha.hexdigest(), done


__all__ = ["Manifest", "ModelStore"]
