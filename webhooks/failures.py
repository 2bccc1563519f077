"""Why a request brought no answer: the one error of everything that sends."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from webhooks.models import Attempt

if TYPE_CHECKING:
    from typing import Self

DETAIL_LIMIT = 500  # characters, the width of the column
Reason = Attempt.Reason
# What the system answers who has no files, no memory or no buffers left.
_SHORT_OF = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})


class SendFailure(Exception):  # noqa: N818 — it is an outcome that is expected, not an error of the program
    """`detail` is a short text that a tenant may read: printable, at most
    `DETAIL_LIMIT` characters, without secrets. Where it ends with a period it
    is a sentence that needs no reason before it; see `reasons.sentence`."""

    def __init__(self, reason: Reason, detail: str, *, request_headers: bytes = b"") -> None:
        # Receivers and resolvers put their own bytes into error texts.
        text = "".join(character if character.isprintable() else "?" for character in detail[:DETAIL_LIMIT])
        super().__init__(reason, text)
        self.reason = reason
        self.detail = text
        self.request_headers = request_headers

    def with_headers(self, request_headers: bytes) -> Self:
        self.request_headers = request_headers
        return self


class ShortageError(Exception):
    """This machine lacks what a request takes. That says nothing of the
    receiver: it is no attempt, and the delivery goes out when there is room."""


def is_shortage(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in _SHORT_OF
