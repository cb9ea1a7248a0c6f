"""What the drivers of LiteLLM's SDK and of its Router share: how a call is made and read."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import costspan
from costspan.conformance.drivers import litellm_host as host
from costspan.conformance.drivers import litellm_wire as wire
from costspan.conformance.provider import LoopbackProvider
from costspan.conformance.suite.driver import CLAIMS, Ask, Driver, Reply
from costspan.conformance.suite.script import Call


class LiteLLMCalls(Driver):
    """Calls `target`, which is the `litellm` module or a Router."""

    can: ClassVar[frozenset[str]] = frozenset(
        "sync async chat embeddings responses messages stream unasked_usage structured several"
        " tier mock timeout cancel abandon close cancel_stream fallback no_fallbacks exact_cache"
        " semantic_cache work tool verdict agent together background owner other_owner"
        " claims_metadata registered_twice failing_callback reused_metadata no_log"
        " loop_closes".split()
    )
    only_async: ClassVar[frozenset[str]] = frozenset({"close"})  # its sync streams have no close()
    target: Any

    def open(self, provider: LoopbackProvider, scratch: Path) -> None:
        """The provider's address is all that a call needs."""
        super().open(provider, scratch)
        self._options: frozenset[str] = frozenset()
        self._metadata: dict[str, Any] = {}

    def place(self, call: Call) -> dict[str, Any]:
        """Where and what to call."""
        raise NotImplementedError

    def tries(self, call: Call) -> dict[str, Any]:
        """How often to try, and what may stand in."""
        raise NotImplementedError

    def begin(self, options: frozenset[str]) -> None:
        """Register the callback, as an application does once; and what is odd about this host."""
        import litellm

        self._options = options
        self._kept = host.kept()
        self._metadata = {}
        if "failing_callback" in options:
            litellm.callbacks.append(host.failing_callback())
        costspan.install("litellm")
        if "registered_twice" in options:
            host.register_again()
        litellm.cache = host.cache(options)

    def end(self) -> None:
        """Leave LiteLLM as it was found."""
        import litellm

        host.restore(self._kept)
        litellm.cache = None

    def ask(self, ask: Ask) -> Reply:
        """Make a call and wait for it."""
        form = wire.form(ask, is_async=False)
        answer = getattr(self.target, form.method)(**self.options(ask, form))
        if not ask.call.stream:
            return form.reply(ask, answer, self.provider)
        chunks: list[Any] = []
        for chunk in answer:
            chunks.append(chunk)
            if form.has_content(chunk) and ask.piece():
                return Reply()
        return self._read(ask, form, chunks)

    async def aask(self, ask: Ask) -> Reply:
        """Make a call on the event loop."""
        form = wire.form(ask, is_async=True)
        answer = await getattr(self.target, form.amethod)(**self.options(ask, form))
        if ask.call.cache is not None:
            await host.cache_written()
        if not ask.call.stream:
            return form.reply(ask, answer, self.provider)
        chunks: list[Any] = []
        async for chunk in answer:
            chunks.append(chunk)
            if form.has_content(chunk) and ask.piece():
                if ask.call.leave is not None and ask.call.leave.how == "close":
                    await answer.aclose()
                return Reply()
        if ask.call.cache is not None:
            await host.cache_written()
        return self._read(ask, form, chunks)

    def _read(self, ask: Ask, form: wire.Form, chunks: list[Any]) -> Reply:
        """What an agent takes from a stream that it read to the end."""
        if not ask.tools or form.api != "chat":
            return Reply()
        whole = host.whole(chunks)
        return form.reply(ask, whole, self.provider)

    def options(self, ask: Ask, form: wire.Form) -> dict[str, Any]:
        """The keyword arguments of a call."""
        call = ask.call
        options = {**wire.asked(ask, form), **self.place(call), **self.tries(call)}
        if call.timeout is not None:
            options["timeout"] = call.timeout
        if call.mock is not None:
            options["mock_response"] = call.mock
        if self._options & {"exact_cache", "semantic_cache"}:
            options["caching"] = call.cache is not None
        if "reused_metadata" in self._options:
            options["metadata"] = self._metadata
        if call.claims == "metadata":
            options["metadata"] = {**CLAIMS, "costspan": dict(CLAIMS)}
        if "no_log" in self._options:
            options["no-log"] = True
        return options

    def finish(self) -> None:
        """Wait for the pool of threads that LiteLLM calls sync callbacks from."""
        host.rest()

    async def afinish(self) -> None:
        """Async callbacks wait in a worker of this loop, which `loop_closes` does not give time."""
        if "loop_closes" not in self._options:
            await host.arest()
