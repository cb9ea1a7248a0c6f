"""Rows of JSON: one object a line, or one document with a list of them.

A list is read object by object, however long it is. Only a document that says other things before
its list is read into memory whole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import count
from typing import Any, TextIO, cast

from costspan.core.backfill.claim import Rejected
from costspan.plugins.backfill.placed import Placed, UnreadableSource

_LISTS = ("data", "rows", "observations", "spend_logs", "logs", "response")
"""Under these names the answers of APIs have their list."""
_LIST_FIRST = re.compile(r"\s*(?:\{\s*\"(?:" + "|".join(_LISTS) + r")\"\s*:\s*)?\[")
_MORE = "the document does not end after its list (torn? several documents in one file?)"
_CHARS_AT_A_TIME = 1024 * 1024
_ROW_CHARS_MAX = 64 * 1024 * 1024
_BETWEEN = re.compile(r"[\s,]*")


def is_json(line: str) -> bool:
    """Whether the line is one JSON value."""
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def of_lines(lines: TextIO) -> Iterator[Placed]:
    """One object a line; a line may also be a page of an API's answer."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"line {number}"
        try:
            found: object = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield Placed(where, Rejected(f"not JSON: {error}", line))
            continue
        inside = _listed(found)
        if inside is None:
            yield _placed(where, found)
        else:
            yield from (_placed(f"{where}, row {n}", each) for n, each in enumerate(inside, 1))


def of_document(stream: TextIO) -> Iterator[Placed]:
    """A list of objects, or an API's answer with one inside.

    Raises:
        UnreadableSource: if it is neither, and nothing was read of it.
    """
    head = stream.read(_CHARS_AT_A_TIME)
    found = _LIST_FIRST.match(head)
    if found is not None:
        is_bare = not head.lstrip().startswith("{")
        yield from _of_list(head[found.end() :], stream, is_bare)
        return
    try:
        document: object = json.loads(head + stream.read())
    except (ValueError, RecursionError) as error:
        raise UnreadableSource(f"not JSON: {error} (torn?)") from error
    inside = _listed(document)
    items = [document] if inside is None else inside
    yield from (_placed(f"row {number}", item) for number, item in enumerate(items, 1))


def _of_list(text: str, stream: TextIO, is_bare: bool) -> Iterator[Placed]:
    """The items of a list whose bracket is read; what is torn is a row that is rejected."""
    decoder, at, wanted = json.JSONDecoder(), 0, _CHARS_AT_A_TIME
    for number in count(1):
        while True:
            between = _BETWEEN.match(text, at)
            at = at if between is None else between.end()
            if text.startswith("]", at):
                if _says_more(text[at + 1 :] + stream.read(_ROW_CHARS_MAX), is_bare):
                    yield Placed(f"after row {number - 1}", Rejected(_MORE))
                return
            try:
                item, end = decoder.raw_decode(text, at)
            except RecursionError:
                yield Placed(f"row {number}", _torn("nested too deep"))
                return
            except ValueError as error:
                more = stream.read(wanted) if len(text) - at < _ROW_CHARS_MAX else ""
                if not more:
                    yield Placed(f"row {number}", _torn(str(error)))
                    return
                # Twice as much each time: a long row is not read again and again.
                text, at, wanted = text[at:] + more, 0, wanted * 2
                continue
            break
        at, wanted = end, _CHARS_AT_A_TIME
        yield _placed(f"row {number}", item)


def _says_more(rest: str, is_bare: bool) -> bool:
    """Whether another document follows the list, or the object that the list stands in."""
    if not is_bare:
        try:
            _, end = json.JSONDecoder().raw_decode('{"":[]' + rest)
        except (ValueError, RecursionError):
            return True
        rest = ('{"":[]' + rest)[end:]
    return bool(rest.strip())


def _torn(why: str) -> Rejected:
    return Rejected(f"not JSON, here and to the end of the list: {why} (torn?)")


def _listed(found: object) -> list[object] | None:
    document = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
    if "request_id" in document or "id" in document:
        return None
    for name in _LISTS:
        if isinstance(document.get(name), list):
            return cast("list[object]", document[name])
    return None


def _placed(where: str, found: object) -> Placed:
    if isinstance(found, dict):
        return Placed(where, cast("dict[str, Any]", found))
    return Placed(where, Rejected("not a JSON object", json.dumps(found)))
