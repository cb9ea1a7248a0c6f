"""The spool folder as whoever drains it sees it: which segments there are, and whose turn it is.

A live writer holds the lock of its segment (see `segment`); so does a drainer while it settles one.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from costspan.core import counters
from costspan.core.journal import beside
from costspan.core.journal.files import SYSTEM, Files
from costspan.core.journal.frames import read_frames
from costspan.core.journal.segment import SUFFIX

if TYPE_CHECKING:
    from costspan.core.config import Config

_QUARANTINE = "quarantine"
_TORN = ".torn"
_claimed: set[int] = set()
"""The descriptors this process holds segments by, for a forked child to let go of."""


class Content(NamedTuple):
    """A claimed segment: its whole payloads, and where its torn or damaged parts were put.

    `may_go` is false while some torn part could not be put aside: `finish` leaves the segment.
    """

    path: Path
    payloads: list[bytes]
    quarantined: tuple[Path, ...]
    may_go: bool = True


def folders_of(settings: Config, named: Sequence[Path] = ()) -> tuple[Path, ...]:
    """The folders where records lie: the spool of these settings, and what is beside it.

    Or the folders that somebody names, and what is beside each. A default folder beside one is left
    out if it is not there, or not this user's alone: what another user put there is none of our
    records.
    """
    spools: dict[Path, Path | None] = {each: beside.folder_for(each) for each in named}
    if settings.spool in spools or not named:
        spools[settings.spool] = settings.spool_beside
    found: dict[Path, None] = {}
    for folder, other in spools.items():
        found[folder] = None
        if other is not None and (not beside.is_default(other) or beside.is_ours(other)):
            found[other] = None
    return tuple(found)


def segments(folder: Path, files: Files = SYSTEM) -> list[Path]:
    """The segments of a folder, oldest first; none if there is no such folder."""
    return [folder / name for name in files.names(folder) if name.endswith(SUFFIX)]


@contextmanager
def claim(path: Path, files: Files = SYSTEM) -> Generator[Content | None]:
    """The content of a segment no live writer and no other drainer holds; else None.

    What is torn or damaged is copied to the folder `quarantine`, never deleted. The caller removes
    the segment with `finish` once its records are safe elsewhere. A segment that cannot be read is
    counted (`claim_failed`), and stands in nobody's way.
    """
    try:
        fd = files.open(path)
    except FileNotFoundError:
        yield None
        return
    except OSError as error:
        counters.count(f"claim_failed:{error.errno}")
        yield None
        return
    _claimed.add(fd)
    try:
        yield _content(path, fd, files)
    finally:
        _claimed.discard(fd)
        _let_go(fd, files)


def _content(path: Path, fd: int, files: Files) -> Content | None:
    try:
        if not files.lock(fd):
            return None
        if not files.is_at(fd, path):
            return None  # another drainer finished it between our open and our lock
        data = files.read(fd)
    except OSError as error:
        counters.count(f"claim_failed:{error.errno}")
        return None
    frames = read_frames(data)
    kept: list[Path] = []
    may_go = True
    for start, end in frames.damaged:
        try:
            kept.append(_quarantine(path, data[start:end], start, files))
        except OSError as error:
            counters.count(f"quarantine_failed:{error.errno}")
            may_go = False
    return Content(path, frames.payloads, tuple(kept), may_go)


def _let_go(fd: int, files: Files) -> None:
    """Unlock by name, not only by closing: a forked child may hold a copy of the descriptor."""
    for step in (files.unlock, files.close):
        try:
            step(fd)
        except OSError as error:
            counters.count(f"spool_failed:{error.errno}")


def _quarantine(path: Path, torn: bytes, offset: int, files: Files) -> Path:
    folder = path.parent / _QUARANTINE
    files.make_folder(folder)
    kept = folder / f"{path.stem}@{offset}{_TORN}"
    if kept.name in files.names(folder):
        return kept
    partial = kept.with_suffix(".part")
    files.unlink(partial)  # of a drainer that died
    fd = files.create(partial)
    try:
        if files.write(fd, torn) != len(torn):
            raise OSError(28, f"short write of {partial}")
    finally:
        files.close(fd)
    files.rename(partial, kept)
    return kept


def segment_name(opened_at: int, writer: str, number: int) -> str:
    """The name of a writer's segment: in order of time, and telling whose it is."""
    return f"{opened_at:020d}-{writer}-{number}"


def writer_of(path: Path) -> str:
    """The writer in a segment's name; the whole name if it is none of ours."""
    parts = path.stem.split("-")
    return parts[1] if len(parts) == 3 else path.stem


def finish(content: Content, files: Files = SYSTEM) -> None:
    """Remove a claimed segment whose records are settled; it stays if the disk says no."""
    if not content.may_go:
        return
    try:
        files.unlink(content.path)
    except OSError as error:
        counters.count(f"spool_failed:{error.errno}")  # drained again, its records are duplicates


def quarantined(folder: Path, files: Files = SYSTEM) -> list[Path]:
    """The torn tails kept in a folder."""
    kept = folder / _QUARANTINE
    return [kept / name for name in files.names(kept) if name.endswith(_TORN)]


def after_fork() -> None:
    """In a forked child: let go of what the parent drains, so that its death sets it free."""
    while _claimed:
        with suppress(OSError):
            SYSTEM.close(_claimed.pop())
