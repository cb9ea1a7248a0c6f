"""Files and batches: many requests handed in at once, answered later, billed at the batch tier.

The shapes of OpenAI's ``/v1/files`` and ``/v1/batches``, as far as a client that polls needs them.
The lines of the input file are requests like all others, with directives of their own; one of
them may say ``polls=k``: so many polls find the batch ``in_progress``, the next one ``completed``.
Only then, and only once, its lines go into the truth ledger and on the bill.
"""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from email.parser import BytesParser
from email.policy import HTTP
from threading import RLock
from typing import Any, Final, cast

from costspan.conformance.provider.answer import Answer, Failure, decide
from costspan.conformance.provider.call import (
    CHAT,
    EMBEDDINGS,
    RESPONSES,
    BadRequest,
    Call,
    Caller,
    Headers,
)
from costspan.conformance.provider.exchange import Backend, Progress, reply_body, row_of
from costspan.conformance.provider.reply import Tokens
from costspan.conformance.provider.truth import Row
from costspan.conformance.provider.wire_openai import encode, error_body
from costspan.conformance.provider.wire_responses import responses_usage

FILES: Final = "/v1/files"
BATCHES: Final = "/v1/batches"
_LINE_ENDPOINTS: Final = frozenset({CHAT, EMBEDDINGS, RESPONSES})
_DEFAULT_POLLS: Final = 1
_DAY_SECONDS: Final = 86_400


class NoSuchObject(LookupError):
    """There is no file or batch of that id; the provider answers 404."""


@dataclass(frozen=True, slots=True)
class _File:
    """An uploaded or written file; ``created`` in Unix seconds."""

    id: str
    created: int
    name: str
    purpose: str
    content: bytes

    def as_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "file",
            "bytes": len(self.content),
            "created_at": self.created,
            "filename": self.name,
            "purpose": self.purpose,
            "status": "processed",
        }


@dataclass(frozen=True, slots=True)
class _Line:
    """One request of a batch and what it gets, decided when the batch is created."""

    custom_id: str
    caller: Caller
    call: Call | None
    answer: Answer

    @property
    def failed(self) -> bool:
        return isinstance(self.answer.outcome, Failure)

    def as_json(self) -> dict[str, Any]:
        """A line of the output file, or of the error file."""
        outcome = self.answer.outcome
        if isinstance(outcome, Failure):
            status, body = outcome.status, error_body(outcome)
        else:
            assert self.call is not None, "a reply is a reply to a call"
            status, body = 200, reply_body(self.call, outcome)
        return {
            "id": _new_id("batch_req_"),
            "custom_id": self.custom_id,
            "response": {
                "status_code": status,
                "request_id": _new_id("req_"),
                "body": json.loads(body),
            },
            "error": None,
        }


@dataclass(slots=True)
class _Batch:
    """A batch and how far it is; times in Unix seconds."""

    id: str
    created: int
    request: Mapping[str, Any]
    lines: tuple[_Line, ...]
    polls_left: int
    completed: int | None = None
    files: dict[str, str] = field(default_factory=dict[str, str])

    def as_json(self) -> dict[str, Any]:
        done = self.completed is not None
        failed = sum(line.failed for line in self.lines)
        counts = {"total": len(self.lines), "completed": 0, "failed": 0}
        if done:
            counts |= {"completed": len(self.lines) - failed, "failed": failed}
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": self.request["endpoint"],
            "errors": None,
            "input_file_id": self.request["input_file_id"],
            "completion_window": self.request.get("completion_window", "24h"),
            "status": "completed" if done else "in_progress",
            "output_file_id": self.files.get("output"),
            "error_file_id": self.files.get("errors"),
            "created_at": self.created,
            "in_progress_at": self.created,
            "expires_at": self.created + _DAY_SECONDS,
            "completed_at": self.completed,
            "request_counts": counts,
            "usage": self._usage() if done else None,
            "model": self._model() if done else None,
            "metadata": self.request.get("metadata"),
        }

    def _model(self) -> str | None:
        """The model of all replies; None if they are of several."""
        models = {line.answer.model for line in self.lines if not line.failed}
        return models.pop() if len(models) == 1 else None

    def _usage(self) -> dict[str, Any] | None:
        """The usage of all replies that carry one; None if none does."""
        replies = (line.answer.outcome for line in self.lines)
        told = [r.tokens for r in replies if not isinstance(r, Failure) and r.tokens is not None]
        if not told:
            return None
        total = Tokens(
            prompt=sum(tokens.prompt for tokens in told),
            completion=sum(tokens.completion for tokens in told),
            cached=sum(tokens.cached for tokens in told),
            cache_write=sum(tokens.cache_write for tokens in told),
            reasoning=sum(tokens.reasoning for tokens in told),
        )
        return responses_usage(total)


