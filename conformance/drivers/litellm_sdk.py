"""LiteLLM's SDK: `litellm.completion` and its kin, called straight from the application."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, ClassVar

from costspan.conformance.drivers import litellm_wire as wire
from costspan.conformance.drivers.litellm_calls import LiteLLMCalls
from costspan.conformance.provider import LoopbackProvider
from costspan.conformance.suite.driver import Batched, Messages
from costspan.conformance.suite.script import Batch, Call

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")


class LiteLLMSdk(LiteLLMCalls):
    """`litellm.completion`, `embedding`, `responses`, `anthropic_messages` and their twins."""

    name: ClassVar[str] = "litellm-sdk"
    can: ClassVar[frozenset[str]] = LiteLLMCalls.can | {"sdk_retries", "batch"}

    def open(self, provider: LoopbackProvider, scratch: Path) -> None:
        """The module is the host; the provider's address is all that a call needs."""
        super().open(provider, scratch)
        import litellm

        self.target: Any = litellm

    def place(self, call: Call) -> dict[str, Any]:
        """Where and what to call."""
        return self._at(call.model)

    def tries(self, call: Call) -> dict[str, Any]:
        """The vendor's client may try again, in silence; `fallbacks` goes through models."""
        options: dict[str, Any] = {
            "max_retries": call.retries if call.retried_by == "sdk" else 0,
        }
        if call.fallback is not None:
            options["fallbacks"] = [self._at(call.fallback)]
        elif call.no_fallbacks:
            options["fallbacks"] = []
        return options

    def batch(self, batch: Batch, lines: list[Messages]) -> Batched:
        """Send a batch job and poll it."""
        file = self.target.create_file(**self._file(batch, lines))
        job = self.target.create_batch(**self._job(file.id))
        found: Any = job
        for _ in range(batch.polls):
            found = self.target.retrieve_batch(**self._named(batch_id=job.id))
            while found.status != "completed":
                found = self.target.retrieve_batch(**self._named(batch_id=job.id))
        output = self.target.file_content(**self._named(file_id=found.output_file_id))
        return Batched(job.id, _tokens(output.content))

    async def abatch(self, batch: Batch, lines: list[Messages]) -> Batched:
        """Send a batch job and poll it, on the event loop."""
        file = await self.target.acreate_file(**self._file(batch, lines))
        job = await self.target.acreate_batch(**self._job(file.id))
        found: Any = job
        for _ in range(batch.polls):
            found = await self.target.aretrieve_batch(**self._named(batch_id=job.id))
            while found.status != "completed":
                found = await self.target.aretrieve_batch(**self._named(batch_id=job.id))
        output = await self.target.afile_content(**self._named(file_id=found.output_file_id))
        return Batched(job.id, _tokens(output.content))

    def _at(self, model: str) -> dict[str, Any]:
        return {
            "model": f"{wire.provider_of(model)}/{model}",
            "api_base": wire.address(self.provider, model),
            "api_key": "loopback",
        }

    def _named(self, **named: Any) -> dict[str, Any]:
        place = {"api_base": self.provider.base_url, "api_key": "loopback"}
        return {"custom_llm_provider": "openai", **place, **named}

    def _file(self, batch: Batch, lines: list[Messages]) -> dict[str, Any]:
        requests = [
            {
                "custom_id": str(number),
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": {"model": batch.model, "messages": messages},
            }
            for number, messages in enumerate(lines)
        ]
        content = "\n".join(json.dumps(request) for request in requests).encode()
        return self._named(file=("batch.jsonl", content), purpose="batch")

    def _job(self, file_id: str) -> dict[str, Any]:
        return self._named(
            input_file_id=file_id, endpoint="/v1/chat/completions", completion_window="24h"
        )


def _tokens(output: bytes) -> list[int]:
    """The tokens of each line, in the order of the input."""
    lines = [json.loads(line) for line in output.splitlines()]
    lines.sort(key=lambda line: int(line["custom_id"]))
    return [line["response"]["body"]["usage"]["total_tokens"] for line in lines]


driver = LiteLLMSdk
