"""Which hosts a session of `requests` gives the signed context to, and which never."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import requests
from tool_service import KEYS, Service

import costspan
from costspan.adapters.requests import CostSession, ToolPrice, attach
from costspan.adapters.requests.places import audience_of, carrier_hosts, place_of
from costspan.carrier import HEADER
from costspan.core import counters
from costspan.core.schema import Observation

Recorded = Callable[[], list[Observation]]


def counted(name: str) -> int:
    return counters.snapshot().get(name, 0)


def test_only_named_hosts_get_the_context(
    books_at: Any, service: Service, elsewhere: Service
) -> None:
    with (
        CostSession(keys=KEYS, hosts={service.host: "back"}) as session,
        costspan.attribute("acme", session="s1", user="ann"),
        costspan.tool("outer") as outer,
    ):
        answer = session.get(service.url())
        session.get(elsewhere.url())
        session.get(f"http://localhost:{service.port}/")  # the same machine by another name
    named, by_another_name = service.carriers()
    assert named is not None
    assert (named.tenant, named.session, named.audience) == ("acme", "s1", "back")
    assert (named.parent, named.attempt_id) == (outer.attempt_id, None)
    assert by_another_name is None
    assert elsewhere.carriers() == [None]
    assert HEADER not in answer.request.headers, "the host's own request is as the host made it"


def test_a_tools_own_attempt_is_the_parent_there(recorded: Recorded, service: Service) -> None:
    hosts, tools = {service.host: "back"}, {service.host: ToolPrice("serp", "0.01")}
    with CostSession(keys=KEYS, hosts=hosts, tools=tools) as session:
        session.get(service.url())
        session.get(service.url())
    carriers = [one.attempt_id for one in service.carriers() if one]
    assert carriers == [one.attempt_id for one in recorded() if one.phase == "start"]
    assert len(set(carriers)) == 2


def test_a_redirect_to_another_host_takes_nothing_along(
    books_at: Any, service: Service, elsewhere: Service
) -> None:
    before = counted("carrier_not_redirected")
    hosts = {service.host: "back", elsewhere.host: "other"}
    with CostSession(keys=KEYS, hosts=hosts) as session, costspan.attribute("acme"):
        answer = session.get(service.url(f"/?status=307&to={elsewhere.url('/there')}"))
        assert answer.url == elsewhere.url("/there")
        session.get(elsewhere.url("/asked"))  # asked itself, it gets its own
    assert [c and c.audience for c in service.carriers()] == ["back"]
    assert [c and c.audience for c in elsewhere.carriers()] == [None, "other"]
    assert counted("carrier_not_redirected") == before + 1


def test_nor_does_a_stranger_send_it_to_a_service(
    books_at: Any, service: Service, elsewhere: Service
) -> None:
    with (
        CostSession(keys=KEYS, hosts={service.host: "back"}) as session,
        costspan.attribute("acme"),
    ):
        session.get(elsewhere.url(f"/?status=302&to={service.url()}"))
    assert service.carriers() == [None]


def test_a_redirect_on_the_same_host_keeps_it(books_at: Any, service: Service) -> None:
    with (
        CostSession(keys=KEYS, hosts={service.host: "back"}) as session,
        costspan.attribute("acme"),
    ):
        session.get(service.url("/?status=302&to=/there"))
    assert [c and c.tenant for c in service.carriers()] == ["acme", "acme"]


def test_a_context_that_the_host_wrote_itself_goes_nowhere_else(
    books_at: Any, service: Service, elsewhere: Service
) -> None:
    before = counted("carrier_stripped")
    with (
        CostSession(keys=KEYS, hosts={service.host: "back"}) as session,
        costspan.attribute("acme"),
    ):
        mine = costspan.to_carrier(KEYS, audience="back")
        session.get(elsewhere.url(), headers=mine)
        session.get(service.url(f"/?status=302&to={elsewhere.url()}"), headers=mine)
    assert elsewhere.carriers() == [None, None]
    assert [c and c.tenant for c in service.carriers()] == ["acme"]
    assert counted("carrier_stripped") == before + 3


def test_a_proxy_does_not_read_it(books_at: Any, service: Service, elsewhere: Service) -> None:
    before = counted("carrier_not_private")
    with (
        CostSession(keys=KEYS, hosts={service.host: "back"}) as session,
        costspan.attribute("acme"),
    ):
        session.get(service.url(), proxies={"http": elsewhere.url("")})
    assert (service.came, elsewhere.carriers()) == ([], [None])
    assert counted("carrier_not_private") == before + 1


def test_the_hosts_own_errors_hold_no_context(books_at: Any, service: Service) -> None:
    with (
        CostSession(keys=KEYS, hosts={service.host: "back"}) as session,
        costspan.attribute("acme"),
        pytest.raises(requests.ReadTimeout) as raised,
    ):
        session.get(service.url("/?hang=1"), timeout=0.2)
    assert [c and c.tenant for c in service.carriers()] == ["acme"]
    assert raised.value.request is not None
    assert HEADER not in raised.value.request.headers


@pytest.mark.parametrize(
    ("host", "url", "audience"),
    [
        ("back.example", "https://back.example/x", "back"),
        ("back.example", "https://BACK.example:443/x", "back"),
        ("back.example", "http://back.example/x", None),
        ("back.example", "https://back.example:8443/", None),
        ("back.example:8443", "https://back.example:8443/", "back"),
        ("back.example", "https://sub.back.example/", None),
        ("back.example", "https://back.example.evil/", None),
        ("back.example", "https://back.example./", None),
        ("back.example", "https://back.example@evil.example/", None),
        ("back.example", "https://evil.example/back.example", None),
        ("localhost:80", "http://localhost/", "back"),
        ("127.0.0.9", "http://127.0.0.9/", "back"),
        ("[::1]:8000", "http://[::1]:8000/", "back"),
        ("10.0.0.7", "http://10.0.0.7/", None),
        ("127.0.0.1.evil.example", "http://127.0.0.1.evil.example/", None),
    ],
)
def test_where_it_may_go(host: str, url: str, audience: str | None) -> None:
    assert audience_of(place_of(url), carrier_hosts({host: "back"})) == audience


@pytest.mark.parametrize(
    "host",
    [
        "*.internal", "https://back.example", "back.example/v1", "u@back.example", "", "a b",
        "bücher.example", "back.example:x", "a,b", "api.openai.com", "openai.com:443",
        "mine.openai.azure.com", "API.Anthropic.com", "us-central1-aiplatform.googleapis.com",
        "bedrock-runtime.us-east-1.amazonaws.com", "api.openai.com.",
    ],
)  # fmt: skip
def test_hosts_that_are_not_exact_or_are_providers_are_refused(host: str) -> None:
    with pytest.raises(ValueError, match=r"exact|provider|[Pp]ort"):
        CostSession(keys=KEYS, hosts={host: "back"})


def test_settings_that_make_no_sense_are_refused_at_once() -> None:
    with pytest.raises(ValueError, match="keys"):
        CostSession(hosts={"back.example": "back"})
    for ttl in (301, 0):
        with pytest.raises(ValueError, match="300"):
            CostSession(keys=KEYS, hosts={"back.example": "back"}, ttl_seconds=ttl)
    for key in ("https://back.example/v1?x=1", "ftp://back.example", "https://u@back.example/v1"):
        with pytest.raises(ValueError, match=r"prefix|place"):
            CostSession(tools={key: ToolPrice("x", 1)})


# --- a session of somebody else


def test_attach_works_on_a_session_that_exists(recorded: Recorded, service: Service) -> None:
    with requests.Session() as session, costspan.attribute("acme"):
        attach(session, tools={service.host: ToolPrice("once", "0.01")})
        attach(session, tools={service.host: ToolPrice("serp", "0.01")})
        session.get(service.url())
    assert [one.name for one in recorded()] == ["serp", "serp"], "attached twice, seen once"
    copy.copy(session.get_adapter(service.url()))
