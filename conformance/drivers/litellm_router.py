"""LiteLLM's Router: routes with names of their own, retries and fallbacks, each try seen."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any, ClassVar

from costspan.conformance.drivers import litellm_wire as wire
from costspan.conformance.drivers.litellm_calls import LiteLLMCalls
from costspan.conformance.provider import DEFAULT_ALIASES, DEFAULT_PRICES, LoopbackProvider
from costspan.conformance.suite.script import Call

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")

_MODELS = tuple(name for name in (*DEFAULT_PRICES, *DEFAULT_ALIASES) if "#" not in name)


class LiteLLMRouter(LiteLLMCalls):
    """A Router whose groups are the provider's models, and the routes that scripts name."""

    name: ClassVar[str] = "litellm-router"
    can: ClassVar[frozenset[str]] = LiteLLMCalls.can | {"host_retries", "route"}

    def open(self, provider: LoopbackProvider, scratch: Path) -> None:
        """Build the Router; it tries again without waiting, and never rests a deployment."""
        super().open(provider, scratch)
        from litellm.router import Router  # pyright: ignore[reportMissingTypeStubs]  # has none

        self._lock = threading.Lock()
        self._routes: set[str] = set(_MODELS)
        self.target: Any = Router(
            model_list=[self._deployment(model, model) for model in _MODELS],
            num_retries=0,
            retry_after=0,
            disable_cooldowns=True,
        )

    def place(self, call: Call) -> dict[str, Any]:
        """The group to ask: a route, or the model's own."""
        route = call.route or call.model
        with self._lock:
            if route not in self._routes:
                from litellm.types.router import Deployment  # pyright: ignore[reportMissingTypeStubs]  # has none

                self._routes.add(route)
                self.target.add_deployment(Deployment(**self._deployment(route, call.model)))
        return {"model": route}

    def tries(self, call: Call) -> dict[str, Any]:
        """The Router's own retries and fallbacks, for this call."""
        options: dict[str, Any] = {"num_retries": call.retries}
        if call.fallback is not None:
            options["fallbacks"] = [{call.route or call.model: [call.fallback]}]
        elif call.no_fallbacks:
            options["fallbacks"] = []
        return options

    def _deployment(self, group: str, model: str) -> dict[str, Any]:
        return {
            "model_name": group,
            "litellm_params": {
                "model": f"{wire.provider_of(model)}/{model}",
                "api_base": wire.address(self.provider, model),
                "api_key": "loopback",
            },
        }


driver = LiteLLMRouter
