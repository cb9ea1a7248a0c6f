"""Strangers' plugins that raise, hang, exit and return nonsense, installed as strangers' are.

Everything else goes on: the books are priced by the sound plugin, and its sink has every posting.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode puts no folder there

from installed import install_module, python

HOOKS = """
import _thread, os, sys, threading
from costspan.core.hooks import hookimpl
from costspan.core.prices import PriceBook

@hookimpl
def prices():
    {prices}

@hookimpl
def posted(batch):
    {posted}
"""
BROKEN = {
    "raises": HOOKS.format(prices="raise OSError('no list')", posted="raise ValueError('no')"),
    "asserts": HOOKS.format(prices="assert False, 'never'", posted="raise BaseException"),
    "exits": HOOKS.format(prices="sys.exit(3)", posted="_thread.exit()"),
    "interrupts": HOOKS.format(prices="raise KeyboardInterrupt", posted="raise GeneratorExit"),
    "hangs": HOOKS.format(prices="threading.Event().wait()", posted="threading.Event().wait()"),
    "garbage": HOOKS.format(prices="return 42", posted="yield batch"),
    "junk": HOOKS.format(prices="yield 'a price book'", posted="return batch.nothing"),
    "mute": "class Mute(Exception):\n    def __str__(self): raise Mute\n"
    + HOOKS.format(prices="raise Mute", posted="raise Mute"),
    "import_fails": "import a_module_that_nobody_has",
    "import_exits": "import sys\nsys.exit(5)",
    "import_hangs": "import threading\nthreading.Event().wait()",
    "wrong_hook": "from costspan.core.hooks import hookimpl\n"
    "@hookimpl\ndef posted(batch, nobody_gives_this): pass\n",
}
SOUND = HOOKS.format(
    prices="return [PriceBook.from_table('house', {'house-llm': {'input': '1', 'output': '2'}})]",
    posted="open(os.environ['TAKEN'], 'ab').write(batch.to_json_lines())",
)
WORK = """
import json, threading
import costspan
from costspan.core import counters, hooks, runtime, sinks
from costspan.core.read.books import Books

hooks.DEADLINE_SECONDS = 1.0
costspan.configure(background=False)
for round in range(3):
    said = costspan.record({"tenant": "acme", "kind": "model", "executed_model": "house-llm",
                            "provider_result": "ok", "usage": {"input": 1000, "output": 100}})
    costspan.flush()
    sinks.deliver(runtime.settings(), wait=True)
with costspan.open_ledger() as books:
    standings = {each.sink: each.taken for each in sinks.standings(books.ledger)}
    totals = books.totals()["totals"]
names = [thread.name for thread in threading.enumerate() if thread.name.startswith("costspan-")]
print(json.dumps({"totals": totals, "standings": standings, "threads": sorted(names),
                  "problems": hooks.problems, "counters": counters.snapshot()}))
"""


@pytest.fixture(scope="module")
def worked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a process with all of them installed did."""
    folder = tmp_path_factory.mktemp("strangers")
    site = folder / "site"
    site.mkdir()
    for name, source in {**BROKEN, "sound": SOUND}.items():
        install_module(site, name, source)
    said = python(site, folder, "-c", WORK, TAKEN=str(folder / "taken.jsonl"))
    found: dict[str, Any] = json.loads(said)
    found["taken"] = [
        json.loads(line)["number"] for line in (folder / "taken.jsonl").read_bytes().splitlines()
    ]
    found["site"], found["folder"] = site, folder
    return found


def test_the_books_are_as_if_they_were_not_there(worked: dict[str, Any]) -> None:
    # 3 times 1000 input at 1 USD and 100 output at 2 USD a million
    assert worked["totals"]["cost"] == "0.003600000000"
    assert worked["totals"]["unpriced_events"] == 0


def test_the_sound_sink_has_everything_once(worked: dict[str, Any]) -> None:
    assert worked["taken"] == [1, 2, 3]
    assert worked["standings"]["sound"] == 3


@pytest.mark.parametrize(
    "name",
    ["raises", "asserts", "exits", "interrupts", "garbage", "junk", "mute"],
)
def test_what_fails_is_named_and_counted_and_its_cursor_stays(
    worked: dict[str, Any], name: str
) -> None:
    hooks = {hook for plugin, hook, _ in worked["problems"] if plugin == name}
    assert hooks == {"prices", "posted"}
    # Once for its prices, at least once for its postings.
    assert worked["counters"][f"plugin_failed:{name}"] >= 2
    assert worked["standings"][name] == 0


@pytest.mark.parametrize(
    ("name", "hook", "said"),
    [
        ("raises", "prices", "OSError: no list"),
        ("raises", "posted", "ValueError: no"),
        ("exits", "prices", "SystemExit: 3"),
        ("garbage", "prices", "TypeError: 'int' object is not iterable"),
        ("garbage", "posted", "TypeError: it returned a generator, not None: is it taken or not?"),
        ("junk", "prices", "TypeError: a str among its results, which is no PriceBook"),
        ("mute", "prices", "Mute"),
        ("import_fails", "load", "ModuleNotFoundError: No module named 'a_module_that_nobody_has'"),
        ("import_exits", "load", "SystemExit: 5"),
        ("import_hangs", "load", "has not come back for 1 seconds"),
        ("hangs", "prices", "has not come back for 1 seconds"),
    ],
)
def test_why_it_failed_is_told(worked: dict[str, Any], name: str, hook: str, said: str) -> None:
    assert [name, hook, said] in worked["problems"]


def test_a_plugin_of_another_hook_is_refused(worked: dict[str, Any]) -> None:
    assert [hook for plugin, hook, _ in worked["problems"] if plugin == "wrong_hook"] == ["load"]
    assert "wrong_hook" not in worked["standings"]


def test_one_that_hangs_has_one_thread_and_is_called_once(worked: dict[str, Any]) -> None:
    assert worked["threads"] == ["costspan-load-import_hangs", "costspan-prices-hangs"]
    assert worked["counters"]["plugin_hung:hangs"] == 1
    assert worked["counters"]["plugin_hung:import_hangs"] == 1
    assert worked["standings"]["hangs"] == 0


def test_the_command_names_them_all(worked: dict[str, Any]) -> None:
    said = python(worked["site"], worked["folder"], "-c", COMMANDS)
    code, listed, findings = json.loads(said)
    assert code == 1
    wrong = {each["name"] for each in listed if each["problem"]}
    assert wrong == {"import_fails", "import_exits", "import_hangs", "wrong_hook"}
    told = {each["what"].split()[1] for each in findings if each["check"] == "plugin"}
    assert told == wrong
    behind = {each["what"].split()[2] for each in findings if each["check"] == "sink_behind"}
    assert behind == {
        "raises",
        "asserts",
        "exits",
        "interrupts",
        "hangs",
        "garbage",
        "junk",
        "mute",
    }


COMMANDS = """
import contextlib, io, json
from costspan.cli import main
from costspan.core import hooks

hooks.DEADLINE_SECONDS = 1.0

def run(*arguments):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        code = main([*arguments, "--json"])
    return code, json.loads(out.getvalue())

code, plugins = run("plugins")
_, doctor = run("doctor", "--quick")
print(json.dumps([code, plugins["plugins"], doctor["findings"]]))
"""
