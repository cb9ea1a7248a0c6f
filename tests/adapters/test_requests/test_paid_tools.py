"""A session of `requests` against a real server: who gets the context, and what a tool cost."""

from __future__ import annotations

import socket
from collections.abc import Callable
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from requests.adapters import HTTPAdapter
from requests.auth import HTTPDigestAuth
from tool_service import KEYS, Service
from urllib3 import Retry

import costspan
from costspan.adapters.requests import CostSession, ToolPrice, attach
from costspan.adapters.requests.places import place_of
from costspan.adapters.requests.tools import Tools
from costspan.core import counters
from costspan.core.schema import Observation

Recorded = Callable[[], list[Observation]]


def counted(name: str) -> int:
    return counters.snapshot().get(name, 0)


def priced(service: Service, **how: Any) -> CostSession:
    return CostSession(tools={service.host: ToolPrice("serp", "0.01", **how)})


def books() -> dict[str, Any]:
    costspan.flush()
    with costspan.open_ledger() as ledger:
        return ledger.totals()


# --- a paid tool


def test_a_paid_call_is_an_attempt_of_its_own(recorded: Recorded, service: Service) -> None:
    with priced(service) as session, costspan.attribute("acme", session="s1"):
        answer = session.get(service.url("/search?q=who"))
    assert answer.content == b"0123456789"
    start, end = recorded()
    assert (start.phase, end.phase) == ("start", "end")
    assert start.attempt_id == end.attempt_id
    for one in (start, end):
        assert (one.kind, one.layer, one.source, one.name) == ("tool", "sdk", "requests", "serp")
        assert (one.cause, one.cause_source, one.initiator) == ("tool", "structure", "agent")
        assert (one.tenant, one.session, one.flat_cost) == ("acme", "s1", "0.01")
        assert one.attributes == {"base_url": service.url("")}
        assert one.attempts_hidden == 0
    assert (end.provider_result, end.provider_billed) == ("ok", True)
    assert "who" not in repr((start, end)), "a query is the user's text: it is never kept"
    (row,) = books()["rows"]
    assert (row["owner"], row["bucket"], row["charge"]) == ("acme", "agent", "0.010000000000")


def test_the_intent_is_written_before_anything_leaves(recorded: Recorded, service: Service) -> None:
    with priced(service) as session:
        seen: list[int] = []

        class Inner(HTTPAdapter):
            def send(self, *args: Any, **kwargs: Any) -> requests.Response:
                seen.append(len(recorded()))
                assert service.came == []
                return super().send(*args, **kwargs)

        session.mount("http://", Inner())
        session.get(service.url())
    assert seen == [1]


@pytest.mark.parametrize(
    ("status", "billed_on_failure", "billed", "fault", "cost"),
    [
        (200, False, True, None, "0.01"),
        (204, False, True, None, "0.01"),
        (304, False, False, None, "0.00"),
        (304, True, False, None, "0.00"),
        (400, False, False, "agent", "0.00"),
        (400, True, True, "agent", "0.01"),
        (401, False, False, "platform", "0.00"),
        (404, False, False, "agent", "0.00"),
        (408, False, None, "provider", "0.01"),
        (429, False, False, "provider", "0.00"),
        (499, True, None, "provider", "0.01"),
        (500, False, False, "provider", "0.00"),
        (500, True, True, "provider", "0.01"),
        (502, True, None, "provider", "0.01"),
        (503, False, False, "provider", "0.00"),
        (504, False, None, "provider", "0.01"),
    ],
)
def test_what_an_answer_costs(
    recorded: Recorded,
    service: Service,
    status: int,
    billed_on_failure: bool,
    billed: bool | None,
    fault: str | None,
    cost: str,
) -> None:
    with (
        priced(service, billed_on_failure=billed_on_failure) as session,
        costspan.attribute("acme"),
    ):
        assert session.get(service.url(f"/?status={status}")).status_code == status
    end = recorded()[-1]
    assert (end.provider_billed, end.fault) == (billed, fault)
    assert end.provider_result == ("ok" if status < 400 else "failed")
    assert end.error_type == (None if status < 400 else str(status))
    totals = books()["totals"]
    assert Decimal(totals["cost"]) == Decimal(cost)
    assert Decimal(totals["charge"]) == (Decimal(cost) if status < 300 else 0)
    assert totals["unpriced_events"] == 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def refused(service: Service, session: CostSession) -> None:
    attach(session, tools={f"127.0.0.1:{(port := free_port())}": ToolPrice("serp", "0.01")})
    session.get(f"http://127.0.0.1:{port}/")


def unknown_name(service: Service, session: CostSession) -> None:
    attach(session, tools={"nobody.invalid": ToolPrice("serp", "0.01")})
    session.get("http://nobody.invalid/")


def timed_out(service: Service, session: CostSession) -> None:
    session.get(service.url("/?hang=1"), timeout=0.2)


def dropped(service: Service, session: CostSession) -> None:
    session.get(service.url("/?drop=1"))


@pytest.mark.parametrize(
    ("send", "kind", "billed"),
    [
        (refused, requests.ConnectionError, False),
        (unknown_name, requests.ConnectionError, False),
        (timed_out, requests.ReadTimeout, None),
        (dropped, requests.ConnectionError, None),
    ],
)
def test_what_a_call_without_an_answer_costs(
    recorded: Recorded, service: Service, send: Any, kind: type[Exception], billed: bool | None
) -> None:
    with priced(service) as session, pytest.raises(kind) as raised:
        send(service, session)
    assert raised.type is kind
    start, end = recorded()
    assert (end.attempt_id, end.provider_result) == (start.attempt_id, "failed")
    assert (end.error_type, end.fault, end.provider_billed) == (kind.__name__, "provider", billed)


