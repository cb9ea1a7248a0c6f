"""Scripts: what the provider does with a request.

One vocabulary serves three doors.

- In process: ``provider.script(match, *steps)``. ``match`` is a key, or a predicate over the
  :class:`~costspan.conformance.provider.call.Call`. A step is a :class:`Step`, a text such as
  ``"in=1000 out=200"``, or a mapping of the same names.
- Out of process: ``POST /__script`` with ``{"key": "planner", "steps": ["status=503", "in=10"]}``
  or ``{"model": "gpt-4o", "steps": […]}``; ``DELETE /__script`` forgets all scripts.
- In band: a directive in any message that no model wrote: ``[[in=1000 out=200 tenant=acme]]``,
  or a registered key, or both: ``[[planner tenant=acme]]``.

Words are split as a shell does, so ``text="two words"`` and ``tool='search:{"q": "x"}'`` work.

- ``in``, ``out``: all tokens of the prompt and of the answer. ``in`` includes ``cached``,
  ``cache_write`` (for 5 minutes), ``cache_write_1h`` and ``audio_in``; ``out`` includes
  ``reasoning`` and ``audio_out``. OpenAI's wire reports such totals, Anthropic's what is left of
  ``in`` beside the cache. ``web_searches`` counts searches. OpenAI's wire has no words for these
  and for ``cache_write_1h``: there they are answered with 400.
- ``usage=none``: the reply carries no usage (it is billed all the same).
- ``model``, ``tier``: what the reply names and the bill charges.
- ``text``: the answer. ``tool=NAME`` or ``tool='NAME:{JSON}'`` (may repeat): tool calls.
- ``finish``: the finish reason, in OpenAI's words or Anthropic's. ``id``: the response id (repeat
  one, or invent one).
- ``status``: an HTTP error with the error body of the protocol; ``retry_after``: its header, in
  seconds (0 goes out as one millisecond too: both vendors' clients ignore a 0).
- ``fault=refuse``: close before the first byte, unbilled. ``fault=die``: close mid-reply, a stream
  after ``after`` content chunks (default: half), billed for what was sent. ``fault=timeout``: hold
  the reply (a stream: after ``after`` chunks) until the client is gone or ``delay`` seconds passed
  (default 600), then finish; billed in full.
- ``delay``: seconds before the reply, and before each chunk of a stream.
- ``gone``: what a client that left mid-stream is billed: ``all`` (default: the provider had
  generated ahead of the reader) or ``sent``.
- ``billed``: ``true``: a failed request costs money all the same; ``false``: a good one does not.
- ``times``: how many requests the step serves: 1 if not given, the last step all further ones.
  When the last step has ``times``, the script ends and the next match applies.
- ``polls``: how many polls find the batch that this line is in unfinished (default 1; the most of
  its lines counts).
- ``tenant``, ``purpose``, ``project``, ``case``: hints for the truth ledger; ``project`` is also
  what the invoice groups by.

Fields that a script's step leaves open come from the directive, then from the default: usage by
word count and a plain answer. Hints add up over all messages. Several directives in one message
are the steps of one conversation: the first applies before any assistant turn, the second after
one, and so on; the last repeats. Directives hold until a later message brings others. An in-band
fault with ``times=k`` hits k requests, then the same message is served well (``case=…`` tells
messages of equal words apart). Text in double brackets that does not read as a directive is left
alone; a directive with an unknown name is answered with 400.
"""

import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from threading import RLock
from typing import Final

from costspan.conformance.provider.call import Call
from costspan.conformance.provider.step import Fields, ScriptError, Step

Predicate = Callable[[Call], bool]

_DIRECTIVE: Final = re.compile(r"\[\[([^\[\]]+)\]\]")
_PAIR: Final = re.compile(r"[A-Za-z_]\w*=", re.ASCII)
_WORD: Final = re.compile(r"[\w.:-]+", re.ASCII)


def requested(model: object) -> Predicate:
    """Matches every call that asks for this model, by the name the request says."""
    if not isinstance(model, str):
        raise ScriptError(f"a model is a string, not {model!r}")
    return lambda call: call.model == model


