"""What price data is made of: rates as decimal strings, and canonical bytes to hash and to keep."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec

from costspan.core.money import MoneyError, decimal_of

Rates = dict[str, str]
"""Component -> USD per 1M tokens or per one unit (see `units`), a decimal string."""


class PriceError(ValueError):
    """A price row or book that cannot be used, and why."""


class Dated(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What holds over a span of time: a price, or what somebody is charged.

    Attributes:
        effective_from: first ns UTC in force, None for always before.
        effective_to: first ns UTC no longer in force, None for still in force.
        id: derived from the content; never given.
    """

    effective_from: int | None = None
    effective_to: int | None = None
    id: str = ""

    def __hash__(self) -> int:
        return hash(self.id)

    def in_force(self, at_ns: int) -> bool:
        """Whether it holds for a request started at `at_ns` (ns UTC); half-open."""
        return (self.effective_from is None or self.effective_from <= at_ns) and (
            self.effective_to is None or at_ns < self.effective_to
        )

    def refuse_empty_span(self, name: str) -> None:
        """Check that there is a moment at which it holds.

        Raises:
            PriceError: if there is none.
        """
        start, end = self.effective_from, self.effective_to
        if start is not None and end is not None and start >= end:
            raise PriceError(f"{name}: effective_from must be before effective_to")

    def derive_id(self) -> None:
        """Name it by its content, once that is in its one form."""
        content = {**msgspec.to_builtins(self), "id": ""}
        id = hashlib.sha256(canonical(content)).hexdigest()[:16]
        msgspec.structs.force_setattr(self, "id", id)


def canonical(content: Any) -> bytes:
    """JSON that depends neither on the order of keys nor on spaces."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def pack(content: Mapping[str, Any], sha256: str) -> bytes:
    """A snapshot: compressed canonical JSON with its own hash. A list may have thousands of rows.

    `unpack` reads it.
    """
    return zlib.compress(canonical({**content, "sha256": sha256}))


S = TypeVar("S", bound=msgspec.Struct)


def unpack(
    kept: type[S], data: bytes, hashed: Callable[[S], str], *, schema: str, kind: str, rows: str
) -> S:
    """What `pack` wrote, `hashed` again; the ids of its `rows` are derived anew.

    Raises:
        PriceError: if the bytes are damaged, of another schema, or do not match their hash.
    """
    try:
        content = json.loads(zlib.decompress(data))
        named, written = content.pop("schema"), content.pop("sha256")
        if named != schema:
            raise PriceError(f"{kind} snapshot of schema {named!r}, not {schema!r}")
        for row in content[rows]:
            row.pop("id")
        found = msgspec.convert(content, kept)
    except PriceError:
        raise
    except (zlib.error, ValueError, KeyError, AttributeError, TypeError) as error:
        raise PriceError(f"not a {kind} snapshot: {error}") from error
    if hashed(found) != written:
        raise PriceError(f"{kind} {content['id']!r} does not match its hash: it was changed")
    return found


def plain_rates(rates: Rates, name: str) -> Rates:
    """The rates by component, each amount written in one way.

    Raises:
        PriceError: if one is not a non-negative decimal.
    """
    return {
        component: plain_amount(text, f"{name}: {component}")
        for component, text in sorted(rates.items())
    }


def plain_amount(text: object, name: str) -> str:
    """A non-negative decimal, written in one way: "2.50" is "2.5".

    Raises:
        PriceError: if it is not a non-negative decimal.
    """
    try:
        amount = decimal_of(text)
    except MoneyError as error:
        raise PriceError(f"{name}: {error}") from error
    if amount < 0:
        raise PriceError(f"{name}: a rate cannot be negative: {text}")
    written = format(amount, "f")
    return written.rstrip("0").rstrip(".") if "." in written else written
