"""Bad input becomes a clear, flagged, bounded observation; it never becomes an exception.

One table says how each field is cleaned. What cannot be kept is left out and named in `flags`:
`tenant_invalid`, `invalid_usage`, `truncated`, `invalid:FIELD`. An id that is too long or holds
forbidden characters is replaced by its digest, never cut: two cut ids could meet.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from itertools import islice
from typing import Any, cast, get_args

from costspan.core import schema
from costspan.core.bounded import (
    KEY_CHARS_MAX,
    MAP_KEYS_MAX,
    Cut,
    Invalid,
    bounded_map,
    mapping,
    plain_text,
    short_text,
    text,
)
from costspan.core.schema import FIELDS, Observation

__all__ = ["Invalid", "identifier", "observation", "tenant_id", "text", "usage", "usd"]

TENANT_CHARS_MAX = 128
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ID_CHARS_MAX = 256
TOKENS_MAX = 10**12
"""No provider counts a trillion tokens in one attempt; a larger number is a broken one."""
MEMBERS_MAX = 100_000
MEMBERS_BYTES_MAX = 3 * 1024 * 1024
"""An observation must fit a journal frame: it is not lost for its members."""
USD_MAX = Decimal(9_000_000)
"""An event's cost must fit an int64 of pico-USD (9.22M USD)."""
USD_DECIMALS_MAX = 60
USD_CHARS_MAX = 80


def tenant_id(value: object) -> str:
    """A tenant id: NFC, 1 to 128 characters, no control, format or surrogate characters.

    Case and compatibility forms are kept apart: folding would merge two tenants' bills.

    Raises:
        Invalid: if it is no such id, or starts with `@`, which is reserved.
    """
    if not isinstance(value, str) or not value or len(value) > 4 * TENANT_CHARS_MAX:
        raise Invalid("tenant_invalid")
    text = value if type(value) is str else plain_text(value)
    if text.isascii():
        bad = not text.isprintable()
    else:
        text = unicodedata.normalize("NFC", text)
        bad = any(unicodedata.category(c) in ("Cc", "Cf", "Cs") for c in text)
    if bad or len(text) > TENANT_CHARS_MAX or text[0] == "@" or text != text.strip():
        raise Invalid("tenant_invalid")
    return text


def identifier(value: object) -> str | None:
    """An id kept verbatim or, if it is too long or not printable, as its digest; empty is None."""
    text = value if type(value) is str else plain_text(value)
    if not text or not text.strip("0-"):
        return None  # empty and all-zero ids name nothing
    if len(text) > ID_CHARS_MAX or not text.isprintable():
        return "sha256:" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return text


def _one_of(*allowed: str) -> Callable[[object], str]:
    known: dict[object, str] = {name: name for name in allowed}

    def check(value: object) -> str:
        found = known.get(value)
        if found is None:
            raise Invalid("invalid")
        return found

    return check


def _integer(value: object) -> int:
    if type(value) is not int or not -(2**63) <= value < 2**63:
        raise Invalid("invalid")
    return value


def _moment(value: object) -> int:
    """Nanoseconds UTC, also of an ISO 8601 text that names its offset (`Z` or `+02:00`)."""
    if not isinstance(value, str):
        return _integer(value)
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise Invalid("invalid") from None
    if moment.tzinfo is None:
        raise Invalid("invalid")
    since = moment - _EPOCH
    return (since.days * 86_400 + since.seconds) * 10**9 + since.microseconds * 1000


def _count(value: object) -> int:
    if type(value) is not int or not 0 <= value <= TOKENS_MAX:
        raise Invalid("invalid")
    return value


def _boolean(value: object) -> bool:
    if type(value) is not bool:
        raise Invalid("invalid")
    return value


