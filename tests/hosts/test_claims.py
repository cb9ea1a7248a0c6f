"""What a client claims, over HTTP or in metadata, changes no amount (invariant 24)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import costspan
from costspan.adapters.asgi import AttributionMiddleware
from costspan.conformance.provider import LoopbackProvider, contract_toml

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
# Warnings of the host libraries about themselves and each other are not what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore")

CLAIMS: dict[str, Any] = {
    "tenant": "globex",
    "costspan_tenant": "globex",
    "cause": "safety",
    "initiator": "platform",
    "shared": True,
    "shared_prefix": True,
    "policy_owner": "platform",
    "members": {"globex": 1},
    "delivery": "blocked",
    "fault": "provider",
    "provider_billed": False,
    "flat_cost": "0",
    "user_api_key_team_id": "globex",
    "user_api_key_org_id": "globex",
}
HEADERS = {
    **{f"x-{name}": str(value) for name, value in CLAIMS.items()},
    **{f"x-litellm-{name}": str(value) for name, value in CLAIMS.items()},
    **{f"costspan-{name}": str(value) for name, value in CLAIMS.items()},
    "x-litellm-tags": "tenant:globex",
    "x-litellm-end-user-id": "globex",
    "x-litellm-customer-id": "globex",
    "baggage": ",".join(f"{name}={value}" for name, value in CLAIMS.items() if name != "members"),
    "traceparent": "00-" + "ab" * 16 + "-" + "cd" * 8 + "-00",
}


@pytest.fixture
def provider() -> Iterator[LoopbackProvider]:
    with LoopbackProvider() as provider:
        yield provider
        assert provider.bugs == ()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path) -> Path:
    prices = tmp_path / "contract.toml"
    prices.write_text(contract_toml(), "utf-8")
    costspan.configure(
        ledger=tmp_path / "ledger.db", spool=tmp_path / "spool", prices=prices, background=False
    )
    return tmp_path


def books() -> dict[str, Any]:
    costspan.flush()
    with costspan.open_ledger() as opened:
        return opened.totals()


def application(provider: LoopbackProvider, metadata_of_body: bool) -> Any:
    """An app that passes a caller's metadata on to LiteLLM, as careless apps do."""
    import litellm
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    costspan.install("litellm")

    async def ask(request: Request) -> JSONResponse:
        body = await request.json()
        await litellm.acompletion(
            model="openai/gpt-4o",
            messages=[{"role": "user", "content": body["question"]}],
            api_base=provider.base_url,
            api_key="loopback",
            metadata=body["metadata"] if metadata_of_body else None,
        )
        return JSONResponse({})

    app = Starlette(routes=[Route("/ask", ask, methods=["POST"])])
    app.add_middleware(
        AttributionMiddleware,
        resolve=lambda scope: "acme" if (b"authorization", b"secret") in scope["headers"] else None,
    )
    return app


@pytest.mark.parametrize("authenticated", [True, False])
def test_headers_baggage_and_body_metadata_move_no_money(
    provider: LoopbackProvider, authenticated: bool
) -> None:
    import httpx

    from costspan.adapters.litellm import flush

    async def send() -> None:
        # A caller's metadata may only name a tenant where nobody authenticated one and the app
        # itself passes it on; everything else in it is a claim.
        app = application(provider, metadata_of_body=authenticated)
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
            headers = {**HEADERS, **({"authorization": "secret"} if authenticated else {})}
            body = {"question": "[[in=100 out=10]] hello", "metadata": CLAIMS}
            (await client.post("/ask", json=body, headers=headers)).raise_for_status()
        await flush()

    asyncio.run(send())
    owner, bucket, charge = (
        ("acme", "direct", "0.000350000000")
        if authenticated
        else ("@unattributed", "unattributed", "0.000000000000")
    )
    (row,) = books()["rows"]
    assert row == {
        "owner": owner, "bucket": bucket, "cost": "0.000350000000", "charge": charge, "events": 1,
    }  # fmt: skip


def test_a_claiming_client_of_langchain_moves_no_money(provider: LoopbackProvider) -> None:
    from langchain_openai import ChatOpenAI

    from costspan.adapters.langchain import CostHandler

    model: Any = ChatOpenAI(model="gpt-4o", base_url=provider.base_url, api_key="loopback")  # type: ignore[arg-type]  # accepts a plain string too
    with costspan.attribute("acme"):
        model.invoke(
            "[[in=100 out=10]] hello",
            config={"callbacks": [CostHandler()], "metadata": CLAIMS, "tags": ["tenant:globex"]},
        )
    (row,) = books()["rows"]
    assert (row["owner"], row["bucket"], row["charge"]) == ("acme", "direct", "0.000350000000")
