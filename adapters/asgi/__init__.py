"""Starlette, FastAPI and any other ASGI application: every request gets an owner and a lineage."""

from __future__ import annotations

from costspan.adapters.asgi.middleware import AttributionMiddleware, Owner

__all__ = ["AttributionMiddleware", "Owner"]
