"""What goes out, what comes back, and who shares a connection."""

from __future__ import annotations

import asyncio
import gzip
import logging
import socket
import ssl
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import respx
from hypothesis import given
from hypothesis import strategies as st

from subscriptions.addresses import RefusedAddress, check_url
from subscriptions.conf import conf
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
from webhooks import pooling
from webhooks.connections import Request
from webhooks.failures import Reason
from webhooks.transport import Answer, Client, SafeTransport, SendFailure

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from pytest_django.fixtures import Settings

URL = "https://receiver.example/in"


@on_every_loop
async def test_the_receiver_gets_the_exact_body_and_only_the_headers_named() -> None:
    body = '{"é": "\\u0000"}'.encode()
    async with receiver(answering(OK)) as it, sender() as client:
        await post(client, it.url, body=body, headers={"webhook-id": "evt_1", "Content-Type": "application/json"})
        assert it.requests[0].line == b"POST /in?from=us HTTP/1.1"
        assert it.requests[0].body == body
        assert sorted(it.requests[0].headers.lower().splitlines()) == [
            b"accept-encoding: identity",
            b"content-length: %d" % len(body),
            b"content-type: application/json",
            b"host: 127.0.0.1:%d" % it.port,
            b"webhook-id: evt_1",
        ]


@on_every_loop
async def test_the_answer_says_what_was_sent_and_what_came_back_as_it_was() -> None:
    back = b"HTTP/1.1 202 Accepted\r\nX-Odd: caf\xe9\r\nx-odd:  twice \r\nContent-Length: 4\r\n\r\n\x00\xff\r\n"
    async with receiver(answering(back)) as it, sender() as client:
        answer = await post(client, it.url, headers={"webhook-id": "evt_1"})
        assert answer == Answer(
            status=202,
            headers=b"X-Odd: caf\xe9\r\nx-odd: twice\r\nContent-Length: 4\r\n",
            body=b"\x00\xff\r\n",
            cut=False,
            request_headers=it.requests[0].headers,
        )


@on_every_loop
async def test_an_empty_body_can_be_sent() -> None:
    async with receiver(answering(OK)) as it, sender() as client:
        assert (await post(client, it.url, body=b"")).status == 200
        assert it.requests[0].body == b""


@on_every_loop
async def test_a_failure_says_what_was_to_be_sent() -> None:
    async with sender() as client:
        failed = await failure(client, "http://10.1.2.3/")
        assert (failed.reason, failed.detail) == (
            Reason.REFUSED_ADDRESS,
            "This address is private; use one that is reached from the internet.",
        )
        assert b"Host: 10.1.2.3\r\n" in failed.request_headers


@on_every_loop
async def test_cookies_are_not_kept_and_redirects_not_followed() -> None:
    moved = b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /else\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n"
    async with receiver(answering(moved)) as it, sender() as client:
        for _ in range(2):
            assert (await post(client, it.url)).status == 307
        assert [request.line for request in it.requests] == [b"POST /in?from=us HTTP/1.1"] * 2
        assert b"cookie" not in it.requests[1].head.lower()


@on_every_loop
async def test_proxies_and_netrc_of_the_environment_are_ignored(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login alice password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    async with receiver(answering(OK)) as proxy, receiver(answering(OK)) as it, sender() as client:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        assert (await post(client, it.url)).status == 200
        assert proxy.connections == 0
        assert b"authorization" not in it.requests[0].head.lower()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-name", "café"),
        ("x-name", "a\r\nx-other: b"),
        ("x-name", "a\nb"),
        ("x-name", "a\x00b"),
        ("x-name", "\ud800"),
        ("x-name", " a"),
        ("x-name", "a "),
        ("x name", "a"),
        ("x-näme", "a"),
        ("", "a"),
        ("x-name\n", "a"),
        ("Host", "other.example"),
        ("content-length", "0"),
        ("Transfer-Encoding", "chunked"),
        ("connection", "close"),
        ("accept-encoding", "gzip"),
    ],
)
@on_every_loop
async def test_a_header_that_is_not_plain_or_not_the_callers_is_unsendable(name: str, value: str) -> None:
    async with receiver(answering(OK)) as it, sender() as client:
        with pytest.raises(SendFailure) as caught:
            await post(client, it.url, headers={name: value})
        assert caught.value.reason is Reason.UNSENDABLE
        assert caught.value.detail.isprintable()
        assert it.connections == 0


