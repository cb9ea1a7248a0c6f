"""Processes that record, and what each of them was promised."""

from __future__ import annotations

import copy
import copyreg
import threading
from collections import Counter
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

import msgspec

from costspan.core import counters
from costspan.core.journal import spool
from costspan.core.recorder import Recorder
from costspan.core.schema import Observation
from simulator.computer import Computer, Process

# What a child sees of a lock that nobody holds: one of its own that nobody holds.
for _kind, _make in (
    (type(threading.RLock()), threading.RLock),
    (type(threading.Lock()), threading.Lock),
):
    copyreg.pickle(_kind, lambda _, make=_make: (make, ()))  # type: ignore[misc]


class Entry:
    """One observation that a process recorded, known by its mark.

    `state` is what was promised of it: acked, held, refused; or perhaps, where the process died
    before it had an answer. `is_safe`: the power may fail as well.
    """

    def __init__(self, mark: str, seen: Observation) -> None:
        self.mark = mark
        self.seen = seen
        self.oid: str | None = None
        self.state = "perhaps"
        self.is_safe = False

    def __repr__(self) -> str:
        return f"{self.mark} ({self.state}, {self.oid})"


class Host:
    """A process with a recorder, and counters of its own."""

    recorder: Recorder

    def __init__(self, process: Process, syncs_always: bool) -> None:
        self.process = process
        self.syncs_always = syncs_always
        self.entries: list[Entry] = []
        self.refused = 0
        self.writers: set[str] = set()
        self.counts: Counter[str] = Counter()
        self.told_by: str | None = None

    @property
    def is_alive(self) -> bool:
        return self.process.is_alive

    def start(self, folder: Path, beside: Path | None) -> None:
        """Begin to record."""
        sync: Literal["always", "interval"] = "always" if self.syncs_always else "interval"
        self.recorder = Recorder(folder, beside=beside, sync=sync, files=self.process.files)

    def forked(self, computer: Computer) -> Host:
        """A child: a copy of the memory, and of the descriptors."""
        process = computer.fork(self.process)
        memo: dict[int, Any] = {
            id(self.process.files): process.files,
            id(self.process): process,
        }
        child = Host(process, self.syncs_always)
        child.recorder = copy.deepcopy(self.recorder, memo)
        return child

    def let_go(self) -> None:
        """In a child: close what the parent drains, as the hook after a fork does."""
        for fd in spool._claimed & self.process.files.table.keys():
            self.process.files.close(fd)


@contextmanager
def replaced(where: Any, name: str, instead: Any) -> Generator[None]:
    """An attribute of a module or class, for a while."""
    missing = object()
    before = vars(where).get(name, missing)
    setattr(where, name, instead)
    try:
        yield
    finally:
        if before is missing:
            delattr(where, name)
        else:
            setattr(where, name, before)


_acting = threading.local()


@contextmanager
def acting(host: Host) -> Generator[None]:
    """What is counted meanwhile is counted by this process."""
    before = getattr(_acting, "host", None)
    _acting.host = host
    try:
        yield
    finally:
        _acting.host = before


def actor() -> Host:
    """Who is acting."""
    host: Host = _acting.host
    return host


@contextmanager
def counters_of_each() -> Generator[None]:
    """Every process has counters of its own, as long as this lasts."""

    def count(name: str, times: int = 1) -> None:
        actor().counts[name] += times

    def snapshot() -> dict[str, int]:
        return dict(actor().counts)

    def told_by(writer: str) -> str:
        host = actor()
        host.told_by = host.told_by or writer
        return host.told_by

    with ExitStack() as replacing:
        for each in (count, snapshot, told_by):
            replacing.enter_context(replaced(counters, each.__name__, each))
        yield


def marked(seen: Observation, mark: str) -> Observation:
    """The observation under a name that nothing decides by."""
    return msgspec.structs.replace(seen, request_id=mark)
