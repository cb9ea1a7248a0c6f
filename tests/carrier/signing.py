"""Keys, a context to sign, carriers as we and as forgers make them, and what was refused."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from typing import Any

import itsdangerous
import msgspec

from costspan.carrier import Keys, to_carrier
from costspan.core import counters
from costspan.core.context import Context, scope

OLD, NEW = "o" * 32, b"n" * 32
KEYS = Keys({"old": OLD, "new": NEW}, "new", "api", audiences="search")
ACME = Context(
    tenant="acme",
    tenant_source="principal",
    session="s1",
    session_origin="ours",
    user="ann@example.com",
    parent="0a" * 16,
)


class Refusals:
    """What was refused since it was made, by reason."""

    def __init__(self) -> None:
        self._before = counters.snapshot()

    def __call__(self) -> dict[str, int]:
        now = counters.snapshot()
        changed = {name: now[name] - self._before.get(name, 0) for name in now}
        return {n: times for n, times in changed.items() if times and n.startswith("carrier_")}


def carrier_of(context: Context = ACME, keys: Keys = KEYS, **how: Any) -> dict[str, str]:
    with scope(context):
        return to_carrier(keys, audience=how.pop("audience", "search"), **how)


def forged(claims: Mapping[str, Any], secret: str | bytes = NEW, key_id: str = "new") -> str:
    """A carrier as somebody who has the key could make it."""
    payload = base64.urlsafe_b64encode(msgspec.json.encode(claims)).rstrip(b"=").decode()
    signer = itsdangerous.Signer(
        secret, salt=b"costspan.carrier.v1", key_derivation="hmac", digest_method=hashlib.sha256
    )
    return signer.sign(f"1.{key_id}.{payload}").decode()