@pytest.mark.parametrize("value", ["", "a", "a b", "a\tb", "~!"])
@on_every_loop
async def test_a_plain_header_arrives(value: str) -> None:
    async with receiver(answering(OK)) as it, sender() as client:
        await post(client, it.url, headers={"x-name": value})
        assert f"\r\nx-name: {value}\r\n".encode() in it.requests[0].head


@pytest.mark.parametrize(
    "url",
    ["", "/in", "ftp://example.com", "http://", "http://256.1.1.1/", "http://x.example:99999999/", "http://x.example/\ud800",
     "http://x.example/\x00", "http://user:secret@x.example/", "http://x.example/" + "a" * 70_000],
)  # fmt: skip
@on_every_loop
async def test_a_url_that_cannot_be_a_target_is_refused(url: str) -> None:
    async with sender() as client:
        failed = await failure(client, url)
        assert failed.reason is Reason.REFUSED_ADDRESS
        assert "secret" not in failed.detail


@pytest.mark.parametrize(
    "other",
    ["http://127.0.0.2:{port}/", "http://127.0.0.1:1/", "https://127.0.0.1:{port}/", "http://localhost:{port}/"],
)
@on_every_loop
async def test_a_url_that_two_parsers_read_differently_is_refused(other: str) -> None:
    async with receiver(answering(OK)) as it, sender() as client:
        request = httpx.Request("POST", other.format(port=it.port), content=b"{}", extensions={"url": it.url})
        with pytest.raises(SendFailure) as caught:
            await client._transport.handle_async_request(request)
        assert (caught.value.reason, caught.value.detail) == (
            Reason.REFUSED_ADDRESS,
            "Nothing is sent to a URL that can be read in two ways.",
        )
        assert it.connections == 0


@given(
    host=st.text(st.characters() | st.sampled_from("aA0.1-_[]:%@\\#?/。ß"), max_size=12),
    rest=st.text(st.characters() | st.sampled_from("/?#@:\\."), max_size=8),
)
def test_a_url_that_we_accept_is_read_the_same_by_httpx(host: str, rest: str) -> None:
    url = f"https://{host}/{rest}"
    try:
        target = check_url(url)
    except RefusedAddress:
        return
    parsed = httpx.URL(url)
    assert (parsed.scheme, parsed.raw_host.decode().lower()) == (target.scheme, target.host)
    assert (parsed.port or 443) == target.port
    assert not parsed.userinfo


@on_every_loop
async def test_a_request_that_is_no_http_is_unsendable() -> None:
    async with receiver(answering(OK)) as it, sender() as client:
        request = httpx.Request("GET IT", it.url)
        with pytest.raises(SendFailure) as caught:
            await client._transport.handle_async_request(request)
        assert caught.value.reason is Reason.UNSENDABLE


