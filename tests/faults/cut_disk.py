"""A disk whose power can be cut: an ext4 file system in a file, behind a loop device.

What lies in the file is what the kernel has really sent to the disk. So a copy of the file is the
disk after a power cut: whatever was only in memory is missing, and mounting the copy replays its
journal as a boot does. Nothing is sent without being asked for (commit=300; a rename flushes
nothing by itself, noauto_da_alloc).
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class CutDisk:
    """The disk, mounted at `folder`."""

    def __init__(self, place: Path) -> None:
        self.folder = place / "disk"
        self._image = place / "image"
        self._next = place / "image-after"

    def make(self, mib: int) -> None:
        """Make the file system, and mount it."""
        self.folder.mkdir()
        with self._image.open("wb") as image:
            image.truncate(mib << 20)
        # A journal of the size that small disks do not get by themselves.
        _call("mkfs.ext4", "-q", "-m", "0", "-J", "size=8", str(self._image))
        self._mount()

    def cut(self) -> None:
        """Cut the power, and boot. Whoever writes there must have ended before."""
        shutil.copyfile(self._image, self._next)
        self.leave()
        self._next.replace(self._image)
        self._mount()

    def leave(self) -> None:
        """Unmount it; nothing of it is left in the kernel."""
        _call("umount", str(self.folder))

    def _mount(self) -> None:
        options = "loop,commit=300,noauto_da_alloc"
        _call("mount", "-t", "ext4", "-o", options, str(self._image), str(self.folder))


@contextmanager
def cut_disk(place: Path, mib: int) -> Iterator[CutDisk]:
    """Yield a disk; it is gone afterwards, whatever happens. Needs root and a loop device."""
    disk = CutDisk(place)
    disk.make(mib)
    try:
        yield disk
    finally:
        disk.leave()


def _call(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"
