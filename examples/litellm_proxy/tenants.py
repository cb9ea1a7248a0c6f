"""Whose each key is: LiteLLM asks this of every request, and costspan takes the tenant from it.

TENANT_KEYS is JSON, {"sk-…": "acme"}. Whatever a client says of itself decides nothing.
"""

import json
import os
from typing import Any

from fastapi import HTTPException
from litellm.proxy._types import UserAPIKeyAuth

_TENANTS: dict[str, str] = json.loads(os.environ["TENANT_KEYS"])


async def authenticate(request: Any, api_key: str) -> UserAPIKeyAuth:
    tenant = _TENANTS.get(api_key.removeprefix("Bearer "))
    if tenant is None:
        raise HTTPException(401, "no such key")
    return UserAPIKeyAuth(api_key=api_key, metadata={"tenant": tenant})