def usage(value: object) -> dict[str, int]:
    """Disjoint token components. One impossible number spoils the whole: half a usage misprices.

    Raises:
        Invalid: for a negative, fractional, boolean, NaN or absurd count.
    """
    try:
        components = mapping(value)
    except Invalid:
        raise Invalid("invalid_usage") from None
    if len(components) > MAP_KEYS_MAX:
        raise Invalid("invalid_usage")
    counts: dict[str, int] = {}
    for name, count in components.items():
        if type(count) is float and count.is_integer() and 0 <= count <= TOKENS_MAX:
            count = int(count)  # JSON writers turn 100 into 100.0
        if type(name) is not str or type(count) is not int or not 0 <= count <= TOKENS_MAX:
            raise Invalid("invalid_usage")
        if len(name) > KEY_CHARS_MAX or not name.isprintable():
            raise Invalid("invalid_usage")  # cut names could meet, and one count would be lost
        counts[name] = count
    return counts


def _members(value: object) -> dict[str, int]:
    members = mapping(value)
    if len(members) > MEMBERS_MAX:
        raise Invalid("invalid")
    counts: dict[str, int] = {}
    for name, count in members.items():
        try:
            owner = tenant_id(name)
        except Invalid:
            owner = "@unattributed"  # its share is still counted, where everybody sees it
        counts[owner] = counts.get(owner, 0) + _count(count)
    if sum(len(owner.encode()) + 10 for owner in counts) > MEMBERS_BYTES_MAX:
        raise Invalid("invalid")
    return counts


def usd(value: object) -> str:
    """An amount as a decimal string of USD, exact, non-negative and finite.

    Raises:
        Invalid: for anything else.
    """
    if isinstance(value, bool) or not isinstance(value, (str, int, Decimal, float)):
        raise Invalid("invalid")
    if isinstance(value, str) and len(value) > USD_CHARS_MAX:
        raise Invalid("invalid")
    try:
        # A float's shortest repr is what its writer meant; the money path sees only the text.
        amount = Decimal(float.__repr__(value) if isinstance(value, float) else value)
    except InvalidOperation:
        raise Invalid("invalid") from None
    if not amount.is_finite() or not 0 <= amount <= USD_MAX:
        raise Invalid("invalid")
    exponent = amount.as_tuple().exponent
    if not isinstance(exponent, int) or exponent < -USD_DECIMALS_MAX:
        raise Invalid("invalid")  # 1E-999999999 is a short text of a gigabyte of zeros
    return format(amount.copy_abs(), "f")  # the only negative left is -0


def _labels(value: object) -> dict[str, str] | Cut:
    labels = mapping(value)
    kept: dict[str, str] = {}
    cut = len(labels) > MAP_KEYS_MAX
    for name, content in islice(labels.items(), MAP_KEYS_MAX):
        key = name if type(name) is str else plain_text(name)
        short = short_text(content)
        cut = cut or len(key) > KEY_CHARS_MAX or isinstance(short, Cut)
        kept[text(key)[:KEY_CHARS_MAX]] = short.kept if isinstance(short, Cut) else short
    return Cut(kept) if cut else kept


def _first(value: object, items_max: int) -> list[object]:
    """The first items of an iterable, which need not end."""
    if type(value) is not tuple and not isinstance(value, Iterable):
        raise Invalid("invalid")
    return list(islice(cast("Iterable[object]", value), items_max))


def _operation_ids(value: object) -> tuple[str, ...] | Cut:
    names = [value] if isinstance(value, str) else value
    first = _first(names, MAP_KEYS_MAX + 1)
    kept = dict.fromkeys([identifier(name) for name in first[:MAP_KEYS_MAX]])
    ids = tuple([name for name in kept if name is not None])
    return ids if len(first) <= MAP_KEYS_MAX else Cut(ids)


def _flags(value: object) -> tuple[str, ...]:
    if value == ():
        return ()
    if isinstance(value, str):
        raise Invalid("invalid")
    return tuple(dict.fromkeys(text(flag) for flag in _first(value, MAP_KEYS_MAX)))


def _prompt_template(value: object) -> tuple[str, str]:
    named = _first(value, 3)
    if isinstance(value, str) or len(named) != 2:
        raise Invalid("invalid")
    return text(named[0]), text(named[1])


