"""The computer and the processes on it that record, and what each of them is told."""

from __future__ import annotations

import hashlib
import itertools
import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

from journals import POLICIES, policy_record

from costspan.core import identifiers, policy
from costspan.core.journal import ring
from costspan.core.recorder import Ack, Held, Refused
from costspan.core.schema import Observation
from costspan.core.settle import settle
from costspan.plugins.ledgers.sqlite.store import SqliteLedger
from simulator.books import plugged_in
from simulator.checks import Books, Violation, check
from simulator.computer import DATA, SHM, Computer
from simulator.disk import Folder, Inode
from simulator.hosts import Entry, Host, acting, actor, counters_of_each, marked, replaced

SPOOL, BESIDE = DATA / "spool", SHM / "spool"
HELD_MAX = 2
"""So few records fit into memory: more are refused."""
_RAM = Path("/dev/shm")


@cache
def _empty_ledger() -> bytes:
    """The file of a ledger that holds the first policy."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.db"
        ledger = SqliteLedger(str(path), create=True)
        first = POLICIES[0]
        with ledger.settling(0) as settlement:
            settlement.keep_rule_set(first.rules)
            for book in first.books:
                settlement.keep_price_book(book)
            settle(settlement, [], [policy_record(first)])
        ledger.close()
        return path.read_bytes()


class Recording:
    """One run. `close` it."""

    def __init__(self) -> None:
        self._open = ExitStack()
        folder = tempfile.mkdtemp(prefix="costspan-", dir=_RAM if _RAM.is_dir() else None)
        self._open.callback(shutil.rmtree, folder)
        self.ledger_path = f"{folder}/ledger.db"
        Path(self.ledger_path).write_bytes(_empty_ledger())
        self.numbers = itertools.count()
        for patch in (
            plugged_in(),
            counters_of_each(),
            replaced(identifiers, "new_writer_id", self._new_writer_id),
            replaced(policy, "_PUBLIC", ()),  # no public price list is looked at
            replaced(ring, "RECORDS_MAX", HELD_MAX),
        ):
            self._open.enter_context(patch)
        self.books = Books(self.ledger_path)
        self._open.callback(self.books.close)
        self.computer = Computer()
        self.computer.on_power_loss = self._after_power_loss
        self.computer.disk.make_folder(SPOOL)
        self.computer.disk.folder(DATA).sync()
        self.hosts: list[Host] = []
        self.busy: list[Host] = []
        """Those in the middle of a call of their recorder."""
        self.entries: dict[str, Entry] = {}
        self.exposed: set[str] = set()
        """Writers of whose records the power may have taken some."""

    def close(self) -> None:
        """Put everything back."""
        self._open.close()

    def _new_writer_id(self) -> str:
        writer = hashlib.sha256(b"%d" % next(self.numbers)).hexdigest()[:32]
        actor().writers.add(writer)
        return writer

    def start(self, has_beside: bool = False, syncs_always: bool = False) -> Host:
        """A new process that records."""
        host = Host(self.computer.start(), syncs_always)
        self.hosts.append(host)
        self._host_call(host, lambda: host.start(SPOOL, BESIDE if has_beside else None))
        return host

    def living(self, number: int) -> Host:
        """One of the living processes; a new one if there is none."""
        living = [host for host in self.hosts if host.is_alive]
        return living[number % len(living)] if living else self.start()

    def fork(self, host: Host) -> Host:
        """A child, which starts to record as a writer of its own."""
        child = host.forked(self.computer)
        self.hosts.append(child)
        self._host_call(child, child.let_go)
        self._host_call(child, child.recorder.after_fork)
        return child

    def new_entry(self, seen: Observation) -> Entry:
        """An observation under a mark of its own."""
        mark = f"<{len(self.entries)}>"
        entry = self.entries[mark] = Entry(mark, marked(seen, mark))
        return entry

    def record(self, host: Host, seen: Observation) -> Entry:
        """Record, and keep what was said to it."""
        entry = self.new_entry(seen)
        host.entries.append(entry)
        hits = self.computer.faults_hit
        said = self._host_call(host, lambda: host.recorder.record(entry.seen))
        if not host.is_alive:
            return entry
        if isinstance(said, Ack):
            taken = [each for each in self.entries.values() if each.oid == said.oid]
            check(not taken, 6, "one name for two records:", entry, taken)
            entry.oid, entry.state = said.oid, "acked"
            if host.syncs_always and hits == self.computer.faults_hit:
                entry.is_safe = self._can_be_safe(entry)
        elif isinstance(said, Held):
            entry.state = "held"
        elif isinstance(said, Refused):
            entry.state = "refused"
            host.refused += 1
        else:
            raise Violation(17, f"record() said {said!r}")
        self._note_written(host)
        return entry

    def sync(self, host: Host) -> None:
        """What the background thread does every second. Without a fault, all is on the disk."""
        hits = self.computer.faults_hit
        self._host_call(host, host.recorder.sync)
        if host.is_alive:
            self._note_written(host)
            if hits == self.computer.faults_hit:
                for entry in host.entries:
                    entry.is_safe = entry.is_safe or self._can_be_safe(entry)

    def rotate(self, host: Host) -> None:
        """The process gives its segment up."""
        self._host_call(host, host.recorder.rotate)
        if host.is_alive:
            self._note_written(host)

    def _host_call(self, host: Host, call: Callable[[], Any]) -> Any:
        """17: whatever goes wrong, nothing raises into the host."""
        self.busy.append(host)
        try:
            with acting(host), host.process.running():
                return call()
        except Violation:
            raise
        except Exception as error:
            raise Violation(17, f"raised into the host: {error!r}") from error
        finally:
            self.busy.remove(host)

    def _note_written(self, host: Host) -> None:
        """What was held and is not held any more was written: from now on it is owed."""
        if host not in self.busy and not host.recorder.held:
            for entry in host.entries:
                if entry.state == "held":
                    entry.state = "acked"

    def _can_be_safe(self, entry: Entry) -> bool:
        """Whether a record is owed, and lies where a sync can keep it from a loss of power."""
        name = entry.mark.encode()
        return entry.state == "acked" and any(
            not file.sync_failed and name in file.data for file in self._files(DATA)
        )

    def _files(self, path: Path) -> list[Inode]:
        found: list[Inode] = []
        folders = [self.computer.disk.folder(path)]
        while folders:
            for entry in folders.pop().entries.values():
                if isinstance(entry, Folder):
                    folders.append(entry)
                else:
                    found.append(entry)
        return found

    def kill(self, host: Host) -> None:
        """SIGKILL."""
        host.process.kill()

    def lose_power(self, seed: int) -> None:
        """The whole computer stops."""
        self.computer.lose_power(seed)

    def _after_power_loss(self) -> None:
        settled = self.books.read_marks()
        for host in self.hosts:
            for entry in host.entries:
                if entry.state in ("acked", "held") and entry.mark not in settled:
                    self.exposed |= host.writers
                    if not entry.is_safe:
                        entry.state = "perhaps"
