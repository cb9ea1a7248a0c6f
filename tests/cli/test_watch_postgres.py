"""Writers on two machines, one sidecar, one PostgreSQL that goes away and comes back."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from desk import Desk
from sidecar import Sidecar

from costspan.core.money import PICO
from costspan.core.rebuild import nets
from costspan.core.settle.ledger import open_url

sys.path.insert(0, str(Path(__file__).parents[1] / "ledgers"))

WRITER = """
import sys
from pathlib import Path
from costspan.core.recorder import Recorder
from costspan.core.schema import Observation

writer = Recorder(Path(sys.argv[1]))
number = 0
for line in sys.stdin:  # how many to record
    for _ in range(int(line)):
        number += 1
        told = {"attempt_id": f"{sys.argv[2]}.{number}", "tenant": sys.argv[2]}
        writer.record(Observation(flat_cost="1", provider_result="ok", ended_at=number, **told))
        if number % 25 == 0:
            writer.rotate()
    writer.rotate()
    print(number, flush=True)
"""


class Writer:
    """A process that records as many as it is told to."""

    def __init__(self, folder: Path, name: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(folder), name],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def record(self, times: int) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{times}\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        assert self._process.wait() == 0


@pytest.fixture(scope="module")
def server() -> Iterator[object]:
    """A server of this file's own: it is killed here."""
    from postgres_server import PostgresServer

    with PostgresServer() as found:
        yield found


def test_a_server_that_goes_away_costs_nothing_but_disk(
    server: object, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was recorded before, meanwhile and after is in the books, each record once."""
    from postgres_server import PostgresServer

    assert isinstance(server, PostgresServer)
    url = server.database()
    spools = [tmp_path / "one", tmp_path / "two"]
    monkeypatch.setenv("COSTSPAN_LEDGER", url.replace("postgres@", "postgres:se-cret@"))
    monkeypatch.setenv("COSTSPAN_SPOOL_BESIDE", "off")
    with ExitStack() as stack:
        writers = [stack.enter_context(Writer(folder, folder.name)) for folder in spools]
        sidecar = stack.enter_context(Sidecar("--spool", *spools, "--late", 1))
        for writer in writers:
            writer.record(100)
        sidecar.until(lambda: sidecar.value("records_settled_total") == 200)
        sidecar.until(lambda: sidecar.get("/health").status == 200)
        ran = desk.run("doctor", "--quick", "--json", "--spool", spools[0], "--spool", spools[1])
        assert ran.json["is_reached"]
        assert [each["records"] for each in ran.json["writers"]] == [100, 100]

        server.kill()
        for writer in writers:
            writer.record(100)
        sidecar.until(lambda: sidecar.value("ledger_up") == 0)
        sidecar.until(lambda: "no drain has succeeded for" in sidecar.get("/health").text)
        assert sidecar.get("/health").status == 503
        assert sidecar.value("spool_segments", folder=str(spools[0])) == 4
        assert sidecar.value("drain_failures_total", type="LedgerError")
        assert sidecar.value("events_open") is None
        ran = desk.run("doctor", "--json", "--spool", spools[0], "--spool", spools[1])
        assert ran.code == 1
        assert not ran.json["is_reached"]
        checks = {each["check"]: each for each in ran.json["findings"]}
        assert checks["ledger_unreachable"]["severity"] == "error"
        assert [each["waiting"] for each in ran.json["writers"]] == [4, 4]
        assert "(cannot be opened)" in desk.run("doctor").out

        server.start()
        for writer in writers:
            writer.record(100)
        sidecar.until(lambda: sidecar.value("records_settled_total") == 600)
        sidecar.until(lambda: sidecar.get("/health").status == 200)
        assert sidecar.end() == 0
    with closing(open_url(url, create=False)) as ledger:
        assert ledger.counts("events", "observations") == {"events": 600, "observations": 600}
        assert sorted(ledger.writers())[0][1:] == (300, 300)
        assert sum(cost for cost, _ in nets(ledger).values()) == 600 * PICO
        assert list(ledger.roll_ups()) == list(ledger.added_up())
    ran = desk.run("doctor", "--json")
    assert {each["check"] for each in ran.json["findings"]}.isdisjoint({"gaps", "refused"})
    said = [*sidecar.said, ran.out, ran.err, json.dumps(checks)]
    assert not any("se-cret" in each for each in said)


def test_a_look_that_is_refused_is_no_drain_that_failed(
    server: object, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader's statements have a limit of time, for instance: that holds up no drain."""
    import psycopg
    from postgres_server import PostgresServer

    assert isinstance(server, PostgresServer)
    url = server.database()
    open_url(url, create=True).close()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE ROLE blind LOGIN")
        connection.execute("GRANT USAGE ON SCHEMA costspan TO blind")
        connection.execute("GRANT ALL ON ALL TABLES IN SCHEMA costspan TO blind")
        connection.execute("REVOKE ALL ON costspan.counted FROM blind")
    monkeypatch.setenv("COSTSPAN_LEDGER", url.replace("postgres@", "blind@"))
    monkeypatch.setenv("COSTSPAN_SPOOL_BESIDE", "off")
    with Sidecar("--spool", tmp_path / "spool", "--late", 0.9) as sidecar:
        sidecar.until(lambda: (sidecar.value("drains_total") or 0) > 4)
        assert sidecar.value("ledger_up") == 1
        assert not sidecar.metrics().get("costspan_drain_failures_total")
        assert sidecar.value("events_open") is None
        assert sidecar.get("/health").status == 200
        assert sidecar.end() == 0
    [told] = [line for line in sidecar.said if "their books are not shown" in line]
    assert "permission denied for table counted" in told
