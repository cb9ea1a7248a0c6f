"""Runs that their host gives up without a word: a cancelled or timed-out `ainvoke`.

Two signs, whichever comes first. The task that made the call ended while the call was open. Or, in
a task that lives on (`asyncio.timeout`), the object of the run's id died: LangChain's own frames
hold it for as long as the call runs (a tracer that keeps it, as LangSmith's does, hides this sign:
then the run stays open and is swept). A late END is still taken, as evidence.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any
from uuid import UUID

from costspan.adapters.langchain.runs import Run


def watch(run: Run, run_id: UUID, give_up: Callable[[Run], None]) -> None:
    """Call `give_up(run)` when the call is over and nobody said so; only in an event loop.

    Sync calls need no watching: LangChain reports whatever ends them.
    """
    loop = asyncio._get_running_loop()  # None, where `get_running_loop` would raise
    if loop is None:
        return
    task = asyncio.current_task(loop)

    def died(_: weakref.ref[UUID]) -> None:
        # Perhaps in the middle of a garbage collection, in any thread: nothing is done here.
        if not run.is_over:
            with suppress(RuntimeError):  # the loop is closed: the run stays open, and is swept
                loop.call_soon_threadsafe(give_up, run)

    id_alive = weakref.ref(run_id, died)
    done = partial(_task_done, run, give_up)
    if task is not None:
        task.add_done_callback(done)
    run.unwatch = partial(_unwatch, task, done, id_alive)


def _unwatch(
    task: asyncio.Task[Any] | None, done: Callable[[asyncio.Task[Any]], None], _: weakref.ref[UUID]
) -> None:
    if task is not None:
        task.remove_done_callback(done)


def _task_done(run: Run, give_up: Callable[[Run], None], task: asyncio.Task[Any]) -> None:
    """A stream that has begun may be read on by another task, unless this one was cancelled."""
    if task.cancelled() or not run.has_reply:
        give_up(run)
