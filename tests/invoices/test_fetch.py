"""The importers over real HTTP: the loopback provider's bills, and a server that refuses."""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from papers import NOW, anthropic_page, charged, cost, openai_page

from costspan.conformance.provider import LoopbackProvider
from costspan.core.invoices.document import InvoiceError
from costspan.plugins.invoices import fetch

KEY = "sk-admin-a-key-that-nobody-may-see"
DAY_NS = 86_400 * 10**9
MONTH = "2026-11"
FIRST = NOW - 21 * DAY_NS
"""Noon of 2026-11-01."""


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_ADMIN_KEY", KEY)
    monkeypatch.setenv("ANTHROPIC_ADMIN_KEY", KEY)
    monkeypatch.setattr(fetch, "PAUSES_SECONDS", (0, 0))


class Server(ThreadingHTTPServer):
    """Answers each path with its next answer (status, headers, body), the last one for ever."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: dict[str, list[tuple[int, dict[str, str], bytes]]] = defaultdict(list)
        self.asked: list[tuple[str, dict[str, str]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def say(self, path: str, status: int, body: bytes = b"", **headers: str) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answers[path].append((status, named, body))


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append((self.path, {k.lower(): v for k, v in self.headers.items()}))
        answers = self.server.answers[self.path.partition("?")[0]]
        status, headers, body = answers.pop(0) if len(answers) > 1 else answers[0]
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None: ...


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


COSTS = "/v1/organization/costs"
USAGE = "/v1/organization/usage/completions"
EMBEDDINGS = "/v1/organization/usage/embeddings"
REPORT = "/v1/organizations/cost_report"
MESSAGES = "/v1/organizations/usage_report/messages"
EMPTY = openai_page({})


def ask(read: Callable[..., Any], server: Server, **facts: Any) -> list[Any]:
    return list(read(None, "openai", period=MONTH, base_url=server.url, **facts))


# -- the loopback provider


@pytest.fixture
def played() -> Iterator[LoopbackProvider]:
    """Three weeks of calls on both wires."""
    clock = [FIRST]
    with LoopbackProvider(clock=lambda: clock[0]) as provider:
        for at, words in enumerate(
            ("in=1000 cached=400 out=50", "in=7 out=3 project=blue", "in=99 cached=9 out=1") * 3
        ):
            clock[0] = FIRST + at * 2 * DAY_NS
            body = {"messages": [{"role": "user", "content": f"[[{words}]]"}], "max_tokens": 9}
            for model, path in (
                ("gpt-4o", "/v1/chat/completions"),
                ("claude-haiku-4-5", "/v1/messages"),
            ):
                head = {"x-api-key": "k", "anthropic-version": "2023-06-01"}
                asked = httpx.post(provider.url + path, json={"model": model, **body}, headers=head)
                asked.raise_for_status()
        yield provider
        assert provider.bugs == ()


def test_the_bills_of_both_wires_are_the_truth(
    read: Callable[..., Any], store: Any, played: LoopbackProvider
) -> None:
    rows = {
        name: [row for row in played.truth if (row.endpoint == "/v1/messages") == is_messages]
        for name, is_messages in (("openai", False), ("anthropic", True))
    }
    for name, truth in rows.items():
        billed, used = read(None, name, period=MONTH, base_url=played.base_url)
        assert billed.amounts == {"usage": sum(row.cost_pico for row in truth)}
        tokens = defaultdict[str, int](int)
        requests = 0
        for line in store.lines(used.invoice.id):
            tokens[line.component] += line.quantity or 0
            requests += line.requests or 0
        truly = defaultdict[str, int](int)
        for row in truth:
            for component, count in row.usage.items():
                truly[component] += count
        assert {part: count for part, count in tokens.items() if part} == truly
        assert requests == (len(truth) if name == "openai" else 0)
        assert {line.project for line in store.lines(billed.invoice.id)} == (
            {None, "blue"} if name == "openai" else {"default", "blue"}
        )
    assert len(store.current(MONTH)) == 4


def test_an_import_of_the_same_bill_changes_nothing(
    read: Callable[..., Any], store: Any, played: LoopbackProvider
) -> None:
    for name in ("openai", "anthropic"):
        first = read(None, name, period=MONTH, base_url=played.url)
        again = read(None, name, period=MONTH, base_url=played.url)
        assert [each.invoice for each in again] == [each.invoice for each in first]
        assert not any(each.is_new for each in again)
    assert len(store.invoices()) == 4


def test_small_pages_of_the_reports_come_to_the_same(played: LoopbackProvider) -> None:
    def pages(path: str, limit: int) -> list[Any]:
        api = fetch.Api(
            played.url, "ANTHROPIC_ADMIN_KEY", "x-api-key", "", {"anthropic-version": "x"}
        )
        query = {"starting_at": "2026-11-01T00:00:00Z", "ending_at": "2026-11-22T00:00:00Z"}
        grouped: fetch.Query = {"limit": limit, "group_by[]": ["workspace_id"]}
        found = [json.loads(each) for each in api.pages(path, {**query, **grouped})]
        api.close()
        assert [page["has_more"] for page in found] == [True] * (len(found) - 1) + [False]
        return [bucket for page in found for bucket in page["data"]]

    for path in (REPORT, MESSAGES):
        assert len(pages(path, 2)) == 21
        assert pages(path, 2) == pages(path, 31)


@pytest.mark.parametrize(
    ("path", "query", "status"),
    [
        (REPORT, "", 400),
        (REPORT, "?starting_at=2026-11-01T00:00:00Z&bucket_width=1h", 400),
        (REPORT, "?starting_at=2026-11-01T00:00:00Z&limit=32", 400),
        (REPORT, "?starting_at=2026-11-01T00:00:00Z&limit=0", 400),
        (REPORT, "?starting_at=2026-11-01T00:00:00Z&page=x", 400),
        (REPORT, "?starting_at=November", 400),
        (MESSAGES, "?starting_at=2026-11-01T00:00:00Z&group_by[]=description", 400),
        (MESSAGES, "?starting_at=2026-11-01T00:00:00Z&bucket_width=1h&limit=168", 200),
    ],
)
def test_the_loopback_reports_refuse_what_the_api_refuses(
    path: str, query: str, status: int
) -> None:
    head = {"x-api-key": "k", "anthropic-version": "2023-06-01"}
    with LoopbackProvider() as provider:
        assert httpx.get(provider.url + path + query, headers=head).status_code == status
        assert httpx.get(provider.url + path + query, headers={}).status_code == 401
        assert provider.bugs == ()


# -- a server that refuses, repeats and tears


def test_what_was_asked(read: Callable[..., Any], server: Server) -> None:
    for path in (COSTS, USAGE, EMBEDDINGS):
        server.say(path, 200, EMPTY)
    for path in (REPORT, MESSAGES):
        server.say(path, 200, anthropic_page({}))
    ask(read, server)
    read(None, "anthropic", period="2026-10", base_url=server.url + "/v1/")
    paths = [httpx.URL(path) for path, _ in server.asked]
    assert [(each.path, dict(each.params.multi_items())) for each in paths[:1]] == [
        (
            COSTS,
            {"start_time": "1793491200", "end_time": "1795392000", "bucket_width": "1d"}
            | {"limit": "180", "group_by": "line_item"},
        )
    ]
    assert paths[0].params.get_list("group_by") == ["project_id", "line_item"]
    assert paths[1].params.get_list("group_by") == ["project_id", "model", "batch", "service_tier"]
    assert paths[3].params["ending_at"] == "2026-11-01T00:00:00Z"  # half-open
    assert paths[3].params.get_list("group_by[]") == ["workspace_id", "description"]
    assert [head.get("authorization") for _, head in server.asked[:3]] == [f"Bearer {KEY}"] * 3
    for _, head in server.asked[3:]:
        assert (head["x-api-key"], head["anthropic-version"]) == (KEY, "2023-06-01")
        assert "authorization" not in head


def test_an_empty_month_is_kept_as_empty(
    read: Callable[..., Any], store: Any, server: Server
) -> None:
    for path in (COSTS, USAGE, EMBEDDINGS):
        server.say(path, 200, EMPTY)
    assert [(each.invoice.source, each.lines) for each in ask(read, server)] == [
        ("openai", 0),
        ("openai-usage", 0),
    ]


def test_pages_are_followed_and_kept_byte_for_byte(
    read: Callable[..., Any], store: Any, server: Server
) -> None:
    first = openai_page({"2026-11-01": [cost("a, input", "1")]}, has_more=True, next_page="p2")
    last = openai_page({"2026-11-02": [cost("a, input", "2")]})
    server.say(COSTS, 200, first)
    server.say(COSTS, 429, b"slow down", Retry_After="0")
    server.say(COSTS, 503)
    server.say(COSTS, 200, last)
    for path in (USAGE, EMBEDDINGS):
        server.say(path, 200, EMPTY)
    costs, _ = ask(read, server)
    assert (costs.lines, costs.amounts) == (2, {"usage": 3 * 10**12})
    assert store.raw(costs.invoice.id) == first + b"\n" + last
    asked = [httpx.URL(path) for path, _ in server.asked if path.startswith(COSTS)]
    assert [each.params.get("page") for each in asked] == [None, "p2", "p2", "p2"]


@pytest.mark.parametrize(
    ("status", "body", "headers", "why"),
    [
        (500, b"oops", {}, "HTTP 500: oops; given up after 3 tries"),
        (429, b"", {"Retry_After": "0"}, "HTTP 429.*given up after 3 tries"),
        (429, b"", {"Retry_After": "Wed, 21 Oct 2026 07:28:00 GMT"}, "given up after 3 tries"),
        (401, f"bad key {KEY}".encode(), {}, r"HTTP 401: bad key \(key\)$"),
        (404, b"", {}, "HTTP 404"),
        (302, b"", {"Location": "http://127.0.0.1:9/"}, "leads elsewhere"),
        (200, b"<html>", {}, "the answer is no page"),
        (200, b"[]", {}, "the answer is no page"),
        (200, b'{"has_more": true, "data": []}', {}, "names no next_page"),
        (200, b'{"has_more": true, "next_page": "p", "data": []}', {}, "comes again and again"),
        (200, EMPTY[:-5], {"Content_Length": str(len(EMPTY))}, "given up after 3 tries"),
    ],
)
def test_what_the_server_does_wrong_is_said_and_nothing_is_kept(
    read: Callable[..., Any],
    store: Any,
    server: Server,
    status: int,
    body: bytes,
    headers: dict[str, str],
    why: str,
) -> None:
    server.say(COSTS, status, body, **headers)
    with pytest.raises(InvoiceError, match=why) as failed:
        ask(read, server)
    assert KEY not in str(failed.value)
    assert store.invoices() == []


def test_nobody_there(read: Callable[..., Any], server: Server) -> None:
    server.server_close()
    with pytest.raises(InvoiceError, match=r"ConnectionError.*given up after 3 tries"):
        ask(read, server)


def test_a_retry_after_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [fetch._retry_after(text) for text in ("7", "0", "999999", "-1", "1.5", "", None)] == [
        *(7, 0, 300, None, None, None, None)
    ]


def test_a_netrc_file_does_not_replace_the_key(
    read: Callable[..., Any], server: Server, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login eve password eve\n", "utf-8")
    monkeypatch.setenv("NETRC", str(netrc))
    server.say(COSTS, 404)
    with pytest.raises(InvoiceError, match="404"):
        ask(read, server)
    assert server.asked[0][1]["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://api.example", "over https"),
        ("ftp://127.0.0.1", "write https"),
        ("https://user:pw@127.0.0.1", "without user or key"),
        ("127.0.0.1:80", "write https"),
        ("http://[", "no address|write https"),
    ],
)
def test_a_key_goes_nowhere_in_the_clear(read: Callable[..., Any], url: str, why: str) -> None:
    with pytest.raises(InvoiceError, match=why):
        read(None, "anthropic", period=MONTH, base_url=url)


@pytest.mark.parametrize("value", [None, " ", "käse", "a\nb"])
def test_a_key_that_is_none(
    read: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv("OPENAI_ADMIN_KEY")
    if value is not None:
        monkeypatch.setenv("MY_KEY", value)
    with pytest.raises(InvoiceError, match=r"MY_KEY"):
        read(None, "openai", period=MONTH, base_url="http://127.0.0.1:9", key_env="MY_KEY")


def test_a_month_must_be_named_and_must_have_begun(read: Callable[..., Any]) -> None:
    with pytest.raises(InvoiceError, match="--period YYYY-MM"):
        read(None, "openai")
    with pytest.raises(InvoiceError, match="has not begun"):
        read(None, "anthropic", period="2026-12")
    with pytest.raises(InvoiceError, match="no importer knows"):
        read(None, "mistral", period=MONTH)


def test_half_a_bill_is_no_bill(read: Callable[..., Any], store: Any, server: Server) -> None:
    server.say(REPORT, 200, anthropic_page({"2026-11-01": [charged("1")]}))
    server.say(MESSAGES, 403, b"no")
    with pytest.raises(InvoiceError, match="403"):
        read(None, "anthropic", period=MONTH, base_url=server.url)
    assert store.invoices() == []