@pytest.mark.parametrize(
    ("method", "target", "header"),
    [
        (b"POST", b"/", (b"x", b"a\r\nx-other: b")),
        (b"POST", b"/", (b"x", b"a\nb")),
        (b"POST", b"/", (b"x", b"a\rb")),
        (b"POST", b"/", (b"x", b"a\x00b")),
        (b"POST", b"/", (b"x: y\r\nz", b"a")),
        (b"POST", b"/", (b"x y", b"a")),
        (b"POST", b"/", (b"", b"a")),
        (b"POST", b"/", (b"Content-Length", b"3")),
        (b"POST", b"/", (b"transfer-ENCODING", b"chunked")),
        (b"POST", b"/ HTTP/1.1\r\nX: y", (b"x", b"a")),
        (b"POST", b"/a b", (b"x", b"a")),
        (b"POST", b"/\xff", (b"x", b"a")),
        (b"POST", b"", (b"x", b"a")),
        (b"PO ST", b"/", (b"x", b"a")),
        (b"", b"/", (b"x", b"a")),
    ],
)
def test_a_request_that_would_be_read_otherwise_is_not_made(
    method: bytes, target: bytes, header: tuple[bytes, bytes]
) -> None:
    with pytest.raises(SendFailure) as caught:
        Request.make(method=method, target=target, headers=[(b"Host", b"x"), header], body=b"{}")
    assert caught.value.reason is Reason.UNSENDABLE


@on_every_loop
async def test_a_request_of_httpx_is_sent_with_its_length() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"in "
        yield b"pieces"

    async with receiver(answering(OK)) as it, sender() as client:
        request = httpx.Request("PUT", it.url, content=pieces())
        assert request.headers["transfer-encoding"] == "chunked"
        response = await client._transport.handle_async_request(request)
        assert response.status_code == 200
        assert it.requests[0].line == b"PUT /in?from=us HTTP/1.1"
        assert it.requests[0].headers == b"Host: 127.0.0.1:%d\r\nContent-Length: 9\r\n" % it.port
        assert it.requests[0].body == b"in pieces"


@on_every_loop
async def test_a_request_of_httpx_that_is_the_last_of_its_connection_is() -> None:
    async with receiver(answering(OK)) as it, sender() as client:
        request = httpx.Request("POST", it.url, headers={"Connection": "Close"}, extensions={"pool": 1})
        await client._transport.handle_async_request(request)
        await it.until(lambda it: it.closed == 1)


# Kept connections


@on_every_loop
async def test_a_connection_is_kept_for_the_same_pool_and_origin_only() -> None:
    async with receiver(answering(OK)) as one, receiver(answering(OK)) as other, sender() as client:
        await post(client, one.url, pool=1)
        await post(client, one.url + "&again", pool=1)
        assert one.connections == 1
        await post(client, one.url, pool=2)
        assert one.connections == 2
        await post(client, other.url, pool=1)
        assert other.connections == 1
        await post(client, one.url, pool=None)
        await post(client, one.url, pool=None)
        assert one.connections == 4


@on_every_loop
async def test_a_connection_is_not_kept_when_the_receiver_says_so() -> None:
    answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    async with receiver(answering(answer)) as it, sender() as client:
        await post(client, it.url)
        await it.until(lambda it: it.closed == 1)
        await post(client, it.url)
        assert it.connections == 2


@on_every_loop
async def test_an_idle_connection_is_closed_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pooling, "IDLE_SECONDS", 0.05)
    async with receiver(answering(OK)) as it, sender() as client:
        await asyncio.gather(post(client, it.url, pool=1), post(client, it.url, pool=2))
        await post(client, it.url, pool=2)
        await it.until(lambda it: it.closed == it.connections == 2)


@on_every_loop
async def test_what_is_not_idle_for_long_is_looked_at_later() -> None:
    async with receiver(answering(OK)) as it, sender() as client:
        await post(client, it.url)
        assert isinstance(client._transport, SafeTransport)
        client._transport._pool._sweep()
        await post(client, it.url)
        assert it.connections == 1


@on_every_loop
async def test_a_connection_that_is_old_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pooling, "AGE_SECONDS", -1)
    async with receiver(answering(OK)) as it, sender() as client:
        await post(client, it.url)
        await it.until(lambda it: it.closed == 1)


