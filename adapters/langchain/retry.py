"""Which attempt of the same work a model run is, from the failures seen earlier in its tree.

LangChain marks only `with_retry` (a tag from the second attempt on). Retries by middleware, by a
graph's retry policy or by hand, and fallbacks, carry no mark: they show as another model run with
the same messages in the same place, after one that failed there. Outside any chain the place is the
scope the application opened (`attribute`, `work`, a request); without one nothing is recognised.
A model that answered is asked again where its graph task failed afterwards, and is run again.
The fingerprint of the messages is of this process and holds no text.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from costspan.adapters.langchain.failure import Verdict
from costspan.core.context import NOTHING, Context

if TYPE_CHECKING:
    from costspan.adapters.langchain.runs import Run

FAILURES_MAX = 64
"""Failures remembered per tree; a host that fails more often loses the oldest links."""
ALONE_MAX = 512
"""The same, of runs in no tree, for the whole process."""

_RETRY_TAG = "retry:attempt:"
_MAP_TAG = "map:key:"
_TASK = "langgraph_checkpoint_ns"

Fingerprint = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    """A model run that failed: what its successor is a retry of."""

    operation_id: str
    attempt: int
    asked_model: str | None
    reason: str


Failures = dict[tuple[object, Fingerprint], Failed]

_alone: dict[tuple[int, Fingerprint], tuple[Context, Failed]] = {}
"""Failures in no tree, by the identity of their scope, which is kept alive for that."""


def fingerprint(messages: Sequence[Any]) -> Fingerprint:
    """What two requests with the same messages share, without any of their text."""
    if not messages:
        return ()
    last = messages[-1]
    content: Any = last if isinstance(last, str) else getattr(last, "content", "")
    return (
        len(messages),
        getattr(last, "type", None),
        getattr(last, "id", None),
        hash(content) if isinstance(content, str) else len(content),
    )


def remember(run: Run, verdict: Verdict) -> None:
    """Keep that `run` failed, for the run that repeats it."""
    failed = _failed(run, verdict.retry_reason)
    if run.parent is None:
        _remember_alone(run, failed)
        return
    failures = _failures_of(run.root)
    for place in _places(run):
        failures[place, run.fingerprint] = failed
    _bound(failures)


def remember_answer(run: Run) -> None:
    """Keep what `run` answered in a graph's task, in case the task fails and is run again."""
    task = run.metadata.get(_TASK)
    if task is not None and run.parent is not None:
        root = run.root
        answers = root.answers = {} if root.answers is None else root.answers
        answers[task, run.fingerprint] = _failed(run, "agent")
        _bound(answers)


def answers_refused(run: Run, verdict: Verdict) -> None:
    """A chain failed: if it is a graph's task, what its models answered was for nothing."""
    task, around = run.metadata.get(_TASK), run.parent
    if task is None or around is None or around.metadata.get(_TASK) == task:
        return
    root = run.root
    answers, failures = root.answers or {}, _failures_of(root)
    for place in [place for place in answers if place[0] == task]:
        answer = answers.pop(place)
        failures.setdefault(place, replace(answer, reason=verdict.retry_reason))
    _bound(failures)


def _failures_of(root: Run) -> Failures:
    if root.failures is None:
        root.failures = {}
    return root.failures


def _failed(run: Run, reason: str) -> Failed:
    return Failed(
        operation_id=run.operation.operation_ids[0] if run.operation is not None else "",
        attempt=run.facts.get("attempt") or 1,
        asked_model=run.facts.get("requested_model"),
        reason=reason,
    )


def _bound(failures: Failures) -> None:
    while len(failures) > FAILURES_MAX:
        del failures[next(iter(failures))]


def _remember_alone(run: Run, failed: Failed) -> None:
    if run.asked_in is not NOTHING:
        _alone[id(run.asked_in), run.fingerprint] = (run.asked_in, failed)
        with suppress(RuntimeError, StopIteration):  # another thread was at it
            while len(_alone) > ALONE_MAX:
                _alone.pop(next(iter(_alone)), None)


def after_failure(run: Run, requested_model: str | None) -> dict[str, Any]:
    """The attempt, retry and route facts of a model run that starts; empty for a first attempt."""
    number = _tagged_attempt(run)
    failed = _take(run)
    if failed is None:
        # Tagged, and no model failed: what the model said did not do (a parser refused it).
        return {} if number is None else {"attempt": number, "retry_reason": "agent"}
    facts: dict[str, Any] = {
        "attempt": failed.attempt + 1 if number is None else number,
        "retry_of": failed.operation_id,
        "retry_reason": failed.reason,
    }
    if failed.asked_model is not None and requested_model != failed.asked_model:
        facts.update(requested_model=failed.asked_model, route_reason="fallback")
    return facts


def _take(run: Run) -> Failed | None:
    if run.parent is None:
        alone = _alone.pop((id(run.asked_in), run.fingerprint), None) if _alone else None
        return None if alone is None else alone[1]
    failures = run.root.failures
    if not failures:
        return None
    found = [failures.pop((place, run.fingerprint), None) for place in _places(run)]
    return next((failed for failed in found if failed is not None), None)


def _places(run: Run) -> list[object]:
    """Where a repetition of `run` would start: under the same run, graph task or sequence."""
    places: list[object] = []
    parent = run.parent
    if parent is None or _has_tag(run, _MAP_TAG):
        return places
    places.append(parent.run_id)
    if (task := run.metadata.get(_TASK)) is not None:
        places.append(task)
    if parent.parent is not None and not _has_tag(parent, _MAP_TAG):
        places.append(parent.parent.run_id)
    return places


def _tagged_attempt(run: Run) -> int | None:
    """The number of `with_retry`, on the model itself or on the sequence it is a step of."""
    for at in (run, run.parent):
        for tag in at.tags if at is not None else ():
            number = tag.removeprefix(_RETRY_TAG)
            if number != tag and number.isascii() and number.isdigit():
                return int(number)
    return None


def _has_tag(run: Run, prefix: str) -> bool:
    return any(tag.startswith(prefix) for tag in run.tags)
