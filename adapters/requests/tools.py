"""Paid HTTP tools: which call is one, what it costs, and what came of it.

| what came back | result | fault | billed |
|---|---|---|---|
| 2xx | ok | | yes |
| 1xx, 3xx | ok | | no |
| 408, 499, 502, 504: it did not answer, but may have worked | failed | provider | unknown |
| 401, 403, 407 | failed | platform | no, unless failures are billed |
| 429, 500, 501, 503, 505 and other 5xx | failed | provider | no, unless failures are billed |
| any other 4xx | failed | agent | no, unless failures are billed |
| no connection was made | failed | provider | no |
| a URL or header that cannot be sent | failed | platform | no |
| a timeout, a broken connection | failed | provider | unknown |

Unknown keeps the price as cost, and charges nobody: unknown is never zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

from requests import exceptions
from urllib3.exceptions import ConnectTimeoutError, MaxRetryError, NewConnectionError

from costspan.adapters.requests.places import HostPort, Place, host_and_port, place_of
from costspan.core.clean import usd
from costspan.core.schema import Fault

__all__ = ["ToolPrice", "Tools", "failure_facts", "result_facts"]

_UNANSWERED = frozenset({408, 499, 502, 504})
_UNSENDABLE = (exceptions.InvalidURL, exceptions.InvalidHeader, exceptions.InvalidSchema)


@dataclass(frozen=True)
class ToolPrice:
    """A paid HTTP tool.

    Args:
        name: The tool's name in the books.
        cost: What one call that succeeds (2xx) costs, in USD: a decimal string, int or Decimal.
        billed_on_failure: Whether an answer that is an error costs the same.

    Raises:
        ValueError: for a cost that is a float, negative, or no amount at all.
    """

    name: str
    cost: str | int | Decimal
    billed_on_failure: bool = False

    def __post_init__(self) -> None:
        cost: object = self.cost
        if isinstance(cost, float):
            raise ValueError(f"money is never a float: write the cost of {self.name!r} as a text")
        try:
            object.__setattr__(self, "cost", usd(cost))
        except ValueError:
            raise ValueError(f"the cost of {self.name!r} is no amount of USD: {cost!r}") from None


class Tools:
    """The priced tools of a session, found by host or by URL prefix, the longest first.

    Raises:
        ValueError: for a key that is neither an exact host nor a URL with one.
    """

    def __init__(self, tools: Mapping[str, ToolPrice]) -> None:
        found: list[tuple[str | None, HostPort, str, ToolPrice]] = []
        for key, price in tools.items():
            if "://" in key:
                parts = urlsplit(key)
                place = place_of(key)
                if parts.query or parts.fragment or parts.username or place.scheme == "":
                    raise ValueError(f"a prefix is scheme, host and path alone: {key!r}")
                found.append((place.scheme, place.names()[0], parts.path.rstrip("/"), price))
            else:
                found.append((None, host_and_port(key), "", price))
        self._found = sorted(found, key=lambda each: -len(each[2]))

    def find(self, place: Place, path: str) -> ToolPrice | None:
        """The tool that a call to `path` at `place` is; `/v1` covers `/v1/x`, not `/v1x`."""
        names = place.names()
        for scheme, host_port, prefix, price in self._found:
            here = host_port in names and scheme in (None, place.scheme)
            if here and f"{path}/".startswith(f"{prefix}/"):
                return price
        return None


def result_facts(status: int, price: ToolPrice) -> dict[str, Any]:
    """The observation fields of an answer with this HTTP status."""
    if status < 400:
        return {"provider_result": "ok", "provider_billed": 200 <= status < 300}
    fault: Fault = "agent"
    if status in _UNANSWERED or status == 429 or status >= 500:
        fault = "provider"
    elif status in (401, 403, 407):
        fault = "platform"
    return {
        "provider_result": "failed",
        "provider_billed": None if status in _UNANSWERED else price.billed_on_failure,
        "fault": fault,
        "error_type": str(status),
    }


def failure_facts(error: BaseException, *, is_only_try: bool) -> dict[str, Any]:
    """The observation fields of a call that brought no answer.

    Args:
        error: What the transport raised.
        is_only_try: Whether no earlier try is hidden behind this one, which may have been billed.
    """
    if not isinstance(error, Exception):  # the host was stopped: nobody's failure
        return {"provider_result": "unknown"}
    if isinstance(error, _UNSENDABLE):
        return {"fault": "platform", "provider_billed": False}
    never_sent = is_only_try and _never_connected(error)
    return {"fault": "provider", "provider_billed": False if never_sent else None}


def _never_connected(error: Exception) -> bool:
    if isinstance(error, (exceptions.ConnectTimeout, exceptions.ProxyError)):
        return True
    inner = error.args[0] if error.args else None
    reason = inner.reason if isinstance(inner, MaxRetryError) else inner
    return isinstance(reason, (NewConnectionError, ConnectTimeoutError))
