"""One step of a script and the words it is written in; ``script`` explains them."""

import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final, cast

from costspan.conformance.provider.reply import ToolCall

Fields = Mapping[str, object]


class ScriptError(ValueError):
    """A script or directive says something the provider cannot do."""


@dataclass(frozen=True, slots=True)
class Step:
    """What to do with one request; None leaves it open. Tokens are the wire's inclusive totals."""

    tokens_in: int | None = None
    tokens_out: int | None = None
    cached: int | None = None
    cache_write: int | None = None
    cache_write_1h: int | None = None
    reasoning: int | None = None
    audio_in: int | None = None
    audio_out: int | None = None
    web_searches: int | None = None
    usage: str | None = None
    model: str | None = None
    tier: str | None = None
    text: str | None = None
    tools: tuple[ToolCall, ...] | None = None
    finish: str | None = None
    id: str | None = None
    status: int | None = None
    retry_after: float | None = None
    fault: str | None = None
    after: int | None = None
    delay: float | None = None
    gone: str | None = None
    billed: bool | None = None
    times: int | None = None
    polls: int | None = None
    tenant: str | None = None
    purpose: str | None = None
    project: str | None = None
    case: str | None = None

    @classmethod
    def of(cls, source: "Step | str | Fields") -> "Step":
        """Read a step from directive words or from a mapping of the same names.

        Raises:
            ScriptError: A name is unknown or a value cannot be read.
        """
        if isinstance(source, Step):
            return source
        if isinstance(source, str):
            return cls.of_words(_split(source))
        return _step(source.items())

    @classmethod
    def of_words(cls, words: Iterable[str]) -> "Step":
        """Read a step from ``name=value`` words.

        Raises:
            ScriptError: As :meth:`of`.
        """
        return _step((name, value) for name, _, value in (word.partition("=") for word in words))

    def over(self, under: "Step") -> "Step":
        """This step, its open fields filled from ``under``."""
        given = {f.name: v for f in fields(self) if (v := getattr(self, f.name)) is not None}
        return replace(under, **given)

    def hints(self) -> "Step":
        """Only what the truth ledger notes."""
        return Step(tenant=self.tenant, purpose=self.purpose, project=self.project, case=self.case)

    def recovered(self) -> "Step":
        """The same step when its fault has passed."""
        return replace(
            self, status=None, retry_after=None, fault=None, after=None, delay=None, billed=None
        )


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ScriptError(f"cannot read the step {text!r}: {error}") from error


def _step(pairs: Iterable[tuple[str, object]]) -> Step:
    values: dict[str, Any] = {}
    for name, value in pairs:
        field, read = _FIELDS.get(name, (name, None))
        if read is None:
            raise ScriptError(f"unknown name {name!r}; known: {' '.join(sorted(_FIELDS))}")
        try:
            got = read(value)
        except (TypeError, ValueError) as error:
            raise ScriptError(f"cannot read {name}={value!r}: {error}") from error
        values[field] = values.get(field, ()) + got if field == "tools" else got
    return Step(**values)


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError("must be a whole number")
    number = int(value)
    if number < 0:
        raise ValueError("must not be negative")
    return number


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("must be a number of seconds")
    number = float(value)
    if not 0 <= number <= 3600:
        raise ValueError("must be from 0 to 3600 seconds")
    return number


def _status(value: object) -> int:
    number = _count(value)
    if number != 200 and not 400 <= number <= 599:
        raise ValueError("must be 200 or an error status")
    return number


def _string(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("must be a non-empty string")
    return value


def _flag(value: object) -> bool:
    try:
        return {"true": True, "false": False}[str(value).lower()]
    except KeyError as error:
        raise ValueError("must be true or false") from error


def _one_of(*choices: str) -> Callable[[object], str]:
    def read(value: object) -> str:
        if value not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return str(value)

    return read


def _tools(value: object) -> tuple[ToolCall, ...]:
    if isinstance(value, list):
        return tuple(call for item in cast(list[object], value) for call in _tools(item))
    name, _, arguments = _string(value).partition(":")
    return (ToolCall(_string(name), arguments or "{}"),)


_FIELDS: Final[Mapping[str, tuple[str, Callable[[object], Any]]]] = {
    "in": ("tokens_in", _count),
    "out": ("tokens_out", _count),
    "tool": ("tools", _tools),
    "usage": ("usage", _one_of("none", "provider")),
    "fault": ("fault", _one_of("refuse", "die", "timeout")),
    "gone": ("gone", _one_of("all", "sent")),
    "status": ("status", _status),
    "billed": ("billed", _flag),
    **{
        name: (name, _count)
        for name in (
            *("cached", "cache_write", "cache_write_1h", "reasoning", "audio_in", "audio_out"),
            *("web_searches", "after", "times", "polls"),
        )
    },
    **{name: (name, _seconds) for name in ("retry_after", "delay")},
    **{
        name: (name, _string)
        for name in (
            *("model", "tier", "text", "finish", "id"),
            *("tenant", "purpose", "project", "case"),
        )
    },
}
