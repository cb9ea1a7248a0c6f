"""Where a request goes: exactly which host, and whether a signed context may go there."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

__all__ = ["Place", "audience_of", "carrier_hosts", "host_and_port", "place_of"]

_DEFAULT_PORT = {"http": 80, "https": 443}
_PROVIDERS = (
    "anthropic.com cohere.ai cohere.com deepseek.com fireworks.ai groq.com mistral.ai openai.com"
    " openrouter.ai perplexity.ai together.ai together.xyz x.ai huggingface.co replicate.com"
    " generativelanguage.googleapis.com aiplatform.googleapis.com openai.azure.com"
    " cognitiveservices.azure.com services.ai.azure.com inference.ai.azure.com"
).split()

HostPort = tuple[str, int | None]
"""A host, and its port unless it is the scheme's own."""


class Place(NamedTuple):
    """What a connection is made to; host in lower case, port always said."""

    scheme: str
    host: str
    port: int

    def names(self) -> tuple[HostPort, ...]:
        """How a configuration may name this place."""
        if self.port == _DEFAULT_PORT.get(self.scheme):
            return (self.host, self.port), (self.host, None)
        return ((self.host, self.port),)

    def is_loopback(self) -> bool:
        """Whether it is this machine."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def base_url(self) -> str:
        """Scheme, host and port: no path, which may hold a key."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        standard = self.port == _DEFAULT_PORT.get(self.scheme)
        return f"{self.scheme}://{host}" if standard else f"{self.scheme}://{host}:{self.port}"


def place_of(url: str) -> Place:
    """The place of a URL, parsed as `requests` parses it to connect.

    Raises:
        ValueError: if there is none.
    """
    parts = urlsplit(url)
    port = parts.port or _DEFAULT_PORT.get(parts.scheme)
    if parts.hostname is None or port is None:
        raise ValueError(f"no place to connect to in the URL of scheme {parts.scheme!r}")
    return Place(parts.scheme, parts.hostname, port)


def host_and_port(text: str) -> HostPort:
    """A configured `host` or `host:port`.

    Raises:
        ValueError: for a URL, a pattern, or anything else that does not name one host exactly.
    """
    parts = urlsplit(f"//{text}")
    exact = parts.netloc == text and text.isascii() and text.isprintable()
    if not exact or parts.hostname is None or any(sign in text for sign in "@*\\ ,"):
        raise ValueError(f"write one exact host, or host:port: {text!r}")
    return parts.hostname, parts.port


def carrier_hosts(hosts: Mapping[str, str]) -> dict[HostPort, str]:
    """Host -> audience, for the hosts that get the signed context.

    Raises:
        ValueError: for a host that is not exact, or that is an LLM provider's.
    """
    allowed: dict[HostPort, str] = {}
    for text, audience in hosts.items():
        host, port = host_and_port(text)
        if _is_provider(host):
            raise ValueError(f"an LLM provider gets no signed context: {host!r}")
        allowed[host, port] = audience
    return allowed


def _is_provider(host: str) -> bool:
    bare = host.rstrip(".")
    return bare.startswith("bedrock-runtime") or any(
        f".{bare}".endswith((f".{name}", f"-{name}")) for name in _PROVIDERS
    )


def audience_of(place: Place, allowed: Mapping[HostPort, str]) -> str | None:
    """Who the signed context is for at this place; None if it gets none."""
    if place.scheme != "https" and not place.is_loopback():
        return None
    return next((allowed[name] for name in place.names() if name in allowed), None)
