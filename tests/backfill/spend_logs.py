"""Rows of LiteLLM's SpendLogs, made by LiteLLM's own code from calls that it really made.

Its proxy writes them only into its Prisma database. So the calls are real ones, to the loopback
provider, and the rows are what the proxy's `get_logging_payload` makes of what its callback is
given; the proxy's authentication is put where the proxy puts it.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # before the import: no look-up in the network
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import litellm
    import openai
    from litellm.integrations.custom_logger import CustomLogger
    from litellm.litellm_core_utils.logging_worker import GLOBAL_LOGGING_WORKER
    from litellm.proxy.spend_tracking.spend_tracking_utils import get_logging_payload

Row = dict[str, Any]


class _Keeper(CustomLogger):
    """Does what the proxy's own logger does, but for the database."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[Row] = []

    async def async_log_success_event(
        self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        self.rows.append(dict(get_logging_payload(kwargs, response_obj, start_time, end_time)))

    async def async_log_failure_event(
        self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        metadata = kwargs["litellm_params"].setdefault("metadata", {})
        metadata["status"] = "failure"
        logged = kwargs["standard_logging_object"]
        metadata["error_information"] = logged["error_information"]
        told = {name: value for name, value in kwargs.items() if name != "completion_start_time"}
        self.rows.append(dict(get_logging_payload(told, response_obj, start_time, end_time)))


def rows_of(calls: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Make the calls; their rows, in order. One that fails has a row too."""
    return asyncio.run(_rows_of(calls))


async def _rows_of(calls: Sequence[Mapping[str, Any]]) -> list[Row]:
    keeper = _Keeper()
    before, litellm.callbacks = litellm.callbacks, [keeper]
    try:
        for call in calls:
            arguments = {"messages": [{"role": "user", "content": "hello"}], **call}
            try:
                reply: Any = await litellm.acompletion(**arguments)
                if arguments.get("stream"):
                    async for _ in reply:
                        pass
            except openai.OpenAIError:
                if not asked_to_fail(call):
                    raise
            await GLOBAL_LOGGING_WORKER.flush()
    finally:
        litellm.callbacks = before
    return keeper.rows


def asked_to_fail(call: Mapping[str, Any]) -> bool:
    """Whether the provider was told to fail it."""
    return "status=" in str(call.get("messages"))


def identity(team: str | None = None, **more: Any) -> dict[str, Any]:
    """The metadata in which the proxy writes whom it authenticated."""
    return {
        "user_api_key": "88dc28d0f030c55ed4ab77ed8faf098196cb1c05df778539800c9f1243fe6b4b",
        "user_api_key_hash": "88dc28d0f030c55ed4ab77ed8faf098196cb1c05df778539800c9f1243fe6b4b",
        "user_api_key_alias": "app",
        "user_api_key_team_id": team,
        "user_api_key_user_id": "u-1",
        "headers": {},
        **more,
    }


def plain(row: Mapping[str, Any]) -> Row:
    """A row as a JSON export has it."""
    return {
        name: value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        if isinstance(value, datetime)
        else value
        for name, value in row.items()
    }


_KEPT = ("model_map_key",)  # the rest is LiteLLM's price map, thousands of characters a row


def shortened(row: Row) -> Row:
    """The row without LiteLLM's copy of its price map."""
    metadata = json.loads(row["metadata"])
    priced = metadata.get("model_map_information") or {}
    metadata["model_map_information"] = {name: priced.get(name) for name in _KEPT}
    return {**row, "metadata": json.dumps(metadata)}


def examples(base_url: str, root_url: str) -> list[Row]:
    """One row of each kind of call, from the loopback provider at these URLs."""
    openai = {"api_base": base_url, "api_key": "any", "max_retries": 0,
              "model": "openai/gpt-4o-mini"}  # fmt: skip
    anthropic = {"api_base": root_url, "api_key": "any", "max_retries": 0, "max_tokens": 100,
                 "model": "anthropic/claude-sonnet-4-5"}  # fmt: skip
    stream = {"stream": True, "stream_options": {"include_usage": True}}

    def asked(directive: str, team: str | None = "acme", **more: Any) -> dict[str, Any]:
        content = f"[[{directive}]]"
        metadata = identity(team, **more.pop("metadata", {}))
        return {"messages": [{"role": "user", "content": content}], "metadata": metadata, **more}

    return rows_of(
        [
            {**openai, **asked("in=1000 out=20")},
            {**openai, **asked("in=1000 out=20 cached=400"), **stream},
            {**openai, **asked("in=700 out=30", team=None)},
            {**anthropic, **asked("in=1000 out=20 cached=100 cache_write=300", team="globex")},
            {**openai, **asked("status=500")},
            {**openai, **asked("status=429")},
            {**openai, **asked("in=10 out=5"), "model": "openai/in-house-7"},
            {
                **openai,
                **asked("in=1000 out=20 tier=priority", team="globex"),
                "model": "openai/gpt-4o",
            },
        ]
    )


if __name__ == "__main__":
    json.dump([shortened(plain(row)) for row in examples(*sys.argv[1:])], sys.stdout, indent=1)
