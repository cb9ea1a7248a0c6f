"""Workers that outlive all requests: one thread, one task, each for the jobs of everybody."""

from __future__ import annotations

import asyncio
import queue
import threading
from concurrent.futures import Future
from typing import Any

from costspan.conformance.drivers.asgi_exchange import AsyncJob, Job


class ThreadWorker:
    """A thread that does jobs one after the other, in the context it was started in."""

    def __init__(self) -> None:
        self._jobs: queue.Queue[tuple[Job, Future[None]] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> Future[None]:
        """Queue a job; tells when it is done."""
        done: Future[None] = Future()
        self._jobs.put((job, done))
        return done

    def stop(self) -> None:
        """Do what is queued, and end."""
        self._jobs.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (taken := self._jobs.get()) is not None:
            job, done = taken
            try:
                job()
            except BaseException as error:
                done.set_exception(error)
            else:
                done.set_result(None)


class TaskWorker:
    """A task that does jobs one after the other, in the context it was started in."""

    def __init__(self) -> None:
        self._jobs: asyncio.Queue[tuple[AsyncJob, Future[None]]] = asyncio.Queue()
        self._task: asyncio.Task[Any] = asyncio.create_task(self._work())

    def submit(self, job: AsyncJob) -> Future[None]:
        """Queue a job, on the loop of the worker; tells when it is done."""
        done: Future[None] = Future()
        self._jobs.put_nowait((job, done))
        return done

    def stop(self) -> None:
        """End."""
        self._task.cancel()

    async def _work(self) -> None:
        while True:
            job, done = await self._jobs.get()
            try:
                await job()
            except Exception as error:
                done.set_exception(error)
            else:
                done.set_result(None)
