"""What the processes were promised, and whether it was kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from costspan.core.journal.frames import read_frames
from costspan.core.journal.records import Counts
from costspan.core.schema import Observation
from simulator.checks import check, check_refuses_changes
from simulator.disk import Inode
from simulator.hosts import Host
from simulator.rebuilt import check_order, check_rebuild
from simulator.recording import BESIDE, SPOOL, Recording
from simulator.work import HOUR_NS

if TYPE_CHECKING:
    from simulator.world import World


def check_step(world: Recording) -> None:
    """After every step."""
    errors = world.computer.descriptor_errors
    check(not errors, "descriptors", "used after it was closed:", errors)
    for folder in (SPOOL, BESIDE):
        with suppress(FileNotFoundError):
            check_whole(world, folder)
    world.books.check_changes()


def check_whole(world: Recording, folder: Path) -> None:
    """Nothing is torn where nobody died."""
    for name, file in world.computer.disk.folder(folder).entries.items():
        if name.endswith(".seg") and isinstance(file, Inode) and not file.may_be_torn:
            damaged = read_frames(bytes(file.data)).damaged
            check(not damaged, "torn", "half a frame in", folder / name, damaged)


def check_settled(world: Recording, hosts: Iterable[Host]) -> None:
    """6: what was acknowledged is in the journal."""
    marks = world.books.read_marks()
    for host in hosts:
        lost = [each for each in host.entries if each.state == "acked" and each.mark not in marks]
        check(not lost, 6, "acknowledged, and lost:", lost)


def finish(world: World, seed: int) -> None:
    """Everything is mended; then all that was promised must be in the books."""
    computer = world.computer
    computer.fault = None
    computer.slow_writes = 0
    for volume in computer.disk.free_bytes:
        computer.disk.free_bytes[volume] = None
    world.pass_time(HOUR_NS, HOUR_NS)
    living = [host for host in world.hosts if host.is_alive]
    for host in living:
        entry = world.record(host, Observation())
        check(entry.state == "acked", "recovery", "the disk is well, and it said", entry)
        world.rotate(host)
        world.sync(host)
        held = [each for each in host.entries if each.state == "held"]
        check(not held, "recovery", "the disk is well, and these are held:", held)
    settler = world.start()
    world.drain(settler)
    check_settled(world, world.hosts)
    check_left(world)
    check_step(world)
    check_writers(world, living)
    check_controls(world)
    observations = world.books.ledger.counts()["observations"]
    world.drain(settler)
    check(observations == world.books.ledger.counts()["observations"], 6, "settled again")
    check_step(world)
    check_order(world.books.ledger, seed)
    check_rebuild(world.books.ledger)
    check_refuses_changes(world.books.ledger)


def check_left(world: Recording) -> None:
    """The spool is empty, nobody holds a descriptor, and what was refused is nowhere."""
    for folder in (SPOOL, BESIDE):
        with suppress(FileNotFoundError):
            names = world.computer.disk.folder(folder).entries
            left = [name for name in names if name.endswith(".seg")]
            check(not left, "spool", "left in", folder, left)
    for host in world.hosts:
        held = host.process.files.table
        check(not held, "descriptors", "never closed:", held)
    marks = world.books.read_marks()
    written = [e for e in world.entries.values() if e.state == "refused" and e.mark in marks]
    check(not written, 7, "refused, and yet in the journal:", written)


def check_writers(world: Recording, living: Iterable[Host]) -> None:
    """7: no gap in any writer's numbers, and every refusal is counted and told."""
    for writer, greatest, kept in world.books.ledger.writers():
        if writer not in world.exposed:
            check(greatest == kept, 7, "a gap in", writer, ":", kept, "of", greatest)
    said = {
        record.writer: record.counts
        for record in world.books.ledger.controls()
        if isinstance(record, Counts)
    }
    for host in world.hosts:
        told = refusals(said.get(host.told_by or "", {}))
        check(told <= host.refused, 7, "refused", host.refused, "times, told", told)
        if host in living:
            counted = refusals(host.counts)
            check(counted == host.refused, 7, "refused", host.refused, "times, counted", counted)
            check(told == host.refused, 7, "refused", host.refused, "times, told", told)


def refusals(counts: Mapping[str, int]) -> int:
    """How many records were refused."""
    return sum(times for name, times in counts.items() if name.startswith("refused:"))


def check_controls(world: World) -> None:
    """6: what an operator said is kept."""
    kept = world.books.ledger.controls()
    lost = [record for record in world.controls if record not in kept]
    check(not lost, 6, "said by the operator, and lost:", lost)
