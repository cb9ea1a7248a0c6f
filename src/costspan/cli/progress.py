"""Progress of long work on standard error: a bar on a terminal, else a line every few seconds."""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

BAR_AFTER_SECONDS = 0.5
LINE_EVERY_SECONDS = 5.0


@contextmanager
def progress(doing: str, unit: str, total: int | None = None) -> Generator[Callable[[int], None]]:
    """Yields a function to tell how many units are done so far. Short work prints nothing.

    Args:
        doing: What is being done ("draining").
        unit: What is counted ("observations").
        total: How many there will be, if known.
    """
    plain = (
        not sys.stderr.isatty() or os.environ.get("TERM") == "dumb" or os.environ.get("NO_COLOR")
    )
    with _uncollected(), _lines(doing, unit, total) if plain else _bar(doing, unit, total) as tell:
        yield tell


@contextmanager
def _uncollected() -> Generator[None]:
    """Without the cyclic collector, which walks every record at hand and finds no cycle.

    Only in a process of our own: a host's is not ours to change.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def _lines(doing: str, unit: str, total: int | None) -> Generator[Callable[[int], None]]:
    said_at = time.monotonic()

    def tell(done: int) -> None:
        nonlocal said_at
        if time.monotonic() - said_at >= LINE_EVERY_SECONDS:
            said_at = time.monotonic()
            of = f" of {total:,}" if total else ""
            print(f"{doing}: {done:,}{of} {unit}", file=sys.stderr, flush=True)

    yield tell


@contextmanager
def _bar(doing: str, unit: str, total: int | None) -> Generator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} " + unit),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    task = bar.add_task(doing, total=total)
    began = time.monotonic()

    def tell(done: int) -> None:
        bar.update(task, completed=done)
        if not bar.live.is_started and time.monotonic() - began >= BAR_AFTER_SECONDS:
            bar.start()

    try:
        yield tell
    finally:
        if bar.live.is_started:
            bar.stop()
