"""Several processes at once, one call at a time, in an order that was drawn before.

Each runs in a thread of its own that moves only when it has the turn, so that the same schedule is
the same run, however busy the machine is.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from simulator.computer import Computer, Process


class _Runner:
    def __init__(self, job: Callable[[], None]) -> None:
        self.job = job
        self.turn = threading.Semaphore(0)
        self.is_done = False
        self.error: BaseException | None = None


class Race:
    """Before every call the schedule says who goes on: its numbers are counted round the living."""

    def __init__(self, computer: Computer, schedule: Sequence[int]) -> None:
        self._computer = computer
        self._schedule = list(reversed(schedule))
        self._runners: list[_Runner] = []
        self._local = threading.local()

    def run(self, *jobs: Callable[[], None]) -> None:
        """Run the jobs to their ends.

        Raises:
            BaseException: the first that a job raised.
        """
        self._runners = [_Runner(job) for job in jobs]
        threads = [threading.Thread(target=self._run, args=(each,)) for each in self._runners]
        before, self._computer.turn = self._computer.turn, self._wait
        try:
            for thread in threads:
                thread.start()
            self._next().turn.release()
            for thread in threads:
                thread.join()
        finally:
            self._computer.turn = before
        for each in self._runners:
            if each.error is not None:
                raise each.error

    def _run(self, runner: _Runner) -> None:
        self._local.runner = runner
        runner.turn.acquire()
        try:
            runner.job()
        except BaseException as error:
            runner.error = error
        runner.is_done = True
        if any(not each.is_done for each in self._runners):
            self._next().turn.release()

    def _next(self) -> _Runner:
        running = [each for each in self._runners if not each.is_done]
        number = self._schedule.pop() if self._schedule else 0
        return running[number % len(running)]

    def _wait(self, process: Process) -> None:
        mine: _Runner = self._local.runner
        following = self._next()
        if following is not mine:
            following.turn.release()
            mine.turn.acquire()
