"""Two services that trust one another: their keys, the second one, and what strangers forge."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Callable, Mapping
from typing import Any

from starlette.applications import Starlette

import costspan
from costspan.adapters.asgi import AttributionMiddleware, Owner, SignedContext, api_keys
from costspan.carrier import HEADER
from costspan.conformance.drivers.asgi_exchange import Exchange, routes
from costspan.conformance.suite.forged import FORGED_HEADERS
from costspan.conformance.suite.script import Remote

SECRETS = {"k1": secrets.token_bytes(32)}
FRONTEND, WORKER, SEARCH = "frontend", "worker", "search"
SERVICE_KEY = "key-of-the-frontend"
"""The credential of the first service at the second."""

_SERVICE = Owner(None, user=FRONTEND, may_delegate=True)
_DAY_SECONDS = 86_400


def keys_of(service: str) -> costspan.Keys:
    """The keys of one of the services; both believe the first one only."""
    return costspan.Keys(
        secrets=SECRETS, current="k1", issuer=service, audiences=[service], issuers=[FRONTEND]
    )


def search_service(
    find: Callable[[str], Exchange], owner_of: Callable[[str], Owner | None]
) -> Starlette:
    """The second service: it knows the first as a delegate, and tenants as what they are."""

    def principal(key: str) -> Owner | None:
        return _SERVICE if key == SERVICE_KEY else owner_of(key)

    def may_act_for(delegate: Owner, tenant: str | None) -> bool:
        return delegate.user == FRONTEND and owner_of(f"key-{tenant}") is not None

    service = Starlette(routes=routes(find))
    service.add_middleware(
        AttributionMiddleware,
        resolve=api_keys(principal),
        signed=SignedContext(keys_of(SEARCH), audience=SEARCH, may_act_for=may_act_for),
    )
    return service


def credential(step: Remote) -> dict[str, str]:
    """Who calls the second service: the first, or the tenant that replays its context."""
    key = SERVICE_KEY if step.replayed_by is None else f"key-{step.replayed_by}"
    return {"authorization": f"Bearer {key}"}


def carrier(step: Remote, other_tenant: str) -> dict[str, str]:
    """The signed context of here, as it arrives there; a changed one names another tenant."""
    audience = "billing" if step.arrives == "misdirected" else SEARCH
    signed = costspan.to_carrier(keys_of(FRONTEND), audience=audience)
    if step.arrives == "expired":
        return _resigned(signed[HEADER], iat=-_DAY_SECONDS, exp=-_DAY_SECONDS)
    if step.arrives == "tampered":  # to one for whom the first service may act as well
        return _tampered(signed[HEADER], other_tenant)
    return signed


def forged_headers() -> dict[str, str]:
    """What a client of the first service asserts: another tenant, in every way it can write."""
    with costspan.attribute("a-tenant-of-its-own", session="initech-session"):
        signed = costspan.to_carrier(keys_of(FRONTEND), audience=FRONTEND)
    ours = {f"x-costspan-{name}": "initech" for name in ("owner", "session", "cause", "parent")}
    return {**FORGED_HEADERS, **ours, **_tampered(signed[HEADER], "initech")}


def _tampered(carrier: str, tenant: str) -> dict[str, str]:
    """Another tenant's name, under the signature that was made for the true one."""
    version, key_id, payload, signature = carrier.split(".")
    claims = {**_read(payload), "tnt": tenant}
    return {HEADER: f"{version}.{key_id}.{_encoded(claims)}.{signature}"}


def _resigned(carrier: str, **later: int) -> dict[str, str]:
    """As genuine as the first, but of another time."""
    version, key_id, payload, _ = carrier.split(".")
    claims = _read(payload)
    for name, seconds in later.items():
        claims[name] += seconds
    text = f"{version}.{key_id}.{_encoded(claims)}"
    return {HEADER: f"{text}.{keys_of(FRONTEND).signature(key_id, text)}"}


def _read(payload: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
    )
    return found


def _encoded(claims: Mapping[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
