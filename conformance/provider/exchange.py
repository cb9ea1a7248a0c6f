"""One model request from its arrival to its row in the truth ledger."""

import traceback
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from costspan.conformance.provider.answer import Answer, Failure, decide
from costspan.conformance.provider.call import (
    CHAT,
    EMBEDDINGS,
    ENDPOINTS,
    MESSAGES,
    RESPONSES,
    BadRequest,
    Call,
    Caller,
)
from costspan.conformance.provider.line import Header, Line
from costspan.conformance.provider.prices import Cost, PriceList
from costspan.conformance.provider.reply import Reply, Tokens
from costspan.conformance.provider.script import ScriptBook
from costspan.conformance.provider.truth import Delivery, Row, TruthLedger
from costspan.conformance.provider.wire_anthropic import (
    message_body,
    message_frames,
    messages_error_body,
)
from costspan.conformance.provider.wire_openai import (
    Frame,
    chat_body,
    chat_frames,
    embeddings_body,
    error_body,
)
from costspan.conformance.provider.wire_responses import responses_body, responses_frames

_BODIES: Final[Mapping[str, Callable[[Reply], bytes]]] = {
    CHAT: chat_body,
    EMBEDDINGS: embeddings_body,
    RESPONSES: responses_body,
    MESSAGES: message_body,
}


@dataclass(frozen=True, slots=True)
class Backend:
    """What all requests share. ``clock`` gives Unix time in ns; ``bugs`` collects tracebacks."""

    prices: PriceList
    clock: Callable[[], int]
    scripts: ScriptBook = field(default_factory=ScriptBook)
    ledger: TruthLedger = field(default_factory=TruthLedger)
    bugs: list[str] = field(default_factory=list[str])


def serve(backend: Backend, line: Line, caller: Caller, read_body: Callable[[], bytes]) -> None:
    """Serve one request and write its row, whatever happens on the way."""
    seq, received_ns = backend.ledger.open(), backend.clock()
    call, answer = None, None
    try:
        call, answer = _read(backend, caller, read_body)
        backend.ledger.understood(answer.step.case)
    except BadRequest as error:
        answer = Answer.of_failure(Failure(400, str(error)))
    except Exception:  # A script's predicate may raise anything: the row is written all the same.
        backend.bugs.append(traceback.format_exc())
        answer = Answer.of_failure(Failure(500, "the loopback provider failed: see its bugs"))
    sending = _Sending(line, caller.endpoint, lambda: backend.ledger.ending(seq))
    try:
        sending.run(answer, call)
    except OSError:
        sending.delivery = "disconnected"
        line.abandon()
    except Exception:
        backend.bugs.append(traceback.format_exc())
        sending.delivery = "aborted"
        line.abandon()
    finally:
        times = (received_ns, backend.clock())
        backend.ledger.append(row_of(seq, times, caller, call, answer, sending, backend.prices))


