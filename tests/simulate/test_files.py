"""The simulated files against the real ones: the same calls, the same answers and errors."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from simulator.computer import DATA, Computer
from simulator.faults import Fault

from costspan.core.journal.files import SYSTEM, Files

FOLDERS = ("spool", "spool/quarantine")
NAMES = ("a", "b")

_paths = st.tuples(st.sampled_from(FOLDERS), st.sampled_from(NAMES)).map("/".join)
_fds = st.integers(0, 5)
_calls = st.one_of(
    st.tuples(st.just("make_folder"), st.sampled_from(FOLDERS)),
    st.tuples(st.sampled_from(["create", "open"]), _paths),
    st.tuples(st.sampled_from(["create", "open"]), _paths),
    st.tuples(st.just("write"), _fds, st.sampled_from([b"one", b"two and three"])),
    st.tuples(st.just("truncate"), _fds, st.integers(0, 20)),
    st.tuples(st.sampled_from("read sync duplicate close lock lock unlock".split()), _fds),
    st.tuples(st.just("is_at"), _fds, _paths),
    st.tuples(st.just("rename"), _paths, _paths),
    st.tuples(st.just("unlink"), _paths),
    st.tuples(st.sampled_from(["names", "sync_folder"]), st.sampled_from(FOLDERS)),
)


class Caller:
    """Makes calls below a folder; descriptors are numbered in the order they came."""

    def __init__(self, files: Files, below: Path) -> None:
        self.files = files
        self.below = below
        self.fds: list[int] = []
        self.to_append: dict[int, bool] = {}
        self.was_read: set[int] = set()

    def call(self, name: str, *args: Any) -> Any:
        """What came of it: an error as its number."""
        given: list[Any] = [self.below / arg if isinstance(arg, str) else arg for arg in args]
        if name in ("write", "truncate", "read", "sync", "duplicate", "close", "lock", "unlock",
                    "is_at"):  # fmt: skip
            if not self.fds:
                return None
            given[0] = self.fds[given[0] % len(self.fds)]
            if self.to_append[given[0]] != (name != "read") and name in ("write", "read"):
                return None  # one is only for appending, the other only for reading
            if name == "read":
                if self.was_read:
                    return None
                self.was_read.add(given[0])
        try:
            result = getattr(self.files, name)(*given)
        except OSError as error:
            return ("failed", error.errno)
        if name in ("create", "open", "duplicate"):
            self.fds.append(result)
            self.to_append[result] = (
                self.to_append[given[0]] if name == "duplicate" else name == "create"
            )
            return "a descriptor"
        if name == "close":
            self.fds.remove(given[0])
        return result

    def close(self) -> None:
        for fd in self.fds:
            self.files.close(fd)


@settings(
    max_examples=60,
    stateful_step_count=40,
)
@given(st.lists(_calls, min_size=5, max_size=40))
def test_they_do_what_the_system_does(calls: list[tuple[Any, ...]]) -> None:
    computer = Computer()
    with tempfile.TemporaryDirectory() as folder:
        real, simulated = Caller(SYSTEM, Path(folder)), Caller(computer.start().files, DATA)
        try:
            for caller in (real, simulated):
                caller.call("make_folder", FOLDERS[1])
            for call in calls:
                assert simulated.call(*call) == real.call(*call), call
        finally:
            real.close()


def test_the_power_leaves_what_was_synced_and_no_lock() -> None:
    computer = Computer()
    files = computer.start().files
    folder = DATA / "spool"
    files.make_folder(folder)
    computer.disk.folder(DATA).sync()
    fd = files.create(folder / "new")
    assert files.lock(fd)
    files.write(fd, b"synced")
    files.sync(fd)
    files.rename(folder / "new", folder / "named")
    files.write(fd, b", not synced")

    files.sync_folder(folder)
    other = computer.start().files
    assert not other.lock(other.open(folder / "named"))
    computer.lose_power(0)

    after = computer.start().files
    assert after.names(folder) == ["named"]
    found = after.open(folder / "named")
    assert after.lock(found)
    assert after.read(found) == b"synced"


def test_a_name_that_was_not_synced_may_be_the_old_one() -> None:
    for seed, names in ((0, ["old"]), (1, ["new"])):
        computer = Computer()
        files = computer.start().files
        files.make_folder(DATA / "spool")
        files.close(files.create(DATA / "spool" / "old"))
        for folder in (DATA, DATA / "spool"):
            computer.disk.folder(folder).sync()
        files.rename(DATA / "spool" / "old", DATA / "spool" / "new")
        computer.lose_power(seed)
        assert computer.start().files.names(DATA / "spool") == names


def test_after_a_failed_sync_the_kernel_lies() -> None:

    computer = Computer()
    files = computer.start().files
    files.make_folder(DATA / "spool")
    fd = files.create(DATA / "spool" / "a")
    for folder in (DATA, DATA / "spool"):
        computer.disk.folder(folder).sync()
    files.write(fd, b"never")
    computer.fault = Fault("error", 0)
    try:
        files.sync(fd)
    except OSError:
        files.sync(fd)
    computer.lose_power(1)
    after = computer.start().files
    assert after.read(after.open(DATA / "spool" / "a")) == b""


def test_a_lock_goes_with_the_last_descriptor() -> None:
    computer = Computer()
    parent = computer.start()
    parent.files.make_folder(DATA / "spool")
    path = DATA / "spool" / "a"
    fd = parent.files.create(path)
    assert parent.files.lock(fd)
    child = computer.fork(parent)
    parent.kill()
    other = computer.start().files
    waiting = other.open(path)
    assert not other.lock(waiting)
    child.files.close(fd)
    assert other.lock(waiting)
