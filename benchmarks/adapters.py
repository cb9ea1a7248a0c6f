"""What each adapter costs its host, beside no callback, a no-op and two rivals, in one run.

    python benchmarks/adapters.py [--rounds N] [--host NAME] [--json]

No network: LiteLLM answers from its mock, LangChain from a fake model, Starlette from memory. How
it is measured: see `turns`. `no-op` has the same hooks as ours and does nothing in them: what it
costs, the host takes for calling anybody. Rivals are measured where they are installed:
`pip install opentelemetry-instrumentation-langchain openinference-instrumentation-langchain
langfuse`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from turns import Call, Line, Target, as_json, best_async, show

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import costspan

STREAMED_TOKENS = 50


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
        async def async_pre_call_deployment_hook(self, kwargs: Any, call_type: Any) -> None: ...

        async def async_post_call_success_deployment_hook(
            self, request_data: Any, response: Any, call_type: Any
        ) -> None: ...

        def log_pre_api_call(self, model: Any, messages: Any, kwargs: Any) -> None: ...

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


def _langchain_handlers() -> dict[str, list[Any]]:
    from langchain_core.callbacks import BaseCallbackHandler

    from costspan.adapters.langchain import CostHandler

    class Nothing(BaseCallbackHandler):
        run_inline = True

    class NoOp(Nothing):
        def on_chat_model_start(self, *_: Any, **__: Any) -> None: ...

        def on_llm_new_token(self, *_: Any, **__: Any) -> None: ...

        def on_llm_end(self, *_: Any, **__: Any) -> None: ...

    return {
        "none": [],
        "no-op": [NoOp()],
        "a handler without hooks": [Nothing()],
        "costspan": [CostHandler()],
    }


def langchain_subjects() -> dict[str, Call]:
    """A fake chat model with usage; handlers are given with the call."""
    from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
    from langchain_core.messages import AIMessage

    def replies() -> Any:
        while True:
            usage = {"input_tokens": 100, "output_tokens": 20, "total_tokens": 120}
            yield AIMessage("hi", usage_metadata=usage)  # type: ignore[arg-type]  # a dict will do

    model = GenericFakeChatModel(messages=replies())

    def with_handlers(*handlers: Any) -> Call:
        async def call() -> None:
            model.invoke("hello", config={"callbacks": list(handlers)})

        return call

    subjects = {name: with_handlers(*given) for name, given in _langchain_handlers().items()}
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


def langchain_stream_subjects() -> dict[str, Call]:
    """A reply of 50 tokens, streamed."""
    from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
    from langchain_core.messages import AIMessage

    def replies() -> Any:
        while True:
            yield AIMessage(" ".join("word" for _ in range(STREAMED_TOKENS // 2)))  # and blanks

    model = GenericFakeChatModel(messages=replies())

    def with_handlers(*handlers: Any) -> Call:
        async def call() -> None:
            for _ in model.stream("hello", config={"callbacks": list(handlers)}):
                pass

        return call

    return {name: with_handlers(*given) for name, given in _langchain_handlers().items()}


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


class Host(NamedTuple):
    """What is called, how often in a round, and what is asked of our subject."""

    subjects: Callable[[], dict[str, Call]]
    calls: int
    targets: dict[str, Target]


HOSTS = {
    "LiteLLM acompletion": Host(litellm_subjects, 3, {"x none": Target("x", 1.1)}),
    "LangChain invoke": Host(langchain_subjects, 8, {"x none": Target("x", 1.1)}),
    "LangChain stream of 50 tokens": Host(langchain_stream_subjects, 2, {}),
    "Starlette request": Host(asgi_subjects, 100, {"more us": Target("us", 5)}),
}


def measured(host: Host, rounds: int) -> list[Line]:
    """A line a subject."""
    found = asyncio.run(best_async(host.subjects(), rounds, host.calls))
    none, noop = found["none"], found["no-op"]
    return [
        Line(
            name,
            {
                "us of CPU": spent,
                "x none": spent / none,
                "x no-op": spent / noop,
                "more us": spent - none,
            },
            host.targets if name == "costspan" else {},
        )
        for name, spent in found.items()
    ]


def main() -> None:
    """Print a table a host."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--host", default="", help="part of the name of the hosts to measure")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    tables: dict[str, list[Line]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        costspan.configure(ledger=folder / "l.db", spool=folder / "s", background=False)
        for title, host in HOSTS.items():
            if given.host.lower() in title.lower():
                tables[title] = measured(host, given.rounds)
    if given.json:
        print(as_json(tables))
        return
    for title, lines in tables.items():
        show(title, lines)


if __name__ == "__main__":
    main()
