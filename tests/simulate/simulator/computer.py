"""A computer: its disk, its clocks, its processes, and what goes wrong at their Nth call.

Nothing here is random: what happens follows from the calls and from what was asked for before.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from simulator.disk import Choose, Disk, Inode
from simulator.faults import Fault, Killed
from simulator.files import CALL_NS, SimulatedFiles

DATA, SHM = Path("/data"), Path("/shm")
"""Two volumes; the second is in memory: nothing of it outlives the power."""
NOW_NS = 1_769_900_000 * 10**9  # 2026-01-31, 23 hours: a period ends soon


class Computer:
    """What all processes share."""

    def __init__(self) -> None:
        self.disk = Disk(DATA, SHM)
        self.processes: list[Process] = []
        self.wall_ns = NOW_NS
        self.monotonic_now_ns = 10**9
        self.descriptors = itertools.count(3)
        """No number twice, not even in different processes: so a wrong one is always seen."""
        self.fault: Fault | None = None
        self.faults_hit = 0
        self.slow_writes = 0
        self.power_losses = 0
        self.descriptor_errors: list[str] = []
        self.turn: Callable[[Process], None] = lambda process: None
        """Called before every call: who races, waits here for the turn."""
        self.on_power_loss: Callable[[], None] = lambda: None

    def start(self) -> Process:
        """A new process."""
        process = Process(self, len(self.processes))
        self.processes.append(process)
        return process

    def fork(self, parent: Process) -> Process:
        """A child with the parent's open files."""
        child = self.start()
        child.files.inherit(parent.files)
        return child

    def lose_power(self, seed: int) -> None:
        """Every process dies; of each file is left what was synced, and some of the rest.

        Seed 0 leaves nothing that was not synced, seed 1 everything; others choose.
        """
        for process in self.processes:
            process.kill()
        self.disk.survive(_choices(seed))
        self.disk.folder(SHM).entries.clear()
        self.disk.root.sync()
        self.slow_writes = 0
        self.power_losses += 1
        for volume in self.disk.free_bytes:
            self.disk.free_bytes[volume] = None
        self.on_power_loss()

    def call(self, process: Process, name: str) -> Fault | None:
        """One call of a process begins: what is planned for this moment happens.

        Returns a fault that the call itself has to show (`short`, `kill_after`).

        Raises:
            Killed: if the process is dead, or dies here.
            OSError: if the call fails.
        """
        self.turn(process)
        if not process.is_alive:
            raise Killed
        self.wall_ns += CALL_NS
        self.monotonic_now_ns += CALL_NS
        fault = self.fault
        if fault is None:
            return None
        if fault.at > 0:
            self.fault = fault._replace(at=fault.at - 1)
            return None
        if fault.what == "short" and name != "write":
            return None  # the next write will be short
        self.fault = None
        self.faults_hit += 1
        return self._strike(process, fault)

    def _strike(self, process: Process, fault: Fault) -> Fault | None:
        match fault.what:
            case "error":
                raise OSError(*fault.error.args)
            case "slow":
                self.slow_writes = 3
            case "kill":
                process.kill()
            case "power":
                self.lose_power(fault.seed)
            case "meanwhile":
                assert fault.meanwhile is not None
                fault.meanwhile()
            case _:
                return fault
        if not process.is_alive:
            raise Killed
        return None


def _choices(seed: int) -> Choose:
    if seed < 2:
        return lambda most: most * seed
    source = random.Random(seed)
    return lambda most: source.randint(0, most)


class Process:
    """One process: its descriptors, and whether it lives."""

    def __init__(self, computer: Computer, number: int) -> None:
        self.computer = computer
        self.number = number
        self.is_alive = True
        self.written: Inode | None = None
        """The file that the last call wrote to."""
        self.files: SimulatedFiles = SimulatedFiles(self)

    def kill(self) -> None:
        """SIGKILL: the kernel closes the descriptors; what was written stays in its cache."""
        if self.is_alive:
            self.is_alive = False
            if self.written is not None:
                self.written.may_be_torn = True
            for opened in self.files.table.values():
                opened.release()
            self.files.table.clear()

    def call(self, name: str) -> Fault | None:
        """See `Computer.call`."""
        return self.computer.call(self, name)

    @contextmanager
    def running(self) -> Generator[None]:
        """What a process does; if it dies of it, that is the end of it, and of no one else."""
        try:
            yield
        except Killed:
            assert not self.is_alive
