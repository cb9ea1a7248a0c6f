"""Tells a URL of new variances: COSTSPAN_WEBHOOK_URL gets a POST of JSON for each.

    {"event": "variance_found", "variance": {…as `costspan reconcile --json` prints it…}}

Without the variable nothing is sent. What the URL does not take (any status but 2xx, no answer in
ten seconds) is a failure of this plugin: counted, named by `costspan plugins`, tried again at the
next reconciliation.
"""

from __future__ import annotations

import json
import os
from http.client import HTTPException, HTTPMessage
from typing import IO, TYPE_CHECKING
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from costspan.core.hooks import hookimpl

if TYPE_CHECKING:
    from costspan.core.reconcile.variance import Variance

VARIABLE = "COSTSPAN_WEBHOOK_URL"
TIMEOUT_SECONDS = 10


class WebhookError(RuntimeError):
    """The URL did not take it. The text does not repeat the URL: it may hold a secret."""


class _NoRedirect(HTTPRedirectHandler):
    """A POST that is sent elsewhere would arrive as a GET without its body."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        """Follow no redirect."""


@hookimpl
def variance_found(variance: Variance) -> None:
    """POST it.

    Raises:
        WebhookError: if the URL is no http(s) one, cannot be reached, or does not take it.
    """
    url = os.environ.get(VARIABLE)
    if not url:
        return
    if not url.startswith(("http://", "https://")):
        raise WebhookError(f"{VARIABLE} is no http or https URL")
    from costspan.core.reconcile.variance import plain

    content = {"event": "variance_found", "variance": plain(variance)}
    try:
        request = Request(
            url,
            data=json.dumps(content).encode(),
            headers={"Content-Type": "application/json", "User-Agent": "costspan"},
            method="POST",
        )
        with build_opener(_NoRedirect).open(request, timeout=TIMEOUT_SECONDS) as answer:
            answer.read(1)
    except HTTPError as error:
        error.close()
        raise WebhookError(f"{VARIABLE} answered {error.code}") from None
    except (OSError, HTTPException, ValueError) as error:  # their texts may repeat the URL
        raise WebhookError(f"{VARIABLE} cannot be reached: {type(error).__name__}") from None