def _read(
    backend: Backend, caller: Caller, read_body: Callable[[], bytes]
) -> tuple[Call | None, Answer]:
    raw = read_body()
    if caller.endpoint not in ENDPOINTS:
        return None, Answer.of_failure(Failure(404, f"Invalid URL (POST {caller.endpoint})"))
    call = Call.read(caller, raw)
    try:
        return call, decide(call, backend.scripts, backend.prices, backend.clock() // 10**9)
    except BadRequest as error:  # The row still says what was asked.
        return call, Answer.of_failure(Failure(400, str(error)))


class Progress:
    """How far a reply got: ``sent`` of ``total`` content chunks."""

    def __init__(self) -> None:
        self.delivery: Delivery = "complete"
        self.sent = 0
        self.total = 0


class _Sending(Progress):
    """A reply on its way."""

    def __init__(self, line: Line, endpoint: str, ending: Callable[[], None]) -> None:
        super().__init__()
        self._line = line
        self._endpoint = endpoint
        self._ending = ending

    def run(self, answer: Answer, call: Call | None) -> None:
        """Send the answer, faults included; OSError means that the client left."""
        request_id = f"req_{uuid.uuid4().hex}"
        name = "request-id" if self._endpoint == MESSAGES else "x-request-id"
        headers = [(name, request_id)]
        if answer.refused:
            self._abort()
        elif isinstance(answer.outcome, Failure):
            self._line.wait(answer.hold_seconds or answer.pause_seconds)
            self._ending()
            headers += _retry_headers(answer.outcome)
            body = _failure_body(self._endpoint, answer.outcome, request_id)
            self._line.send(answer.outcome.status, body, headers)
        elif call is not None and call.stream:
            self._stream(answer, _frames(call, answer.outcome), headers)
        elif call is not None:
            self._whole(answer, reply_body(call, answer.outcome), headers)

    def _whole(self, answer: Answer, body: bytes, headers: list[Header]) -> None:
        self._line.wait(answer.hold_seconds or answer.pause_seconds)
        if answer.dies:
            self._abort()
            self._line.send_half(body, headers)
            return
        self._ending()
        self._line.send(200, body, headers)

    def _stream(self, answer: Answer, frames: list[Frame], headers: list[Header]) -> None:
        self.total = sum(frame.content for frame in frames)
        after, hold = answer.step.after, answer.hold_seconds
        if hold is not None and after is None:
            self._line.wait(hold)
            hold = None
        strike = min(self.total // 2 if after is None else after, self.total)
        self._line.start_stream(headers)
        for number, frame in enumerate(frames, 1):
            if self.sent >= strike and answer.dies:
                self._abort()
                return
            if self.sent >= strike and hold is not None:
                self._line.wait(hold)
                hold = None
            self._line.wait(answer.pause_seconds)
            if self.sent == self.total:  # A client may leave here, content in hand.
                self._ending()
            self._line.send_event(frame.data, is_last=number == len(frames))
            self.sent += frame.content

    def _abort(self) -> None:
        self.delivery = "aborted"
        self._ending()
        self._line.abandon()


def reply_body(call: Call, reply: Reply) -> bytes:
    """A whole reply in the shape of its endpoint."""
    return _BODIES[call.endpoint](reply)


def _frames(call: Call, reply: Reply) -> list[Frame]:
    if call.endpoint == CHAT:
        return list(chat_frames(reply, call.include_usage))
    return list(message_frames(reply) if call.endpoint == MESSAGES else responses_frames(reply))


def _failure_body(endpoint: str, failure: Failure, request_id: str) -> bytes:
    if endpoint == MESSAGES:
        return messages_error_body(failure, request_id)
    return error_body(failure)


def _retry_headers(failure: Failure) -> list[Header]:
    if failure.retry_after is None:
        return []
    # The vendors' clients take 0 for "not given" and back off; 1 ms means "now" to them.
    milliseconds = max(1, round(failure.retry_after * 1000))
    return [("retry-after", f"{failure.retry_after:g}"), ("retry-after-ms", str(milliseconds))]


def _billed_tokens(answer: Answer, progress: Progress) -> Tokens:
    left_early = progress.delivery == "disconnected" and answer.step.gone == "sent"
    if progress.delivery == "aborted" or left_early:
        return answer.tokens.after(progress.sent, progress.total)
    return answer.tokens


def row_of(
    seq: int,
    times: tuple[int, int],
    caller: Caller,
    call: Call | None,
    answer: Answer,
    progress: Progress,
    prices: PriceList,
) -> Row:
    """The row of a finished request; ``times`` of its arrival and its end in Unix ns."""
    step = answer.step
    reply = None if isinstance(answer.outcome, Failure) else answer.outcome
    status = answer.outcome.status if isinstance(answer.outcome, Failure) else 200
    told = reply is not None and reply.tokens is not None and progress.delivery == "complete"
    tokens, cost = Tokens(0), Cost(0, {})
    if answer.billed and answer.model and answer.tier:
        tokens = _billed_tokens(answer, progress)
        cost = prices.cost(answer.model, answer.tier, tokens.components())
    served = answer.billed or not answer.refused
    return Row(
        seq=seq,
        received_ns=times[0],
        finished_ns=times[1],
        endpoint=caller.endpoint,
        requested_model=call.model if call else None,
        executed_model=answer.model if served else None,
        tier=answer.tier if served else None,
        tenant=step.tenant or (call.user if call else None),
        purpose=step.purpose,
        case=step.case,
        project=step.project or caller.project_id,
        api_key_id=caller.api_key_id,
        user=call.user if call else None,
        status=None if answer.refused else status,
        billed=answer.billed,
        usage=MappingProxyType(tokens.components()),
        reasoning=tokens.reasoning,
        component_pico=MappingProxyType(dict(cost.by_component)),
        cost_pico=cost.pico,
        reported=told and call is not None and (not call.stream or call.include_usage),
        response_id=reply.id if reply and call and call.endpoint != EMBEDDINGS else None,
        retry_count=caller.retry_count,
        stream=call.stream if call else False,
        delivery=progress.delivery,
    )
