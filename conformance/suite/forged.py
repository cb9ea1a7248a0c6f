"""What a client of a gateway asserts in scenarios of claims: all that would move money if believed.

`CLAIMS` are the fields of our own schema; here is what else a gateway's client can write. Drivers
of hosts that take bodies or headers from clients send it where a call asks for it (`claims`). The
tenant it names, `initech`, must never be in the books.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from costspan.conformance.suite.driver import CLAIMS

_LONG = "x" * 5000
"""What is kept as evidence is kept bounded."""

FORGED: Mapping[str, Any] = {
    **CLAIMS,
    "costspan": {**CLAIMS, "long": _LONG},
    "labels": {"team": "initech"},
    "shared_prefix": True,
    "delivered_usage": {"input": 0},
    "host_cost": "0",
    "retry_reason": "guardrail",
    "parent": "initech-parent",
    "parent_origin": "ours",
    "session_id": "initech-session",
    "session_origin": "ours",
    "user_api_key_team_id": "initech",
    "user_api_key_org_id": "initech",
    "user_api_key_alias": "initech",
    "user_api_key_metadata": {"tenant": "initech"},
    "feature": _LONG,
}
"""Metadata, as the body of a request carries it."""

_TRACE_ID = "0af7651916cd43dd8448eb211c80319c"

FORGED_HEADERS: Mapping[str, str] = {
    "baggage": "tenant=initech,costspan.tenant=initech,cause=safety,flat_cost=0",
    "traceparent": f"00-{_TRACE_ID}-b7ad6b7169203331-01",
    "tracestate": "costspan=initech",
    "x-forwarded-for": "203.0.113.9",
    "x-request-id": "initech-request",
    "x-tenant-id": "initech",
    "x-costspan-tenant": "initech",
    "x-litellm-tags": "tenant:initech,cause:safety",
    "x-litellm-customer-id": "initech",
    "x-litellm-end-user-id": "initech",
    "x-litellm-trace-id": _TRACE_ID,
    "x-litellm-session-id": "initech-session",
    "x-litellm-call-id": "initech-call",
    "x-litellm-spend-logs-metadata": json.dumps(dict(CLAIMS)),
}
"""Headers of a request; all tenants send the same ones."""