@on_every_loop
async def test_few_connections_are_kept_per_pool_and_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pooling, "IDLE_PER_KEY", 2)
    monkeypatch.setattr(pooling, "IDLE_IN_ALL", 3)
    async with receiver(answering(OK)) as it, sender() as client:
        await asyncio.gather(*(post(client, it.url, pool=1) for _ in range(4)))
        await it.until(lambda it: it.closed == 2)
        await post(client, it.url, pool=2)
        await post(client, it.url, pool=3)  # over 3: the oldest goes
        await it.until(lambda it: it.closed == 3)
        assert it.connections == 6


@on_every_loop
async def test_a_request_on_a_kept_connection_that_ends_unanswered_is_made_once_more() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, it: Receiver) -> None:
        it.requests.append(await read_request(reader))
        writer.write(OK)
        it.requests.append(await read_request(reader))  # and closes

    async with receiver(handle) as it, sender() as client:
        for _ in range(2):
            assert (await post(client, it.url)).status == 200
        assert (it.connections, len(it.requests)) == (2, 3)


@on_every_loop
async def test_a_request_on_a_kept_connection_is_not_repeated_once_a_byte_has_come() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, it: Receiver) -> None:
        it.requests.append(await read_request(reader))
        writer.write(OK)
        it.requests.append(await read_request(reader))
        writer.write(b"H")

    async with receiver(handle) as it, sender() as client:
        await post(client, it.url)
        assert (await failure(client, it.url)).reason is Reason.PROTOCOL
        assert len(it.requests) == 2


@on_every_loop
async def test_a_request_that_timed_out_on_a_kept_connection_is_not_repeated() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, it: Receiver) -> None:
        it.requests.append(await read_request(reader))
        writer.write(OK)
        it.requests.append(await read_request(reader))
        await reader.read()

    async with receiver(handle) as it, sender(request_timeout=0.2) as client:
        await post(client, it.url)
        assert (await failure(client, it.url)).reason is Reason.TIMEOUT
        assert len(it.requests) == 2


@on_every_loop
async def test_a_kept_connection_that_the_receiver_closed_is_left() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, it: Receiver) -> None:
        it.requests.append(await read_request(reader))
        writer.write(OK)

    async with receiver(handle) as it, sender() as client:
        for number in range(1, 4):
            assert (await post(client, it.url)).status == 200
            await it.until(lambda it, number=number: it.closed == number)  # type: ignore[misc]
        assert len(it.requests) == 3


@on_every_loop
async def test_two_hundred_at_once_over_twenty_pools_all_arrive() -> None:
    async with receiver(answering(OK)) as it, sender() as client:
        sent = [post(client, it.url, body=b'{"n": %d}' % number, pool=number % 20) for number in range(200)]
        answers = await asyncio.gather(*sent)
        assert {answer.status for answer in answers} == {200}
        assert {request.body for request in it.requests} == {b'{"n": %d}' % number for number in range(200)}
        await asyncio.gather(*(post(client, it.url, pool=number % 20) for number in range(200)))
        assert it.connections == 200


# The end


@on_every_loop
async def test_closing_ends_what_is_in_flight_and_idle_and_refuses_the_rest() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, it: Receiver) -> None:
        it.requests.append(await read_request(reader))
        await it.tell()
        if len(it.requests) == 1:
            writer.write(OK)
        await reader.read()

    async with receiver(handle) as it, sender() as client:
        await post(client, it.url, pool=1)
        flying = asyncio.ensure_future(failure(client, it.url, pool=2))
        await it.until(lambda it: len(it.requests) == 2)
        await client.aclose()
        assert (await flying).reason is Reason.PROTOCOL
        await it.until(lambda it: it.closed == 2)
        failed = await failure(client, it.url)
        assert (failed.reason, failed.detail) == (Reason.CONNECT, "The transport is closed.")
        await client.aclose()


