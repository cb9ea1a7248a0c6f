"""What the servers serve: an agent that makes calls for a tenant and says which were acknowledged.

`app` is the ASGI application, `wsgi` the WSGI one. Configured, and with a record made, at import:
under gunicorn's --preload that is before the fork, and so is the background thread.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from calls import CALLS_A_REQUEST, begin, call, configure, end
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

import costspan
from costspan.adapter import current
from costspan.adapters.asgi import AttributionMiddleware

PROVIDER_SECONDS = 0.004

configure(os.environ["SHOP_FOLDER"], background=True)
_AT_IMPORT = call(0)
_number = itertools.count(1)


def _answer(acked: list[str | None]) -> dict[str, Any]:
    found = current().request_id
    return {
        "pid": os.getpid(),
        "threads": sorted(each.name for each in threading.enumerate()),
        "request": found,
        "calls": [line for line in (_AT_IMPORT, *acked) if line is not None],
    }


async def work(_request: Request) -> JSONResponse:
    """Calls from the event loop."""
    acked: list[str | None] = []
    for _each in range(CALLS_A_REQUEST):
        number = next(_number)
        attempt = begin(number)
        await asyncio.sleep(PROVIDER_SECONDS)
        acked.append(end(attempt, number))
    return JSONResponse(_answer(acked))


def _work_here() -> dict[str, Any]:
    acked: list[str | None] = []
    for _each in range(CALLS_A_REQUEST):
        number = next(_number)
        attempt = begin(number)
        time.sleep(PROVIDER_SECONDS)
        acked.append(end(attempt, number))
    return _answer(acked)


def threaded(_request: Request) -> JSONResponse:
    """Calls from a thread of the server's pool."""
    return JSONResponse(_work_here())


def _tenant_of(_: object) -> str:
    return "acme"


app = Starlette(routes=[Route("/work", work), Route("/threaded", threaded)])
app.add_middleware(AttributionMiddleware, resolve=_tenant_of)


def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """The same for a server of threads and processes only."""
    with costspan.attribute("acme"):
        body = json.dumps(_work_here()).encode()
    start_response("200 OK", [("content-type", "application/json")])
    return [body]
