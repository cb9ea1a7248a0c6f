"""A ledger named by a connection service: what its file says counts, and nothing waits for ever."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("psycopg", reason="psycopg is not installed")

from costspan.plugins.ledgers.postgres.place import Place

FILE = """
# Ours
[patient]
host=db.internal
connect_timeout = 60
#tcp_user_timeout=1

[plain]
host=db.internal
"""
PATIENT = "postgresql://?service=patient"
PLAIN = "postgresql://?service=plain"


@pytest.fixture(params=["PGSERVICEFILE", "PGSYSCONFDIR", "HOME"])
def services(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file, in each place where libpq looks."""
    for name in ("PGSERVICEFILE", "PGSYSCONFDIR", "PGSERVICE", "PGCONNECT_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    name = ".pg_service.conf" if request.param == "HOME" else "pg_service.conf"
    (path := tmp_path / name).write_text(FILE)
    monkeypatch.setenv(request.param, str(path if request.param == "PGSERVICEFILE" else tmp_path))


@pytest.mark.usefixtures("services")
def test_what_a_service_says_counts_more_than_our_own_limits() -> None:
    told = Place(PATIENT).parameters()
    assert "connect_timeout" not in told  # libpq takes the file's
    assert told["tcp_user_timeout"] == "60000"


@pytest.mark.usefixtures("services")
@pytest.mark.parametrize("url", [PLAIN, "postgresql://?service=nowhere", "postgresql://"])
def test_a_service_that_says_no_limit_has_ours(url: str) -> None:
    told = Place(url).parameters()
    assert (told["connect_timeout"], told["keepalives_idle"]) == ("10", "30")


@pytest.mark.usefixtures("services")
def test_a_service_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGSERVICE", "patient")
    assert "connect_timeout" not in Place("postgresql://").parameters()
    assert Place(PLAIN).parameters()["connect_timeout"] == "10"  # the URL's goes first


@pytest.mark.usefixtures("services")
def test_what_the_url_says_counts_most(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Place(f"{PATIENT}&connect_timeout=3").parameters()["connect_timeout"] == "3"
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "7")
    assert Place(PLAIN).parameters()["connect_timeout"] == "7"
    assert "connect_timeout" not in Place(PATIENT).parameters()