class Batches:
    """All files and batches of a provider. Safe to use from many threads."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._lock = RLock()
        self._files: dict[str, _File] = {}
        self._batches: dict[str, _Batch] = {}

    def post(self, path: str, headers: Headers, raw: bytes) -> bytes:
        """Take a file, or create a batch of one that is here.

        Raises:
            BadRequest: The body is not what the protocol asks for.
            NoSuchObject: The input file is not here.
        """
        with self._lock:
            made = self._upload(headers, raw) if path == FILES else self._create(headers, raw)
            return encode(made.as_json())

    def get(self, path: str) -> bytes:
        """A file, its content, or a batch; reading a batch is a poll of it.

        Raises:
            NoSuchObject: There is none of that id.
        """
        kind, _, name = path.removeprefix("/v1/").partition("/")
        with self._lock:
            if kind == "batches":
                return encode(self._poll(name).as_json())
            found = self._file(name.removesuffix("/content"))
            return found.content if name.endswith("/content") else encode(found.as_json())

    def _upload(self, headers: Headers, raw: bytes) -> _File:
        kind = next((v for name, v in headers.items() if name.lower() == "content-type"), "")
        form = BytesParser(policy=HTTP).parsebytes(
            b"Content-Type: " + kind.encode("latin-1", "replace") + b"\r\n\r\n" + raw
        )
        parts = {
            part.get_param("name", header="content-disposition"): part
            for part in (form.iter_parts() if form.is_multipart() else ())
        }
        if "file" not in parts or "purpose" not in parts:
            raise BadRequest("a file is a multipart form with a file and a purpose")
        content, purpose = (
            cast(bytes, parts[name].get_payload(decode=True)) for name in ("file", "purpose")
        )
        name = parts["file"].get_filename() or "upload"
        return self._keep(name, purpose.decode("utf-8", "replace"), content)

    def _create(self, headers: Headers, raw: bytes) -> _Batch:
        request = _json_object(raw, "the body")
        endpoint = request.get("endpoint")
        if endpoint not in _LINE_ENDPOINTS:
            raise BadRequest(f"endpoint must be one of {', '.join(sorted(_LINE_ENDPOINTS))}")
        caller = replace(Caller.read(str(endpoint), headers), retry_count=None)
        texts = self._file(str(request.get("input_file_id"))).content.splitlines()
        lines = tuple(self._line(caller, text) for text in texts if text.strip())
        if not lines:
            raise BadRequest("the input file has no lines")
        asked = [p for line in lines if (p := line.answer.step.polls) is not None]
        batch = _Batch(
            id=_new_id("batch_"),
            created=self._now(),
            request=request,
            lines=lines,
            polls_left=max(asked, default=_DEFAULT_POLLS),
        )
        self._batches[batch.id] = batch
        return batch

    def _line(self, caller: Caller, text: bytes) -> _Line:
        given = _json_object(text, "a line of the input file")
        if given.get("url") != caller.endpoint:
            raise BadRequest(f"the url of a line must be the batch's: {caller.endpoint}")
        call, custom_id = None, str(given.get("custom_id", ""))
        try:
            call = replace(Call.read(caller, encode(given.get("body"))), tier="batch", stream=False)
            answer = decide(call, self._backend.scripts, self._backend.prices, self._now())
            if answer.step.fault is not None:
                raise BadRequest("a line of a batch has no connection that could break")
        except BadRequest as error:
            answer = Answer.of_failure(Failure(400, str(error)))
        return _Line(custom_id, caller, call, answer)

    def _poll(self, identity: str) -> _Batch:
        batch = self._batches.get(identity)
        if batch is None:
            raise NoSuchObject(f"No batch found with id '{identity}'.")
        if batch.completed is None:
            if batch.polls_left == 0:
                self._complete(batch)
            else:
                batch.polls_left -= 1
        return batch

    def _complete(self, batch: _Batch) -> None:
        """Write the files and, this once, the rows."""
        batch.completed = self._now()
        for kind in ("output", "errors"):
            lines = [line for line in batch.lines if line.failed == (kind == "errors")]
            content = b"".join(encode(line.as_json()) + b"\n" for line in lines)
            if lines:
                written = self._keep(f"{batch.id}_{kind}.jsonl", "batch_output", content)
                batch.files[kind] = written.id
        for line in batch.lines:
            self._backend.ledger.append(self._row(batch, line))

    def _row(self, batch: _Batch, line: _Line) -> Row:
        """A line's row; it counts as a request that arrived when the batch completed."""
        seq, now = self._backend.ledger.open(), self._backend.clock()
        row = row_of(
            *(seq, (now, now), line.caller, line.call, line.answer),
            *(Progress(), self._backend.prices),
        )
        return replace(row, batch_id=batch.id)

    def _file(self, identity: str) -> _File:
        found = self._files.get(identity)
        if found is None:
            raise NoSuchObject(f"No such File object: {identity}")
        return found

    def _keep(self, name: str, purpose: str, content: bytes) -> _File:
        kept = _File(_new_id("file-"), self._now(), name, purpose, content)
        self._files[kept.id] = kept
        return kept

    def _now(self) -> int:
        return self._backend.clock() // 10**9


def _json_object(raw: bytes, what: str) -> dict[str, Any]:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"{what} is not JSON") from error
    if not isinstance(value, dict):
        raise BadRequest(f"{what} is not a JSON object")
    return cast(dict[str, Any], value)


def _new_id(prefix: str) -> str:
    return f"{prefix}{uuid.uuid4().hex}"
