"""A LiteLLM proxy as a process of its own: its configuration, its start, its end.

It runs in this interpreter's environment if LiteLLM's proxy is installed there, else in the one
whose interpreter `COSTSPAN_PROXY_PYTHON` names (with `litellm[proxy]` and costspan).
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from costspan.carrier import Keys
from costspan.conformance.provider import DEFAULT_ALIASES, DEFAULT_PRICES, LoopbackProvider
from costspan.conformance.suite.script import Call, shipped, steps_in

CONTROL_PATH = "/costspan-conformance"
IDENTITIES = ("metadata", "team", "org", "key")
"""Where a key names its tenant, best first."""

REROUTE, GUARD = "x-conformance-reroute", "x-conformance-guard"
FALLBACK = "x-conformance-fallback"
"""Headers that script the operator's policy: the model to send a request to; refused or blocked;
the model that stands in. (What a client's body names itself is its own choice, at its price.)"""

NO_TLS = False
"""For httpx's `verify`: loopback has nothing to verify, and reading certificates is slow."""

AUDIENCE = "gateway"
_SECRET = "a secret of the suite alone, for clients it meters"

START_SECONDS = 240.0
_TELL_SECONDS = 5.0
_STOP_SECONDS = 10.0
_LOG_TAIL = 3000
_SIDE = "costspan.conformance.drivers.proxy_side"


class ProxyDied(RuntimeError):
    """The proxy did not start; the text says why, as far as it told."""


def api_key(tenant: str | None, identity: str = "metadata") -> str:
    """The key by which `identity` authenticates the tenant."""
    return f"sk-{identity}-{tenant}"


def proxy_keys(audiences: tuple[str, ...] = ()) -> Keys:
    """The keys by which metered clients tell the proxy which call of theirs it answers."""
    return Keys({"suite": _SECRET}, "suite", "conformance", audiences)


def interpreter() -> str:
    """The Python to run the proxy with.

    Raises:
        ProxyDied: if there is none.
    """
    named = os.environ.get("COSTSPAN_PROXY_PYTHON")
    if named:
        return named
    if importlib.util.find_spec("litellm") and importlib.util.find_spec("apscheduler"):
        return sys.executable
    raise ProxyDied(
        "LiteLLM's proxy is not installed here: pip install 'litellm[proxy]', or let"
        " COSTSPAN_PROXY_PYTHON name a Python that has it and costspan"
    )


def routes() -> dict[str, str]:
    """Route names that are no models, and the model behind each, as the scenarios have them."""
    return {
        step.route: step.model
        for scenario in shipped()
        for step in steps_in(scenario.script)
        if isinstance(step, Call) and step.route is not None
    }


def config(provider: LoopbackProvider) -> dict[str, Any]:
    """The proxy's configuration: every model and route of the provider, and our callback."""
    names = {name: name for name in (*DEFAULT_PRICES, *DEFAULT_ALIASES) if "#" not in name}
    return {
        "model_list": [
            {"model_name": name, "litellm_params": _place(model, provider)}
            for name, model in {**names, **routes()}.items()
        ],
        "litellm_settings": {
            "callbacks": [f"{_SIDE}.policy", f"{_SIDE}.callback"],
            "cache": True,
            "cache_params": {"type": "local", "mode": "default_off"},
        },
        "router_settings": {"num_retries": 0, "retry_after": 0, "disable_cooldowns": True},
        "general_settings": {
            "custom_auth": f"{_SIDE}.authenticate",
            "master_key": f"sk-{secrets.token_urlsafe(32)}",
        },
    }


def _place(model: str, provider: LoopbackProvider) -> Mapping[str, str]:
    if model.startswith("claude"):
        return {"model": f"anthropic/{model}", "api_base": provider.url, "api_key": "loopback"}
    return {"model": f"openai/{model}", "api_base": provider.base_url, "api_key": "loopback"}


class Proxy:
    """A running proxy.

    Attributes:
        url: Its root on loopback.
        client: Connections to it.
        spool: Where it records now.
    """

    def __init__(self, provider: LoopbackProvider, scratch: Path) -> None:
        python = interpreter()
        self._scratch = scratch
        self._log = scratch / "proxy.log"
        self._spools = 0
        self.spool = self._next_spool()
        file = scratch / "proxy.yaml"
        file.write_text(json.dumps(config(provider)), "utf-8")  # JSON is YAML, too
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.client = httpx.Client(base_url=self.url, timeout=60.0, verify=NO_TLS)
        command = [python, "-W", "ignore", "-m", "litellm.proxy.proxy_cli", "--config", str(file)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"],
                cwd=scratch,
                env=self._environment(),
                stdin=subprocess.PIPE,  # closed by our end, whatever it is: see `proxy_side`
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._wait_ready()
        except BaseException:
            self.close()
            raise

    def rotate(self) -> Path:
        """Let the proxy finish what it has; returns the spool of all since the last time, complete.

        Raises:
            httpx.HTTPError: if the proxy does not answer.
            RuntimeError: if requests in it would not end.
        """
        full, self.spool = self.spool, self._next_spool()
        answer = self.client.post(CONTROL_PATH, json={"spool": str(self.spool)})
        answer.raise_for_status()
        if unfinished := answer.json()["unfinished"]:
            raise RuntimeError(f"{unfinished} requests never ended in the proxy")
        return full

    def close(self) -> None:
        """End the proxy, and whatever it started."""
        self.client.close()
        for how in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, how)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_SECONDS)
        if self._process.stdin is not None:
            self._process.stdin.close()

    def _next_spool(self) -> Path:
        self._spools += 1
        return self._scratch / f"spool-{self._spools}"

    def _environment(self) -> dict[str, str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("COSTSPAN_", "LITELLM_", "OPENAI_", "ANTHROPIC_"))
        }
        home = self._scratch / "home"
        home.mkdir(exist_ok=True)
        return {
            **kept,
            "HOME": str(home),
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "COSTSPAN_SPOOL": str(self.spool),
            "COSTSPAN_LEDGER": str(self._scratch / "never.db"),  # the proxy settles nothing
        }

    def _wait_ready(self) -> None:
        """Poll until the proxy serves; it imports for half a minute, so say that it does.

        Raises:
            ProxyDied: if it ended, or took too long.
        """
        started = told = time.monotonic()
        while (now := time.monotonic()) - started < START_SECONDS:
            if self._process.poll() is not None:
                raise ProxyDied(f"the proxy ended with {self._process.returncode}: {self._tail()}")
            with contextlib.suppress(httpx.HTTPError):
                if self.client.get(CONTROL_PATH, timeout=2.0).status_code == 200:
                    return
            if now - told >= _TELL_SECONDS:
                told = now
                print(f"LiteLLM's proxy is starting: {now - started:.0f} s", file=sys.stderr)
            time.sleep(0.1)
        raise ProxyDied(f"the proxy did not start in {START_SECONDS:.0f} s: {self._tail()}")

    def _tail(self) -> str:
        return self._log.read_text("utf-8", "replace")[-_LOG_TAIL:]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
