"""What an error says about fault and billing; its text is never read."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from costspan.adapter.usage import as_mapping
from costspan.core.schema import Fault, RetryReason

_CAUSES_MAX = 6
_NEVER_SENT = frozenset({"ConnectionRefusedError", "ConnectError", "ClientConnectorError"})
_CUT = ("Connect", "Protocol", "ReadError", "NetworkError")


@dataclass(frozen=True, slots=True)
class Verdict:
    """Who is at fault, and whether the provider billed it (None: nobody here can know)."""

    fault: Fault | None
    provider_billed: bool | None
    retry_reason: RetryReason = "agent"


def is_cancelled(error: BaseException) -> bool:
    """Whether the caller gave up: a cancelled task, an abandoned generator, an interrupt."""
    return isinstance(error, (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt))


def judge(error: BaseException, *, has_reply: bool) -> Verdict:
    """Read the error's status or type, and its causes'. After a first token nothing is unbilled.

    Refused for certain (K1): 4xx but 408 and 499, 429, 503, and a connection never made.
    """
    verdict = _by_status(error) or _by_type(error)
    if has_reply and verdict.provider_billed is False:
        return Verdict(verdict.fault, None, verdict.retry_reason)
    return verdict


def _by_status(error: BaseException) -> Verdict | None:
    status = next((s for e in _chain(error) if (s := _status(e)) is not None), None)
    if status is None:
        return None
    if status in (408, 499, 504):
        return Verdict("provider", None, "timeout")
    if status == 429:
        return Verdict("provider", False, "provider")
    if status in (401, 403):
        return Verdict("platform", False)
    if status < 500:
        return Verdict("agent", False)
    return Verdict("provider", False if status == 503 else None, "provider")


def _by_type(error: BaseException) -> Verdict:
    names = [type(e).__name__ for e in _chain(error)]
    if any("Timeout" in name for name in names):
        return Verdict("provider", None, "timeout")
    if any(name in _NEVER_SENT for name in names):
        return Verdict("provider", False, "provider")
    if any(cut in name for name in names for cut in _CUT):
        return Verdict("provider", None, "provider")
    return Verdict(None, None)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and its causes, outermost first; clients name the cause of what they raise.

    What was merely being handled meanwhile is no cause: it may be an earlier attempt's failure.
    """
    at: BaseException | None = error
    for _ in range(_CAUSES_MAX):
        if at is None:
            return
        yield at
        at = at.__cause__


def _status(error: BaseException) -> int | None:
    """The HTTP status, where the clients of OpenAI, Anthropic, httpx, Google and AWS put it."""
    response: Any = getattr(error, "response", None)
    candidates: list[Any] = [
        getattr(error, "status_code", None),
        getattr(response, "status_code", None),
        getattr(error, "code", None),
    ]
    if isinstance(response, Mapping):
        parsed = cast("Mapping[str, Any]", response)
        candidates.append(as_mapping(parsed.get("ResponseMetadata")).get("HTTPStatusCode"))
    for status in candidates:
        if isinstance(status, int) and not isinstance(status, bool) and 400 <= status < 600:
            return status
    return None
