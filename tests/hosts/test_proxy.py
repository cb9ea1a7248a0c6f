"""A real LiteLLM proxy process: who its keys are, what its clients may say, and that it ends.

The whole matrix on the proxy is played by `tox -e conformance`; here are the scenarios of
gateways, on one proxy. Where `litellm[proxy]` is not installed (and COSTSPAN_PROXY_PYTHON names no
Python that has it) nothing is played.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import costspan
from costspan.conformance.drivers.litellm_proxy import LiteLLMProxy
from costspan.conformance.drivers.proxy_process import ProxyDied, api_key, interpreter
from costspan.conformance.provider import LoopbackProvider
from costspan.conformance.suite.driver import missing
from costspan.conformance.suite.needs import needed
from costspan.conformance.suite.run import run
from costspan.conformance.suite.script import Mode, Scenario, shipped
from costspan.core.drain import drain

try:
    interpreter()
except ProxyDied as reason:
    pytest.skip(str(reason), allow_module_level=True)

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # the hosts' libraries warn about themselves
    pytest.mark.timeout(600),  # the first test waits for the proxy to import itself
]

PLAYS = [
    pytest.param(scenario, mode, id=f"{scenario.id}-{mode}")
    for scenario in shipped()
    for mode in scenario.modes
    if scenario.id.startswith("G") and not missing(LiteLLMProxy(), needed(scenario, mode))
]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiteLLMProxy]:
    with LoopbackProvider() as provider:
        opened = LiteLLMProxy()
        opened.open(provider, tmp_path_factory.mktemp("proxy"))
        yield opened
        opened.close()


def test_there_are_gateway_scenarios() -> None:
    assert len(PLAYS) >= 20


@pytest.mark.parametrize(("scenario", "mode"), PLAYS)
def test_the_books_of_a_gateway(
    scenario: Scenario, mode: Mode, driver: LiteLLMProxy, tmp_path: Path
) -> None:
    wrong = run(scenario, mode, driver, tmp_path)
    assert wrong is None, wrong


@pytest.mark.parametrize("key", ["sk-nobody", "sk-metadata-", "sk-master-acme", "acme"])
def test_a_key_nobody_knows_makes_no_event(driver: LiteLLMProxy, tmp_path: Path, key: str) -> None:
    settings = costspan.configure(
        ledger=tmp_path / "ledger.db", spool=tmp_path / "spool", background=False
    )
    driver.begin(frozenset())
    before = len(driver.provider.truth)
    answer = driver.proxy.client.post(
        "/v1/chat/completions",
        json={"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}]},
        headers={"Authorization": f"Bearer {key}"},
    )
    assert answer.status_code == 401
    assert len(driver.provider.truth) == before
    drain(settings, driver.spools())
    with costspan.open_ledger() as books:
        assert list(books.events()) == []


def test_what_the_client_says_of_itself_is_kept_beside_what_the_key_says(
    driver: LiteLLMProxy, tmp_path: Path
) -> None:
    settings = costspan.configure(
        ledger=tmp_path / "ledger.db", spool=tmp_path / "spool", background=False
    )
    driver.begin(frozenset())
    claims: dict[str, Any] = {"tenant": "initech", "cause": "safety", "flat_cost": "0"}
    answer = driver.proxy.client.post(
        "/v1/chat/completions",
        json={
            "model": "gpt-4o",
            "messages": [{"role": "user", "content": "[[in=10 out=5 tenant=acme]]"}],
            "metadata": claims,
        },
        headers={"Authorization": f"Bearer {api_key('acme')}"},
    )
    assert answer.status_code == 200
    drain(settings, driver.spools())
    with costspan.open_ledger() as books:
        (event,) = books.events()
    assert (event["tenant"], event["tenant_source"]) == ("acme", "principal")
    assert event["cause"] == "primary"
    assert event["client_claims"] == claims


def test_a_spool_is_complete_and_nothing_of_it_comes_again(driver: LiteLLMProxy) -> None:
    driver.begin(frozenset())
    first, second = driver.spools(), driver.spools()
    assert first != second
    assert not list(second[0].glob("*.seg"))


def test_closing_leaves_no_process(tmp_path: Path) -> None:
    with LoopbackProvider() as provider:
        closing = LiteLLMProxy()
        closing.open(provider, tmp_path)
        pid = closing.proxy.client.get("/costspan-conformance").json()["pid"]
        closing.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(httpx.HTTPError):
        httpx.get(closing.proxy.url, timeout=2.0)
