"""Settings: from `configure`, the environment and the file; and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from costspan.core import config
from costspan.core.config import OPEN_TTL_SECONDS, ConfigError, url_of


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder without a costspan.toml, and no settings in the environment."""
    for key in ("CONFIG", *map(str.upper, config._KEYS)):
        monkeypatch.delenv(f"COSTSPAN_{key}", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_where_it_comes_from(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert config.load().open_ttl_seconds == OPEN_TTL_SECONDS
    (alone / "costspan.toml").write_text("open_ttl = 60\n", "utf-8")
    assert config.load().open_ttl_seconds == 60
    monkeypatch.setenv("COSTSPAN_OPEN_TTL", "90")
    assert config.load().open_ttl_seconds == 90
    assert config.load({"open_ttl": 120}).open_ttl_seconds == 120


def test_it_is_longer_than_hosts_wait() -> None:
    """LiteLLM gives a request 6000 s; the provider clients three tries of 600 s."""
    assert max(6000, 3 * 600) < OPEN_TTL_SECONDS


@pytest.mark.parametrize("value", [0, -1, 10**10, 1.5, True, "", "1h", "-3", "1.5", "٣", b"60"])
def test_what_is_no_time_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match=r"configure\(\) sets open_ttl to .*second"):
        config.load({"open_ttl": value})


@pytest.mark.parametrize("text", ["soon", "0", "1e3"])
def test_the_environment_is_named(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COSTSPAN_OPEN_TTL", text)
    with pytest.raises(ConfigError, match="the environment sets open_ttl"):
        config.load()


def test_sync_and_where_it_comes_from(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert config.load().sync == "interval"
    (alone / "costspan.toml").write_text('sync = "always"\n', "utf-8")
    assert config.load().sync == "always"
    monkeypatch.setenv("COSTSPAN_SYNC", "interval")
    assert config.load().sync == "interval"
    assert config.load({"sync": "always"}).sync == "always"


@pytest.mark.parametrize("value", ["", "never", "ALWAYS", 1, True, ["always"]])
def test_what_is_no_sync_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match=r"sync to .*'interval' or 'always'"):
        config.load({"sync": value})


def test_the_folder_beside(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own for each spool unless said; `off` for none."""
    found = {config.load({"spool": spool}).spool_beside for spool in ("one", "two")}
    assert len(found) == 2
    assert all(each is not None and each.is_absolute() for each in found)
    (alone / "costspan.toml").write_text('spool_beside = "other"\n', "utf-8")
    assert config.load().spool_beside == alone / "other"
    monkeypatch.setenv("COSTSPAN_SPOOL_BESIDE", "/elsewhere")
    assert config.load().spool_beside == Path("/elsewhere")
    assert config.load({"spool_beside": "off"}).spool_beside is None
    with pytest.raises(ConfigError, match="spool_beside"):
        config.load({"spool_beside": 7})


@pytest.mark.parametrize(
    "ledger",
    [
        "host=127.0.0.1 user=bob password=s3cret",
        "dbname = books password = s3cret",
        "postgresql:bob:s3cret@db/books",
        "Postgres:bob:s3cret@db/books",
        "sqlite:books.db",
    ],
)
def test_a_ledger_that_is_neither_a_url_nor_a_path_makes_no_file(
    ledger: str, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COSTSPAN_LEDGER", ledger)
    with pytest.raises(ConfigError, match="the environment sets the ledger wrong: ") as refused:
        config.load()
    assert "s3cret" not in str(refused.value)
    with pytest.raises(ConfigError) as refused:
        url_of(ledger)
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("path", ["books.db", "C:/books.db", "a=b/host.db", "2026: hosted.db"])
def test_odd_paths_are_paths(path: str) -> None:
    assert url_of(path) == f"sqlite:///{path}"