@on_every_loop
async def test_a_request_that_was_still_connecting_when_all_was_closed_sends_nothing() -> None:
    asked, closed = asyncio.Event(), asyncio.Event()

    async def resolve(host: str) -> list[str]:
        asked.set()
        await closed.wait()
        return ["127.0.0.1"]

    async with receiver(answering(OK)) as it, sender(resolve=resolve) as client:
        flying = asyncio.ensure_future(failure(client, f"http://receiver.example:{it.port}/"))
        await asked.wait()
        await client.aclose()
        closed.set()
        assert (await flying).detail == "The transport is closed."
        await it.until(lambda it: it.closed == 1)
        assert it.requests == []


@on_every_loop
async def test_a_cancelled_request_leaves_no_connection() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, it: Receiver) -> None:
        it.requests.append(await read_request(reader))
        await it.tell()
        await reader.read()

    async with receiver(handle) as it, sender() as client:
        flying = asyncio.ensure_future(post(client, it.url))
        await it.until(lambda it: len(it.requests) == 1)
        flying.cancel()
        with pytest.raises(asyncio.CancelledError):
            await flying
        await it.until(lambda it: it.closed == 1)


@on_every_loop
async def test_a_request_cancelled_as_it_takes_a_kept_connection_leaves_none() -> None:
    async with receiver(answering(OK)) as it, sender() as client:
        await post(client, it.url)
        flying = asyncio.ensure_future(post(client, it.url))
        await asyncio.sleep(0)
        flying.cancel()
        with pytest.raises(asyncio.CancelledError):
            await flying
        await it.until(lambda it: it.closed == 1)


# By other transports


def test_the_default_is_the_safe_transport_with_the_projects_settings(settings: Settings) -> None:
    settings.SIGNALPOST_RESPONSE_LIMIT = 7

    async def story() -> None:
        client = Client()
        assert isinstance(client._transport, SafeTransport)
        async with receiver(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n123456789")) as it:
            answer = await post(client, it.url)  # loopback is allowed in the tests' settings
        assert (answer.body, answer.cut) == (b"1234567", True)
        await client.aclose()

    asyncio.run(story())


def send_by(handler: Any, *, url: str = URL) -> Answer:
    async def story() -> Answer:
        client = Client(httpx.MockTransport(handler))
        try:
            answer: Answer = await post(client, url, headers={"webhook-id": "evt_1"})
        finally:
            await client.aclose()
        return answer

    return asyncio.run(story())


def test_respx_can_stand_in_for_the_network() -> None:
    router = respx.Router()
    route = router.post(URL).respond(201, headers={"X-Answer": "yes"}, content=b"fine")
    answer = send_by(router.async_handler)
    assert (answer.status, answer.body, answer.cut) == (201, b"fine", False)
    assert b"X-Answer: yes\r\n" in answer.headers
    assert b"webhook-id: evt_1\r\n" in answer.request_headers
    assert route.calls.last.request.content == b"{}"


def test_another_transports_answer_is_cut_and_never_decompressed() -> None:
    packed = gzip.compress(b"x" * 10_000)
    answer = send_by(lambda _: httpx.Response(200, headers={"content-encoding": "gzip"}, content=packed))
    assert (answer.body, answer.cut) == (packed, False)
    answer = send_by(lambda _: httpx.Response(200, content=b"x" * (conf.response_limit + 1)))
    assert (answer.body, answer.cut) == (b"x" * conf.response_limit, True)


def test_another_transports_endless_answer_is_read_to_the_limit_and_closed() -> None:
    closed = False

    class Endless(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            while True:
                yield b"x" * 1000

        async def aclose(self) -> None:
            nonlocal closed
            closed = True

    answer = send_by(lambda _: httpx.Response(200, stream=Endless()))
    assert (len(answer.body), answer.cut, closed) == (conf.response_limit, True, True)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (httpx.ConnectTimeout("slow"), Reason.TIMEOUT),
        (httpx.ReadTimeout("slow"), Reason.TIMEOUT),
        (httpx.WriteTimeout("slow"), Reason.TIMEOUT),
        (httpx.PoolTimeout("slow"), Reason.TIMEOUT),
        (httpx.ConnectError("refused"), Reason.CONNECT),
        (httpx.ReadError("reset"), Reason.PROTOCOL),
        (httpx.WriteError("reset"), Reason.PROTOCOL),
        (httpx.RemoteProtocolError("garbage"), Reason.PROTOCOL),
        (httpx.DecodingError("garbage"), Reason.PROTOCOL),
        (httpx.LocalProtocolError("ours"), Reason.UNSENDABLE),
        (httpx.UnsupportedProtocol("gopher"), Reason.UNSENDABLE),
        (TimeoutError(), Reason.TIMEOUT),
    ],
)
def test_errors_of_httpx_become_reasons(error: Exception, reason: Reason) -> None:
    def handler(_: httpx.Request) -> httpx.Response:
        raise error

    with pytest.raises(SendFailure) as caught:
        send_by(handler)
    assert caught.value.reason is reason
    assert b"webhook-id: evt_1\r\n" in caught.value.request_headers


