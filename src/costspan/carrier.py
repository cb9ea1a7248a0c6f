"""The current owner and lineage, signed: what one service of ours tells the next.

    requests.post(url, headers=costspan.to_carrier(keys, audience="search"))     # over HTTP
    queue.send(body, headers=costspan.to_carrier(keys, audience="worker", message_id=message_id))

    with costspan.resume(message.headers, keys, message_id=message.id):          # in the worker
        handle(message)

A carrier is one header of at most 1 KiB: version, key id, payload and HMAC-SHA256, joined by dots.
It names no person, and the keys are symmetric: whoever holds a key speaks for every issuer that is
accepted with it, so keep a set of keys per circle of services that trust one another.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import time
from collections.abc import Collection, Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias, cast

import msgspec

from costspan.adapter import Context, context_fields, current
from costspan.core.clean import Invalid, tenant_id
from costspan.core.context import scope
from costspan.core.counters import count
from costspan.keys import Keys

__all__ = [
    "HEADER",
    "HTTP_TTL_SECONDS_MAX",
    "Keys",
    "Signed",
    "from_carrier",
    "resume",
    "to_carrier",
]

HEADER = "x-costspan-context"
CARRIER_BYTES_MAX = 1024
HTTP_TTL_SECONDS_MAX = 300
QUEUE_TTL_SECONDS_MAX = 30 * 86_400
"""A message may wait; its carrier is of no use with any other message."""
CLOCK_SKEW_SECONDS_MAX = 30
_VERSION = "1"

Headers: TypeAlias = "Mapping[str, Any] | Iterable[tuple[str, Any]]"
"""What a carrier is read from: a mapping or pairs; values may be bytes, as queues give them."""


class _Refused(Exception):
    """Why a carrier is not believed; its text becomes a counter."""


class Signed(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    rename={
        "issuer": "iss",
        "audience": "aud",
        "issued_at": "iat",
        "expires_at": "exp",
        "tenant": "tnt",
        "session": "ses",
        "operation": "op",
        "attempt_id": "att",
        "message_id": "mid",
    },
):
    """What a carrier said, verified. Times are seconds since 1970, UTC.

    `operation` is the event that encloses the call; `attempt_id` is the call itself, where whoever
    made it recorded it.
    """

    issuer: str
    audience: str
    issued_at: int
    expires_at: int
    tenant: str | None = None
    session: str | None = None
    operation: str | None = None
    attempt_id: str | None = None
    message_id: str | None = None

    @property
    def parent(self) -> str | None:
        """The event that what happens here is a child of."""
        return self.attempt_id or self.operation


_encoder = msgspec.json.Encoder(order="sorted")
_decoder = msgspec.json.Decoder(Signed)


def to_carrier(
    keys: Keys,
    *,
    audience: str,
    operation: str | None = None,
    message_id: str | None = None,
    ttl_seconds: int = 60,
    attempt_id: str | None = None,
) -> dict[str, str]:
    """The current context as one signed header, or an empty dict where nothing can be said.

    Never raises. A context without a tenant signs its session and lineage alone.

    Args:
        keys: The keys of this service.
        audience: The service it is for.
        operation: The event that encloses the call; the one that is current unless given.
        message_id: The queue message it travels with, and is worth nothing without.
        ttl_seconds: How long it holds: at most 300 over HTTP, 30 days with a message. What is
            outside is clamped, and counted as `carrier_ttl_clamped`.
        attempt_id: The attempt that makes the call, if it is recorded: then the parent of what
            happens there.
    """
    try:
        return _signed(keys, audience, operation, message_id, ttl_seconds, attempt_id)
    except _Refused as refused:
        count(f"carrier_{refused}")
    except Exception as error:
        count(f"carrier_failed:{type(error).__name__}")
    return {}


def from_carrier(
    carrier: Headers,
    keys: Keys,
    *,
    audience: str | None = None,
    message_id: str | None = None,
    now: float | None = None,
) -> Signed | None:
    """What a carrier says, if it is signed for this place, this message and this moment.

    Never raises. Every refusal is counted: `carrier_missing`, `_duplicated`, `_too_big`, `_key`,
    `_tampered`, `_issuer`, `_audience`, `_message` or `_expired`.

    Args:
        carrier: Headers, as a mapping or as pairs; names in any case.
        keys: The keys of this service.
        audience: Who it must be for; any of the keys' audiences unless given.
        message_id: The id of the message it came with. A carrier that is bound to a message is
            refused without it, and one that is not is refused with it.
        now: Seconds since 1970, UTC; the clock unless given.
    """
    try:
        audiences = keys.audiences if audience is None else (audience,)
        return _verified(carrier, keys, audiences, message_id, time.time() if now is None else now)
    except _Refused as refused:
        count(f"carrier_{refused}")
    except Exception as error:  # a mapping of the host may raise anything
        count(f"carrier_failed:{type(error).__name__}")
    return None


@contextmanager
def resume(
    carrier: Headers,
    keys: Keys,
    *,
    audience: str | None = None,
    message_id: str | None = None,
) -> Generator[Context]:
    """Put the signed owner and lineage of a message in force: for queue workers.

    Nothing of the worker's own context is inherited. A carrier that is refused (and counted, see
    `from_carrier`) leaves the work without an owner: it is shown as unattributed, never guessed.
    """
    signed = from_carrier(carrier, keys, audience=audience, message_id=message_id)
    with scope(Context() if signed is None else context_of(signed)) as context:
        yield context


def context_of(signed: Signed) -> Context:
    """The context that a verified carrier names, with nothing else in it."""
    return Context(
        tenant=signed.tenant,
        tenant_source=None if signed.tenant is None else "signed",
        session=signed.session,
        session_origin=None if signed.session is None else "signed",
        parent=signed.parent,
        parent_origin=None if signed.parent is None else "signed",
    )


def _signed(
    keys: Keys,
    audience: str,
    operation: str | None,
    message_id: str | None,
    ttl_seconds: int,
    attempt_id: str | None,
) -> dict[str, str]:
    if message_id == "":
        raise _Refused("message")  # it would be bound to every message without an id
    said = context_fields(current())
    if operation is None and said["parent_origin"] != "caller":
        operation = said["parent"]
    # A framework's metadata is no authority: this service has seen nothing that vouches for it.
    tenant = None if said["tenant_source"] == "metadata" else said["tenant"]
    session = None if said["session_origin"] == "caller" else said["session"]
    if (tenant, session, operation, attempt_id) == (None, None, None, None):
        return {}
    limit = HTTP_TTL_SECONDS_MAX if message_id is None else QUEUE_TTL_SECONDS_MAX
    ttl = min(max(int(ttl_seconds), 1), limit)
    if ttl != ttl_seconds:
        count("carrier_ttl_clamped")
    now = int(time.time())
    claims = Signed(
        issuer=keys.issuer,
        audience=audience,
        issued_at=now,
        expires_at=now + ttl,
        tenant=tenant,
        session=session,
        operation=operation,
        attempt_id=attempt_id,
        message_id=message_id,
    )
    payload = base64.urlsafe_b64encode(_encoder.encode(claims)).rstrip(b"=").decode()
    text = f"{_VERSION}.{keys.current}.{payload}"
    value = f"{text}.{keys.signature(keys.current, text)}"
    if len(value) > CARRIER_BYTES_MAX:
        raise _Refused("too_big")
    return {HEADER: value}


def _verified(
    carrier: Headers,
    keys: Keys,
    audiences: Collection[str],
    message_id: str | None,
    now: float,
) -> Signed:
    value = _sole_value(carrier)
    if len(value) > CARRIER_BYTES_MAX:
        raise _Refused("too_big")
    claims = _opened(value, keys)
    if claims.issuer not in keys.issuers:
        raise _Refused("issuer")
    if claims.audience not in audiences:
        raise _Refused("audience")
    if claims.message_id != message_id or message_id == "":
        raise _Refused("message")
    # What its issuer allowed itself is not enough: nobody's carrier lives longer than ours do.
    limit = HTTP_TTL_SECONDS_MAX if message_id is None else QUEUE_TTL_SECONDS_MAX
    if not claims.issued_at - CLOCK_SKEW_SECONDS_MAX <= now < claims.expires_at:
        raise _Refused("expired")
    if claims.expires_at - claims.issued_at > limit:
        raise _Refused("expired")
    return claims


def _sole_value(carrier: Headers) -> str:
    """The one carrier there is. Of two, which one is ours cannot be told: both are refused."""
    pairs = cast("Mapping[str, Any]", carrier).items() if isinstance(carrier, Mapping) else carrier
    found = [value for name, value in pairs if name.lower() == HEADER]
    if not found:
        raise _Refused("missing")
    value = found[0].decode("latin-1") if isinstance(found[0], bytes) else found[0]
    if len(found) > 1 or "," in value:  # proxies join two headers by a comma
        raise _Refused("duplicated")
    return cast("str", value)


def _opened(value: str, keys: Keys) -> Signed:
    """The claims of a carrier whose signature is right."""
    text, _, signature = value.rpartition(".")
    parts = text.split(".")
    if len(parts) != 3 or parts[0] != _VERSION or not value.isascii():
        raise _Refused("tampered")
    _, key_id, payload = parts
    if key_id not in keys.secrets:
        raise _Refused("key")
    # The text of the signature is compared, not its bytes: base64 has several texts for them.
    if not hmac.compare_digest(keys.signature(key_id, text), signature):
        raise _Refused("tampered")
    try:
        padded = payload + "=" * (-len(payload) % 4)
        claims = _decoder.decode(base64.b64decode(padded, altchars=b"-_", validate=True))
        if claims.tenant is not None and tenant_id(claims.tenant) != claims.tenant:
            raise _Refused("tampered")
    except (binascii.Error, msgspec.MsgspecError, Invalid):
        raise _Refused("tampered") from None
    return claims
