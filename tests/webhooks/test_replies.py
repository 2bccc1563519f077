"""What a reply comes to, byte by byte, and when its connection may be used again."""

from __future__ import annotations

import gc
import weakref

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhooks import replies
from webhooks.failures import Reason, SendFailure
from webhooks.replies import Incoming, Outcome, Reply, Unanswered

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


def come(*pieces: bytes, limit: int = 1000) -> tuple[Outcome | None, Incoming]:
    """What the reply is after `pieces`."""
    incoming = Incoming(limit=limit)
    for piece in pieces:
        outcome = incoming.feed(piece)
        if outcome is not None:
            return outcome, incoming
    return None, incoming


def bytewise(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


@pytest.mark.parametrize(
    "data",
    [
        OK + b"Content-Length: 2\r\n\r\nok",
        OK + b"content-length:2\t \r\nX:\r\n\r\nok",
        CHUNKED + b"2\r\nok\r\n0\r\n\r\n",
        CHUNKED + b"1;a=b\r\no\r\n1\r\nk\r\n0\r\nT: v\r\n\r\n",
        OK + b"Transfer-Encoding:\tChunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        OK + b"Upgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 2\r\n\r\nok",
    ],
)
def test_a_reply_that_ends_with_the_last_byte_leaves_the_connection_reusable(data: bytes) -> None:
    for pieces in ([data], bytewise(data), [data[:-1], data[-1:]]):
        outcome, incoming = come(*pieces)
        assert isinstance(outcome, Reply)
        assert (outcome.status, outcome.body, outcome.cut) == (200, b"ok", False)
        before = incoming.reusable
        incoming.expect()
        assert (before, incoming.reusable) == (True, False)
        assert incoming.feed(data) == outcome


@pytest.mark.parametrize(
    "data",
    [
        OK + b"Content-Length: 2\r\n\r\nok\r\n",
        OK + b"Content-Length: 2\r\n\r\nok\n",
        OK + b"Content-Length: 2\r\n\r\nokH",
        OK + b"Content-Length: 2\r\n\r\nok" + OK + b"Content-Length: 0\r\n\r\n",
        CHUNKED + b"2\r\nok\r\n0\r\n\r\n\r\n",
        CHUNKED + b"2\r\nok\r\n0\r\nConnection: close\r\n\r\n",
        OK + b"Connection: close\r\nContent-Length: 2\r\n\r\nok",
        OK + b"Connection: close\r\nContent-Length: 2\r\n\r\nok" + OK,
        OK + b"connection: te,\tClose\r\nContent-Length: 2\r\n\r\nok",
        OK + b"Connection: keep-alive\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 100 Continue\r\n\r\n\r\n" + OK + b"Content-Length: 2\r\n\r\nok",
    ],
)
def test_a_reply_with_more_behind_it_or_the_last_one_leaves_the_connection_unusable(data: bytes) -> None:
    outcome, incoming = come(data)
    assert isinstance(outcome, Reply)
    assert (outcome.status, outcome.body, outcome.cut) == (200, b"ok", False)
    assert not incoming.reusable


@pytest.mark.parametrize(
    ("head", "why"),
    [
        (b"HTTP/1.1 200 OK\nContent-Length: 0\n\n", "Missing expected CR after response line"),
        (OK + b"X: a\nContent-Length: 0\r\n\r\n", "Missing expected CR after header value"),
        (OK + b"X: a\rContent-Length: 0\r\n\r\n", "Missing expected LF after header value"),
        (OK + b"X: a\r\n b\r\nContent-Length: 0\r\n\r\n", "Unexpected whitespace after header value"),
        (OK + b" X: a\r\nContent-Length: 0\r\n\r\n", "Unexpected space after start line"),
        (OK + b"X : a\r\nContent-Length: 0\r\n\r\n", "Invalid header token"),
        (OK + b"X y: a\r\nContent-Length: 0\r\n\r\n", "Invalid header token"),
        (OK + b": a\r\nContent-Length: 0\r\n\r\n", "Invalid header token"),
        (OK + b"X: \x01\r\nContent-Length: 0\r\n\r\n", "Invalid header value char"),
        (b"HTTP/1.1 200 O\x00K\r\nContent-Length: 0\r\n\r\n", "Invalid character in the status line"),
        (b"HTTP/1.1 1000 OK\r\nContent-Length: 0\r\n\r\n", "Invalid response status"),
        (b"HTTP/1.1  200 OK\r\nContent-Length: 0\r\n\r\n", "Invalid status code"),
        (b"HTTP/0.9 200 OK\r\nContent-Length: 0\r\n\r\n", "Invalid HTTP version"),
        (b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n", "Invalid HTTP version"),
        (b"HTTP/1.2 200 OK\r\nContent-Length: 0\r\n\r\n", "Invalid HTTP version"),
        (OK + b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n", "Duplicate Content-Length"),
        (OK + b"Content-Length: 0, 0\r\n\r\n", "Invalid character in Content-Length"),
        (OK + b"Content-Length: +1\r\n\r\n", "Invalid character in Content-Length"),
        (OK + b"Content-Length:\r\n\r\n", "Empty Content-Length"),
        (OK + b"Content-Length: 99999999999999999999\r\n\r\n", "Content-Length overflow"),
        (OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n", "Transfer-Encoding can't be present"),
        (OK + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n", "Content-Length can't be present"),
        (OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n", "Transfer-Encoding is not chunked, once"),
        (OK + b"Transfer-Encoding: chunked\t\r\n\r\n", "Transfer-Encoding is not chunked, once"),
        (OK + b"Transfer-Encoding: identity\r\n\r\n", "Transfer-Encoding is not chunked, once"),
        (OK + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n", "Transfer-Encoding is not chunked, once"),
    ],
)
def test_a_head_that_could_be_read_in_two_ways_is_not_valid(head: bytes, why: str) -> None:
    for pieces in ([head], bytewise(head)):
        outcome, incoming = come(*pieces)
        assert isinstance(outcome, SendFailure)
        assert outcome.reason is Reason.PROTOCOL
        assert outcome.detail.startswith(f"The answer is not valid HTTP: {why}")
        assert not incoming.reusable


@pytest.mark.parametrize(
    ("body", "came"),
    [
        (b"2 \r\nok\r\n0\r\n\r\n", 0),
        (b"0x2\r\nok\r\n0\r\n\r\n", 0),
        (b"-2\r\nok\r\n0\r\n\r\n", 0),
        (b"\r\n2\r\nok\r\n0\r\n\r\n", 0),
        (b"2\nok\n0\n\n", 0),
        (b"2;\r\nok\r\n0\r\n\r\n", 0),
        (b"fffffffffffffffff\r\nok\r\n0\r\n\r\n", 0),
        (b"2\r\nokX\r\n0\r\n\r\n", 2),
        (b"2\r\nok0\r\n\r\n", 2),
        (b"2\r\nok\r\n0\r\nT v\r\n\r\n", 2),
        (b"2\r\nok\r\n0\r\nContent-Length: 2\r\n\r\n", 2),
        (b"2\r\nok\r\n0\r\nTransfer-Encoding: gzip\r\n\r\n", 2),
        (b"2\r\nok\r\n" + b"0" * replies.HEADER_LIMIT, 2),
        (b"2\r\nok\r\n0\r\n" + b"T: v\r\n" * replies.HEADER_LIMIT, 2),
        (b"2\r\nok\r\n0\r\nT: " + b"v" * replies.HEADER_LIMIT, 2),
    ],
)
def test_chunks_that_could_be_read_in_two_ways_break_the_reply_off(body: bytes, came: int) -> None:
    outcome, incoming = come(CHUNKED, body)
    assert isinstance(outcome, SendFailure)
    assert outcome.reason is Reason.PROTOCOL
    assert outcome.detail.startswith(f"The answer, 200, broke off after {came} bytes of its body: ")
    assert not incoming.reusable


def test_another_protocol_is_not_changed_to() -> None:
    for headers in (b"", b"Upgrade: x\r\nConnection: upgrade\r\n"):
        outcome, incoming = come(b"HTTP/1.1 101 Yes\r\n" + headers + b"\r\nanything")
        assert isinstance(outcome, SendFailure)
        assert outcome.detail == "The answer, 101, changes to another protocol."
        assert not incoming.reusable


@pytest.mark.parametrize(
    "data", [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\r\n" + OK, b"RTSP/1.0 200 OK\r\n\r\n", b"http/1.1"]
)
def test_what_does_not_begin_as_http_1_is_none(data: bytes) -> None:
    for pieces in ([data], bytewise(data)):
        outcome, _ = come(*pieces)
        assert isinstance(outcome, SendFailure)
        assert "and not with HTTP/." in outcome.detail


def test_a_body_without_a_length_ends_with_the_connection() -> None:
    outcome, incoming = come(OK + b"\r\nall", b" of it")
    assert outcome is None
    assert incoming.end() == Reply(200, [], b"all of it", cut=False)
    assert not incoming.reusable


@pytest.mark.parametrize("data", [OK + b"Content-Length: 9\r\n\r\nall", CHUNKED + b"3\r\nall\r\n"])
def test_a_body_with_a_length_does_not(data: bytes) -> None:
    outcome, incoming = come(data)
    assert outcome is None
    assert isinstance(incoming.end(), SendFailure)


def test_nothing_is_no_answer() -> None:
    assert isinstance(Incoming(limit=1).end(), Unanswered)


def test_what_is_cut_is_not_read_to_its_end() -> None:
    body = b"1\r\ny\r\n" * 100_000
    outcome, incoming = come(CHUNKED + body, limit=10)
    assert outcome == Reply(200, [(b"Transfer-Encoding", b"chunked")], b"y" * 10, cut=True)
    assert not incoming.reusable


def test_what_is_closed_is_no_work_for_the_collector() -> None:
    _, incoming = come(OK)
    gone = weakref.ref(incoming)
    incoming.close()
    gc.disable()
    try:
        del incoming
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("start", [OK, b"HTTP/1.1 103 Early Hints\r\n"])
def test_headers_that_are_too_large_are_not_read_to_their_end(start: bytes) -> None:
    outcome, incoming = come(start + b"X:\r\n" * 50_000 + b"\r\n")
    assert isinstance(outcome, SendFailure)
    assert outcome.reason is Reason.TOO_LARGE
    assert len(incoming._headers) <= replies.HEADER_LIMIT // 5


def test_a_mistake_of_ours_is_not_taken_for_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    def on_header(incoming: Incoming, name: bytes, value: bytes) -> None:
        raise KeyError(name)

    monkeypatch.setattr(Incoming, "on_header", on_header)
    with pytest.raises(Exception, match="callback error"):
        come(OK + b"X: y\r\n\r\n")


# What h11 reads, as the second opinion: httpx brings it.


def read_by_h11(data: bytes, *, ended: bool) -> tuple[tuple[int, bytes, bool] | None, bool]:
    """Status, body and whether that is all of it; and whether another request could follow."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method=b"POST", target=b"/", headers=[(b"Host", b"x"), (b"Content-Length", b"0")]))
    connection.send(h11.EndOfMessage())
    status, body = None, b""
    left = [data, b""] if ended else [data]
    try:
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA and left:
                connection.receive_data(left.pop(0))
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += event.data
            elif not isinstance(event, h11.InformationalResponse):
                break
    except h11.RemoteProtocolError:
        event = h11.NEED_DATA
    whole = isinstance(event, h11.EndOfMessage)
    again = whole and connection.their_state is h11.DONE and not connection.trailing_data[0]
    return None if status is None else (status, body, whole), again


PARTS = [
    OK, b"HTTP/1.0 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 101 Yes\r\n", b"HTTP/1.1 204 None\r\n",
    b"HTTP/1.1 304 Same\r\n", b"HTTP/1.1 410 Gone\r\n", b"Content-Length: 2\r\n", b"Content-Length: 3\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: identity\r\n", b"Connection: close\r\n",
    b"Connection: keep-alive\r\n", b"Connection: upgrade\r\nUpgrade: x\r\n", b"X: y", b"\r\n", b"\r\n\r\n", b"\n", b"\r",
    b" ", b"\t", b":", b";", b",", b"\x00", b"\xff", b"2\r\nok\r\n", b"0\r\n\r\n", b"0\r\n", b"ok", b"2", b"chunked",
]  # fmt: skip
HEADS = st.tuples(st.sampled_from(PARTS[:7]), st.lists(st.sampled_from(PARTS[7:15]), max_size=3).map(b"".join)).map(
    lambda head: b"".join(head) + b"\r\n"
)
REPLIES = st.tuples(HEADS, st.lists(st.sampled_from(PARTS), max_size=4).map(b"".join)).map(b"".join)


@st.composite
def spoilt(draw: st.DrawFn) -> bytes:
    data = draw(REPLIES | st.lists(st.sampled_from(PARTS), min_size=1, max_size=8).map(b"".join))
    for _ in range(draw(st.integers(0, 2))):
        at, gone = draw(st.integers(0, len(data))), draw(st.integers(0, 3))
        data = data[:at] + draw(st.sampled_from(PARTS) | st.binary(max_size=2)) + data[at + gone :]
    return data or b"H"


@given(data=spoilt(), ended=st.booleans(), at=st.integers(1, 200))
def test_what_is_read_is_what_h11_reads_and_is_the_same_in_pieces(data: bytes, ended: bool, at: int) -> None:
    def read(*pieces: bytes) -> tuple[Reply | type[Outcome] | None, Incoming]:
        outcome, incoming = come(*pieces)
        if outcome is None and ended:
            outcome = incoming.end()
        return outcome if outcome is None or isinstance(outcome, Reply) else type(outcome), incoming

    ours, incoming = read(data)
    assert ours == read(*bytewise(data))[0] == read(*filter(None, (data[:at], data[at:])))[0]
    theirs, again = read_by_h11(data, ended=ended)
    if isinstance(ours, Reply) and not incoming._interim:  # behind which llhttp passes over empty lines
        assert theirs is not None
        assert ours.status == theirs[0]
        assert ours.cut or theirs == (ours.status, ours.body, True)
    assert again or ended or not incoming.reusable
