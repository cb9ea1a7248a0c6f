"""httpx, under OpenAI's and Anthropic's clients: tells a gateway of ours which call it answers.

    http = httpx.Client(event_hooks={"request": [call_signer(keys, "gateway", ["https://llm.our/"])]})
    model = ChatOpenAI(base_url="https://llm.our/v1", http_client=http)

With it what the framework's handler sees here and what the gateway meters there are one event, for
streams, embeddings and failures too, whose response ids do not reach the handler. List the gateway
in `costspan.configure(gateways=[…])` as well, and give the gateway's callback the same keys.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import Any

from costspan.adapter import enclosing_operation
from costspan.carrier import HEADER, Keys, to_carrier

__all__ = ["async_call_signer", "call_signer"]

_SIGNED = "costspan.signed"
"""The request extension that holds the carrier of the hop before: redirects repeat both."""


def call_signer(keys: Keys, audience: str, gateways: Collection[str]) -> Callable[[Any], None]:
    """A request hook for `httpx.Client`. A redirect is a request of its own, and judged anew.

    Args:
        keys: The keys of this service.
        audience: The name that the gateway answers to.
        gateways: Its base URLs. Nothing is signed for any other place.
    """
    places = tuple(gateway.rstrip("/") + "/" for gateway in gateways)

    def sign(request: Any) -> None:
        before = request.extensions.pop(_SIGNED, None)
        if before is not None and request.headers.get(HEADER) == before:
            del request.headers[HEADER]
        operation = enclosing_operation()
        if operation is not None and str(request.url).startswith(places):
            attempt_id = operation.operation_id
            carrier = to_carrier(keys, audience=audience, attempt_id=attempt_id)
            request.headers.update(carrier)
            request.extensions[_SIGNED] = carrier.get(HEADER)

    return sign


def async_call_signer(
    keys: Keys, audience: str, gateways: Collection[str]
) -> Callable[[Any], Awaitable[None]]:
    """A request hook for `httpx.AsyncClient`; see `call_signer`."""
    sign = call_signer(keys, audience, gateways)

    async def sign_async(request: Any) -> None:
        sign(request)

    return sign_async
