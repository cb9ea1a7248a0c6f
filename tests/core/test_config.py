"""The setting `open_ttl`: from `configure`, the environment and the file; and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from costspan.core import config
from costspan.core.config import OPEN_TTL_SECONDS, ConfigError


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder without a costspan.toml, and no settings in the environment."""
    for key in ("OPEN_TTL", "CONFIG", "LEDGER", "SPOOL", "RULES", "PRICES", "PROFILE", "GATEWAYS"):
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