@pytest.mark.parametrize(
    ("cause", "reason"),
    [
        (ssl.SSLCertVerificationError("certificate has expired"), Reason.TLS),
        (socket.gaierror(-2, "Name or service not known"), Reason.DNS),
        (OSError(111, "Connection refused"), Reason.CONNECT),
    ],
)
def test_a_connect_error_of_httpx_is_named_by_its_cause(cause: Exception, reason: Reason) -> None:
    def handler(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("no connection") from cause

    with pytest.raises(SendFailure) as caught:
        send_by(handler)
    assert caught.value.reason is reason


def test_another_transport_that_hangs_runs_into_the_total_deadline(settings: Settings) -> None:
    settings.SIGNALPOST_TOTAL_TIMEOUT = 0.05

    async def handler(_: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    with pytest.raises(SendFailure) as caught:
        send_by(handler)
    assert caught.value.reason is Reason.TIMEOUT


def test_a_mistake_in_a_transport_is_a_failure_too_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def handler(_: httpx.Request) -> httpx.Response:
        raise KeyError("secret")

    with caplog.at_level(logging.ERROR), pytest.raises(SendFailure) as caught:
        send_by(handler)
    assert (caught.value.reason, caught.value.detail) == (Reason.LOST, "KeyError")
    assert "A request broke" in caplog.text


@on_every_loop
async def test_a_mistake_in_ours_is_a_failure_that_says_what_was_to_be_sent() -> None:
    async def resolve(host: str) -> list[str]:
        raise KeyError(host)

    async with sender(resolve=resolve) as client:
        failed = await failure(client, URL)
        assert (failed.reason, failed.detail) == (Reason.LOST, "KeyError")
        assert b"Host: receiver.example\r\n" in failed.request_headers


def test_another_transports_failure_says_what_was_to_be_sent() -> None:
    def handler(_: httpx.Request) -> httpx.Response:
        raise SendFailure(Reason.TLS, "no")

    with pytest.raises(SendFailure) as caught:
        send_by(handler)
    assert (caught.value.reason, caught.value.detail) == (Reason.TLS, "no")
    assert b"webhook-id: evt_1\r\n" in caught.value.request_headers


def test_a_url_that_is_none_reaches_no_other_transport_either() -> None:
    with pytest.raises(SendFailure) as caught:
        send_by(lambda _: httpx.Response(200), url="http://x.example/\x00")
    assert caught.value.reason is Reason.REFUSED_ADDRESS


def test_an_answer_that_would_block_the_loop_is_not_read() -> None:
    def pieces() -> Iterator[bytes]:
        yield b""

    with pytest.raises(SendFailure) as caught:
        send_by(lambda _: httpx.Response(200, content=pieces()))
    assert caught.value.reason is Reason.LOST
