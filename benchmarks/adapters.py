"""What each adapter costs its host, beside no callback, a no-op and two rivals, in one run.

    python benchmarks/adapters.py [--rounds N] [--calls N]

No network: LiteLLM answers from its mock, LangChain from a fake model, Starlette from memory. The
subjects of a host take turns round by round, and the best round of each counts, so a busy machine
slows them all alike. Only the ratios mean something. Rivals are measured where they are installed:
`pip install opentelemetry-instrumentation-langchain openinference-instrumentation-langchain
langfuse`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import costspan

Call = Callable[[], Awaitable[object]]


async def turns(subjects: dict[str, Call], rounds: int, calls: int) -> dict[str, float]:
    """Seconds of processor time a call, the best round of each subject."""
    best = dict.fromkeys(subjects, float("inf"))
    for call in subjects.values():
        await call()
    for _ in range(rounds):
        for name, call in subjects.items():
            began = time.process_time()
            for _ in range(calls):
                await call()
            best[name] = min(best[name], (time.process_time() - began) / calls)
    return best


def litellm_subjects() -> dict[str, Call]:
    """`acompletion` with a mock reply, the callbacks swapped in and out."""
    import litellm
    from litellm.integrations.custom_logger import CustomLogger

    from costspan.adapters.litellm import CostLogger, flush

    messages: Any = [{"role": "user", "content": "hello"}]

    def with_callbacks(*callbacks: Any) -> Call:
        async def call() -> None:
            litellm.callbacks = list(callbacks)
            for name in ("success_callback", "failure_callback", "_async_success_callback"):
                setattr(litellm, name, [])
            await litellm.acompletion("openai/gpt-4o", messages, mock_response="hi")
            await flush()

        return call

    class NoOp(CustomLogger):
        async def async_log_success_event(
            self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any
        ) -> None: ...

    subjects = {
        "none": with_callbacks(),
        "no-op": with_callbacks(NoOp()),
        "costspan": with_callbacks(CostLogger()),
    }
    with suppress(ImportError):
        from litellm.integrations.opentelemetry import OpenTelemetry, OpenTelemetryConfig
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        config = OpenTelemetryConfig(exporter=InMemorySpanExporter())
        subjects["litellm's otel"] = with_callbacks(OpenTelemetry(config=config))
    return subjects


def langchain_subjects() -> dict[str, Call]:
    """A fake chat model with usage; handlers are given with the call."""
    from langchain_core.callbacks import BaseCallbackHandler
    from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
    from langchain_core.messages import AIMessage

    from costspan.adapters.langchain import CostHandler

    def replies() -> Any:
        while True:
            usage = {"input_tokens": 100, "output_tokens": 20, "total_tokens": 120}
            yield AIMessage("hi", usage_metadata=usage)  # type: ignore[arg-type]  # a dict will do

    model = GenericFakeChatModel(messages=replies())

    class NoOp(BaseCallbackHandler):
        run_inline = True

    def with_handlers(*handlers: Any) -> Call:
        async def call() -> None:
            model.invoke("hello", config={"callbacks": list(handlers)})

        return call

    subjects = {
        "none": with_handlers(),
        "no-op": with_handlers(NoOp()),
        "costspan": with_handlers(CostHandler()),
    }
    with suppress(ImportError):
        from openinference.instrumentation import OITracer, TraceConfig
        from openinference.instrumentation.langchain._tracer import OpenInferenceTracer
        from opentelemetry.sdk.trace import TracerProvider

        tracer = OITracer(TracerProvider().get_tracer("bench"), config=TraceConfig())
        subjects["openinference"] = with_handlers(OpenInferenceTracer(tracer, False))
    with suppress(ImportError):
        from opentelemetry.instrumentation.langchain.callback_handler import (
            TraceloopCallbackHandler,
        )
        from opentelemetry.metrics import NoOpMeter
        from opentelemetry.sdk.trace import TracerProvider

        meter = NoOpMeter("bench")
        told = [meter.create_histogram("duration"), meter.create_histogram("tokens")]
        tracer = TracerProvider().get_tracer("bench")
        subjects["traceloop"] = with_handlers(TraceloopCallbackHandler(tracer, *told))
    return subjects


def asgi_subjects() -> dict[str, Call]:
    """A plain ASGI application called in memory, under one middleware or another."""
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    from costspan.adapters.asgi import AttributionMiddleware, api_keys

    async def page(_: Any) -> Any:
        return PlainTextResponse("hi")

    app: Any = Starlette(routes=[Route("/", page)])

    class NoOp:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await self.app(scope, receive, send)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(_: Any) -> None: ...

    def under(asgi: Any) -> Call:
        async def call() -> None:
            headers = [(b"host", b"x"), (b"authorization", b"Bearer key-acme")]
            scope = {
                "type": "http", "method": "GET", "path": "/", "raw_path": b"/", "headers": headers,
                "query_string": b"", "root_path": "", "scheme": "http", "http_version": "1.1",
                "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "asgi": {"version": "3.0"},
            }  # fmt: skip
            await asgi(scope, receive, send)

        return call

    subjects = {
        "none": under(app),
        "no-op": under(NoOp(app)),
        "costspan": under(AttributionMiddleware(app, resolve=lambda _: "acme")),
        "costspan, api_keys": under(
            AttributionMiddleware(app, resolve=api_keys({"key-acme": "acme"}))
        ),
    }
    with suppress(ImportError):
        from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
        from opentelemetry.sdk.trace import TracerProvider

        subjects["otel-asgi"] = under(
            OpenTelemetryMiddleware(app, tracer_provider=TracerProvider())
        )
    return subjects


HOSTS: dict[str, Callable[[], dict[str, Call]]] = {
    "LiteLLM acompletion": litellm_subjects,
    "LangChain invoke": langchain_subjects,
    "Starlette request": asgi_subjects,
}


def main() -> None:
    """Print a table a host."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--calls", type=int, default=100)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        costspan.configure(ledger=folder / "l.db", spool=folder / "s", background=False)
        for host, subjects in HOSTS.items():
            found = asyncio.run(turns(subjects(), given.rounds, given.calls))
            print(f"\n{host:32}{'us of CPU':>12}{'x none':>9}{'more us':>10}")
            for name, seconds in found.items():
                more = (seconds - found["none"]) * 1e6
                print(f"  {name:30}{seconds * 1e6:12.1f}{seconds / found['none']:9.2f}{more:10.1f}")


if __name__ == "__main__":
    main()
