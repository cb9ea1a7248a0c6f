"""How the names that hosts use are read: providers, service tiers, and ways to write a model.

Only what is written here; nothing is matched by likeness. A wrong price is worse than none,
because none is counted and shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

# One provider, several spellings: LiteLLM's names are the canonical ones, beside them those of
# OpenTelemetry (gen_ai.provider.name), LangChain (ls_provider) and price books.
_SPELLINGS = {
    "azure": ("azure.ai.openai", "az.ai.openai", "azure_openai", "azure-openai", "azure_text"),
    "azure_ai": ("azure.ai.inference", "az.ai.inference"),
    "bedrock": ("aws.bedrock", "aws", "aws_bedrock", "amazon_bedrock", "bedrock_converse"),
    "cohere": ("cohere_chat",),
    "fireworks_ai": ("fireworks", "fireworks-ai"),
    "gemini": ("gcp.gemini", "google_genai", "google_ai_studio", "google-gla"),
    "mistral": ("mistral_ai", "mistralai"),
    "moonshot": ("moonshotai", "moonshot_ai"),
    "openai": ("text-completion-openai",),
    "together_ai": ("together", "together-ai"),
    "vertex_ai": ("gcp.vertex_ai", "google_vertexai", "vertexai", "google-vertex"),
    "voyage": ("voyageai",),
    "xai": ("x_ai", "x-ai"),
}
_CANONICAL = {
    spelling: provider for provider, spellings in _SPELLINGS.items() for spelling in spellings
}
# A gateway bills nothing itself: who provided the model is then not known from this name.
_GATEWAYS = frozenset({"", "litellm", "litellm_proxy"})

_BASE_TIERS = frozenset({"", "default", "standard", "auto"})

# "-2024-08-06", "-20250929", "@20250929", "-0613".
_DATE_SUFFIX = re.compile(
    r"(?:-20\d{2}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])"
    r"|[-@]20\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])"
    r"|-(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01]))\Z",
    re.ASCII,
)


class Reading(NamedTuple):
    """One way to read a model name.

    Attributes:
        provider: canonical provider, None if not known.
        model: the name to look for.
        owned: whether a row of `provider` may match; if not, only rows of no provider may.
        how: the steps that led here, empty for the name as it stands.
    """

    provider: str | None
    model: str
    owned: bool
    how: tuple[str, ...]


def canonical_provider(provider: str | None) -> str | None:
    """The one name for a provider; None for none, and for a gateway, which provides nothing."""
    if provider is None:
        return None
    name = provider.strip().lower()
    return None if name in _GATEWAYS else _CANONICAL.get(name, name)


def canonical_tier(tier: str | None) -> str | None:
    """The service tier a row is for; None is the base row (absent, default, standard, auto)."""
    name = (tier or "").strip().lower()
    return None if name in _BASE_TIERS else name


def undated(model: str) -> str:
    """`model` without its date suffix (-2024-08-06, -20250929, @20250929, -0613), if it has one."""
    return _DATE_SUFFIX.sub("", model) or model


def readings(model: str, provider: str | None) -> Iterator[Reading]:
    """The ways to read `model`, in order: as is, without provider prefix, without date suffix.

    Args:
        model: the name a caller or a provider wrote.
        provider: its canonical provider, if known.
    """
    plain = [Reading(provider, model, True, ())]
    prefix, _, rest = model.partition("/")
    if prefix and rest:
        plain.append(_without_prefix(prefix, rest, provider))
    yield from plain
    for reading in plain:
        plain_name = undated(reading.model)
        if plain_name != reading.model:
            suffix = reading.model[len(plain_name) :]
            how = (*reading.how, f"date suffix {suffix} stripped")
            yield reading._replace(model=plain_name, how=how)


def _without_prefix(prefix: str, rest: str, provider: str | None) -> Reading:
    how = (f"provider prefix {prefix}/ stripped",)
    if prefix == "models":  # Google's resource names, "models/gemini-2.5-pro", name no provider
        return Reading(provider, rest, True, how)
    named = canonical_provider(prefix)
    if provider is None or named is None or named == provider:
        return Reading(named or provider, rest, True, how)
    # The prefix and the caller name two providers (a gateway's client, or OpenRouter reselling):
    # who bills is not known, so only a row that holds for any provider may answer.
    return Reading(provider, rest, False, how)
