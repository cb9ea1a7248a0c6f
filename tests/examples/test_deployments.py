"""Each deployment in examples/ is started as plain processes, and its books are the truth."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from deployed import (
    EXAMPLES,
    TENANT_KEYS,
    Deployed,
    costspan_command,
    free_port,
    proxy_python,
)

from costspan.conformance.drivers.proxy_process import NO_TLS

pytestmark = pytest.mark.timeout(600)  # a proxy imports for half a minute on a busy machine


def client(port: int) -> httpx.Client:
    return httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60.0, verify=NO_TLS)


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_a_litellm_proxy_and_a_postgresql_ledger(deployed: Deployed) -> None:
    port = free_port()
    deployed.start(
        "litellm_proxy", proxy_python(), "-W", "ignore", "-m", "litellm.proxy.proxy_cli",
        "--config", "config.yaml", "--host", "127.0.0.1", "--port", str(port),
    )  # fmt: skip
    with client(port) as http:
        deployed.until_served(http, "/health/liveliness")
        refused = http.post("/v1/chat/completions", json=chat("[[tenant=x]]"), headers=bearer("no"))
        assert refused.status_code == 401
        for key, tenant in TENANT_KEYS.items():
            words = f"tenant={tenant} in=100 out={len(tenant)}"
            asks: list[tuple[str, dict[str, Any]]] = [
                ("chat/completions", chat(f"[[{words}]]")),
                ("chat/completions", chat(f"[[{words} status=503 times=1]] again")),
                ("chat/completions", chat(f"[[{words} cached=64]] stream", stream=True)),
                ("embeddings", {"model": "text-embedding-3-small", "input": [f"[[{words}]]"]}),
            ]
            for path, body in asks:
                body["user"] = "somebody else"  # a client's own word
                http.post(f"/v1/{path}", json=body, headers=bearer(key)).raise_for_status()
    assert len(deployed.provider.truth) == len(TENANT_KEYS) * 5
    deployed.until_booked(len(deployed.provider.truth))  # by the proxy itself
    assert deployed.differences() == []


def chat(text: str, stream: bool = False) -> dict[str, Any]:
    usage = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    return {"model": "gpt-4o", "messages": [{"role": "user", "content": text}], **usage}


def test_an_application_of_four_workers(deployed: Deployed) -> None:
    port = free_port()
    deployed.start(
        "fastapi_langgraph", sys.executable, "-m", "uvicorn", "app:app",
        "--workers", "4", "--port", str(port),
    )  # fmt: skip
    with client(port) as http:
        deployed.until_served(http, "/docs")
        assert http.post("/chat", json={"text": "", "session": ""}).status_code == 401
    workers: set[str] = set()
    asked = 0
    # Whoever accepts a connection serves it: a few at once come to all four workers in the end.
    while len(workers) < 4:
        with ThreadPoolExecutor(6) as pool:
            workers.update(pool.map(lambda n: ask(port, n), range(asked, asked + 6)))
        asked += 6
    deployed.until_booked(asked * 3)
    assert deployed.differences() == []
    with deployed.books() as books:
        rows = books.totals(by="owner,bucket")["rows"]
        sessions = {row["session"] for row in books.totals(by="session")["rows"]}
    assert {(row["owner"], row["bucket"]) for row in rows} == {
        ("@platform", "platform"), *((t, "agent") for t in TENANT_KEYS.values()),
        *((t, "direct") for t in TENANT_KEYS.values()),
    }  # fmt: skip
    assert sessions == {f"s-{number}" for number in range(asked)}


def ask(port: int, number: int) -> str:
    """One question, on a connection of its own; which worker answered."""
    key, tenant = list(TENANT_KEYS.items())[number % len(TENANT_KEYS)]
    words = f"tenant={tenant} case=c{number}"
    tool = """tool='search:{"query": "refunds"}'"""
    text = f"[[{words} in={50 + number} out=20 {tool}]] [[{words} in=200 out=30]] refunds?"
    with client(port) as http:
        said = http.post(
            "/chat", json={"text": text, "session": f"s-{number}"}, headers=bearer(key)
        )
        worker: str = said.raise_for_status().json()["worker"]
        return worker


def test_a_sidecar_alone_knows_the_ledger(deployed: Deployed) -> None:
    port = free_port()
    deployed.start("sidecar", *costspan_command("drain", "--watch", "--listen", str(port)))
    worker = subprocess.Popen(
        [sys.executable, "worker.py"], cwd=EXAMPLES / "sidecar", text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env=deployed.environment("COSTSPAN_LEDGER", "COSTSPAN_PRICES", COSTSPAN_DRAIN="off"),
    )  # fmt: skip
    with worker as running:
        assert running.stdin is not None
        assert running.stdout is not None
        for number in range(6):
            tenant = list(TENANT_KEYS.values())[number % len(TENANT_KEYS)]
            job = {"tenant": tenant, "text": f"[[tenant={tenant} in=10 out={number}]] {number}"}
            print(json.dumps(job), file=running.stdin, flush=True)
            assert json.loads(running.stdout.readline())["tenant"] == tenant
        deployed.until_booked(6)  # while the worker lives
        assert running.poll() is None
        with client(port) as http:
            assert http.get("/health").status_code == 200
    assert deployed.differences() == []


@pytest.mark.parametrize(
    "file", sorted(EXAMPLES.glob("*/*.yaml")), ids=lambda path: path.parent.name
)
def test_a_file_of_yaml_names_what_is_there(file: Path) -> None:
    said = yaml.safe_load(file.read_text("utf-8"))
    if file.name != "compose.yaml":
        (module, _) = said["general_settings"]["custom_auth"].split(".")
        assert (file.parent / f"{module}.py").exists()
        return
    for service in said["services"].values():
        assert ("image" in service) != ("build" in service)
        assert set(service.get("depends_on", ())) <= said["services"].keys()
        for volume in service.get("volumes", ()):
            name = volume.partition(":")[0]
            assert name in said["volumes"] or (file.parent / name).exists()
        if "build" in service:
            root = file.parent / service["build"]["context"]
            extras = re.findall(r"/src\[([a-z,]+)\]", service["build"]["dockerfile_inline"])
            assert (root / "pyproject.toml").exists()
            assert extras


@pytest.mark.parametrize(
    "file", sorted(EXAMPLES.glob("*/README.md")), ids=lambda path: path.parent.name
)
def test_a_readme_is_short(file: Path) -> None:
    assert len(file.read_text("utf-8").splitlines()) <= 20
