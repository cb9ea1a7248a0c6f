"""Old observations move into archives, and come back from them.

What goes are the payloads of observations in sealed months: the largest part of a ledger, which
only a rebuild or a revision ever reads. Events, postings, lines and sealed roots stay, so reports,
statements and proofs are as they were. In the journal a digest takes the payload's place: the same
observation delivered again is still a duplicate. Late evidence about an archived event is kept and
listed, and posts nothing until the archive is brought back; so nothing is posted twice.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar

import msgspec

from costspan.core.drain import RECORDS_PER_SETTLEMENT
from costspan.core.journal.records import Pruned
from costspan.core.periods import is_period, month_after
from costspan.core.schema import Observation
from costspan.core.settle.entries import Settled
from costspan.core.settle.ledger import Ledger
from costspan.core.settle.posting import effective_of
from costspan.core.settle.settle import settle

T = TypeVar("T")

_HEAD = {"costspan": "archived observations", "version": 1}
_CHUNK_BYTES = 1 << 20
_LEASE_SECONDS = 30
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Observation).decode


class RetentionError(ValueError):
    """What cannot be pruned or brought back; the text says why. Nothing was changed."""


class Restored(NamedTuple):
    """How many observations came back, of which files, and how many late ones were joined."""

    observations: int
    files: tuple[str, ...]
    late: int


def may_go(each: Settled, before: str) -> bool:
    """Whether nothing about an event is open: decided, seen to its end, in months before this."""
    if each.decision is None or each.event.is_open or each.event.is_swept:
        return False
    periods = [line.effective_period for line, _ in each.posted]
    return max([effective_of(each.event, each.decision)[0], *periods]) < before


def prune(
    ledger: Ledger,
    before: str,
    folder: Path,
    by: str,
    reason: str,
    now_ns: int,
    progress: Callable[[int], None] | None = None,
) -> Pruned | None:
    """Move the observations of sealed months before `before` (YYYY-MM) into an archive.

    The archive is written, synced and read back before anything is deleted, and only what was
    read back is deleted, in one transaction with the record of it.

    Returns:
        The record; None if there is nothing to prune.

    Raises:
        RetentionError: if a month before `before` is not sealed, or the archive does not hold
            what was written to it.
        OSError: if the archive cannot be written.
        LedgerBusy: if another settler holds the lease.
    """
    if not is_period(before):
        raise RetentionError(f"{before!r} is no month of the ledger: write YYYY-MM")
    with ledger.settling(_LEASE_SECONDS) as settlement:
        closed_until = settlement.closed_until()
        if closed_until is None or before > month_after(closed_until):
            sealed = "no month" if closed_until is None else f"only the months to {closed_until}"
            raise RetentionError(
                f"the ledger has {sealed} sealed: what is not sealed cannot be pruned"
                " (costspan close)"
            )
        archive = ledger.archive
        events = (
            (each.event.id, each.event.oid_names, may_go(each, before))
            for each in _told(ledger.events(), progress)
        )
        if not (chosen := archive.choose(events)):
            return None
        path, sha256 = write(folder, before, archive.chosen())
        taken = archive.take_away(read(path, sha256))
        if taken != chosen:
            raise RetentionError(
                f"{path} holds {taken:,} of {chosen:,} observations as they are in the ledger:"
                " nothing was deleted; try another disk"
            )
        record = Pruned(before, path.name, sha256, taken, by, reason, now_ns)
        settle(settlement, [], [record])
    return record


def restore(
    ledger: Ledger,
    folder: Path,
    gateways: tuple[str, ...] = (),
    progress: Callable[[int], None] | None = None,
) -> Restored:
    """Bring every archived observation back, and join the late evidence that waited for them.

    Raises:
        RetentionError: if an archive is missing, damaged or another one's.
        LedgerBusy: if another settler holds the lease.
    """
    with ledger.settling(_LEASE_SECONDS) as settlement:
        records = [each for each in ledger.controls() if isinstance(each, Pruned)]
        archive = ledger.archive
        brought, found = 0, list[Path]()
        # The latest file of an observation is as good as any: pruned, restored, pruned again.
        for record in reversed(records):
            if not archive.count():
                break
            path = folder / record.file
            if path.exists():
                found.append(path)
                brought += archive.bring_back(_told(read(path, record.sha256), progress))
        if left := archive.count():
            missing = sorted({each.file for each in records} - {path.name for path in found})
            raise RetentionError(
                f"{left:,} archived observations are not in {folder}: it lacks"
                f" {', '.join(missing) or 'them'}, which the ledger was pruned into"
            )
        late = archive.late() if brought else []
        settle(settlement, archive.contested(), [], gateways)
        # What came meanwhile was joined without them: everything near them is joined anew.
        hashes = {each.file: each.sha256 for each in records}
        for path in found:
            for batch in _batches(read(path, hashes[path.name])):
                again = settlement.observations([seen.oid or "" for seen in batch])
                settle(settlement, [], [], gateways, again=list(again))
        settle(settlement, [], [], gateways, again=late)
    return Restored(brought, tuple(path.name for path in found), len(late))


def write(folder: Path, before: str, observations: Iterable[Observation]) -> tuple[Path, str]:
    """Write an archive: gzipped NDJSON, one observation a line; (its path, its SHA-256 in hex).

    Its name says what it holds and its hash; the same observations make the same file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / f".costspan-{before}-{os.getpid()}.unfinished"
    try:
        with unfinished.open("wb") as file:
            with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
                packed.write(msgspec.json.encode({**_HEAD, "before": before}) + b"\n")
                for seen in observations:
                    packed.write(_encode(seen) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        with unfinished.open("rb") as file:
            sha256 = _hash_of(file)
        path = folder / f"costspan-{before}-{sha256[:16]}.ndjson.gz"
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    _sync_folder(folder)
    return path, sha256


def read(path: Path, sha256: str) -> Iterator[Observation]:
    """The observations of an archive.

    Raises:
        RetentionError: if it is not the file of this hash, or no archive.
    """
    with path.open("rb") as file:
        if _hash_of(file) != sha256:
            raise RetentionError(f"{path} is not the archive the ledger knows: its hash differs")
        file.seek(0)
        try:
            with gzip.GzipFile(fileobj=file) as packed:
                lines = io.BufferedReader(packed)
                if b"archived observations" not in lines.readline():
                    raise RetentionError(f"{path} is no archive of observations")
                for line in lines:
                    yield _decode(line)
        except (msgspec.MsgspecError, EOFError, gzip.BadGzipFile) as error:
            raise RetentionError(f"{path} cannot be read as an archive: {error}") from error


def _hash_of(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _batches(observations: Iterator[Observation]) -> Iterator[list[Observation]]:
    while batch := list(islice(observations, RECORDS_PER_SETTLEMENT)):
        yield batch


def _told(items: Iterable[T], progress: Callable[[int], None] | None) -> Iterator[T]:
    for done, each in enumerate(items, 1):
        if progress is not None and not done % 1000:
            progress(done)
        yield each
