"""What the drivers of LiteLLM's SDK and of its Router share: how a call is made and read."""

from __future__ import annotations

from typing import Any, ClassVar

import costspan
from costspan.conformance.suite.driver import Ask, Driver, Reply, ToolCall


class LiteLLMCalls(Driver):
    """Calls `target`, which is the `litellm` module or a Router."""

    can: ClassVar[frozenset[str]] = frozenset(
        "sync async chat embeddings stream structured several"
        " abandon close cancel cancel_stream work tool agent together background owner".split()
    )
    target: Any

    def place(self, model: str) -> dict[str, Any]:
        """Where and what to call."""
        raise NotImplementedError

    def begin(self, options: frozenset[str]) -> None:
        """Register the callback, as an application does once."""
        import litellm

        self._kept = list(litellm.callbacks)
        costspan.install("litellm")

    def end(self) -> None:
        """Leave LiteLLM's list of callbacks as it was found."""
        import litellm

        litellm.callbacks[:] = self._kept

    def ask(self, ask: Ask) -> Reply:
        """Make a call and wait for it."""
        if ask.call.api == "embeddings":
            self.target.embedding(input=[ask.prompt], **self.place(ask.call.model))
            return Reply()
        answer = self.target.completion(messages=ask.messages, **self.options(ask))
        if not ask.call.stream:
            return _reply(answer)
        for chunk in answer:
            if _has_content(chunk) and ask.piece():
                break
        if ask.call.leave is not None and ask.call.leave.how == "close":
            answer.close()
        return Reply()

    async def aask(self, ask: Ask) -> Reply:
        """Make a call on the event loop."""
        if ask.call.api == "embeddings":
            await self.target.aembedding(input=[ask.prompt], **self.place(ask.call.model))
            return Reply()
        answer = await self.target.acompletion(messages=ask.messages, **self.options(ask))
        if not ask.call.stream:
            return _reply(answer)
        async for chunk in answer:
            if _has_content(chunk) and ask.piece():
                break
        if ask.call.leave is not None and ask.call.leave.how == "close":
            await answer.aclose()
        return Reply()

    def options(self, ask: Ask) -> dict[str, Any]:
        """The keyword arguments of a chat completion."""
        call = ask.call
        options = self.place(call.model)
        if call.stream:
            options["stream"] = True
            if call.asks_usage:
                options["stream_options"] = {"include_usage": True}
        if ask.tools:
            options["tools"] = [_function(name) for name in ask.tools]
        if call.n > 1:
            options["n"] = call.n
        return options

    def finish(self) -> None:
        """LiteLLM calls sync callbacks from a pool of its own: wait until that is empty."""
        from litellm.litellm_core_utils.thread_pool_executor import executor  # pyright: ignore[reportMissingTypeStubs]  # has none

        for done in [executor.submit(lambda: None) for _ in range(executor._max_workers)]:
            done.result(timeout=30)

    async def afinish(self) -> None:
        """Async callbacks wait in a worker of this loop."""
        from costspan.adapters.litellm import flush

        await flush()


def _function(name: str) -> dict[str, Any]:
    text = {"type": "object", "properties": {"q": {"type": "string"}}}
    return {"type": "function", "function": {"name": name, "parameters": text}}


def _has_content(chunk: Any) -> bool:
    return bool(chunk.choices and chunk.choices[0].delta.content)


def _reply(answer: Any) -> Reply:
    message = answer.choices[0].message
    calls = tuple(
        ToolCall(each.id, each.function.name, each.function.arguments)
        for each in message.tool_calls or ()
    )
    return Reply(message.content or "", calls, answer.id)
