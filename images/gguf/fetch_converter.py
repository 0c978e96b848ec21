"""Fetches llama.cpp's converter for a bare machine: `python -m images.gguf.fetch_converter DEST`.

In a container it is part of llama.cpp's own image. Here it comes from the source package of
llama-cpp-python, which holds the whole tree, unmodified, through pip and whatever index pip is
set up with; nothing is built.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path, PurePosixPath

SOURCE = "llama-cpp-python==0.3.36"
_TREE = ("vendor", "llama.cpp")
WANTED = (
    "convert_hf_to_gguf.py",
    "convert_lora_to_gguf.py",
    "conversion",
    "gguf-py",
    "LICENSE",
)
_COMPLETE = ".complete"


def fetch(destination: Path) -> bool:
    """Put the converter into a new folder, atomically; return False if it is there already.

    Raises `FileExistsError` where the folder is something else, `subprocess.CalledProcessError`
    where pip finds no package.
    """
    marker = destination / _COMPLETE
    ours = marker.is_file() and marker.read_text(encoding="utf-8").strip() == SOURCE
    if ours and all((destination / name).exists() for name in WANTED):
        return False
    if destination.exists() and not ours:
        raise FileExistsError(f"{destination} exists and is not the converter of {SOURCE}")
    destination.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=destination.parent, prefix=".converter.") as temporary:
        folder = Path(temporary)
        options = ("--no-deps", "--no-binary", ":all:", "--quiet")
        command = [sys.executable, "-m", "pip", "download", *options, SOURCE]
        subprocess.run([*command, "--dest", str(folder)], check=True)
        (archive,) = folder.glob("*.tar.gz")
        tree = folder / "tree"
        tree.mkdir()
        _extract(archive, tree)
        for name in WANTED:
            if not (tree / name).exists():
                raise FileNotFoundError(f"{archive.name} has no {name}")
        (tree / _COMPLETE).write_text(SOURCE + "\n", encoding="utf-8")
        if ours:  # of an older checkout, which wanted less
            destination.rename(folder / "old")
        tree.rename(destination)
    return True


def _extract(archive: Path, tree: Path) -> None:
    """Unpack the wanted part of `NAME-VERSION/vendor/llama.cpp`, that prefix removed."""
    with tarfile.open(archive) as source:
        for member in source:
            parts = PurePosixPath(member.name).parts
            if parts[1:3] == _TREE and len(parts) > 3 and parts[3] in WANTED and member.isfile():
                member.name = "/".join(parts[3:])
                source.extract(member, tree, filter="data")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m images.gguf.fetch_converter DEST")
    made = fetch(Path(sys.argv[1]).resolve())
    print(f"{sys.argv[1]}: {'fetched' if made else 'kept'}", file=sys.stderr)  # noqa: T201
