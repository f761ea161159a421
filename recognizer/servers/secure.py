"""TLS for the reception: handshake and bytes go through memory, so that nothing here waits for a client either."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import suppress
from typing import Any

from recognizer.servers.arrival import ClientSocket

RECORD_BYTES = 2**14
"""What TLS encrypts at a time, at most."""


class SecureSocket(ClientSocket):
    """A client's socket that is read and written in the clear, and encrypted on the wire."""

    def __init__(self, accepted: socket.socket, context: ssl.SSLContext) -> None:
        super().__init__(accepted)
        self._received, self._to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._received, self._to_send, server_side=True)
        self._alone = threading.Lock()  # OpenSSL's object is no thread's but one's at a time
        self._is_leaving = False

    def recv(self, size: int, flags: int = 0) -> bytes:
        """All that can be read of up to `size` bytes on the wire, and what the handshake answers is sent.

        Raises:
            BlockingIOError: nothing yet.
            OSError: the client has gone, or does not speak TLS as we do.
        """
        arrived = super().recv(size, flags)
        if flags or self._is_leaving:  # whether there is anything is all that is asked
            return arrived
        with self._alone:
            if arrived:
                self._received.write(arrived)
            else:
                self._received.write_eof()
            clear, has_ended = self._read()
            self.unsent += self._to_send.read()
        self.send_rest()
        if not clear and not has_ended:
            raise BlockingIOError
        return clear

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Take all of it; `send_rest` goes on with what is left."""
        with self._alone:
            self._tls.write(data)
            sealed = self._to_send.read()
        super().sendall(sealed)

    def shutdown(self, how: int) -> None:
        """Say that nothing more comes, in TLS and on the wire."""
        self._is_leaving = True
        with self._alone, suppress(ssl.SSLError):  # it waits for the client's word, which nobody needs
            self._tls.unwrap()
        self.unsent += self._to_send.read()
        self.send_rest()
        super().shutdown(how)

    def _read(self) -> tuple[bytes, bool]:
        """What there is in the clear, and whether nothing comes after it."""
        clear = bytearray()
        with suppress(ssl.SSLWantReadError):
            while piece := self._read_record():
                clear += piece
            return bytes(clear), True
        return bytes(clear), False

    def _read_record(self) -> bytes:
        with suppress(ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return self._tls.read(RECORD_BYTES)
        return b""
