"""Rows of LiteLLM's SpendLogs, made by a LiteLLM proxy from calls that it really answered.

The proxy is whole: its application, its authentication, its router, its own spend logger and
writer. Only Prisma's engine, a program that is downloaded, is not there: in its place the rows go
into a list, as `create_many` is given them. costspan's callback records the same calls live.

    python spend_logs.py PROVIDER_URL FOLDER      (writes FOLDER/rows.json and FOLDER/spool)
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
import warnings
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

if __name__ == "__main__":  # before the imports: the proxy reads it when it is loaded
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    os.environ["COSTSPAN_SPOOL"] = str(Path(sys.argv[2], "spool"))
    os.environ["COSTSPAN_LEDGER"] = str(Path(sys.argv[2], "never.db"))
    os.environ["CONFIG_FILE_PATH"] = str(Path(sys.argv[2], "proxy.yaml"))

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import httpx
    from fastapi import HTTPException
    from litellm.litellm_core_utils.logging_worker import GLOBAL_LOGGING_WORKER
    from litellm.proxy._types import UserAPIKeyAuth
    from litellm.proxy.db.db_spend_update_writer import DBSpendUpdateWriter
    from litellm.proxy.hooks.proxy_track_cost_callback import _ProxyDBLogger
    from litellm.proxy.utils import PrismaClient, ProxyUpdateSpend

    import costspan
    from costspan.adapters.litellm import CostLogger

Row = dict[str, Any]


class _Table:
    """What stands where Prisma's client of the table does."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    async def create_many(self, data: Sequence[Mapping[str, Any]], skip_duplicates: bool) -> None:
        there = {row["request_id"] for row in self.rows}
        self.rows += [dict(row) for row in data if row["request_id"] not in there]


class _Writer(DBSpendUpdateWriter):
    """LiteLLM's own writer, which keeps its rows although no database is connected."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: list[Row] = []

    async def _insert_spend_log_to_db(self, payload: Any, *_: Any, **__: Any) -> None:
        self.queue.append(payload)


writer = _Writer()
spend_logger = _ProxyDBLogger()
callback = CostLogger()
costspan.configure(background=False)  # who asked for the rows settles what was seen live


async def authenticate(request: Any, api_key: str) -> UserAPIKeyAuth:
    """An operator's identity provider: the key `sk-TEAM-ALIAS` is TEAM's; `sk--ALIAS` is no team's.

    Raises:
        HTTPException: 401, for any other key.
    """
    prefix, _, rest = api_key.removeprefix("Bearer ").partition("-")
    team, dash, alias = rest.partition("-")
    if prefix != "sk" or not dash:
        raise HTTPException(401, "no such key")
    return UserAPIKeyAuth(api_key=api_key, team_id=team or None, key_alias=alias, user_id="u-1",
                          metadata={"tenant": team} if team else {})  # fmt: skip


def config(root_url: str) -> dict[str, Any]:
    """The proxy's configuration: two providers, a route with a retry, a cache, a margin."""
    chat = {"api_base": f"{root_url}/v1", "api_key": "loopback"}
    claude = {"api_base": root_url, "api_key": "loopback"}
    models = {
        **{name: {"model": f"openai/{name}", **chat}
           for name in ("gpt-4o-mini", "gpt-4o", "gpt-4o-audio-preview", "in-house-7",
                        "text-embedding-3-small")},
        "claude-sonnet-4-5": {"model": "anthropic/claude-sonnet-4-5", **claude},
        "fast": {"model": "openai/gpt-4o-mini", **chat},
        "own-price": {"model": "openai/gpt-4o-mini", "input_cost_per_token": 0.000001,
                      "output_cost_per_token": 0.000002, **chat},
    }  # fmt: skip
    named = [{"model_name": n, "litellm_params": place} for n, place in models.items()]
    return {
        "model_list": named,
        "litellm_settings": {
            "callbacks": ["spend_logs.callback", "spend_logs.spend_logger"],
            "cache": True,
            "cache_params": {"type": "local", "mode": "default_off"},
        },
        "router_settings": {"num_retries": 1, "retry_after": 0, "disable_cooldowns": True},
        "general_settings": {
            "custom_auth": "spend_logs.authenticate",
            "master_key": f"sk-{secrets.token_urlsafe(32)}",
        },
    }


def asked(directive: str, model: str = "gpt-4o-mini", **more: Any) -> dict[str, Any]:
    """The body of a chat whose message tells the loopback provider what to do."""
    content = f"[[{directive}]]" if directive else "hello"
    return {"model": model, "messages": [{"role": "user", "content": content}], **more}


CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"
ACME, GLOBEX, NOBODY = "sk-acme-app", "sk-globex-batch", "sk--shared"
HIT = asked("in=500 out=9", cache={"no-cache": False, "ttl": 600, "use-cache": True})
CALLS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    (CHAT, ACME, asked("in=1000 out=20")),
    (CHAT, ACME, asked("in=1000 out=20 cached=400", stream=True)),
    (CHAT, NOBODY, asked("in=700 out=30")),
    (CHAT, NOBODY, asked("in=710 out=30", user="customer-9")),
    (MESSAGES, GLOBEX, asked("in=1000 out=20 cached=100 cache_write=300", "claude-sonnet-4-5",
                             max_tokens=100)),
    (MESSAGES, GLOBEX, asked("in=900 out=21 cached=100", "claude-sonnet-4-5", max_tokens=100,
                             stream=True)),
    (CHAT, GLOBEX, asked("in=800 out=22 cached=50 cache_write_1h=60", "claude-sonnet-4-5")),
    (CHAT, ACME, asked("status=500")),
    (CHAT, ACME, asked("status=429")),
    (CHAT, ACME, asked("status=500 times=1 in=300 out=7 case=retried")),
    (CHAT, ACME, asked("in=10 out=5", "in-house-7")),
    (CHAT, GLOBEX, asked("in=1000 out=20 tier=priority", "gpt-4o")),
    (CHAT, ACME, asked("in=400 out=90 reasoning=64", "fast")),
    (CHAT, ACME, asked("in=600 out=40 audio_in=500", "gpt-4o-audio-preview")),
    (CHAT, ACME, HIT),
    (CHAT, GLOBEX, HIT),
    ("/v1/responses", ACME, {"model": "gpt-4o-mini", "input": "[[in=120 out=8 cached=20]]"}),
    ("/v1/embeddings", ACME, {"model": "text-embedding-3-small", "input": "[[in=55]]"}),
    (CHAT, ACME, asked("in=250 out=10", metadata={
        "tags": ["nightly"], "spend_logs_metadata": {"customer": "deep"}, "session_id": "chat-1"})),
    (CHAT, GLOBEX, asked("in=150 out=10", "own-price")),
    (CHAT, ACME, asked("in=100 out=9 usage=none")),
    (CHAT, "sk", asked("in=1 out=1")),
)  # fmt: skip


async def main(root_url: str, folder: Path) -> list[Row]:
    """Start the proxy, make the calls, and write the rows as LiteLLM's job does."""
    from litellm.proxy import proxy_server
    from litellm.proxy.proxy_server import app

    (folder / "proxy.yaml").write_text(json.dumps(config(root_url)), "utf-8")
    async with app.router.lifespan_context(app):
        proxy_server.proxy_logging_obj.db_spend_update_writer = writer
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://proxy") as client:
            for path, key, body in CALLS:
                headers = {"authorization": f"Bearer {key}"}
                answer = await client.post(path, json=body, headers=headers, timeout=60)
                print(path, body["model"], answer.status_code, answer.text[:100], file=sys.stderr)
                await asyncio.sleep(0)
                await GLOBAL_LOGGING_WORKER.flush()
        table = _Table()
        engineless: Any = SimpleNamespace(
            db=SimpleNamespace(litellm_spendlogs=table),
            spend_log_transactions=[],
            _spend_log_transactions_lock=asyncio.Lock(),
        )
        engineless.jsonify_object = lambda data: PrismaClient.jsonify_object(engineless, data)
        await ProxyUpdateSpend.update_spend_logs(
            n_retry_times=0,
            prisma_client=engineless,
            db_writer_client=None,
            proxy_logging_obj=proxy_server.proxy_logging_obj,
            logs_to_process=writer.queue,
        )
    costspan.configure(spool=folder / "later", background=False)  # gives the segment up
    return table.rows


_MAP_KEPT = ("key", "input_cost_per_token", "output_cost_per_token")


def shortened(row: Row) -> Row:
    """A row as the database gives it back: whole milliseconds; and without LiteLLM's price map.

    (A copy of the model's entry, thousands of characters a row, and headers of the test's client.)
    """
    metadata = json.loads(row["metadata"])
    priced = (metadata.get("model_map_information") or {}).get("model_map_value") or {}
    if priced:
        kept = {name: priced.get(name) for name in _MAP_KEPT}
        metadata["model_map_information"]["model_map_value"] = kept
    (metadata.get("error_information") or {}).pop("traceback", None)
    found = {**row, "metadata": json.dumps(metadata)}
    for name in ("startTime", "endTime", "completionStartTime"):
        moment = row[name] if isinstance(row[name], datetime) else datetime.fromisoformat(row[name])
        found[name] = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return found


if __name__ == "__main__":
    sys.modules["spend_logs"] = sys.modules["__main__"]  # the proxy's configuration names it
    found = asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
    Path(sys.argv[2], "rows.json").write_text(json.dumps(list(map(shortened, found))), "utf-8")
