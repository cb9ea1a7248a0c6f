"""What one tenant's play says to the provider: directives, with tokens times its factor."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from itertools import count
from typing import Any, cast

from costspan.conformance.provider import LoopbackProvider
from costspan.conformance.suite.driver import Messages, Reply
from costspan.conformance.suite.script import Agent, Call
from costspan.core.money import format_usd, parse_usd

_TOKENS = frozenset(
    "in out cached cache_write cache_write_1h reasoning audio_in audio_out web_searches".split()
)

_cases = count(1)  # A provider is shared by all plays of a session: no case comes twice.


class Prompts:
    """The words of one tenant, whose tokens and costs are `factor` times those of the script."""

    def __init__(self, tenant: str, factor: int) -> None:
        self._tenant = tenant
        self._factor = factor
        self._id = next(_cases)

    def of_call(
        self, call: Call, asker: str | None, provider: LoopbackProvider
    ) -> tuple[str, Messages]:
        """The case of a call, which names it to the provider, and its messages."""
        says = dict(call.says)
        if says.get("times") == "$tries":
            says["times"] = call.retries + 1
        if call.cache is not None:
            # What is asked through a cache is the same each time, whoever asks.
            case = f"{self._tenant}-{self._id}"
            return case, self.messages(says, call.label, self._tenant, case)
        case = self._case()
        if call.then:
            return case, self._in_turn((says, *call.then), call.label, asker, case, provider)
        return case, self.messages(says, call.label, asker, case)

    def of_agent(self, agent: Agent, asker: str | None) -> tuple[str, str]:
        """An agent's prompt, with a directive a turn, and the directive of its summary."""
        hints = {"tenant": asker, "case": self._case(), "purpose": agent.name}
        turns = " ".join(_directive({**self._says(says), **hints}) for says in agent.turns)
        summary = {**self._says(agent.summarize or {}), **hints, "purpose": "summary"}
        return f"{turns} {agent.name}", _directive(summary)

    def messages(
        self, says: Mapping[str, Any], label: str, tenant: str | None, case: str | None = None
    ) -> Messages:
        """One message of the user's that tells the provider what to do."""
        hints = {"tenant": tenant, "purpose": label, "case": case or self._case()}
        return [{"role": "user", "content": f"{_directive({**self._says(says), **hints})} {label}"}]

    def money(self, usd: str | None) -> str | None:
        """An amount of the script, times the factor."""
        return None if usd is None else format_usd(parse_usd(usd) * self._factor)

    def _in_turn(
        self,
        tries: tuple[Mapping[str, Any], ...],
        label: str,
        tenant: str | None,
        case: str,
        provider: LoopbackProvider,
    ) -> Messages:
        """What the provider does try by try: a script of its own, named in the message."""
        provider.script(case, *(self._says(says) for says in tries))
        hints = _directive({"tenant": tenant, "purpose": label, "case": case})
        return [{"role": "user", "content": f"{hints.replace('[[', f'[[{case} ', 1)} {label}"}]

    def _case(self) -> str:
        return f"{self._tenant}-{next(_cases)}"

    def _says(self, says: Mapping[str, Any]) -> dict[str, Any]:
        return {
            word: value * self._factor if word in _TOKENS else value for word, value in says.items()
        }


def assistant(reply: Reply) -> dict[str, Any]:
    """The message of the model that called these tools."""
    return {
        "role": "assistant",
        "content": reply.text or None,
        "tool_calls": [
            {
                "id": wanted.id,
                "type": "function",
                "function": {"name": wanted.name, "arguments": wanted.arguments},
            }
            for wanted in reply.tool_calls
        ],
    }


def _directive(says: Mapping[str, Any]) -> str:
    words: list[str] = []
    for word, value in says.items():
        if value is None:
            continue
        words += [f"{word}={shlex.quote(each)}" for each in _texts(value)]
    return f"[[{' '.join(words)}]]"


def _texts(value: object) -> list[str]:
    values = cast("list[object]", value) if isinstance(value, list) else [value]
    return [str(each) for each in values]