def test_hidden_retries_are_not_known(recorded: Recorded, service: Service) -> None:
    with priced(service) as session:
        session.mount("http://", HTTPAdapter(max_retries=Retry(1, backoff_factor=0)))
        assert session.get_adapter(service.url()).max_retries.total == 1  # type: ignore[attr-defined]  # of the adapter inside
        refused_port = free_port()
        attach(session, tools={f"127.0.0.1:{refused_port}": ToolPrice("serp", "0.01")})
        with pytest.raises(requests.ConnectionError):
            session.get(f"http://127.0.0.1:{refused_port}/")
    end = recorded()[-1]
    assert (end.attempts_hidden, end.provider_billed) == (None, None)


def test_what_cannot_be_sent_costs_nothing(recorded: Recorded, service: Service) -> None:
    with priced(service) as session, pytest.raises(requests.exceptions.InvalidHeader):
        session.get(service.url(), headers={"x": "a\nb"})
    assert recorded() == [], "it never came to a call"


def test_a_host_that_is_stopped_is_nobodys_failure(recorded: Recorded, service: Service) -> None:
    class Stopped(HTTPAdapter):
        def send(self, *args: Any, **kwargs: Any) -> requests.Response:
            raise KeyboardInterrupt

    with priced(service) as session:
        session.mount("http://", Stopped())
        with pytest.raises(KeyboardInterrupt):
            session.get(service.url())
    end = recorded()[-1]
    assert (end.provider_result, end.fault, end.provider_billed) == ("unknown", None, None)


def test_a_streamed_answer_streams(recorded: Recorded, service: Service) -> None:
    with priced(service) as session, session.get(service.url(), stream=True) as answer:
        assert len(recorded()) == 2
        assert list(answer.iter_content(4)) == [b"0123", b"4567", b"89"]


def test_every_hop_is_a_call_of_its_own(recorded: Recorded, service: Service) -> None:
    with priced(service) as session:
        answer = session.get(service.url(f"/?status=302&to={service.url('/there')}"))
    assert [one.status_code for one in answer.history] == [302]
    ends = [one for one in recorded() if one.phase == "end"]
    assert [one.provider_billed for one in ends] == [False, True]
    assert len({one.attempt_id for one in ends}) == 2


def test_a_second_try_of_authentication_is_seen(recorded: Recorded, service: Service) -> None:
    with CostSession(
        keys=KEYS, hosts={service.host: "back"}, tools={service.host: ToolPrice("serp", "0.01")}
    ) as session:
        answer = session.get(service.url("/?status=401&digest=1"), auth=HTTPDigestAuth("u", "p"))
    assert answer.status_code == 401
    ends = [one for one in recorded() if one.phase == "end"]
    assert [one.error_type for one in ends] == ["401", "401"]
    carriers = service.carriers()
    assert [c.attempt_id for c in carriers if c] == [one.attempt_id for one in ends]


@pytest.mark.parametrize(
    ("key", "url", "found"),
    [
        ("api.example", "https://api.example/v1", True),
        ("api.example", "http://api.example/", True),
        ("api.example", "https://api.example:8443/", False),
        ("api.example:443", "https://api.example/", True),
        ("api.example:443", "http://api.example/", False),
        ("API.example", "https://api.EXAMPLE/", True),
        ("api.example", "https://sub.api.example/", False),
        ("api.example", "https://api.example.evil/", False),
        ("https://api.example/v1", "https://api.example/v1", True),
        ("https://api.example/v1", "https://api.example/v1/search?q=1", True),
        ("https://api.example/v1/", "https://api.example/v1?q=1", True),
        ("https://api.example/v1", "https://api.example/v10", False),
        ("https://api.example/v1", "http://api.example/v1", False),
        ("https://api.example/v1", "https://api.example:443/v1", True),
        ("https://api.example:443/v1", "https://api.example/v1", True),
        ("http://[::1]:8000/v1", "http://[::1]:8000/v1/x", True),
    ],
)
def test_which_call_is_a_tool(key: str, url: str, found: bool) -> None:
    tools = Tools({key: ToolPrice("it", "0.01")})
    assert (tools.find(place_of(url), urlsplit(url).path) is not None) == found


def test_the_longest_prefix_wins() -> None:
    tools = Tools(
        {
            "api.example": ToolPrice("any", 0),
            "https://api.example/v1": ToolPrice("v1", "0.01"),
            "https://api.example/v1/deep": ToolPrice("deep", Decimal("0.05")),
        }
    )

    def name(path: str) -> str | None:
        found = tools.find(place_of("https://api.example"), path)
        return None if found is None else found.name

    assert [name(p) for p in ("/", "/v1/x", "/v1/deep/x")] == ["any", "v1", "deep"]


@pytest.mark.parametrize("cost", [0.01, "-1", "NaN", "a lot", None, True])
def test_a_price_that_is_none_is_refused_at_once(cost: Any) -> None:
    with pytest.raises(ValueError, match="serp"):
        ToolPrice("serp", cost)


# --- the signed context
