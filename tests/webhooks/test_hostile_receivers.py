"""What receivers do to hurt us, on purpose or not, and what it comes to."""

from __future__ import annotations

import asyncio
import gzip
import socket
import struct
import time

import pytest

from tests.webhooks.strangers import (
    OK,
    Receiver,
    answering,
    failure,
    on_every_loop,
    post,
    read_request,
    receiver,
    sender,
)
from webhooks import replies
from webhooks.failures import Reason

Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter

# What a request that ran out of time still waited for.
NO_ANSWER = "no answer came"
NO_HEADERS = "the headers of the answer did not end"
NO_BODY = "the body of the answer, 200, did not end"


async def drip(writer: Writer, piece: bytes, *, every: float = 0.005) -> None:
    while True:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(every)


def reset(writer: Writer) -> None:
    """Close with RST, as a process that is killed does."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        (b"SSH-2.0-OpenSSH_9.6\r\n", "begins with 'SSH-2' and not with HTTP/"),
        (b"220 mail.example ESMTP\r\n", "begins with '220 m' and not with HTTP/"),
        (b"\x15\x03\x01\x00\x02\x02\x50", "begins with"),
        (b"\x00" * 100_000, "begins with"),
        (b"HTTP/1.1 what\r\n\r\n", "not valid HTTP: Invalid status code."),
        (b"HTTP/1.1 099 Low\r\n\r\n", "Invalid status code"),
        (b"HTTP/1.1 20 OK\r\n\r\n", "Invalid status code"),
        (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "Invalid header token"),
        (b"HTTP/1.1 200 OK\r\nx: a\x00b\r\n\r\n", "Invalid header value char"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: two\r\n\r\nok", "Content-Length"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\nok", "Content-Length"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: " + b"9" * 5000 + b"\r\n\r\nok", "Content-Length"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok", "Content-Length"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nok", "Transfer-Encoding"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nok\r\n", "broke off after 0 bytes"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2;" + b"x" * 40_000, "broke off after 0 bytes"),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
            "The answer, 101, changes to another protocol.",
        ),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 11, "More than 10 interim answers"),
    ],
)
@on_every_loop
async def test_what_is_not_http_fails_as_protocol(answer: bytes, detail: str) -> None:
    async with receiver(answering(answer)) as it, sender() as client:
        failed = await failure(client, it.url)
        assert failed.reason is Reason.PROTOCOL
        assert detail in failed.detail
        assert failed.detail.isprintable()
        assert len(failed.detail) <= 500
        await it.until(lambda it: it.closed == 1)


@pytest.mark.parametrize(
    "headers",
    [
        b"".join(b"x-%d: %b\r\n" % (number, b"y" * 65_536) for number in range(100)),
        b"x: " + b"y" * 17_000 + b"\r\n",
        b"".join(b"x-%d: y\r\n" % number for number in range(5_000)),
    ],
)
@on_every_loop
async def test_headers_that_are_too_large_fail_as_too_large(headers: bytes) -> None:
    async with receiver(answering(b"HTTP/1.1 200 OK\r\n" + headers + b"\r\n")) as it, sender() as client:
        failed = await failure(client, it.url)
        assert failed.reason is Reason.TOO_LARGE
        assert failed.detail == "The answer's headers are over 16,384 bytes."


@on_every_loop
async def test_a_header_that_never_ends_is_not_kept_in_memory() -> None:
    async def handle(reader: Reader, writer: Writer, it: Receiver) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nx: ")
        await drip(writer, b"y" * 65_536, every=0)

    async with receiver(handle) as it, sender() as client:
        assert (await failure(client, it.url)).reason is Reason.TOO_LARGE


@on_every_loop
async def test_interim_answers_are_passed_over() -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"
    async with receiver(answering(interim * 5 + OK)) as it, sender() as client:
        assert (await post(client, it.url)).status == 200


@pytest.mark.parametrize(
    ("beginning", "piece", "awaited"),
    [
        (b"", b"", NO_ANSWER),
        (b"HTTP/1.1 200 OK\r\n", b"", NO_HEADERS),
        (b"HTTP/1.1 200 OK\r\nx: ", b"y", NO_HEADERS),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\n", b"y", NO_BODY),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\n", b"", NO_BODY),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"1\r\ny\r\n", NO_BODY),
        (b"HTTP/1.1 204 No Content\r\nx: ", b"y", NO_HEADERS),
    ],
)
@on_every_loop
async def test_a_receiver_that_is_slow_outlasts_no_deadline(beginning: bytes, piece: bytes, awaited: str) -> None:
    async def handle(reader: Reader, writer: Writer, it: Receiver) -> None:
        await read_request(reader)
        writer.write(beginning)
        if piece:
            await drip(writer, piece)
        await reader.read()  # until we close

    async with receiver(handle) as it, sender(request_timeout=0.15) as client:
        began = time.monotonic()
        failed = await failure(client, it.url)
        assert (failed.reason, failed.detail) == (Reason.TIMEOUT, awaited)
        assert 0.14 < time.monotonic() - began < 2
        await it.until(lambda it: it.closed == 1)


@on_every_loop
async def test_the_total_deadline_holds_when_the_request_has_more_time() -> None:
    async def handle(reader: Reader, writer: Writer, it: Receiver) -> None:
        await asyncio.Event().wait()

    async with receiver(handle) as it, sender(total_timeout=0.1) as client:
        failed = await failure(client, it.url)
        assert failed.reason is Reason.TIMEOUT


@on_every_loop
async def test_a_receiver_that_never_reads_runs_into_the_deadline() -> None:
    async def handle(reader: Reader, writer: Writer, it: Receiver) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.Event().wait()

    async with receiver(handle) as it, sender(request_timeout=0.2) as client:
        assert (await failure(client, it.url, body=b"x" * 20_000_000)).reason is Reason.TIMEOUT


@on_every_loop
async def test_an_endless_body_is_cut_and_its_connection_closed() -> None:
    async def handle(reader: Reader, writer: Writer, it: Receiver) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await drip(writer, b"y" * 100_000, every=0)

    async with receiver(handle) as it, sender() as client:
        answer = await post(client, it.url)
        assert (answer.status, answer.body, answer.cut) == (200, b"y" * 1000, True)
        await it.until(lambda it: it.closed == 1)


@pytest.mark.parametrize(("size", "cut"), [(999, False), (1000, False), (1001, True), (100_000, True)])
@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
@on_every_loop
async def test_a_body_is_cut_exactly_past_the_limit(size: int, cut: bool, framing: str) -> None:
    body = b"y" * size
    heads = {
        "length": b"content-length: %d\r\n\r\n%b" % (size, body),
        "chunked": b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (size, body),
        "close": b"\r\n" + body,
    }

    async def handle(reader: Reader, writer: Writer, it: Receiver) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n" + heads[framing])

    async with receiver(handle) as it, sender() as client:
        answer = await post(client, it.url)
        assert (answer.body, answer.cut) == (body[:1000], cut)


@on_every_loop
async def test_a_body_in_very_many_pieces_is_cut() -> None:
    pieces = b"1\r\ny\r\n" * (replies.PIECES_LIMIT + 500) + b"0\r\n\r\n"
    answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + pieces
    async with receiver(answering(answer)) as it, sender(response_limit=100_000) as client:
        received = await post(client, it.url)
        assert received.cut
        assert len(received.body) <= replies.PIECES_LIMIT + 1


@on_every_loop
async def test_a_gzip_bomb_stays_as_small_as_it_came() -> None:
    bomb = gzip.compress(bytes(1_000_000))
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb)
    async with receiver(answering(head + bomb)) as it, sender(response_limit=16_384) as client:
        answer = await post(client, it.url)
        assert (answer.body, answer.cut) == (bomb, False)
        assert b"\r\naccept-encoding: identity\r\n" in it.requests[0].head


@pytest.mark.parametrize("way", ["close", "reset"])
@on_every_loop
async def test_a_connection_that_ends_without_an_answer_fails_as_protocol(way: str) -> None:
    async def handle(reader: Reader, writer: Writer, it: Receiver) -> None:
        it.requests.append(await read_request(reader))
        if way == "reset":
            reset(writer)

    async with receiver(handle) as it, sender() as client:
        failed = await failure(client, it.url)
        assert (failed.reason, failed.detail) == (
            Reason.PROTOCOL,
            "The connection was closed before an answer came.",
        )
        # Nobody but a kept connection is given a second try.
        assert len(it.requests) == 1


@on_every_loop
async def test_headers_that_break_off_fail_as_protocol() -> None:
    async def handle(reader: Reader, writer: Writer, it: Receiver) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nx: y")

    async with receiver(handle) as it, sender() as client:
        failed = await failure(client, it.url)
        assert (failed.reason, failed.detail) == (
            Reason.PROTOCOL,
            "The answer broke off in its headers: the connection was closed.",
        )


@pytest.mark.parametrize("way", ["close", "reset"])
@pytest.mark.parametrize(
    ("head", "body"),
    [
        (b"content-length: 10\r\n\r\n", b"12345"),
        (b"transfer-encoding: chunked\r\n\r\n", b"5\r\n12345\r\n"),
    ],
)
@on_every_loop
async def test_a_success_whose_body_breaks_off_is_none(head: bytes, body: bytes, way: str) -> None:
    """It may well be a proxy's that lost the application behind it."""

    async def handle(reader: Reader, writer: Writer, it: Receiver) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n" + head + body)
        if way == "reset":
            reset(writer)

    async with receiver(handle) as it, sender() as client:
        failed = await failure(client, it.url)
        assert failed.reason is Reason.PROTOCOL
        if way == "close":  # a reset may overtake what was sent before it
            assert failed.detail == "The answer, 200, broke off after 5 bytes of its body: the connection was closed."


