"""A proxy believes which call of its client it answers: signed, for it, and for that tenant."""

from __future__ import annotations

from typing import Any

import pytest

import costspan
from costspan.adapters.litellm.request import Asked
from costspan.adapters.litellm.signed import operations_of
from costspan.carrier import Keys, to_carrier

SECRET = "a secret that is long enough for a test"
CLIENT = Keys({"k": SECRET}, "k", "app")
PROXY = Keys({"k": SECRET}, "k", "app", audiences=("gateway",))
OTHERS = Keys({"k": SECRET[::-1]}, "k", "app", audiences=("gateway",))


def carried(tenant: str | None, audience: str = "gateway") -> dict[str, str]:
    with costspan.attribute(tenant):
        return to_carrier(CLIENT, audience=audience, attempt_id="langchain:1")


def asked(headers: dict[str, str]) -> Asked:
    details: dict[str, Any] = {"litellm_params": {"proxy_server_request": {"headers": headers}}}
    return Asked(details)


@pytest.mark.parametrize("tenant", ["acme", None])
def test_the_clients_operation_is_the_proxys_too(tenant: str | None) -> None:
    assert operations_of(asked(carried(tenant)), PROXY, "acme") == ("langchain:1",)


@pytest.mark.parametrize(
    ("audience", "keys", "tenant"),
    [
        ("gateway", None, "acme"),
        ("gateway", OTHERS, "acme"),
        ("gateway", PROXY, "globex"),
        ("gateway", PROXY, None),
        ("search", PROXY, "acme"),
    ],
    ids=["no keys", "other keys", "other tenant", "nobody", "other service"],
)
def test_another_carrier_is_not_believed(
    audience: str, keys: Keys | None, tenant: str | None
) -> None:
    headers = carried("acme", audience)
    assert operations_of(asked(headers), keys, tenant) == ()


@pytest.mark.parametrize("headers", [{"x-costspan-context": "langchain:1"}, {}])
def test_what_is_not_signed_is_not_believed(headers: dict[str, str]) -> None:
    assert operations_of(asked(headers), PROXY, "acme") == ()


def test_only_a_proxy_has_clients() -> None:
    details = {"litellm_params": {"metadata": {"headers": carried("acme")}}}
    assert operations_of(Asked(details), PROXY, "acme") == ()
