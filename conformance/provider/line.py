"""A client's connection while one reply goes out on it."""

import selectors
import socket
import time
from collections.abc import Iterable
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

Header = tuple[str, str]

_LOOK_AGAIN_SECONDS: Final = 0.01


class ClientGone(ConnectionError):
    """The client hung up."""


class Line:
    """Writes one HTTP/1.1 reply to a socket; every write raises OSError when the client left.

    Attributes:
        closing: The connection ends with this reply.
    """

    def __init__(self, sock: socket.socket, closing: bool, chunked: bool) -> None:
        self._socket = sock
        self._chunked = chunked
        self.closing = closing or not chunked  # HTTP/1.0 knows no chunks and closes.

    def send(self, status: int, body: bytes, headers: Iterable[Header] = ()) -> None:
        """A whole JSON reply, in one write."""
        length = ("Content-Length", str(len(body)))
        self._socket.sendall(
            self._head(status, ("Content-Type", "application/json"), length, *headers) + body
        )

    def send_half(self, body: bytes, headers: Iterable[Header] = ()) -> None:
        """The first half of a reply that promised to be whole."""
        self.abandon()
        length = ("Content-Length", str(len(body)))
        head = self._head(200, ("Content-Type", "application/json"), length, *headers)
        self._socket.sendall(head + body[: len(body) // 2])

    def start_stream(self, headers: Iterable[Header] = ()) -> None:
        """The head of a stream of server-sent events."""
        kind = ("Content-Type", "text/event-stream; charset=utf-8")
        framing = [("Transfer-Encoding", "chunked")] if self._chunked else []
        self._socket.sendall(self._head(200, kind, *framing, *headers))

    def send_event(self, data: bytes, is_last: bool) -> None:
        """One event; the last one ends the stream in the same write."""
        if self._chunked:
            data = b"%x\r\n%s\r\n" % (len(data), data) + (b"0\r\n\r\n" if is_last else b"")
        self._socket.sendall(data)

    def abandon(self) -> None:
        """Close the connection after what was written."""
        self.closing = True

    def wait(self, seconds: float) -> None:
        """Wait, but not longer than the client does.

        Raises:
            ClientGone: The client hung up, or the provider shuts down.
        """
        deadline = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_READ)
            while True:
                left = max(0.0, deadline - time.monotonic())
                if selector.select(left):
                    if not self._socket.recv(1, socket.MSG_PEEK):
                        raise ClientGone
                    # The client's next request is here: it cannot be told from a hang-up by
                    # waiting, so look again now and then.
                    time.sleep(min(left, _LOOK_AGAIN_SECONDS))
                if time.monotonic() >= deadline:
                    return

    def _head(self, status: int, *headers: Header) -> bytes:
        phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else "Error"
        lines = [f"HTTP/1.1 {status} {phrase}", f"Date: {formatdate(usegmt=True)}"]
        lines += [f"{name}: {value}" for name, value in headers]
        if self.closing:
            lines.append("Connection: close")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
