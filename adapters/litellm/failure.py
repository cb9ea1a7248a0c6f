"""A failed attempt: whose fault, was it billed, why would somebody try again.

| what came back | fault | billed |
|---|---|---|
| refused connection | provider | no |
| 429, and 503 before the first byte | provider | no |
| timeout (408, 499, 504), other 5xx, a broken connection | provider | unknown |
| 401, 403, a budget or rate limit of our own | platform | no |
| content policy | user | no |
| any other 4xx: unknown model, bad request, context window | agent | no |

After the first byte of a stream, billed is unknown whatever came.
"""

from __future__ import annotations

from typing import Any

from costspan.adapter import usage
from costspan.adapters.litellm.tracking import Details
from costspan.core.schema import Fault, RetryReason

_MAYBE_BILLED = frozenset({408, 499})
_TIMEOUTS = frozenset({408, 504})
_REFUSED = frozenset({"ConnectError", "ConnectionRefusedError", "ClientConnectorError"})
_CAUSES_MAX = 16


def facts_of(details: Details, error: BaseException | None) -> dict[str, Any]:
    """The observation fields of a failure, with the partial usage LiteLLM estimated, if any."""
    facts: dict[str, Any] = {
        "provider": details.get("custom_llm_provider"),
        "fault": fault_of(error),
        "provider_billed": None if _had_first_byte(details) else billed(error),
    }
    partial = usage.from_litellm(details.get("combined_usage_object"))
    if partial and any(partial.values()):
        facts["usage"] = partial
        facts["usage_source"] = "estimated"
    return facts


def fault_of(error: BaseException | None) -> Fault | None:
    """Whose fault it is, by the table above; None if there is no error to go by."""
    if error is None:
        return None
    name, status = type(error).__name__, _status(error)
    if name == "ContentPolicyViolationError":
        return "user"
    if name == "BudgetExceededError" or status in (401, 403):
        return "platform"
    if status is not None and 400 <= status < 500 and status not in (408, 429, 499):
        return "agent"
    return "provider"


def billed(error: BaseException | None) -> bool | None:
    """False where the provider surely did not bill it, else None: unknown."""
    if error is None:
        return None
    if type(error).__name__ == "BudgetExceededError" or _refused(error):
        return False
    status = _status(error)
    if status == 503 or (status is not None and 400 <= status < 500):
        return None if status in _MAYBE_BILLED else False
    return None


def retry_reason(error: BaseException | None) -> RetryReason:
    """Why another attempt would follow this failure."""
    if error is not None and (
        _status(error) in _TIMEOUTS or "timeout" in type(error).__name__.lower()
    ):
        return "timeout"
    return "provider"


def _status(error: BaseException) -> int | None:
    status = getattr(error, "status_code", None)
    return status if isinstance(status, int) else None


def _had_first_byte(details: Details) -> bool:
    streaming = details.get("stream") is True and details.get("completion_start_time") is not None
    return streaming or details.get("combined_usage_object") is not None


def _refused(error: BaseException) -> bool:
    """Whether the connection was never made. LiteLLM maps it to a 500; the cause still says it.

    Only explicit causes and the provider client's own exceptions are followed: on a fallback the
    context of an error leads on to the failure of the attempt before.
    """
    seen: BaseException | None = error
    for _ in range(_CAUSES_MAX):
        if seen is None:
            return False
        if type(seen).__name__ in _REFUSED:
            return True
        if seen is not error and type(seen).__module__.startswith("litellm.exceptions"):
            return False
        seen = seen.__cause__ or seen.__context__
    return False
