"""Ids and names: kept whole or not at all, and quickly recognised when they come again.

Nothing here is ever cut or folded: two tenants' names, or two calls' ids, could meet.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable
from typing import Any

from costspan.core.bounded import Invalid, plain_text

TENANT_CHARS_MAX = 128
ID_CHARS_MAX = 256
KNOWN_MAX = 1024
"""So many tenants, and so many other texts, are known as clean at a time."""

known_tenants: dict[str, str] = {}


def know(known: dict[str, str], value: str, cleaned: str) -> None:
    """Remember that `value` is kept as `cleaned`: short ones, and a bounded number of them."""
    if len(value) <= TENANT_CHARS_MAX:
        if len(known) >= KNOWN_MAX:
            known.clear()
        known[value] = cleaned


def tenant_id(value: object) -> str:
    """A tenant id: NFC, 1 to 128 characters, no control, format or surrogate characters.

    Case and compatibility forms are kept apart: folding would merge two tenants' bills.

    Raises:
        Invalid: if it is no such id, or starts with `@`, which is reserved.
    """
    if type(value) is str and (known := known_tenants.get(value)) is not None:
        return known
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
    if type(value) is str:
        know(known_tenants, value, text)
    return text


def identifier(value: object) -> str | None:
    """An id kept verbatim or, if it is too long or not printable, as its digest; empty is None."""
    if type(value) is str and len(value) <= ID_CHARS_MAX and value.isprintable():
        return value if value.strip("0-") else None
    text = plain_text(value)
    if not text.strip("0-"):
        return None  # empty and all-zero ids name nothing
    if len(text) > ID_CHARS_MAX or not text.isprintable():
        return "sha256:" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return text


def one_of(known: dict[str, str]) -> Callable[[Any], str]:
    """A cleaner that takes these words and no other."""

    def check(value: Any) -> str:
        found = known.get(value)
        if found is None:
            raise Invalid("invalid")
        return found

    return check