@pytest.mark.parametrize("way", ["close", "hang", "garbage"])
@on_every_loop
async def test_a_refusal_whose_body_breaks_off_is_still_known_by_its_status(way: str) -> None:
    async def handle(reader: Reader, writer: Writer, it: Receiver) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 410 Gone\r\ntransfer-encoding: chunked\r\n\r\n5\r\n12345\r\n")
        if way == "garbage":
            writer.write(b"zz\r\n")
        if way == "hang":
            await asyncio.Event().wait()

    async with receiver(handle) as it, sender(request_timeout=0.3) as client:
        answer = await post(client, it.url)
        assert (answer.status, answer.body, answer.cut) == (410, b"12345", True)


@on_every_loop
async def test_an_answer_that_ends_with_the_connection_is_whole() -> None:
    async def handle(reader: Reader, writer: Writer, it: Receiver) -> None:
        it.requests.append(await read_request(reader))
        writer.write(b"HTTP/1.0 200 OK\r\nServer: old\r\n\r\nall of it")

    async with receiver(handle) as it, sender() as client:
        for _ in range(2):
            answer = await post(client, it.url)
            assert (answer.status, answer.body, answer.cut) == (200, b"all of it", False)
        assert it.connections == 2


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
@on_every_loop
async def test_an_answer_without_a_body_has_none_whatever_its_headers_say(status: bytes) -> None:
    answer = b"HTTP/1.1 " + status + b"\r\ncontent-length: 50\r\n\r\n"
    async with receiver(answering(answer)) as it, sender() as client:
        for _ in range(2):
            assert (await post(client, it.url)).body == b""
        assert it.connections == 1


