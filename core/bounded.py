"""Text and maps of bounded size: what does not fit is cut or left out, and said so.

Nothing here may be used for an id: two cut ids could meet.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import islice
from typing import Any, NamedTuple, cast

TEXT_CHARS_MAX = 256
MAP_KEYS_MAX = 64
KEY_CHARS_MAX = 64
VALUE_CHARS_MAX = 1024
DEPTH_MAX = 4
MAP_CHARS_MAX = 32 * 1024
"""Of one map with everything in it: 64 keys in 4 levels alone would allow 16 million values."""


class Invalid(ValueError):
    """A value that cannot be kept; its text becomes a flag."""


class Cut(NamedTuple):
    """What is kept of a value that was not kept whole, and the flag that says so."""

    kept: Any
    flag: str = "truncated"


def mapping(value: Any) -> Mapping[object, object]:
    """`value`, if it is a mapping.

    Raises:
        Invalid: if it is none.
    """
    given: Mapping[object, object] = value
    if type(value) is dict:  # asking a type is a tenth of asking an abstract class
        return given
    if not isinstance(value, Mapping):
        raise Invalid("invalid")
    return cast("Mapping[object, object]", value)


def plain_text(value: object) -> str:
    """A plain str of any value: encoders refuse subclasses, and an enum's text is its value."""
    return str.__str__(value if isinstance(value, str) else str(value))


def text(value: object) -> str:
    """A short descriptive text, printable and cut to `TEXT_CHARS_MAX`."""
    plain = plain_text(value)
    if not plain.isprintable():
        plain = "".join(c if c.isprintable() else "�" for c in plain[: 2 * TEXT_CHARS_MAX])
    return plain[:TEXT_CHARS_MAX]


def short_text(value: object) -> str | Cut:
    """As `text`, saying whether it was cut."""
    if type(value) is str and len(value) <= TEXT_CHARS_MAX and value.isprintable():
        return value  # nearly always
    plain = plain_text(value)
    kept = text(plain)
    return kept if len(plain) <= TEXT_CHARS_MAX else Cut(kept)


class _Room:
    """What is left of a map's size, in characters, and whether something did not fit."""

    __slots__ = ("chars", "cut")

    def __init__(self) -> None:
        self.chars = MAP_CHARS_MAX
        self.cut = False

    def left_out(self, what: str) -> str:
        """Note, and say in the value's place, what is not kept."""
        self.cut = True
        self.chars -= len(what)
        return f"truncated: {what}"


def _bounded(value: object, room: _Room, depth: int = 0) -> Any:
    """A JSON value of bounded size: what does not fit is named, not kept."""
    room.chars -= 1
    if value is None or type(value) is bool:
        return value
    if type(value) is int and -(2**63) <= value < 2**63:
        return value
    if type(value) is str and len(value) <= min(VALUE_CHARS_MAX, room.chars) and value.isascii():
        room.chars -= len(value)
        return value
    if isinstance(value, Mapping):
        return _bounded_mapping(cast("Mapping[object, object]", value), room, depth)
    if isinstance(value, (list, tuple, set, frozenset)):
        return _bounded_items(cast("Collection[object]", value), room, depth)
    try:
        plain = plain_text(value if isinstance(value, str) else repr(value))
    except Exception:  # a hostile __repr__, or an int of too many digits
        return room.left_out(f"a {type(value).__name__}"[:KEY_CHARS_MAX])
    if len(plain) > min(VALUE_CHARS_MAX, room.chars):
        return room.left_out(f"{len(plain)} characters")
    room.chars -= len(plain)
    return plain.encode("utf-8", "replace").decode()


def _bounded_items(value: Collection[object], room: _Room, depth: int) -> Any:
    if depth == DEPTH_MAX:
        return room.left_out(f"{len(value)} items")
    kept: list[Any] = []
    for item in islice(value, MAP_KEYS_MAX):
        if room.chars <= 0:
            break
        kept.append(_bounded(item, room, depth + 1))
    if len(kept) < len(value):
        kept.append(room.left_out(f"{len(value)} items"))
    return kept


def _bounded_mapping(value: Mapping[object, object], room: _Room, depth: int) -> Any:
    if depth == DEPTH_MAX:
        return room.left_out(f"{len(value)} keys")
    kept: dict[str, Any] = {}
    for key, item in islice(value.items(), MAP_KEYS_MAX):
        if room.chars <= 0:
            break
        is_plain = type(key) is str and len(key) <= KEY_CHARS_MAX and key.isprintable()
        name = cast("str", key) if is_plain else text(key)[:KEY_CHARS_MAX]
        room.chars -= len(name)
        kept[name] = _bounded(item, room, depth + 1)
    if len(kept) < len(value):
        kept["truncated"] = room.left_out(f"{len(value)} keys")
    return kept


def bounded_map(value: Any) -> dict[str, Any] | Cut:
    """Any mapping as bounded JSON: 64 keys, 1 KiB a value, 4 levels deep, 32 Ki characters in all.

    Raises:
        Invalid: if it is no mapping.
    """
    given: Mapping[Any, Any] = value
    if type(value) is dict and len(given) <= MAP_KEYS_MAX:
        for key, item in given.items():
            if type(item) is not int or not 0 <= item < 2**63:
                break
            if type(key) is not str or len(key) > KEY_CHARS_MAX or not key.isprintable():
                break
        else:
            return dict(given)  # counts by name, as nearly every report of usage
    room = _Room()
    kept: dict[str, Any] = _bounded_mapping(mapping(value), room, 0)
    return Cut(kept) if room.cut else kept
