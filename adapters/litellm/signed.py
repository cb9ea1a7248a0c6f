"""Which call of its client a proxy answers, where a signed carrier says so.

A client that is metered itself sees each call, too. Response ids join both views where there are
some; a stream's, an embedding's or a failure's does not reach every client. So the client signs the
operation it is in (`costspan.adapters.httpx`), and the proxy's attempts name it: one event.

The carrier names no owner here: that is whoever the proxy authenticated. One that was signed for
another tenant is not believed: somebody may have captured it.
"""

from __future__ import annotations

from costspan.adapters.litellm.request import Asked, mapping
from costspan.carrier import HEADER, Keys, from_carrier
from costspan.core.counters import count


def operations_of(asked: Asked, keys: Keys | None, tenant: str | None) -> tuple[str, ...]:
    """The client's operation that this call is, as operation ids of the proxy's attempt.

    Args:
        asked: The request.
        keys: The keys of this proxy; without any nothing is believed.
        tenant: Whom the proxy authenticated.
    """
    if keys is None or not asked.is_proxy:
        return ()
    headers = mapping(mapping(asked.get("proxy_server_request")).get("headers"))
    if HEADER not in headers:
        return ()
    signed = from_carrier(headers, keys)
    if signed is None or signed.attempt_id is None:
        return ()
    if signed.tenant not in (None, tenant):
        count("litellm:carrier_of_another_tenant")
        return ()
    return (signed.attempt_id,)
