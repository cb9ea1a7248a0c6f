"""Processes as an operator starts them, on a provider and a ledger of the test's own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from costspan.conformance.drivers.proxy_process import ProxyDied, interpreter
from costspan.conformance.provider import LoopbackProvider
from costspan.conformance.suite.judge import LISTED
from costspan.core.ledger_errors import LedgerMissing
from costspan.core.money import format_usd
from costspan.core.read.books import Books
from costspan.core.settle.ledger import open_url

EXAMPLES = Path(__file__).parents[2] / "examples"
TENANT_KEYS = {"sk-1": "acme", "sk-2": "globex", "sk-3": "initech"}
WAIT_SECONDS = 120.0
"""Far more than anything here takes: a machine may be busy."""

_OURS = ("COSTSPAN_", "LITELLM_", "OPENAI_", "ANTHROPIC_", "PYTEST_")
_STOP_SECONDS = 20.0


class Process:
    """A process in a folder of examples/, with its log; ended with all it started."""

    def __init__(
        self, command: Sequence[str], folder: Path, log: Path, environment: Mapping[str, str]
    ) -> None:
        self._command, self._log = command, log
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                command, cwd=folder, env=dict(environment), start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def check(self) -> None:
        """Raise what it said if it has ended."""
        if self._popen.poll() is not None:
            raise AssertionError(f"{self._command} ended: {self._log.read_text('utf-8')[-3000:]}")

    def stop(self) -> None:
        """End it as a service manager does."""
        for how in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._popen.pid, how)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(_STOP_SECONDS)


class Deployed:
    """Where everything is: the provider, the ledger, one spool; and what was started on them."""

    def __init__(
        self,
        provider: LoopbackProvider,
        ledger: str,
        folder: Path,
        prices: Path,
        processes: ExitStack,
    ) -> None:
        self.provider, self.ledger, self.spool = provider, ledger, folder / "spool"
        self._folder, self._prices, self._processes = folder, prices, processes
        self._running: list[Process] = []

    def environment(self, *without: str, **more: str) -> dict[str, str]:
        """What the READMEs export, here: the provider's and the ledger's addresses, the keys."""
        given = {
            "COSTSPAN_LEDGER": self.ledger,
            "COSTSPAN_SPOOL": str(self.spool),
            "COSTSPAN_SPOOL_BESIDE": "off",
            "COSTSPAN_PRICES": str(self._prices),
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_MASTER_KEY": "sk-master-of-the-test",
            "OPENAI_API_KEY": "loopback",
            "OPENAI_BASE_URL": self.provider.base_url,
            "TENANT_KEYS": json.dumps(TENANT_KEYS),
            **more,
        }
        return {**outside(), **{name: given[name] for name in given if name not in without}}

    def start(self, example: str, *command: str) -> None:
        """Start a command in an example's folder; it is ended with the test."""
        log = self._folder / f"{example}.log"
        started = Process(command, EXAMPLES / example, log, self.environment())
        self._processes.callback(started.stop)
        self._running.append(started)

    def until_served(self, client: httpx.Client, path: str) -> None:
        """Wait until a request is answered, whatever the answer is."""
        for _ in self._waiting(f"{client.base_url} serves"):
            with contextlib.suppress(httpx.HTTPError):
                client.get(path, timeout=2.0)
                return

    def until_booked(self, number: int) -> None:
        """Wait until the ledger has so many calls that ended: whoever drains takes its time."""
        for _ in self._waiting(f"{number} calls are in the ledger"):
            with contextlib.suppress(LedgerMissing), self.books() as books:
                if sum(each["outcome"] != "open" for each in calls(books)) >= number:
                    return

    def books(self) -> Books:
        """The books, to read."""
        return Books(open_url(self.ledger, create=False))

    def differences(self) -> list[str]:
        """What the books say otherwise than the provider's truth."""
        self.provider.wait_idle()
        with self.books() as books:
            return differences(books, self.provider)

    def _waiting(self, what: str) -> Any:
        until = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < until:
            yield
            for each in self._running:
                each.check()
            time.sleep(0.25)
        raise AssertionError(f"in {WAIT_SECONDS:.0f} s it did not come that {what}")


def outside() -> dict[str, str]:
    """This process's environment, without what says where its own books are."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}


def calls(books: Books) -> list[dict[str, Any]]:
    """The events that are calls of a provider; requests and free tools are events, too."""
    return [each for each in books.events() if "requested_model" in each]


def differences(books: Books, provider: LoopbackProvider) -> list[str]:
    """Request by request one event, of its amount, caused by whom it was for; and the total."""
    found = Counter((each["driver"], each["cost"]) for each in calls(books))
    truth = Counter((row.tenant, format_usd(row.cost_pico)) for row in provider.truth)
    total, invoice = books.totals()["totals"]["cost"], provider.invoice()
    billed = format_usd(sum(line.amount_pico for line in invoice))
    return [
        *(f"{times} x {what} in the books alone" for what, times in (found - truth).items()),
        *(f"{times} x {what} not in the books" for what, times in (truth - found).items()),
        *([] if total == billed else [f"{total} in total, the invoice says {billed}"]),
        *([] if books.is_balanced() else ["the books do not balance"]),
        *(
            f"{each}: {number}"
            for each, number in books.ledger.counts().items()
            if number and each in LISTED
        ),
    ]


def proxy_python() -> str:
    """The Python that LiteLLM's proxy runs in, if it can write to PostgreSQL, too."""
    try:
        python = interpreter()
    except ProxyDied as reason:
        pytest.skip(str(reason))
    look = "import importlib.util as of; print(of.find_spec('psycopg') is not None)"
    said = subprocess.run([python, "-c", look], capture_output=True, text=True, check=True)
    if said.stdout.strip() != "True":
        pytest.skip(f"psycopg is not installed for {python}, which runs LiteLLM's proxy")
    return python


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def costspan_command(*arguments: str) -> list[str]:
    """The command line, by this interpreter."""
    return [sys.executable, "-m", "costspan", *arguments]
