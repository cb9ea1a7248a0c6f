"""Bad input becomes a clear, flagged, bounded observation; it never becomes an exception.

One table says how each field is cleaned. What cannot be kept is left out and named in `flags`:
`tenant_invalid`, `invalid_usage`, `truncated`, `attributes_dropped`, `invalid:FIELD`. An id that is
too long or holds forbidden characters is replaced by its digest, never cut: two cut ids could meet.

The host's thread pays for this. So each cleaner begins with what a value nearly always is, and
short texts that come again and again (tenants, models, providers) are known from the last time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from itertools import islice
from typing import Any, cast, get_args

from costspan.core import schema
from costspan.core.attributes import attributes
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
from costspan.core.names import identifier, know, known_tenants, one_of, tenant_id
from costspan.core.periods import is_period
from costspan.core.schema import FIELDS, Observation

__all__ = [
    "Invalid",
    "identifier",
    "observation",
    "tenant_id",
    "text",
    "usage",
    "usd",
    "wire_fields",
]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TOKENS_MAX = 10**12
"""No provider counts a trillion tokens in one attempt; a larger number is a broken one."""
MEMBERS_MAX = 100_000
MEMBERS_BYTES_MAX = 3 * 1024 * 1024
"""An observation must fit a journal frame: it is not lost for its members."""
USD_MAX = Decimal(9_000_000)
"""An event's cost must fit an int64 of pico-USD (9.22M USD)."""
USD_DECIMALS_MAX = 60
USD_CHARS_MAX = 80
_known_texts: dict[str, str] = {}
_known_components: dict[str, str] = {}


def _integer(value: object) -> int:
    if type(value) is not int or not -(2**63) <= value < 2**63:
        raise Invalid("invalid")
    return value


def _moment(value: object) -> int:
    """Nanoseconds UTC, also of an ISO 8601 text that names its offset (`Z` or `+02:00`)."""
    if type(value) is int and 0 <= value < 2**63:
        return value
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


def usage(value: Any) -> dict[str, int]:
    """Disjoint token components. One impossible number spoils the whole: half a usage misprices.

    Raises:
        Invalid: for a negative, fractional, boolean, NaN or absurd count.
    """
    components: Mapping[Any, Any] = value
    if type(value) is not dict and not isinstance(value, Mapping):
        raise Invalid("invalid_usage")
    if len(components) > MAP_KEYS_MAX:
        raise Invalid("invalid_usage")
    counts: dict[str, int] = {}
    for name, count in components.items():
        is_known = type(name) is str and name in _known_components
        if is_known and type(count) is int and 0 <= count <= TOKENS_MAX:
            counts[name] = count
            continue
        if type(count) is float and count.is_integer() and 0 <= count <= TOKENS_MAX:
            count = int(count)  # JSON writers turn 100 into 100.0
        if type(name) is not str or type(count) is not int or not 0 <= count <= TOKENS_MAX:
            raise Invalid("invalid_usage")
        if len(name) > KEY_CHARS_MAX or not name.isprintable():
            raise Invalid("invalid_usage")  # cut names could meet, and one count would be lost
        know(_known_components, name, name)
        counts[name] = count
    return counts


def _delivered_usage(value: object) -> dict[str, int] | None:
    try:
        return usage(value) or None
    except Invalid:
        raise Invalid("invalid") from None  # it spoils itself alone


def _members(value: object) -> dict[str, int] | None:
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
    return counts or None


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


def _labels(value: object) -> dict[str, str] | Cut | None:
    labels = mapping(value)
    kept: dict[str, str] = {}
    cut = len(labels) > MAP_KEYS_MAX
    for name, content in islice(labels.items(), MAP_KEYS_MAX):
        key = name if type(name) is str else plain_text(name)
        short = short_text(content)
        cut = cut or len(key) > KEY_CHARS_MAX or isinstance(short, Cut)
        kept[text(key)[:KEY_CHARS_MAX]] = short.kept if isinstance(short, Cut) else short
    return Cut(kept) if cut else kept or None


def _first(value: object, items_max: int) -> list[object]:
    """The first items of an iterable, which need not end."""
    if type(value) is not tuple and not isinstance(value, Iterable):
        raise Invalid("invalid")
    return list(islice(cast("Iterable[object]", value), items_max))


def _operation_ids(value: Any) -> tuple[str, ...] | Cut:
    given: Sequence[Any] = value
    if type(value) is tuple and len(given) == 1:
        sole = identifier(given[0])
        return () if sole is None else (sole,)
    names: object = (given,) if isinstance(given, str) else given
    first = _first(names, MAP_KEYS_MAX + 1)
    kept = dict.fromkeys([identifier(name) for name in first[:MAP_KEYS_MAX]])
    ids = tuple([name for name in kept if name is not None])
    return ids if len(first) <= MAP_KEYS_MAX else Cut(ids)


def _flags(value: object) -> tuple[str, ...] | None:
    if value == ():
        return None
    if isinstance(value, str):
        raise Invalid("invalid")
    return tuple(dict.fromkeys(text(flag) for flag in _first(value, MAP_KEYS_MAX))) or None


def _prompt_template(value: object) -> tuple[str, str]:
    named = _first(value, 3)
    if isinstance(value, str) or len(named) != 2:
        raise Invalid("invalid")
    return text(named[0]), text(named[1])


