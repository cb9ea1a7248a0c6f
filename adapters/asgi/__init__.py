"""Starlette, FastAPI and any other ASGI application: every request gets an owner and a lineage."""

from __future__ import annotations

from costspan.adapters.asgi.middleware import AttributionMiddleware, Later, Owner
from costspan.adapters.asgi.resolvers import api_keys, first_of, from_user, trusted_header
from costspan.adapters.asgi.signed import SignedContext
from costspan.adapters.asgi.tokens import jwt

__all__ = [
    "AttributionMiddleware",
    "Later",
    "Owner",
    "SignedContext",
    "api_keys",
    "first_of",
    "from_user",
    "jwt",
    "trusted_header",
]
