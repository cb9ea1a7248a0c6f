"""What runs inside the proxy's own process: who its keys are, and the suite's control.

LiteLLM's configuration names `authenticate` as its `custom_auth`, the place where an operator plugs
an identity provider in; the keys are made up, so that no database is needed. Loading this adds one
path to LiteLLM's own application, by which the suite, on loopback, makes a spool complete.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from pathlib import Path
from typing import Any

import litellm
from fastapi import HTTPException
from litellm.caching.in_memory_cache import InMemoryCache
from litellm.integrations.custom_logger import CustomLogger
from litellm.proxy._types import UserAPIKeyAuth
from litellm.proxy.proxy_server import app
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

import costspan
from costspan.adapters.litellm import CostLogger
from costspan.conformance.drivers.litellm_host import arest
from costspan.conformance.drivers.proxy_process import (
    AUDIENCE,
    CONTROL_PATH,
    FALLBACK,
    GUARD,
    IDENTITIES,
    REROUTE,
    proxy_keys,
)

DECOYS = {"team_id": "team-of-all", "org_id": "org-of-all", "key_alias": "a-key"}
"""What a key says of lesser weight: none of these may name a tenant where something better does."""

_FIELD = {"team": "team_id", "org": "org_id", "key": "key_alias"}
_SETTLE_SECONDS = 20.0
_REQUEST_TASK = "RequestResponseCycle.run_asgi"
"""The task in which uvicorn answers a request."""


async def authenticate(request: Any, api_key: str) -> UserAPIKeyAuth:
    """LiteLLM's custom authentication: the tenant stands where the key's identity says.

    Whatever ranks below that place is filled with a decoy.

    Raises:
        HTTPException: 401, for a key that is none of ours.
    """
    prefix, _, rest = api_key.removeprefix("Bearer ").partition("-")
    identity, _, tenant = rest.partition("-")
    if prefix != "sk" or identity not in IDENTITIES or not tenant:
        raise HTTPException(401, "no such key")
    below = IDENTITIES[IDENTITIES.index(identity) + 1 :]
    fields: dict[str, Any] = {_FIELD[each]: DECOYS[_FIELD[each]] for each in below}
    if identity == "metadata":
        fields["metadata"] = {"tenant": tenant}
    else:
        fields[_FIELD[identity]] = tenant
    return UserAPIKeyAuth(api_key=api_key, user_id=f"user-of-{tenant}", **fields)


class Policy(CustomLogger):
    """The operator's own policy, which the suite scripts by headers: reroutes and guardrails."""

    async def async_pre_call_hook(
        self, user_api_key_dict: Any, cache: Any, data: dict[str, Any], call_type: Any
    ) -> dict[str, Any]:
        """Send the request to another model, say what stands in, or refuse it.

        Raises:
            HTTPException: refused.
        """
        if _told(data, GUARD) == "refused":
            raise HTTPException(400, {"error": "refused by a guardrail"})
        stand_in = _told(data, FALLBACK)
        fallbacks = {} if stand_in is None else {"fallbacks": [stand_in]}
        return {**data, **fallbacks, "model": _told(data, REROUTE) or data["model"]}

    async def async_post_call_success_hook(
        self, data: dict[str, Any], user_api_key_dict: Any, response: Any
    ) -> Any:
        """Block the answer, which the provider has billed by now.

        Raises:
            HTTPException: blocked.
        """
        if _told(data, GUARD) == "blocked":
            raise HTTPException(400, {"error": "blocked by a guardrail"})
        return response


policy = Policy()
callback = CostLogger(keys=proxy_keys(audiences=(AUDIENCE,)))


def _told(data: dict[str, Any], header: str) -> str | None:
    request: Any = data.get("proxy_server_request") or {}
    told: str | None = request.get("headers", {}).get(header)
    return told


async def _control(request: Request) -> JSONResponse:
    """GET: whether the proxy is up. POST: complete the spool, forget the cache, take a new spool.

    The reply to a POST says how many requests would not end.
    """
    if request.method == "GET":
        return JSONResponse({"pid": os.getpid()})
    asked = await request.json()
    unfinished = await _finish_requests()
    await arest()
    if litellm.cache is not None:
        litellm.cache.cache = InMemoryCache()
    costspan.configure(spool=Path(asked["spool"]), background=False)  # gives the old segment up
    return JSONResponse({"unfinished": unfinished})


async def _finish_requests() -> int:
    """Wait for every request but this one: a client that hung up leaves one behind."""
    mine = asyncio.current_task()
    requests = {
        task for task in asyncio.all_tasks() if task is not mine and _name_of(task) == _REQUEST_TASK
    }
    if not requests:
        return 0
    _, late = await asyncio.wait(requests, timeout=_SETTLE_SECONDS)
    return len(late)


def _name_of(task: asyncio.Task[Any]) -> str:
    return getattr(task.get_coro(), "__qualname__", "")


def _die_with_parent() -> None:
    """The suite holds the other end of stdin: when it is gone, however it went, so are we."""
    sys.stdin.buffer.read()
    os._exit(0)


costspan.configure(background=False)  # only the suite drains, and only when all is written
# In front: LiteLLM's last route answers every path.
app.router.routes.insert(0, Route(CONTROL_PATH, _control, methods=["GET", "POST"]))
threading.Thread(target=_die_with_parent, name="costspan-parent", daemon=True).start()
