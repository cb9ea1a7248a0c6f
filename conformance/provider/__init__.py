"""The loopback provider: the one fake the project owns.

It speaks OpenAI's wire protocol (chat, embeddings, responses, batches) and Anthropic's (messages)
on 127.0.0.1, answers as it is told, fails on command, and writes down what it really did: a truth
ledger of every request with its exact cost, and an invoice in the shape of OpenAI's costs API. It
shares no code with ``costspan.core``, so that
the truth cannot share our bugs.

    with LoopbackProvider() as provider:
        client = openai.OpenAI(base_url=provider.base_url, api_key="any")
        provider.script("planner", "status=503 retry_after=0", "in=1000 out=200 cached=400")
        client.chat.completions.create(
            model="gpt-4o",
            messages=[{"role": "user", "content": "plan it [[planner tenant=acme]]"}],
        )
        provider.totals(by="tenant")  # {"acme": 4_000_000_000} pico-USD

How to script it, in process or inside a message: ``costspan.conformance.provider.script``.
"""

from costspan.conformance.provider.call import Call
from costspan.conformance.provider.command import main
from costspan.conformance.provider.contract import contract_toml
from costspan.conformance.provider.invoice import InvoiceLine
from costspan.conformance.provider.prices import DEFAULT_ALIASES, DEFAULT_PRICES
from costspan.conformance.provider.server import LoopbackProvider
from costspan.conformance.provider.step import ScriptError, Step
from costspan.conformance.provider.truth import Row

__all__ = [
    "DEFAULT_ALIASES",
    "DEFAULT_PRICES",
    "Call",
    "InvoiceLine",
    "LoopbackProvider",
    "Row",
    "ScriptError",
    "Step",
    "contract_toml",
    "main",
]
