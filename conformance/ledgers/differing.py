"""Where two ledgers' answers part: the first place in each that is not the same, not all of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, cast

import msgspec

_CHARS_MAX = 600


def differences(found: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """Which answers differ, and where first; one line each."""
    return [
        f"{key}{first_difference(found[key], expected[key])}"
        for key in expected
        if found[key] != expected[key]
    ]


def first_difference(found: object, expected: object) -> str:
    """The way to what differs in two values that are not equal, and both of it.

    Such as `[3].facts.feature: expected 'a', found 'b'`. Where one has more than the other, it is
    said how many each has.
    """
    mine, theirs = dict(_parts(found)), dict(_parts(expected))
    if type(found) is type(expected) and mine and theirs:
        sizes = "" if len(mine) == len(theirs) else f" ({len(theirs)} expected, {len(mine)} found)"
        for part in dict.fromkeys(chain(theirs, mine)):
            if part not in theirs:
                return f"{sizes}{part}: not expected, found {_cut(mine[part])}"
            if part not in mine:
                return f"{sizes}{part}: expected {_cut(theirs[part])}, not found"
            if mine[part] != theirs[part]:
                return f"{sizes}{part}{first_difference(mine[part], theirs[part])}"
    return f": expected {_cut(expected)}, found {_cut(found)}"


def _parts(value: object) -> Iterator[tuple[str, object]]:
    """What a value is made of, by what a program would write after its name."""
    if isinstance(value, msgspec.Struct):
        yield from ((f".{name}", getattr(value, name)) for name in value.__struct_fields__)
    elif isinstance(value, Mapping):
        mapping = cast("Mapping[object, object]", value)
        yield from ((f"[{key!r}]", part) for key, part in mapping.items())
    elif isinstance(value, list | tuple):
        sequence = cast("Sequence[object]", value)
        names: tuple[str, ...] | None = getattr(sequence, "_fields", None)  # a named tuple's
        for at, part in enumerate(sequence):
            yield f"[{at}]" if names is None else f".{names[at]}", part


def _cut(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _CHARS_MAX else f"{text[:_CHARS_MAX]} …"
