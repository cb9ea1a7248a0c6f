"""What `doctor` looks for around the books: the spool, the disk below them, the plugins."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

from costspan.cli.finding import Finding
from costspan.cli.moments import age
from costspan.core import counters, hooks, sinks
from costspan.core.config import Config, ConfigError
from costspan.core.journal import spool
from costspan.core.journal.files import open_file
from costspan.core.journal.frames import MAGIC, is_newer
from costspan.core.ledger_errors import LedgerBusy
from costspan.core.policy import contract_of, rules_of
from costspan.core.read.waiting import Tail, Waiting
from costspan.core.settle.ledger import open_url

LATE_NS = 5 * 60 * 10**9
"""A running process drains every few seconds; what is older waits for somebody."""
_MOUNTS = Path("/proc/mounts")
_MEMORY = ("tmpfs", "ramfs")
_LAYERED = ("overlay", "aufs")
_NETWORK = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "glusterfs", "fuse.sshfs", "afs")


def of_settings(settings: Config) -> Iterator[Finding]:
    """The files and names of the settings that cannot be used: nothing drains with them."""
    asked: tuple[tuple[str, Path | None, Callable[[Config], object]], ...] = (
        ("rules", settings.rules, rules_of),
        ("prices", settings.prices, contract_of),
    )
    for name, path, load in asked:
        try:
            load(settings)
        except ValueError as error:  # a ConfigError, or bytes that are no text
            said = str(error) if isinstance(error, ConfigError) else f"{name}: {path}: {error}"
            yield Finding(
                severity="error",
                check="settings_unusable",
                count=1,
                what=f"{said}; records stay in the spool until it can be used",
                do="correct it (costspan rules check FILE), or take it out of the settings",
            )


def unwritable(folder: Path) -> str | None:
    """Why nothing could be written into a folder (which need not exist yet); None if it could."""
    place = folder.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        return f"{place} is no folder"
    if not os.access(place, os.W_OK | os.X_OK):
        return f"{place} cannot be written by this user"
    return None


ROOM_BYTES_MIN = 128 * 1024
"""With less a disk is full: a segment of one process alone may come to 8 MiB."""


def room_bytes(folder: Path) -> int | None:
    """How much room is left for us on the disk of a folder; None where nobody can tell."""
    try:
        disk = os.statvfs(folder)
    except OSError:
        return None
    return disk.f_bavail * disk.f_frsize


def of_spool(found: Waiting, now_ns: int) -> Iterator[Finding]:
    """Whether it can be written, what waits, what was torn, who writes."""
    if why := unwritable(found.folder) or found.unreadable:
        yield Finding(
            severity="error",
            check="spool_unusable",
            count=1,
            what=f"the spool {found.folder} cannot be used: {why}; what is recorded there is lost"
            " unless another folder takes it",
            do="make it a folder that the processes can write, or name another with --spool",
        )
    if (room := room_bytes(found.folder)) is not None and room < ROOM_BYTES_MIN:
        yield Finding(
            severity="error",
            check="disk_full",
            count=1,
            what=f"the disk of {found.folder} has {room:,} bytes of room left: records go beside,"
            " then wait in the memory of their processes, then are refused",
            do="make room; what waits is written as soon as there is some",
        )
    if found.strange:
        yield Finding(
            severity="warning",
            check="strange_files",
            count=len(found.strange),
            what=f"in {found.folder} are named as segments are, and are no files (pipes, links or"
            f" folders); nobody reads them: {', '.join(each.name for each in found.strange[:5])}",
            do="remove them, and see who can write that folder",
        )
    newer = newer_segments(found.folder)
    if newer:
        yield Finding(
            severity="error",
            check="newer_segments",
            count=newer,
            what=f"segments in {found.folder} were written by a newer costspan and cannot be read"
            " by this one; they stay where they are",
            do="drain with that version, or a newer one",
        )
    if found.complete > newer:
        waited = now_ns - (found.oldest_ns or now_ns)
        late = waited > LATE_NS
        yield Finding(
            severity="warning" if late else "note",
            check="undrained",
            count=found.complete - newer,
            what=f"segments wait in {found.folder} ({found.size_bytes:,} bytes), the oldest for"
            f" {age(waited)}",
            do="run costspan drain"
            + (" from a timer: no live process drains here" if late else ""),
        )
    if found.live:
        yield Finding(
            severity="note",
            check="live_writers",
            count=found.live,
            what="processes are writing right now; their last records come with the next drain",
            do="nothing",
        )
    damaged = [tail for tail in found.quarantined if tail.is_damage]
    torn = [tail for tail in found.quarantined if not tail.is_damage]
    if damaged:
        yield Finding(
            severity="error",
            check="quarantined_damage",
            count=len(damaged),
            what=f"{_bytes(damaged)} are no record cut short: records that had been acknowledged"
            " were changed on the disk, and these bytes are in no books",
            do="keep the files and see to the disk; bill the span from the invoice (gaps name the"
            " writers)",
        )
    if torn:
        yield Finding(
            severity="warning",
            check="quarantined",
            count=len(torn),
            what=f"{_bytes(torn)}: a record cut short by a crash (then nobody had acknowledged it)"
            " or damage to records that had been acknowledged: the bytes alone do not tell",
            do="keep them; a gap in the same writer's numbers, or the invoice, tells which it was",
        )


def newer_segments(folder: Path) -> int:
    """How many segments of a folder have a format that this version does not know."""
    newer = 0
    with suppress(OSError):  # here and below a finding of its own, or drained meanwhile
        for path in spool.segments(folder):
            with suppress(OSError), open(open_file(path, os.O_RDONLY), "rb") as file:
                newer += is_newer(file.read(len(MAGIC)))
    return newer


def _bytes(tails: list[Tail]) -> str:
    said = ", ".join(f"{tail.path.name} ({tail.size_bytes:,} bytes)" for tail in tails[:4])
    more = ", ..." if len(tails) > 4 else ""
    return f"torn tails in {tails[0].path.parent}: {said}{more}"


def of_place(what: str, path: Path, mounts: Path = _MOUNTS) -> Iterator[Finding]:
    """Whether what is at `path` will still be there tomorrow."""
    kind = mounted_as(path, mounts)
    trap = do = ""
    if kind in _MEMORY:
        trap, do = "lives in memory and is gone after a restart", "put it on a disk"
    elif kind in _LAYERED:
        trap = "lives in the container's own layer and is gone with the container"
        do = "mount a volume there"
    elif kind in _NETWORK:
        trap = "lies on a network mount, where SQLite's and the spool's locks cannot be relied on"
        do = "put it on a local disk, and merge folders with drain --spool DIR..."
    if trap:
        yield Finding(
            severity="warning",
            check="mount",
            count=1,
            what=f"the {what} {path} ({kind}) {trap}",
            do=do,
        )


def mounted_as(path: Path, mounts: Path = _MOUNTS) -> str | None:
    """The file system type that holds `path`; None where the system does not say."""
    try:
        lines = mounts.read_text("utf-8", "replace").splitlines()
    except OSError:
        return None
    whole = path.absolute().resolve()
    best, kind = -1, None
    for fields in (line.split() for line in lines):
        if len(fields) < 3:
            continue
        point = Path(_unescaped(fields[1]))
        # Of two mounts at one point the later one hides the earlier.
        if whole.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), fields[2]
    return kind


def _unescaped(field: str) -> str:
    for escape, character in ((r"\040", " "), (r"\011", "\t"), (r"\012", "\n"), (r"\134", "\\")):
        field = field.replace(escape, character)
    return field


def lease_of(ledger_url: str) -> str | None:
    """What keeps this process from settling right now; None if nothing does.

    Raises:
        LedgerError: if the ledger cannot be opened.
    """
    with closing(open_url(ledger_url, create=False)) as ledger:
        try:
            with ledger.settling(0):
                return None
        except LedgerBusy as busy:
            return str(busy)


def of_lease(busy: str | None, is_late: bool) -> Iterator[Finding]:
    """Whether somebody settles right now: usual for a moment, a trap if segments wait for long."""
    if busy is not None:
        yield Finding(
            severity="warning" if is_late else "note",
            check="ledger_busy",
            count=1,
            what=busy,
            do="find the process that holds the file (fuser, lsof): it settles nothing"
            if is_late
            else "nothing, unless it stays so",
        )


def of_sinks(standings: list[sinks.Standing]) -> Iterator[Finding]:
    """The sinks that have not taken every posting."""
    for each in standings:
        if not each.waiting:
            continue
        many = f"{'at least ' if each.waits_for_more else ''}{each.waiting:,}"
        said = f"the sink {each.sink} has taken postings up to number {each.taken:,}; {many} wait"
        if each.last_failure is not None:
            said += f"; it last failed here: {each.last_failure}"
        if not each.is_installed:
            said += "; it is not installed here"
        is_behind = each.waits_for_more or each.last_failure is not None
        yield Finding(
            severity="warning" if is_behind else "note",
            check="sink_behind",
            count=each.waiting,
            what=said,
            do="costspan drain brings it what waits, and says why it does not take it"
            if each.is_installed
            else "install it where the ledger is drained, or leave it: nothing is kept for it",
        )


def of_process() -> Iterator[Finding]:
    """Plugins that failed, and what this process counted of itself."""
    hooks.plugins()
    for problem in hooks.problems:
        yield Finding(
            severity="error",
            check="plugin",
            count=1,
            what=f"plugin {problem.plugin} failed in {problem.hook}: {problem.error}",
            do="repair or uninstall it; everything else goes on without it",
        )
    survived = {n: times for n, times in counters.snapshot().items() if not n.startswith("plugin_")}
    for name, times in sorted(survived.items()):
        yield Finding(
            severity="note",
            check="counter",
            count=times,
            what=f"this process survived {name}",
            do="nothing, unless it grows",
        )
