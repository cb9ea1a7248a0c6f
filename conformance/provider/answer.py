"""Deciding what one request gets: a reply or an error, how it is delivered, what it costs."""

import uuid
from dataclasses import dataclass
from typing import Final

from costspan.conformance.provider.call import EMBEDDINGS, MESSAGES, RESPONSES, BadRequest, Call
from costspan.conformance.provider.prices import PriceList, Unpriced
from costspan.conformance.provider.reply import Reply, Tokens
from costspan.conformance.provider.script import ScriptBook
from costspan.conformance.provider.step import ScriptError, Step

DEFAULT_TEXT: Final = "This is what the loopback provider has to say."
_HOLD_SECONDS: Final = 600.0

_ID_PREFIX: Final = {RESPONSES: "resp_", MESSAGES: "msg_"}
_ERROR_TYPE: Final = {
    400: "invalid_request_error",
    401: "invalid_request_error",
    403: "invalid_request_error",
    404: "invalid_request_error",
    429: "requests",
}
_ERROR_CODE: Final = {
    401: "invalid_api_key",
    403: "unsupported_country_region_territory",
    404: "model_not_found",
    429: "rate_limit_exceeded",
    503: "service_unavailable",
}


@dataclass(frozen=True, slots=True)
class Failure:
    """An HTTP error, whose ``type`` and ``code`` are OpenAI's; ``retry_after`` in seconds."""

    status: int
    message: str
    code: str | None = None
    retry_after: float | None = None

    @property
    def type(self) -> str:
        """The ``type`` of the error body."""
        return _ERROR_TYPE.get(self.status, "server_error")


@dataclass(frozen=True, slots=True)
class Answer:
    """What one well-formed request gets.

    ``tokens`` is the real usage, told or not; ``billed`` whether it costs money when delivered.
    """

    step: Step
    outcome: Reply | Failure
    model: str | None
    tier: str | None
    tokens: Tokens
    billed: bool

    @classmethod
    def of_failure(cls, failure: Failure, step: Step | None = None) -> "Answer":
        """An error that costs nothing."""
        return cls(step or Step(), failure, model=None, tier=None, tokens=Tokens(0), billed=False)

    @property
    def refused(self) -> bool:
        """Close before the first byte."""
        return self.step.fault == "refuse"

    @property
    def dies(self) -> bool:
        """Close in the middle."""
        return self.step.fault == "die"

    @property
    def hold_seconds(self) -> float | None:
        """How long a timing-out reply is held while the client still waits; else None."""
        if self.step.fault != "timeout":
            return None
        return _HOLD_SECONDS if self.step.delay is None else self.step.delay

    @property
    def pause_seconds(self) -> float:
        """The pause before the reply, and before each chunk of a stream."""
        return 0.0 if self.step.fault == "timeout" else self.step.delay or 0.0


def decide(call: Call, scripts: ScriptBook, prices: PriceList, now: int) -> Answer:
    """Decide the answer to a request; ``now`` in Unix seconds. Consumes a step of its script.

    Raises:
        BadRequest: The script or directive cannot be carried out.
    """
    try:
        return _decide(call, scripts.resolve(call), prices, now)
    except (ScriptError, Unpriced) as error:
        raise BadRequest(str(error)) from error


def _decide(call: Call, step: Step, prices: PriceList, now: int) -> Answer:
    model = step.model or prices.served_name(call.model)
    if model is None:
        message = f"The model `{call.model}` does not exist or you do not have access to it."
        return Answer.of_failure(Failure(404, message, "model_not_found"), step)
    status = step.status or 200
    failure = _scripted_failure(step, status) if status != 200 else None
    served = failure is None and step.fault != "refuse"
    billed = served if step.billed is None else step.billed
    if failure and not billed:
        return Answer.of_failure(failure, step)
    tier = step.tier or prices.served_tier(call.tier, model)
    tokens = _tokens(call, step)
    _check_tellable(call, step, tokens)
    prices.cost(model, tier, tokens.components())  # Unpriced is found here, before any byte.
    outcome = failure or _reply(call, step, model, tier, tokens, now)
    return Answer(step, outcome, model, tier, tokens, billed)


def _check_tellable(call: Call, step: Step, tokens: Tokens) -> None:
    """Refuse what the wire of this endpoint cannot say: no client could know the truth."""
    if call.endpoint != MESSAGES:
        if tokens.cache_write_1h or tokens.web_searches:
            raise ScriptError(f"only {MESSAGES} tells cache_write_1h and web_searches")
        return
    for tool in step.tools or ():
        try:
            tool.input()
        except ValueError as error:
            raise ScriptError(str(error)) from error


def _scripted_failure(step: Step, status: int) -> Failure:
    message = f"The loopback provider was told to answer {status}."
    return Failure(status, message, _ERROR_CODE.get(status), step.retry_after)


def _tokens(call: Call, step: Step) -> Tokens:
    """The scripted usage, the rest by word count."""
    if call.endpoint == EMBEDDINGS:
        return Tokens(prompt=call.words if step.tokens_in is None else step.tokens_in)
    written = step.text if step.text is not None else DEFAULT_TEXT
    if step.tools and step.text is None:
        written = " ".join(f"{tool.name} {tool.arguments}" for tool in step.tools)
    try:
        return Tokens(
            prompt=_or(
                *(step.tokens_in, call.words, step.cached, step.cache_write),
                *(step.cache_write_1h, step.audio_in),
            ),
            completion=_or(
                step.tokens_out, len(written.split()) * call.n, step.reasoning, step.audio_out
            ),
            cached=step.cached or 0,
            cache_write=step.cache_write or 0,
            reasoning=step.reasoning or 0,
            audio_in=step.audio_in or 0,
            audio_out=step.audio_out or 0,
            cache_write_1h=step.cache_write_1h or 0,
            web_searches=step.web_searches or 0,
        )
    except ValueError as error:
        raise ScriptError(str(error)) from error


def _or(given: int | None, counted: int, *details: int | None) -> int:
    """The scripted total; else the counted words beside the scripted details."""
    return counted + sum(detail or 0 for detail in details) if given is None else given


def _reply(call: Call, step: Step, model: str, tier: str, tokens: Tokens, now: int) -> Reply:
    tools = step.tools or ()
    text = step.text if step.text is not None else "" if tools else DEFAULT_TEXT
    prefix = _ID_PREFIX.get(call.endpoint, "chatcmpl-")
    return Reply(
        id=step.id or f"{prefix}{uuid.uuid4().hex}",
        created=now,
        model=model,
        tier=tier,
        text=text,
        tools=tools,
        finish=step.finish or ("tool_calls" if tools else "stop"),
        n=call.n,
        tokens=None if step.usage == "none" else tokens,
        request=call.body,
    )
