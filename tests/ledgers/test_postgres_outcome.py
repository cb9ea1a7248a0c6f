"""A connection that is lost while it commits: what counts is what the server did."""

from __future__ import annotations

import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Literal

import pytest
from known_calls import begin, flat, keep
from readable import readable

from costspan.cli import main
from costspan.core.ledger_errors import LedgerError, LedgerUncertain
from costspan.core.settle.ledger import open_url
from costspan.core.verify import Problem, verify

PORT = ".s.PGSQL.5432"
Cut = Literal["", "before", "after", "for good"]


class Line:
    """A socket before the server's, which one COMMIT does not get through whole.

    `cut` says what becomes of the next one: it never arrives (`before`), its answer never comes
    (`after`), and then nobody is connected again (`for good`).
    """

    def __init__(self, server: str) -> None:
        self._server = f"{server}/{PORT}"
        self.cut: Cut = ""
        self.folder = tempfile.mkdtemp(prefix="line-")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(f"{self.folder}/{PORT}")
        self._listener.listen()
        self._threads: list[threading.Thread] = []
        self._begin(self._accept)

    def _begin(self, run: object, *given: object) -> None:
        thread = threading.Thread(target=run, args=given)  # type: ignore[arg-type]  # either of two
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._server)
            self._begin(self._carry, client, server)

    def _carry(self, client: socket.socket, server: socket.socket) -> None:
        with client, server:
            while True:
                for each in readable([client, server]):
                    try:
                        data = each.recv(1 << 16)
                    except ConnectionError:
                        return
                    if not data:
                        return
                    if each is client and b"COMMIT\0" in data and self.cut:
                        cut, self.cut = self.cut, ""
                        if cut == "before":
                            return
                        if cut == "for good":
                            self._stop_listening()
                        server.sendall(data)
                        server.recv(1 << 16)  # the answer: it is committed
                        return
                    (server if each is client else client).sendall(data)

    def _stop_listening(self) -> None:
        Path(self.folder, PORT).unlink(missing_ok=True)

    def close(self) -> None:
        """Let nobody in any more, and wait for those there are."""
        self._stop_listening()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(30)
        Path(self.folder).rmdir()


@pytest.fixture
def line(url: str) -> Iterator[tuple[Line, str]]:
    """The line, and the URL of the ledger over it."""
    server = url.partition("?host=")[2]
    with closing(open_url(url, create=True)) as ledger:
        begin(ledger)
    made = Line(server)
    yield made, url.replace(server, made.folder)
    made.close()


@pytest.mark.parametrize("cut", ["before", "after", "for good"])
def test_what_is_said_of_a_settlement_is_what_became_of_it(
    url: str, line: tuple[Line, str], cut: Cut
) -> None:
    between, over_it = line
    with closing(open_url(over_it, create=True)) as ledger:
        keep(ledger, flat(1))
        between.cut = cut
        if cut == "before":
            with pytest.raises(LedgerError, match="nothing was changed"):
                keep(ledger, flat(2))
        elif cut == "after":
            keep(ledger, flat(2))
        else:
            with pytest.raises(LedgerUncertain, match="look at the books"):
                keep(ledger, flat(2))
        assert between.cut == ""
    with closing(open_url(url, create=True)) as ledger:
        found = {each.event.id for each in ledger.events()}
        assert found == ({"a1"} if cut == "before" else {"a1", "a2"})
        keep(ledger, flat(2), flat(3))
        assert [each for each in verify(ledger) if isinstance(each, Problem)] == []


def test_a_hand_that_was_kept_says_so_and_is_not_moved_twice(
    url: str, line: tuple[Line, str], capsys: pytest.CaptureFixture[str]
) -> None:
    between, over_it = line
    between.cut = "after"
    credit = ["credit", "acme", "1", "--period", "2026-02", "--by", "ann", "--reason", "outage"]
    assert main([*credit, "--ledger", over_it]) == 0
    assert between.cut == ""  # type: ignore[comparison-overlap]  # by then a thread wrote it
    capsys.readouterr()
    with closing(open_url(url, create=False)) as ledger:
        assert [each.charge for each in ledger.roll_ups()] == [-(10**12)]