_IDS = (
    "oid attempt_id response_id writer session user trace_id span_id parent request_id"
    " client_request_id retry_of fill_event tool_call_id provider_account prompt_hash"
)
_TEXTS = (
    "source source_version name feature workload agent provider requested_model executed_model"
    " deployment route region tier error_type price_book period effective_period"
)
_CLEANERS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(_IDS.split(), identifier),
    **dict.fromkeys(_TEXTS.split(), short_text),
    **dict.fromkeys(("schema_version", "seq"), _integer),
    **dict.fromkeys(("started_at", "ended_at", "recorded_at"), _moment),
    **dict.fromkeys(("hops", "attempt", "attempts_hidden"), _count),
    **dict.fromkeys(("shared", "shared_prefix", "provider_billed"), _boolean),
    **dict.fromkeys(("flat_cost", "host_cost", "avoided_cost"), usd),
    **dict.fromkeys(("usage", "delivered_usage"), usage),
    **dict.fromkeys(("raw_usage", "attributes", "client_claims"), bounded_map),
    "tenant": tenant_id,
    "labels": _labels,
    "members": _members,
    "operation_ids": _operation_ids,
    "flags": _flags,
    "prompt_template": _prompt_template,
    "layer": _one_of(*get_args(schema.Layer)),
    "phase": _one_of(*get_args(schema.Phase)),
    "kind": _one_of(*get_args(schema.Kind)),
    "cause": _one_of(*get_args(schema.Cause)),
    "cause_source": _one_of(*get_args(schema.CauseSource)),
    "initiator": _one_of(*get_args(schema.Initiator)),
    "tenant_source": _one_of(*get_args(schema.TenantSource)),
    "policy_owner": _one_of(*get_args(schema.PolicyOwner)),
    "parent_origin": _one_of(*get_args(schema.Origin)),
    "session_origin": _one_of(*get_args(schema.Origin)),
    "trace_origin": _one_of(*get_args(schema.Origin)),
    "retry_reason": _one_of(*get_args(schema.RetryReason)),
    "route_reason": _one_of(*get_args(schema.RouteReason)),
    "usage_source": _one_of(*get_args(schema.UsageSource)),
    "provider_result": _one_of(*get_args(schema.ProviderResult)),
    "delivery": _one_of(*get_args(schema.Delivery)),
    "fault": _one_of(*get_args(schema.Fault)),
    "cache": _one_of(*get_args(schema.Cache)),
}
assert set(_CLEANERS) == set(FIELDS), set(_CLEANERS) ^ set(FIELDS)


def observation(fields: Mapping[str, Any]) -> Observation:
    """An observation of whatever came in: clean, bounded, and flagged where something was wrong.

    Never raises. A field nobody knows is counted in `flags` as `unknown:NAME` and left out.
    """
    kept: dict[str, Any] = {}
    flags: list[str] = []
    for name, value in fields.items():
        if value is None:
            continue
        cleaner = _CLEANERS.get(name)
        try:
            if cleaner is None:
                flags.append(f"unknown:{text(name)}")
                continue
            cleaned = cleaner(value)
            if type(cleaned) is Cut:
                flags.append("truncated")
                cleaned = cleaned.kept
            if cleaned is not None:
                kept[name] = cleaned
        except Invalid as wrong:
            reason = str(wrong)
            spoils = reason != "invalid" and name != "delivered_usage"
            flags.append(reason if spoils else f"invalid:{name}")
            if name == "tenant":
                flags.append(f"tenant:{_digest(value)}")
        except Exception as wrong:  # a hostile __str__, __len__ or __iter__ of the host's object
            flags.append(f"invalid:{name}:{type(wrong).__name__}")
    for name in ("members", "labels", "delivered_usage"):
        if not kept.get(name, True):
            del kept[name]  # an empty map says nothing
    if fields.get("usage") is not None and not kept.get("usage"):
        kept.pop("usage", None)  # an empty or spoilt usage is a missing one, never zero
        kept["usage_source"] = "missing"
    if flags:
        kept["flags"] = tuple(dict.fromkeys((*flags, *kept.get("flags", ()))))[:MAP_KEYS_MAX]
    return Observation(**kept)


def _digest(value: object) -> str:
    """The first 12 hex digits of a refused tenant id's hash: enough to find it, not to show it."""
    try:
        plain = value if isinstance(value, str) else repr(value)
        return hashlib.sha256(plain.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    except Exception:
        return "unprintable"
