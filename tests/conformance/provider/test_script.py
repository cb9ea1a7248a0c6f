"""Scripts and directives, over the wire and as values."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from costspan.conformance.provider import LoopbackProvider, ScriptError, Step


def chat(
    provider: LoopbackProvider, *messages: str | tuple[str, Any], **more: object
) -> httpx.Response:
    turns = [("user", m) if isinstance(m, str) else m for m in messages]
    body = {"model": "gpt-4o", "messages": [{"role": r, "content": c} for r, c in turns], **more}
    return httpx.post(f"{provider.base_url}/chat/completions", json=body)


def tokens(reply: httpx.Response) -> int:
    told: int = reply.json()["usage"]["prompt_tokens"]
    return told


def test_a_step_reads_the_same_from_words_and_mappings() -> None:
    from_words = Step.of("in=10 out=5 cached=2 delay=0.5 billed=false tool=go:{} tool=stop")
    from_mapping = Step.of(
        {"in": 10, "out": 5, "cached": 2, "delay": 0.5, "billed": False, "tool": ["go:{}", "stop"]}
    )
    assert from_words == from_mapping
    assert from_words.tokens_in == 10
    with pytest.raises(dataclasses.FrozenInstanceError):
        from_words.tokens_in = 11  # type: ignore[misc]  # what is tested


@pytest.mark.parametrize(
    "step",
    [
        *("in", "in=", "in=-1", "in=1.5", "status=200x", "status=302", "fault=melt", "text='"),
        *("nope=1", {"in": True}, {"billed": 3}, {"delay": float("nan")}, {"tool": 7}),
    ],
)
def test_a_step_that_cannot_be_read_is_refused(step: str | dict[str, Any]) -> None:
    with pytest.raises(ScriptError):
        Step.of(step)


def test_steps_are_consumed_in_order_and_the_last_repeats(provider: LoopbackProvider) -> None:
    provider.script("key", "in=1", "in=2 times=2", "in=3")
    assert [tokens(chat(provider, "[[key]]")) for _ in range(5)] == [1, 2, 2, 3, 3]


def test_a_script_whose_last_step_is_counted_ends(provider: LoopbackProvider) -> None:
    provider.script(lambda call: "deploy" in call.text, "in=7 times=1")
    provider.script(lambda call: call.model == "gpt-4o", "in=8 times=1")
    assert [tokens(chat(provider, "deploy it [[in=9]]")) for _ in range(3)] == [7, 8, 9]


def test_a_step_lies_over_the_directive(provider: LoopbackProvider) -> None:
    provider.script("key", "in=100")
    reply = chat(provider, '[[key out=7 text="two words" purpose=plan tenant=acme]]').json()
    assert reply["usage"]["prompt_tokens"] == 100
    assert reply["usage"]["completion_tokens"] == 7
    assert reply["choices"][0]["message"]["content"] == "two words"
    assert provider.totals(by="purpose").keys() == {"plan"}


def test_hints_add_up_and_the_last_directive_counts(provider: LoopbackProvider) -> None:
    chat(
        provider,
        ("system", "you plan [[purpose=planner tenant=nobody]]"),
        ("user", "first [[tenant=acme in=1]]"),
        ("assistant", "answer [[in=99]]"),
        ("user", "second [[case=b in=2]]"),
    )
    [row] = provider.truth
    assert (row.tenant, row.purpose, row.case) == ("acme", "planner", "b")
    assert row.usage["input"] == 2


def test_directives_of_one_message_are_the_turns_of_its_conversation(
    provider: LoopbackProvider,
) -> None:
    ask, answer = "go [[tenant=acme in=1]] [[in=2]] [[in=3 tenant=other]]", ("assistant", "ok")
    seen = []
    for turns in range(5):
        messages: list[str | tuple[str, Any]] = [ask, *[answer, ("tool", "result")] * turns]
        seen.append(tokens(chat(provider, *messages)))
    assert seen == [1, 2, 3, 3, 3]
    assert [row.tenant for row in provider.truth] == ["acme", "acme", "other", "other", "other"]


@pytest.mark.parametrize(
    "text",
    [
        "[[1, 2], [3, 4]]",
        "[[Wiki page]]",
        "if [[ $a = b ]]; then",
        '[[ -z "$x" ]]',
        "[[don't]]",
        "[[]]",
    ],
)
def test_other_brackets_are_plain_text(provider: LoopbackProvider, text: str) -> None:
    assert tokens(chat(provider, text)) == len(text.split())


@pytest.mark.parametrize("text", ["[[tennant=acme]]", "[[nokey in=1]]", "[[in=1 status=ok]]"])
def test_a_broken_directive_is_told(provider: LoopbackProvider, text: str) -> None:
    reply = chat(provider, text)
    assert reply.status_code == 400
    assert reply.json()["error"]["message"]


def test_parts_of_a_message_are_read(provider: LoopbackProvider) -> None:
    parts = [{"type": "text", "text": "look"}, {"type": "text", "text": "[[in=5]]"}]
    assert tokens(chat(provider, ("user", parts))) == 5


def test_a_predicate_that_raises_is_a_500_and_a_bug() -> None:
    with LoopbackProvider() as provider:
        provider.script(lambda call: call.n // 0 > 1, "in=1")
        assert chat(provider, "x").status_code == 500
        assert "ZeroDivisionError" in provider.bugs[0]
        assert provider.truth[0].status == 500


def test_scripts_and_truth_out_of_process(provider: LoopbackProvider) -> None:
    def script(**body: object) -> int:
        return httpx.post(f"{provider.url}/__script", json=body).status_code

    assert script(key="k", steps=["status=503", {"in": 6, "out": 1}]) == 200
    assert script(model="gpt-4o-mini", steps=["in=4 times=1"]) == 200
    assert script(key="two words", steps=["in=1"]) == 400
    assert script(key="k", steps=["nope=1"]) == 400
    assert script(key="k", steps=[]) == 400
    assert script(steps=["in=1"]) == 400
    assert [chat(provider, "[[k tenant=acme]]").status_code for _ in range(2)] == [503, 200]
    assert tokens(chat(provider, "x", model="gpt-4o-mini")) == 4
    truth = httpx.get(f"{provider.url}/__truth?idle=5").json()
    assert truth["idle"] is True
    assert [row["status"] for row in truth["data"]] == [503, 200, 200]
    assert truth["data"][1]["usage"] == {"input": 6, "output": 1}
    assert truth["data"] == [row.as_json() for row in provider.truth]
    assert truth["total_cost_pico"] == sum(row.cost_pico for row in provider.truth)
    assert httpx.delete(f"{provider.url}/__script").status_code == 200
    assert tokens(chat(provider, "[[k]]")) == 1


def test_the_command_serves_until_told_to_stop(tmp_path: Path) -> None:
    prices = tmp_path / "prices.json"
    prices.write_text(json.dumps({"price_books": {"v1": {"m": {"input": "1", "output": "2"}}}}))
    command = [sys.executable, "-m", "costspan.conformance.provider", "--prices", str(prices)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        base_url = process.stdout.readline().strip()
        body = {"model": "m", "messages": [{"role": "user", "content": "[[in=3 out=4]]"}]}
        assert httpx.post(f"{base_url}/chat/completions", json=body).status_code == 200
        truth = httpx.get(f"{base_url.removesuffix('/v1')}/__truth").json()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert truth["total_cost_pico"] == 11 * 10**6


def test_the_command_refuses_bad_prices(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from costspan.conformance.provider import main

    prices = tmp_path / "prices.json"
    prices.write_text('{"m": {"input": 0.1}}')
    assert main(["--prices", str(prices)]) == 2
    assert "decimal string" in capsys.readouterr().err
