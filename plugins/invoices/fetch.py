"""GET, page after page: with timeouts, retries and limits, and without spilling a key.

A key is read from an environment variable when a request is made. It is sent over TLS or to this
machine, to the host that was named and to no other (redirects are refused), and it is in no
message. 429 and 5xx are tried again after `Retry-After`, or after pauses that double.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import urlsplit

from costspan.core.invoices.document import RAW_BYTES_MAX, InvoiceError

if TYPE_CHECKING:
    import requests

TIMEOUTS_SECONDS: Final = (10, 60)
"""To connect, and between two bytes of an answer."""
PAUSES_SECONDS = (1, 2, 4, 8, 16)
"""Before each new try, where the provider names no time."""
_PAUSE_MAX_SECONDS: Final = 300
_PAGES_MAX: Final = 10_000
_CHUNK_BYTES: Final = 2**16
_ERROR_CHARS_MAX: Final = 300
_HERE: Final = frozenset({"127.0.0.1", "::1", "localhost"})

Query = Mapping[str, str | int | Sequence[str]]


class Api:
    """A provider's API: its root, and the headers that carry the key.

    Args:
        root: where it is.
        key_env: the environment variable that holds the key.
        header: the header of the key ("Authorization" or another).
        scheme: what stands before the key in it.
        headers: others that it wants.

    Raises:
        InvoiceError: if there is no key, the root is neither TLS nor of this machine, or requests
            is not installed.
    """

    def __init__(
        self, root: str, key_env: str, header: str, scheme: str, headers: Mapping[str, str]
    ) -> None:
        self._root = _safe(root)
        self._key = os.environ.get(key_env, "").strip()
        if not self._key:
            raise InvoiceError(
                f"no key: set the environment variable {key_env} to an admin key of the provider"
                " (--key-env names another variable)"
            )
        if not (self._key.isascii() and self._key.isprintable()):
            raise InvoiceError(f"the key in {key_env} is no key: it has characters no header takes")
        self._headers = {"Accept": "application/json", "User-Agent": "costspan", **headers}
        self._sign = {header: scheme + self._key}
        try:
            import requests
        except ModuleNotFoundError as error:
            raise InvoiceError("to ask a provider install costspan[http]") from error
        self._session = requests.Session()
        self._failures = requests.RequestException

    def pages(self, path: str, query: Query) -> Iterator[bytes]:
        """The bodies of all pages, in order.

        Raises:
            InvoiceError: for an answer that is no page, or no answer after all tries.
        """
        seen: set[str] = set()
        page: str | None = None
        while len(seen) < _PAGES_MAX:
            body = self._get(path, {**query, **({} if page is None else {"page": page})})
            yield body
            page = _next_page(body, path)
            if page is None:
                return
            if page in seen:
                raise InvoiceError(f"{path}: the page {page[:80]!r} comes again and again")
            seen.add(page)
        raise InvoiceError(f"{path}: more than {_PAGES_MAX:,} pages")

    def close(self) -> None:
        """Hang up."""
        self._session.close()

    def _get(self, path: str, query: Query) -> bytes:
        pauses = iter(PAUSES_SECONDS)
        while True:
            pause = next(pauses, None)
            try:
                with self._session.get(
                    self._root + path,
                    params=cast(Any, query),
                    headers=self._headers,
                    auth=self._auth,  # not a header: a .netrc file would replace it
                    timeout=TIMEOUTS_SECONDS,
                    allow_redirects=False,
                    stream=True,
                ) as answer:
                    if answer.status_code == 200:
                        return self._body(answer, path)
                    problem = self._problem(answer, path)
                    if answer.status_code != 429 and answer.status_code < 500:
                        raise InvoiceError(problem)
                    wait = _retry_after(answer.headers.get("Retry-After"))
            except self._failures as error:
                problem, wait = self._hushed(f"{path}: {type(error).__name__}: {error}"), None
            if pause is None:
                raise InvoiceError(f"{problem}; given up after {len(PAUSES_SECONDS) + 1} tries")
            time.sleep(pause if wait is None else wait)

    def _auth(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers.update(self._sign)
        return request

    def _body(self, answer: requests.Response, path: str) -> bytes:
        body = bytearray()
        for chunk in answer.iter_content(_CHUNK_BYTES):
            body += chunk
            if len(body) > RAW_BYTES_MAX:
                raise InvoiceError(f"{path}: an answer of more than {RAW_BYTES_MAX:,} bytes")
        return bytes(body)

    def _problem(self, answer: requests.Response, path: str) -> str:
        """What the provider said, short, and without the key should it repeat it."""
        if 300 <= answer.status_code < 400:
            return f"{path}: HTTP {answer.status_code}: it leads elsewhere, where no key is sent"
        text = next(answer.iter_content(4 * _ERROR_CHARS_MAX), b"").decode("utf-8", "replace")
        return self._hushed(f"{path}: HTTP {answer.status_code}: {' '.join(text.split())}")

    def _hushed(self, text: str) -> str:
        return text.replace(self._key, "(key)")[:_ERROR_CHARS_MAX]


def _safe(root: str) -> str:
    try:
        url = urlsplit(root)
        host = url.hostname
    except ValueError as error:
        raise InvoiceError(f"--base-url {root!r} is no address: {error}") from error
    if url.scheme not in ("http", "https") or not host or url.username is not None:
        raise InvoiceError(f"--base-url {root!r}: write https://HOST, without user or key")
    if url.scheme == "http" and host not in _HERE:
        raise InvoiceError(f"--base-url {root!r}: a key is sent over https, or to this machine")
    return root.rstrip("/").removesuffix("/v1")


def _next_page(body: bytes, path: str) -> str | None:
    try:
        page = json.loads(body)
        has_more, following = page["has_more"], page.get("next_page")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InvoiceError(
            f"{path}: the answer is no page: {error!r}"[:_ERROR_CHARS_MAX]
        ) from error
    if has_more is not True:
        return None
    if not isinstance(following, str) or not following:
        raise InvoiceError(f"{path}: more pages follow, but the answer names no next_page")
    return following


def _retry_after(text: str | None) -> int | None:
    """Whole seconds, bounded; a date or nonsense is None."""
    if text is None or not (text.isascii() and text.isdigit() and len(text) < 10):
        return None
    return min(int(text), _PAUSE_MAX_SECONDS)
