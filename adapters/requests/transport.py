"""Where requests leave: the signed context to our own services, and an attempt a paid call.

    session = CostSession(
        keys=keys,
        hosts={"search.internal": "search"},                              # host -> audience
        tools={"https://api.serp.example/v1": ToolPrice("serp", "0.01")},
    )

Every hop of a redirect passes here and is judged on its own. The signed context goes to the hosts
named and to no other: over TLS or to this machine, never on a redirect from another host, never to
an LLM provider. A call to a priced tool is an attempt, written down before it leaves; the service
behind it learns its id from the signed context and continues as its child.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import urlsplit

import requests
from requests import PreparedRequest, Response
from requests.adapters import BaseAdapter
from requests.utils import select_proxy

from costspan.adapter import Attempt
from costspan.adapters.requests.places import Place, audience_of, carrier_hosts, place_of
from costspan.adapters.requests.tools import ToolPrice, Tools, failure_facts, result_facts
from costspan.carrier import HEADER, HTTP_TTL_SECONDS_MAX, Keys, to_carrier
from costspan.core.counters import count

__all__ = ["CostSession", "attach"]


class CostSession(requests.Session):
    """A `requests.Session` that carries the signed context and records paid HTTP tools.

    Args:
        keys: The keys of this service; needed for `hosts`.
        hosts: Exact `host` or `host:port` -> the audience the service there answers to. Without a
            port it is the scheme's own.
        tools: Exact `host`, `host:port` or URL prefix -> what a call to it costs.
        ttl_seconds: How long a signed context holds, at most 300.

    Raises:
        ImportError: if requests is not installed.
        ValueError: for hosts without keys, a host that is not exact, a provider's host, or a time
            that is too long.
    """

    def __init__(
        self,
        *,
        keys: Keys | None = None,
        hosts: Mapping[str, str] | None = None,
        tools: Mapping[str, ToolPrice] | None = None,
        ttl_seconds: int = 60,
    ) -> None:
        self._terms = _Terms(keys, hosts or {}, tools or {}, ttl_seconds)
        super().__init__()

    def mount(self, prefix: str | bytes, adapter: BaseAdapter) -> None:
        """Mount an adapter as any session does; it is watched like the others."""
        super().mount(prefix, _Transport(adapter, self._terms))  # type: ignore[arg-type]  # as requests


def attach(
    session: requests.Session,
    *,
    keys: Keys | None = None,
    hosts: Mapping[str, str] | None = None,
    tools: Mapping[str, ToolPrice] | None = None,
    ttl_seconds: int = 60,
) -> None:
    """Make a session that exists do what a `CostSession` does, with the adapters it has now.

    Attaching again replaces what was said before. Arguments and errors are `CostSession`'s.
    """
    terms = _Terms(keys, hosts or {}, tools or {}, ttl_seconds)
    for prefix, adapter in session.adapters.items():
        inner = adapter.inner if isinstance(adapter, _Transport) else adapter
        session.adapters[prefix] = _Transport(inner, terms)


class _Terms:
    """What a session was told, checked while somebody reads the error."""

    def __init__(
        self,
        keys: Keys | None,
        hosts: Mapping[str, str],
        tools: Mapping[str, ToolPrice],
        ttl_seconds: int,
    ) -> None:
        if hosts and keys is None:
            raise ValueError("hosts get a context that is signed: give the keys as well")
        if not 0 < ttl_seconds <= HTTP_TTL_SECONDS_MAX:
            raise ValueError(f"over HTTP a context holds 1 to {HTTP_TTL_SECONDS_MAX} seconds")
        self.keys = keys
        self.allowed = carrier_hosts(hosts)
        self.tools = Tools(tools)
        self.ttl_seconds = ttl_seconds


class _FirstPlace:
    """A response hook that does nothing but stay.

    A redirect's request is a copy that shares the hooks of the first one, and nothing else says
    that it is one: the hook remembers where the first went.
    """

    def __init__(self, place: Place) -> None:
        self.place = place

    def __call__(self, response: Response, **_: Any) -> None:
        return None


class _Transport(BaseAdapter):
    """The adapter of a session, watched. Its answers and errors pass as they are."""

    def __init__(self, inner: BaseAdapter, terms: _Terms) -> None:
        super().__init__()
        self.inner = inner
        self._terms = terms

    def __getattr__(self, name: str) -> Any:
        # Hosts look at `max_retries`, `poolmanager` and the like.
        if name == "inner":
            raise AttributeError(name)  # asked before there is one: a copy being made
        return getattr(self.inner, name)

    def close(self) -> None:
        """Close the adapter inside."""
        self.inner.close()

    def send(
        self,
        request: PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: Any = True,
        cert: Any = None,
        proxies: Any = None,
    ) -> Response:
        """Send one request, which may be one hop of several."""
        price, attempt = self._begin(request)
        sent = self._with_carrier(request, attempt, verify, proxies)
        try:
            response = self.inner.send(
                sent, stream=stream, timeout=timeout, verify=verify, cert=cert, proxies=proxies
            )
        except BaseException as error:
            if attempt is not None:
                attempt.fail(error, **failure_facts(error, is_only_try=self._tries_once()))
            if getattr(error, "request", None) is sent:
                cast("Any", error).request = request
            raise
        if attempt is not None and price is not None:
            attempt.end(**result_facts(response.status_code, price))
        # The host sees the request it made, and whoever sends it again does so through here.
        if response.request is sent:
            response.request = request
        if getattr(response, "connection", None) is self.inner:
            cast("Any", response).connection = self
        return response

    def _begin(self, request: PreparedRequest) -> tuple[ToolPrice | None, Attempt | None]:
        """Write the intent down, if this is a call to a priced tool."""
        try:
            place = place_of(request.url or "")
            price = self._terms.tools.find(place, urlsplit(request.url or "").path)
        except ValueError:  # no URL to connect to, as the transport itself is about to say
            return None, None
        if price is None:
            return None, None
        attempt = Attempt.start(
            layer="sdk",
            source="requests",
            kind="tool",
            name=price.name,
            cause="tool",
            cause_source="structure",
            initiator="agent",
            flat_cost=price.cost,
            attributes={"base_url": place.base_url()},
            attempts_hidden=0 if self._tries_once() else None,
        )
        return price, attempt

    def _with_carrier(
        self, request: PreparedRequest, attempt: Attempt | None, verify: Any, proxies: Any
    ) -> PreparedRequest:
        """The request to send: a copy with the signed context, if it may go there.

        The copy is for this hop alone: the host's own request, which a redirect would repeat
        elsewhere, never holds it.
        """
        try:
            carrier = self._carrier(request, attempt, verify, proxies)
            if not carrier and HEADER not in request.headers:
                return request
            sent = request.copy()
            if sent.headers.pop(HEADER, None) is not None:
                count("carrier_stripped")  # one that the host put there goes nowhere by accident
            sent.headers.update(carrier)
            return sent
        except Exception as error:
            count(f"carrier_failed:{type(error).__name__}")
            return request

    def _carrier(
        self, request: PreparedRequest, attempt: Attempt | None, verify: Any, proxies: Any
    ) -> dict[str, str]:
        keys = self._terms.keys
        if keys is None:
            return {}
        url = request.url or ""
        place = place_of(url)
        first = _first_place(request, place)
        audience = audience_of(place, self._terms.allowed)
        if audience is None:
            return {}
        if first != place:
            count("carrier_not_redirected")
            return {}
        # A proxy reads what is not encrypted, and without verification anybody answers.
        is_private = (
            verify is not False if place.scheme == "https" else not select_proxy(url, proxies)
        )
        if not is_private:
            count("carrier_not_private")
            return {}
        return to_carrier(
            keys,
            audience=audience,
            ttl_seconds=self._terms.ttl_seconds,
            attempt_id=None if attempt is None else attempt.attempt_id,
        )

    def _tries_once(self) -> bool:
        """Whether the adapter inside makes no try of its own that nobody sees."""
        retries = getattr(self.inner, "max_retries", None)
        return getattr(retries, "total", None) in (0, False)


def _first_place(request: PreparedRequest, place: Place) -> Place:
    """Where the first request of a chain of redirects went: here, if this is the first."""
    hooks = cast("dict[str, list[Any]]", request.hooks).setdefault("response", [])
    for hook in hooks:
        if isinstance(hook, _FirstPlace):
            return hook.place
    hooks.append(_FirstPlace(place))
    return place
