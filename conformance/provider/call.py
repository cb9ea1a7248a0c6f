"""What a client asked: one request of OpenAI's or Anthropic's wire protocol, checked and read."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

CHAT: Final = "/v1/chat/completions"
EMBEDDINGS: Final = "/v1/embeddings"
RESPONSES: Final = "/v1/responses"
MESSAGES: Final = "/v1/messages"
ENDPOINTS: Final = frozenset({CHAT, EMBEDDINGS, RESPONSES, MESSAGES})

Headers = Mapping[str, str]


class BadRequest(ValueError):
    """The request is not one the protocol allows; the provider answers 400."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One message: its role and the text in it. ``assistant`` marks what a model said before."""

    role: str
    text: str

    @property
    def assistant(self) -> bool:
        """Whether a model said it."""
        return self.role == "assistant"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asked, as the wire tells it, also of a request whose body is garbage."""

    endpoint: str
    project_id: str | None
    api_key_id: str | None
    retry_count: int | None

    @classmethod
    def read(cls, endpoint: str, headers: Headers) -> "Caller":
        """Read the headers. A key is never kept: ``api_key_id`` is a short digest of it."""
        given = {name.lower(): value for name, value in headers.items()}
        bearer = given.get("authorization", "").removeprefix("Bearer ").strip()
        key = given.get("x-api-key", "").strip() or bearer  # Anthropic's header, or OpenAI's.
        retries = given.get("x-stainless-retry-count", "")
        return cls(
            endpoint=endpoint,
            project_id=given.get("openai-project"),
            api_key_id=f"key_{hashlib.sha256(key.encode()).hexdigest()[:12]}" if key else None,
            retry_count=int(retries) if retries.isascii() and retries.isdigit() else None,
        )


@dataclass(frozen=True, slots=True)
class Call:
    """A well-formed request. Predicates of a script see this."""

    caller: Caller
    model: str
    turns: tuple[Turn, ...]
    stream: bool
    include_usage: bool
    n: int
    tier: str | None
    user: str | None
    body: Mapping[str, Any]

    @property
    def endpoint(self) -> str:
        """The path, such as ``/v1/chat/completions``."""
        return self.caller.endpoint

    @property
    def text(self) -> str:
        """All message text, in order."""
        return "\n".join(turn.text for turn in self.turns)

    @property
    def words(self) -> int:
        """Words of the messages, at least 1: the default prompt size in tokens."""
        return max(1, sum(len(turn.text.split()) for turn in self.turns))

    @classmethod
    def read(cls, caller: Caller, raw: bytes) -> "Call":
        """Read a request body.

        Raises:
            BadRequest: It is not JSON, or lacks or mistypes a field the protocol requires.
        """
        body = _object(raw)
        options: object = body.get("stream_options") or dict[str, object]()
        model, tier = _text(body, "model"), _text(body, "service_tier")
        if not model:
            raise BadRequest("you must provide a model parameter")
        n = body.get("n") if caller.endpoint == CHAT else None
        if n is not None and (not isinstance(n, int) or isinstance(n, bool) or not 1 <= n <= 128):
            raise BadRequest("n must be an integer from 1 to 128")
        if not isinstance(options, dict):
            raise BadRequest("stream_options must be an object")
        stream = bool(body.get("stream")) and caller.endpoint != EMBEDDINGS
        return cls(
            caller=caller,
            model=model,
            turns=tuple(_TURNS[caller.endpoint](body)),
            stream=stream,
            # The Responses and Messages APIs always tell the usage in their streams.
            include_usage=caller.endpoint != CHAT
            or bool(cast(dict[str, object], options).get("include_usage")),
            n=n or 1,
            tier=tier,
            user=_user(caller.endpoint, body),
            body=body,
        )


def _object(raw: bytes) -> dict[str, Any]:
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise BadRequest("we could not parse the JSON body of your request") from error
    if not isinstance(body, dict):
        raise BadRequest("the body must be a JSON object")
    return cast(dict[str, Any], body)


def _text(body: Mapping[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise BadRequest(f"{name} must be a string")
    return value


def _user(endpoint: str, body: Mapping[str, Any]) -> str | None:
    """The end user as the request names it: Anthropic takes it inside of ``metadata``."""
    if endpoint != MESSAGES:
        return _text(body, "user")
    metadata: object = body.get("metadata") or dict[str, object]()
    if not isinstance(metadata, dict):
        raise BadRequest("metadata must be an object")
    return _text(cast(dict[str, Any], metadata), "user_id")


def _chat_turns(body: Mapping[str, Any]) -> Iterator[Turn]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadRequest("messages must be a non-empty array")
    for message in cast(list[object], messages):
        if not isinstance(message, dict):
            raise BadRequest("a message must be an object")
        fields = cast(dict[str, Any], message)
        yield Turn(str(fields.get("role", "user")), _content(fields.get("content")))


def _message_turns(body: Mapping[str, Any]) -> Iterator[Turn]:
    """Anthropic's messages: the system prompt stands apart, tool results are the user's blocks."""
    limit = body.get("max_tokens")
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
        raise BadRequest("max_tokens must be an integer of at least 1")
    if body.get("system") is not None:
        yield Turn("system", _content(body["system"]))
    yield from _chat_turns(body)


def _response_turns(body: Mapping[str, Any]) -> Iterator[Turn]:
    if body.get("instructions") is not None:
        yield Turn("system", _content(body["instructions"]))
    items = body.get("input")
    if isinstance(items, str):
        yield Turn("user", items)
        return
    if not isinstance(items, list):
        raise BadRequest("input must be a string or an array")
    for item in cast(list[object], items):
        if not isinstance(item, dict):
            raise BadRequest("an input item must be an object")
        fields = cast(dict[str, Any], item)
        kind = fields.get("type", "message")
        if kind == "function_call_output":
            yield Turn("tool", _content(fields.get("output")))
        elif kind == "message":
            yield Turn(str(fields.get("role", "user")), _content(fields.get("content")))
        else:  # function_call, reasoning and their like: what a model said before.
            yield Turn("assistant", "")


def embedding_inputs(body: Mapping[str, Any]) -> list[str | list[int]]:
    """The inputs of an embeddings request: texts, or arrays of token numbers.

    Raises:
        BadRequest: ``input`` is neither.
    """
    given = body.get("input")
    if isinstance(given, str):
        return [given]
    if isinstance(given, list) and given:
        items = cast(list[object], given)
        if all(isinstance(item, int) for item in items):
            return [cast(list[int], items)]
        if all(isinstance(item, str | list) for item in items):
            return cast(list[str | list[int]], items)
    raise BadRequest("input must be a string, or an array of strings or of tokens")


def _embedding_turns(body: Mapping[str, Any]) -> Iterator[Turn]:
    for item in embedding_inputs(body):
        # A token array stands for as many words as it has tokens.
        yield Turn("user", item if isinstance(item, str) else " ".join(map(str, item)))


def _content(content: object, within_result: bool = False) -> str:
    """The text of a message's content: a string, or parts of which some have text.

    Anthropic's ``tool_result`` part has content of its own, one level deep.
    """
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = list[str]()
    for part in cast(list[object], content):
        fields = cast(dict[str, Any], part) if isinstance(part, dict) else {"text": part}
        text = fields.get("text")
        if fields.get("type") == "tool_result" and not within_result:
            text = _content(fields.get("content"), within_result=True)
        if isinstance(text, str):
            texts.append(text)
    return "\n".join(texts)


_TURNS: Final = {
    CHAT: _chat_turns,
    EMBEDDINGS: _embedding_turns,
    RESPONSES: _response_turns,
    MESSAGES: _message_turns,
}
