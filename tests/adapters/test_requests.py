"""A session of `requests` against a real server: who gets the context, and what a tool cost."""

from __future__ import annotations

import copy
import socket
import threading
from collections.abc import Callable, Iterator
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from requests.adapters import HTTPAdapter
from requests.auth import HTTPDigestAuth
from urllib3 import Retry

import costspan
from costspan.adapters.requests import CostSession, ToolPrice, attach
from costspan.adapters.requests.places import audience_of, carrier_hosts, place_of
from costspan.adapters.requests.tools import Tools
from costspan.carrier import HEADER, Keys, Signed, from_carrier
from costspan.core import counters
from costspan.core.schema import Observation

Recorded = Callable[[], list[Observation]]
KEYS = Keys({"k1": "s" * 32}, "k1", "front", audiences=["back", "other"])


class Service:
    """A server that answers as the URL asks, and remembers who came with what."""

    def __init__(self) -> None:
        self.came: list[tuple[str, dict[str, str]]] = []
        self.go_on = threading.Event()
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                service.came.append((self.path, {k.lower(): v for k, v in self.headers.items()}))
                asked = {k: v[0] for k, v in parse_qs(urlsplit(self.path).query).items()}
                if "hang" in asked:
                    service.go_on.wait(20)
                    return
                if "drop" in asked:
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                self.send_response(int(asked.get("status", "200")))
                if "to" in asked:
                    self.send_header("Location", asked["to"])
                if "digest" in asked and "authorization" not in self.headers:
                    self.send_header("WWW-Authenticate", 'Digest realm="r", nonce="n", qop="auth"')
                self.send_header("Content-Length", "10")
                self.end_headers()
                self.wfile.write(b"0123456789")

            do_POST = do_GET

            def log_message(self, *_: Any) -> None:
                return None

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def url(self, path: str = "/") -> str:
        return f"http://{self.host}{path}"

    def carriers(self) -> list[Signed | None]:
        """What each request said, where it said anything."""
        read = {"back", "other"}
        return [
            next((s for a in read if (s := from_carrier(headers, KEYS, audience=a))), None)
            if HEADER in headers
            else None
            for _, headers in self.came
        ]

    def close(self) -> None:
        self.go_on.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(20)


@pytest.fixture
def service() -> Iterator[Service]:
    served = Service()
    yield served
    served.close()


@pytest.fixture
def elsewhere() -> Iterator[Service]:
    served = Service()
    yield served
    served.close()


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


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