@on_every_loop
async def test_an_answer_before_the_request_is_written_counts() -> None:
    async def handle(reader: Reader, writer: Writer, it: Receiver) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n")
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await it.tell()
        await asyncio.Event().wait()

    async with receiver(handle) as it, sender() as client:
        assert (await post(client, it.url, body=b"x" * 20_000_000)).status == 413
        # Half a request is on it: nothing can follow.
        assert (await post(client, it.url, body=b"x" * 20_000_000)).status == 413
        assert it.connections == 2


@on_every_loop
async def test_a_large_body_arrives_whole_at_a_receiver_that_takes_its_time() -> None:
    body = bytes(range(256)) * 20_000

    async def handle(reader: Reader, writer: Writer, it: Receiver) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        taken = bytearray()
        while len(taken) < len(body):
            taken += await reader.read(50_000)
            await asyncio.sleep(0)
        assert head
        assert taken == body
        writer.write(OK)

    async with receiver(handle) as it, sender() as client:
        assert (await post(client, it.url, body=body)).status == 200


@on_every_loop
async def test_a_reset_in_the_middle_of_the_request_fails_as_protocol() -> None:
    async def handle(reader: Reader, writer: Writer, it: Receiver) -> None:
        await reader.readuntil(b"\r\n\r\n")
        reset(writer)

    async with receiver(handle) as it, sender() as client:
        assert (await failure(client, it.url, body=b"x" * 20_000_000)).reason is Reason.PROTOCOL


# What a receiver could plant on a connection that is kept


PLANTED = b"HTTP/1.1 200 OK\r\nx: planted\r\nContent-Length: 0\r\n\r\n"
REFUSED = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"


@on_every_loop
async def test_a_second_answer_behind_the_first_answers_nothing() -> None:
    async with receiver(answering(OK + PLANTED, REFUSED)) as it, sender() as client:
        assert (await post(client, it.url)).status == 200
        assert (await post(client, it.url)).status == 500
        assert it.connections == 2


@on_every_loop
async def test_an_answer_on_an_idle_connection_answers_nothing() -> None:
    answers = answering(OK, REFUSED)

    async def handle(reader: Reader, writer: Writer, it: Receiver) -> None:
        answer = asyncio.ensure_future(answers(reader, writer, it))
        await it.until(lambda it: len(it.requests) == 1)
        await writer.drain()
        if it.connections == 1:
            writer.write(PLANTED)
        await answer

    async with receiver(handle) as it, sender() as client:
        assert (await post(client, it.url)).status == 200
        await it.until(lambda it: it.closed == 1)  # closed by us, at once
        assert (await post(client, it.url)).status == 500
        assert it.connections == 2


@on_every_loop
async def test_an_answer_that_came_while_the_loop_was_busy_answers_nothing() -> None:
    """It waits in the kernel when the next request is about to be written."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        loop = asyncio.get_running_loop()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"

        def serve() -> socket.socket:
            peer, _ = server.accept()
            peer.recv(65_536)
            peer.sendall(OK)
            return peer

        async with sender() as client:
            serving = loop.run_in_executor(None, serve)
            assert (await post(client, url)).status == 200
            with await serving as peer:
                peer.sendall(PLANTED)  # on this thread: the loop looks at nothing meanwhile
                serving = loop.run_in_executor(None, serve)
                answer = await post(client, url)
                assert b"planted" not in answer.headers
                (await serving).close()
        await loop.shutdown_default_executor()
