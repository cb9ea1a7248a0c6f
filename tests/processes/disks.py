"""Small disks of a test's own, where the system lets us mount one."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest

_FILLER = "filler"


def _mount(*arguments: str) -> str:
    """What went wrong; empty if nothing did."""
    try:
        done = subprocess.run(["mount", *arguments], capture_output=True, check=False, timeout=30)
    except OSError as error:
        return str(error)
    return done.stderr.decode().strip() if done.returncode else ""


class SmallDisk:
    """A disk in memory that can be filled, freed, and made read-only."""

    def __init__(self, at: Path) -> None:
        self.at = at

    def fill(self) -> None:
        """Leave no byte free."""
        with (self.at / _FILLER).open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))

    def reserve(self, size_bytes: int) -> None:
        """Take so many bytes away, for `free` to give back."""
        (self.at / _FILLER).write_bytes(bytes(size_bytes))

    def free(self) -> None:
        """Give back what was taken."""
        (self.at / _FILLER).unlink()

    def make_read_only(self, *, is_read_only: bool = True) -> None:
        """As after an error of the disk; nothing on it may be open for writing."""
        wrong = _mount("-o", f"remount,{'ro' if is_read_only else 'rw'}", str(self.at))
        assert not wrong, wrong


@contextlib.contextmanager
def small_disk(at: Path, size: str) -> Generator[SmallDisk]:
    """Mount a disk of this size (`256k`); skips the test where that is refused."""
    at.mkdir()
    if os.getuid() != 0:
        pytest.skip("mounting a small disk takes root")
    if wrong := _mount("-t", "tmpfs", "-o", f"size={size},mode=0755", "tmpfs", str(at)):
        pytest.skip(f"no small disk can be mounted here: {wrong}")
    try:
        yield SmallDisk(at)
    finally:
        subprocess.run(["umount", "--lazy", str(at)], check=True, timeout=30)
