"""A `costspan drain --watch` as a process, and what its endpoint says."""

from __future__ import annotations

import http.client
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from decimal import Decimal
from types import TracebackType
from typing import NamedTuple, Self
from urllib.parse import urlsplit

SAMPLE = re.compile(r"([a-z_]+)(?:\{(.*)\})? (-?[0-9]+(?:\.[0-9]+)?)")
LABEL = re.compile(r'([a-z]+)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)')
WAIT_SECONDS = 60
_POLL_SECONDS = 0.02

Labels = frozenset[tuple[str, str]]


class Page(NamedTuple):
    """What a page of the endpoint says."""

    status: int
    text: str


def parse(text: str) -> dict[str, dict[Labels, Decimal]]:
    """Name -> labels -> value of a page in the Prometheus text format; checks what it reads."""
    found: dict[str, dict[Labels, Decimal]] = {}
    kinds: dict[str, str] = {}
    name = ""
    assert text.endswith("\n")
    for line in text.splitlines():
        if line.startswith("# HELP "):
            name = line.split(" ")[2]
            assert name not in found, f"{name} comes twice"
            found[name] = {}
        elif line.startswith("# TYPE "):
            _, _, same, kinds[name] = line.split(" ")
            assert same == name
            assert (kinds[name] == "counter") == name.endswith("_total")
        else:
            sample = SAMPLE.fullmatch(line)
            assert sample is not None, line
            said, within, value = sample.groups()
            assert said == name
            labels = _labels(within or "")
            assert labels not in found[name], f"{line}: twice"
            found[name][labels] = Decimal(value)
    assert all(found.values())
    return found


def _labels(within: str) -> Labels:
    labels: list[tuple[str, str]] = []
    plain = {"n": "\n", "\\": "\\", '"': '"'}
    at = 0
    while at < len(within):
        label = LABEL.match(within, at)
        assert label is not None, within
        value = re.sub(r"\\(.)", lambda escape: plain[escape[1]], label[2])
        labels.append((label[1], value))
        at = label.end()
    assert len({name for name, _ in labels}) == len(labels)
    return frozenset(labels)


class Sidecar:
    """Runs until it is told to end; its settings come from the environment."""

    def __init__(
        self, *options: object, code: str = "", settings: Mapping[str, object] | None = None
    ) -> None:
        start = f"{code}\nimport sys; from costspan.cli import main; sys.exit(main())"
        self._process = subprocess.Popen(
            [sys.executable, "-c", start, "drain", "--watch", "--listen", "127.0.0.1:0",
             "--every", "0.05", *map(str, options)],
            stderr=subprocess.PIPE, text=True,
            env={**os.environ, **{name: str(value) for name, value in (settings or {}).items()}},
        )  # fmt: skip
        self.said: list[str] = []
        self.address = ""

    def __enter__(self) -> Self:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.said.append(line)
            if " listens on " in line:
                self.address = urlsplit(line.split(" listens on ")[1].strip()).netloc
                return self
        raise AssertionError("".join(self.said))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self.kill()
        assert self._process.stderr is not None
        self._process.stderr.close()

    def kill(self) -> None:
        """End it as a machine's end does."""
        self._process.kill()
        self._process.wait()

    def end(self, by: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to end; the exit code, after what it said last is in `said`."""
        self._process.send_signal(by)
        assert self._process.stderr is not None
        self.said += self._process.stderr
        return self._process.wait()

    def end_asked_again(self) -> int:
        """Ask it to end for as long as it has not; the exit code."""
        while self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            time.sleep(_POLL_SECONDS)
        assert self._process.stderr is not None
        self.said += self._process.stderr
        return self._process.returncode

    def get(self, path: str, method: str = "GET") -> Page:
        connection = http.client.HTTPConnection(self.address, timeout=WAIT_SECONDS)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return Page(answer.status, answer.read().decode("utf-8"))
        finally:
            connection.close()

    def metrics(self) -> dict[str, dict[Labels, Decimal]]:
        return parse(self.get("/metrics").text)

    def value(self, name: str, **labels: str) -> Decimal | None:
        """The value of a metric; None if it is not there."""
        return self.metrics().get(f"costspan_{name}", {}).get(frozenset(labels.items()))

    def until(self, holds: Callable[[], bool]) -> None:
        """Ask until it holds."""
        end = time.monotonic() + WAIT_SECONDS
        while not holds():
            assert self._process.poll() is None, "it ended by itself"
            assert time.monotonic() < end, (self.get("/health"), self.get("/metrics"))
            time.sleep(_POLL_SECONDS)