def _period(value: object) -> str:
    if not isinstance(value, str) or not is_period(value):
        raise Invalid("invalid")
    return value


_IDS = (
    "oid attempt_id response_id writer session user trace_id span_id parent request_id"
    " client_request_id retry_of fill_event tool_call_id provider_account prompt_hash"
)
_TEXTS = (
    "source source_version name feature workload agent provider requested_model executed_model"
    " deployment route region tier error_type price_book"
)
_WORDS: dict[str, Any] = {
    "layer": schema.Layer,
    "phase": schema.Phase,
    "kind": schema.Kind,
    "cause": schema.Cause,
    "cause_source": schema.CauseSource,
    "initiator": schema.Initiator,
    "tenant_source": schema.TenantSource,
    "policy_owner": schema.PolicyOwner,
    "parent_origin": schema.Origin,
    "session_origin": schema.Origin,
    "trace_origin": schema.Origin,
    "retry_reason": schema.RetryReason,
    "route_reason": schema.RouteReason,
    "usage_source": schema.UsageSource,
    "provider_result": schema.ProviderResult,
    "delivery": schema.Delivery,
    "fault": schema.Fault,
    "cache": schema.Cache,
}
_KNOWN: dict[str, dict[str, str]] = {
    **{name: {word: word for word in get_args(words)} for name, words in _WORDS.items()},
    **dict.fromkeys(_TEXTS.split(), _known_texts),
    "tenant": known_tenants,
}
"""By field: texts that are clean, and as what they are kept."""
_NONE_KNOWN: dict[str, str] = {}

_CLEANERS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(_IDS.split(), identifier),
    **dict.fromkeys(_TEXTS.split(), short_text),
    **dict.fromkeys(("period", "effective_period"), _period),
    **{name: one_of(_KNOWN[name]) for name in _WORDS},
    **dict.fromkeys(("schema_version", "seq"), _integer),
    **dict.fromkeys(("started_at", "ended_at", "recorded_at"), _moment),
    **dict.fromkeys(("hops", "attempt", "attempts_hidden"), _count),
    **dict.fromkeys(("shared", "shared_prefix", "provider_billed"), _boolean),
    **dict.fromkeys(("flat_cost", "host_cost", "avoided_cost"), usd),
    **dict.fromkeys(("raw_usage", "client_claims"), bounded_map),
    "attributes": attributes,
    "usage": usage,
    "delivered_usage": _delivered_usage,
    "tenant": tenant_id,
    "labels": _labels,
    "members": _members,
    "operation_ids": _operation_ids,
    "flags": _flags,
    "prompt_template": _prompt_template,
}
assert set(_CLEANERS) == set(FIELDS), set(_CLEANERS) ^ set(FIELDS)


def observation(fields: Mapping[str, Any]) -> Observation:
    """An observation of whatever came in: clean, bounded, and flagged where something was wrong.

    Never raises. A field nobody knows is counted in `flags` as `unknown:NAME` and left out.
    """
    return Observation(**wire_fields(fields))


def wire_fields(given: Mapping[str, Any], onto: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The fields of `observation(given)`; encoded as a map they are that observation's encoding.

    Args:
        given: Whatever came in.
        onto: Clean fields to add to: none of those that are given, and no `flags`.
    """
    kept: dict[str, Any] = {} if onto is None else {**onto}
    flags: list[str] = []
    for name, value in given.items():
        if value is None:
            continue
        if type(value) is str:
            known = _KNOWN.get(name, _NONE_KNOWN).get(value)
            if known is not None:
                kept[name] = known
                continue
        try:
            cleaner = _CLEANERS[name]
            cleaned = cleaner(value)
        except Exception as wrong:  # also a hostile __str__, __len__ or __iter__ of the host's
            flags += _flagged(name, value, wrong)
            continue
        if type(cleaned) is Cut:
            flags.append(cleaned.flag)
            cleaned = cleaned.kept
        elif cleaner is short_text and cleaned is value:
            know(_known_texts, value, value)
        if cleaned is not None:
            kept[name] = cleaned
    if given.get("usage") is not None and not kept.get("usage"):
        kept.pop("usage", None)  # an empty or spoilt usage is a missing one, never zero
        kept["usage_source"] = "missing"
    if flags:
        kept["flags"] = tuple(dict.fromkeys((*flags, *kept.get("flags", ()))))[:MAP_KEYS_MAX]
    return kept


def _flagged(name: str, value: object, wrong: Exception) -> list[str]:
    """What is said of a value that cannot be kept."""
    if name not in _CLEANERS:
        return [f"unknown:{text(name)}"]
    if not isinstance(wrong, Invalid):
        return [f"invalid:{name}:{type(wrong).__name__}"]
    reason = str(wrong)
    flag = f"invalid:{name}" if reason == "invalid" else reason
    return [flag, f"tenant:{_digest(value)}"] if name == "tenant" else [flag]


def _digest(value: object) -> str:
    """The first 12 hex digits of a refused tenant id's hash: enough to find it, not to show it."""
    try:
        plain = value if isinstance(value, str) else repr(value)
        return hashlib.sha256(plain.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    except Exception:
        return "unprintable"