class Script:
    """Steps consumed in order."""

    def __init__(self, steps: tuple[Step, ...]) -> None:
        if not steps:
            raise ScriptError("a script needs at least one step")
        self._steps = steps
        self._at = 0
        self._served = 0

    def take(self) -> Step | None:
        """The step for the next request; None when the script has ended."""
        while self._at < len(self._steps):
            step, is_last = self._steps[self._at], self._at == len(self._steps) - 1
            limit = step.times if step.times is not None else None if is_last else 1
            if limit is None or self._served < limit:
                self._served += 1
                return step
            self._at, self._served = self._at + 1, 0
        return None


class ScriptBook:
    """All scripts of a provider, and how far each has run. Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = RLock()  # A predicate may itself register scripts.
        self._by_predicate: list[tuple[Predicate, Script]] = []
        self._by_key: dict[str, Script] = {}
        self._faults: dict[tuple[str, int], int] = {}

    def add(self, match: str | Predicate, *steps: Step | str | Fields) -> None:
        """Register a script; a key's earlier script is replaced, predicates are tried in order.

        Raises:
            ScriptError: The key is no single word, or a step cannot be read.
        """
        script = Script(tuple(Step.of(step) for step in steps))
        if isinstance(match, str) and not _WORD.fullmatch(match):
            raise ScriptError(f"a key is one word of letters, digits and . : - _, not {match!r}")
        with self._lock:
            if isinstance(match, str):
                self._by_key[match] = script
            else:
                self._by_predicate.append((match, script))

    def clear(self) -> None:
        """Forget every script."""
        with self._lock:
            self._by_predicate.clear()
            self._by_key.clear()
            self._faults.clear()

    def resolve(self, call: Call) -> Step:
        """The step for a request; consumes it.

        Raises:
            ScriptError: A directive in the messages cannot be read.
        """
        with self._lock:
            directive = self._directive(call)
            words = self._pass_fault(directive)
            for predicate, script in self._by_predicate:
                if predicate(call) and (step := script.take()) is not None:
                    return step.over(words)
            if directive.key is not None:
                step = self._by_key[directive.key].take()
                return words if step is None else step.over(words)
            return words

    def _directive(self, call: Call) -> "_Directive":
        """The directive in force, and the hints of all."""
        hints, found = Step(), list[_Directive]()
        turns_after = 0
        was_assistant = False
        for turn in call.turns:
            if turn.assistant:
                turns_after += not was_assistant
            elif directives := list(self._read(turn.text, hints)):
                found, turns_after = directives, 0
                hints = directives[-1].step.hints().over(hints)
            was_assistant = turn.assistant
        if not found:
            return _Directive(hints, None, "", 0)
        return replace(found[min(turns_after, len(found) - 1)], turn=turns_after)

    def _read(self, text: str, hints: Step) -> "Iterator[_Directive]":
        for match in _DIRECTIVE.finditer(text):
            words = _directive_words(match[1], self._by_key)
            if words is None:
                continue
            keys = [word for word in words if "=" not in word]
            if len(keys) > 1:
                raise ScriptError(f"a directive names at most one key: {match[0]}")
            if keys and keys[0] not in self._by_key:
                raise ScriptError(f"no script is registered for the key {keys[0]!r}")
            step = Step.of_words(word for word in words if "=" in word).over(hints)
            hints = step.hints()
            yield _Directive(step, keys[0] if keys else None, text, 0)

    def _pass_fault(self, directive: "_Directive") -> Step:
        """An in-band fault with ``times`` hits so many requests of the same words and turn."""
        step = directive.step
        if step.times is None:
            return step
        place = (directive.text, directive.turn)
        hits = self._faults[place] = self._faults.get(place, 0) + 1
        return replace(step if hits <= step.times else step.recovered(), times=None)


@dataclass(frozen=True, slots=True)
class _Directive:
    step: Step
    key: str | None
    text: str
    turn: int


def _directive_words(content: str, keys: Mapping[str, Script]) -> list[str] | None:
    """The words of a directive, or None where the brackets hold some other text."""
    try:
        words = shlex.split(content)
    except ValueError:
        return None
    has_pair = any(_PAIR.match(word) for word in words)
    if has_pair and all(_PAIR.match(word) or _WORD.fullmatch(word) for word in words):
        return words
    return words if words and all(word in keys for word in words) else None
