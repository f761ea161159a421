"""What a call of the client raises."""

from __future__ import annotations

from collections.abc import Sequence

from recognizer.client.answers import Remark


class RecognizerClientError(Exception):
    """The service refused a request, or could not be asked.

    Attributes:
        code: a stable word to decide by; docs/troubleshooting.md of the service has them all.
        detail: a sentence that says what to do.
        status: the HTTP status, None where there was no answer.
        request_id: what the service's log has it under, "" where there was no answer.
        refused: why each photo of an enrolment was refused, where none could be used.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        status: int | None = None,
        request_id: str = "",
        refused: Sequence[Remark] = (),
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.status = status
        self.request_id = request_id
        self.refused = tuple(refused)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.code!r}, {self.detail!r}, status={self.status})"


class Unreachable(RecognizerClientError):
    """Nobody answered, for as long as the client may try."""
