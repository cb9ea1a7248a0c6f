"""Every way out of a process: what was acknowledged before, or on the way, is in the books.

A part says each acknowledged call on its standard output; how it ends is what the test is about.
"""

from __future__ import annotations

import asyncio
import atexit
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import FrameType

import pytest
from books_check import check
from calls import begin, call, configure, end
from children import lines, say

CALLS = 20


def _return() -> None:
    return


def _raise() -> None:
    raise LookupError("the host's own")


def _exit_in_a_thread() -> None:
    threading.Thread(target=sys.exit, args=(1,)).start()


def _terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def _execute_another() -> None:
    os.execv(sys.executable, [sys.executable, "-c", "print(end='')"])


ENDS: dict[str, tuple[Callable[[], object], int]] = {
    "return": (_return, 0),
    "sys.exit": (lambda: sys.exit(3), 3),
    "os._exit": (lambda: os._exit(4), 4),
    "an exception": (_raise, 1),
    "sys.exit in a thread": (_exit_in_a_thread, 0),
    "SIGTERM": (_terminate, -signal.SIGTERM),
    "SIGKILL": (lambda: os.kill(os.getpid(), signal.SIGKILL), -signal.SIGKILL),
    "abort": (os.abort, -signal.SIGABRT),
    "exec": (_execute_another, 0),
}


def part_end(folder: str, how: str, background: bool) -> None:
    configure(folder, background=background)
    for number in range(CALLS):
        say(call(number))
    ENDS[how][0]()


@pytest.mark.parametrize("background", [False, True], ids=["no background", "background"])
def test_ends_of_a_process(folder: Path, background: bool) -> None:
    acked: list[str] = []
    for how, (_, code) in ENDS.items():
        said = lines(part_end, folder, how, background, codes=(code,))
        assert len(said) == CALLS, how
        acked += said
    found = check(folder, acked)
    assert found.problems == []
    assert found.acked == len(ENDS) * CALLS


def part_at_exit(folder: str) -> None:
    """Handlers that run before costspan's own, and after it."""
    atexit.register(lambda: say(call(2)))
    configure(folder, background=True)
    say(call(1))


def part_at_exit_only(folder: str) -> None:
    """The first record of a process is made when no thread can start any more."""
    configure(folder, background=True)
    atexit.register(lambda: say(call(1)))


def _record_for_ever(number: int) -> None:
    while True:
        number += 1
        say(call(number))
        time.sleep(0.0005)  # the main thread is to come to its end


def part_daemon_threads(folder: str) -> None:
    """Daemon threads record without a pause when the interpreter ends, and are frozen."""
    configure(folder, background=True)
    for thread in range(3):
        start = thread * 1_000_000
        threading.Thread(target=_record_for_ever, args=(start,), daemon=True).start()
    for number in range(CALLS):
        say(call(5_000_000 + number))


def part_late_thread(folder: str) -> None:
    """A thread that outlives the main one makes the first record."""
    main = threading.main_thread()

    def late() -> None:
        main.join()
        say(call(1))

    configure(folder, background=True)
    threading.Thread(target=late).start()


class _Closing:
    """What a host's client does in its finalizer."""

    def __init__(self, number: int) -> None:
        self.attempt = begin(number)
        self.number = number
        self.end, self.say = end, say

    def __del__(self) -> None:
        self.say(self.end(self.attempt, self.number))


_left: list[_Closing] = []


def part_finalizers(folder: str) -> None:
    """A finalizer in a collection in the middle of the work, one in a cycle, one at shutdown."""
    configure(folder, background=True)
    for number in range(CALLS):
        in_a_cycle = _Closing(100 + number)
        in_a_cycle.me = in_a_cycle  # type: ignore[attr-defined]
        del in_a_cycle
        say(call(number))
        if number % 5 == 0:
            gc.collect()
    _left.append(_Closing(99))


def part_closed_loop(folder: str) -> None:
    """Inside a loop, in its shutdown, in a generator that is closed with it, and after it."""
    configure(folder, background=True)

    async def stream() -> AsyncIterator[int]:
        attempt = begin(1)
        try:
            while True:
                yield 1
        finally:
            say(end(attempt, 1))

    async def cancelled() -> None:
        attempt = begin(2)
        try:
            await asyncio.Event().wait()
        finally:
            say(end(attempt, 2))

    async def main() -> None:
        kept.append(stream())
        await anext(kept[0])
        tasks.append(asyncio.create_task(cancelled()))
        await asyncio.sleep(0)
        say(call(3))
        say(await asyncio.to_thread(call, 4))

    kept: list[AsyncIterator[int]] = []
    tasks: list[asyncio.Task[None]] = []
    asyncio.run(main())
    say(call(5))


def part_signal_handler(folder: str) -> None:
    """A handler that records comes in the middle of records, again and again."""
    configure(folder, background=True)
    times = 0

    def handler(_: int, __: FrameType | None) -> None:
        nonlocal times
        times += 1
        say(call(1_000_000 + times))

    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0007)
    number = 0
    while times < 10 * CALLS:
        number += 1
        say(call(number))
    signal.setitimer(signal.ITIMER_REAL, 0)


class _Interrupted(BaseException):
    """What Ctrl-C or a worker's time limit raises wherever the process happens to be."""


def part_raising_handler(folder: str) -> None:
    """The interrupted record may be lost, or be there unacknowledged; the others are as ever."""
    configure(folder)

    def handler(_: int, __: FrameType | None) -> None:
        raise _Interrupted

    signal.signal(signal.SIGALRM, handler)
    for round_ in range(INTERRUPTIONS):
        number = 1000 * round_
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.0003 + round_ % 100 / 100_000)
            while True:
                number += 1
                said = call(number)
                if said is not None:
                    acked.append(said)
        except _Interrupted:
            continue
    say("\n".join(acked))
    say(call(0))


acked: list[str] = []
INTERRUPTIONS = 150


@pytest.mark.parametrize(
    ("part", "at_least"),
    [
        (part_at_exit, 2),
        (part_at_exit_only, 1),
        (part_daemon_threads, CALLS),
        (part_late_thread, 1),
        (part_finalizers, 2 * CALLS),
        (part_closed_loop, 5),
        (part_signal_handler, 10 * CALLS),
    ],
)
def test_records_on_the_way_out(folder: Path, part: Callable[[str], None], at_least: int) -> None:
    acked = lines(part, folder)
    assert len(set(acked)) == len(acked) >= at_least
    found = check(folder, acked)
    assert found.problems == []


def test_records_that_are_interrupted_by_exceptions(folder: Path) -> None:
    said = lines(part_raising_handler, folder)
    assert len(set(said)) == len(said) > INTERRUPTIONS
    found = check(folder, said)
    assert found.problems == []
    assert found.unacked <= INTERRUPTIONS
