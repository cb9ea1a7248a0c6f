"""The hook signs the call that is under way, for the gateway and for nobody else."""

from __future__ import annotations

import httpx
import pytest

import costspan
from costspan.adapter import OpenOperation, current, open_operation
from costspan.adapters.httpx import async_call_signer, call_signer
from costspan.carrier import HEADER, Keys, from_carrier

SECRET = "a secret that is long enough for a test"
CLIENT = Keys({"k": SECRET}, "k", "app")
GATEWAY = Keys({"k": SECRET}, "k", "app", audiences=("gateway",))
URL = "http://llm.example:4000"


def sent(url: str, operation: OpenOperation | None) -> httpx.Request:
    request = httpx.Request("POST", url)
    with costspan.attribute("acme"):
        open_operation(operation)
        try:
            call_signer(CLIENT, "gateway", [URL])(request)
        finally:
            open_operation(None)
    return request


def test_a_call_to_the_gateway_says_which_it_is() -> None:
    request = sent(f"{URL}/v1/chat/completions", OpenOperation("langchain:1", current()))
    signed = from_carrier(request.headers, GATEWAY)
    assert signed is not None
    assert (signed.attempt_id, signed.tenant) == ("langchain:1", "acme")


@pytest.mark.parametrize(
    "url",
    ["http://llm.example:4000@other/v1", "http://llm.example:40001/v1", "http://other:4000/v1"],
)
def test_nothing_is_signed_for_another_place(url: str) -> None:
    assert HEADER not in sent(url, OpenOperation("langchain:1", current())).headers


@pytest.mark.parametrize("kind", [None, "tool"])
def test_what_is_in_no_call_says_nothing(kind: str | None) -> None:
    operation = None if kind is None else OpenOperation("tool:1", current(), "tool")
    assert HEADER not in sent(f"{URL}/v1/chat/completions", operation).headers


async def test_async_clients_sign_as_well() -> None:
    request = httpx.Request("POST", f"{URL}/v1/embeddings")
    open_operation(OpenOperation("langchain:2", current(), "embedding"))
    try:
        await async_call_signer(CLIENT, "gateway", [f"{URL}/"])(request)
    finally:
        open_operation(None)
    signed = from_carrier(request.headers, GATEWAY)
    assert signed is not None
    assert signed.attempt_id == "langchain:2"


@pytest.mark.parametrize(("target", "is_signed"), [("http://other/v1", False), (f"{URL}/v2", True)])
def test_a_redirect_takes_the_carrier_nowhere_else(target: str, is_signed: bool) -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(307, headers={"location": target}) if len(seen) == 1 else _OK

    hooks = {"request": [call_signer(CLIENT, "gateway", [URL])]}
    transport = httpx.MockTransport(answer)
    open_operation(OpenOperation("langchain:3", current()))
    try:
        with httpx.Client(transport=transport, follow_redirects=True, event_hooks=hooks) as client:
            client.post(f"{URL}/v1/chat/completions")
    finally:
        open_operation(None)
    assert [HEADER in request.headers for request in seen] == [True, is_signed]


def test_a_header_that_the_host_wrote_itself_stays() -> None:
    request = httpx.Request("POST", "http://other:4000/v1", headers={HEADER: "its own"})
    call_signer(CLIENT, "gateway", [URL])(request)
    assert request.headers[HEADER] == "its own"


_OK = httpx.Response(200)
