"""The address is checked when the socket opens, whatever was true before."""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import TYPE_CHECKING

import pytest

from tests.webhooks.strangers import OK, answering, failure, on_every_loop, post, receiver, sender
from webhooks.failures import Reason, SendFailure

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from tests.webhooks.strangers import Receiver

# 127.0.0.1 is the one address that may be sent to: the public one, here.
PUBLIC, PRIVATE = "127.0.0.1", "127.0.0.2"


def resolver(*answers: list[str] | Exception) -> Callable[[str], Coroutine[None, None, list[str]]]:
    """Give `answers` one after another, the last one for ever; `asked` counts."""
    left = list(answers)

    async def resolve(host: str) -> list[str]:
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    return resolve


def named(it: Receiver, host: str = "rebind.example") -> str:
    return f"http://{host}:{it.port}/"


@on_every_loop
async def test_a_name_that_comes_to_mean_a_private_address_is_refused() -> None:
    async with (
        receiver(answering(OK), host="0.0.0.0") as it,  # noqa: S104 — 127.0.0.2 answers, too
        sender(resolve=resolver([PUBLIC], [PRIVATE])) as client,
    ):
        assert (await post(client, named(it), pool=1)).status == 200
        failed = await failure(client, named(it), pool=2)
        assert (failed.reason, failed.detail) == (
            Reason.REFUSED_ADDRESS,
            "Nothing is sent to rebind.example: it has an address that is loopback.",
        )
        assert it.connections == 1


@on_every_loop
async def test_the_connection_goes_to_the_number_that_was_checked_and_keeps_the_name() -> None:
    """One lookup: a second could answer otherwise."""
    async with (
        receiver(answering(OK), host="0.0.0.0") as it,  # noqa: S104
        sender(resolve=resolver([PUBLIC], RuntimeError("asked twice"))) as client,
    ):
        assert (await post(client, named(it))).status == 200
        assert b"Host: rebind.example:%d\r\n" % it.port in it.requests[0].head


@pytest.mark.parametrize(
    "addresses",
    [
        [PUBLIC, PRIVATE],
        [PRIVATE, PUBLIC],
        [PUBLIC] * 9 + ["10.0.0.1"],
        [PUBLIC, "::ffff:127.0.0.1"],
        [PUBLIC, "fe80::1%eth0"],
        *[
            [address]
            for address in [
                "0.0.0.0",  # noqa: S104
                "10.0.0.1",
                "100.64.0.1",
                "127.0.0.2",
                "168.63.129.16",
                "169.254.169.254",
                "224.0.0.1",
                "255.255.255.255",
                "::",
                "::127.0.0.1",
                "::ffff:127.0.0.1",
                "::ffff:198.41.0.4",
                "::ffff:0:127.0.0.1",
                "64:ff9b::7f00:1",
                "64:ff9b:1::7f00:1",
                "2001:0:c629:4::1",
                "2002:7f00:1::",
                "2606:4700::5efe:7f00:1",
                "2606:4700::200:5efe:7f00:1",
                "fd00:ec2::254",
                "fe80::1",
                "fe80::1%eth0",
                "fec0::1",
                "ff02::1",
            ]
        ],
    ],
)
@on_every_loop
async def test_one_address_that_is_refused_refuses_all(addresses: list[str]) -> None:
    async with receiver(answering(OK)) as it, sender(resolve=resolver(addresses)) as client:
        failed = await failure(client, named(it))
        assert failed.reason is Reason.REFUSED_ADDRESS
        assert not any(address in failed.detail for address in addresses)
        assert it.connections == 0


@on_every_loop
async def test_a_network_that_is_allowed_is_reached() -> None:
    async with receiver(answering(OK), host="127.0.0.2") as it, sender(allowed_networks=["127.0.0.0/8"]) as client:
        assert (await post(client, f"http://127.0.0.2:{it.port}/")).status == 200


@on_every_loop
async def test_the_next_address_is_tried_when_one_does_not_answer() -> None:
    async with receiver(answering(OK)) as it, sender(resolve=resolver(["::1", PUBLIC])) as client:
        assert (await post(client, named(it))).status == 200  # nobody listens on ::1


@pytest.mark.parametrize(("dead", "reached"), [(3, True), (4, False)])
@on_every_loop
async def test_four_addresses_are_tried(dead: int, reached: bool) -> None:
    networks = ["127.0.0.0/8"]
    addresses = [f"127.0.0.{number}" for number in range(2, 2 + dead)] + [PUBLIC]
    async with receiver(answering(OK)) as it, sender(resolve=resolver(addresses), allowed_networks=networks) as client:
        if reached:
            assert (await post(client, named(it))).status == 200
        else:
            failed = await failure(client, named(it))
            assert (failed.reason, failed.detail) == (Reason.CONNECT, "Connection refused")
            assert it.connections == 0


@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        ([], "The name rebind.example has no address."),
        (["no address"], "The lookup of rebind.example failed"),
        (socket.gaierror(-2, "Name or service not known"), "failed: Name or service not known."),
        (OSError(errno.EIO, "Input/output error"), "failed: Input/output error."),
        (UnicodeError("label too long"), "failed: label too long."),
    ],
)
@on_every_loop
async def test_a_name_without_an_address_fails_as_dns(answer: list[str] | Exception, detail: str) -> None:
    async with sender(resolve=resolver(answer)) as client:
        failed = await failure(client, "http://rebind.example/")
        assert failed.reason is Reason.DNS
        assert detail in failed.detail


@on_every_loop
async def test_a_lookup_that_hangs_fails_as_dns_in_time() -> None:
    async def resolve(host: str) -> list[str]:
        await asyncio.Event().wait()
        return []

    async with sender(resolve=resolve, connect_timeout=0.1) as client:
        failed = await failure(client, "http://rebind.example/")
        assert (failed.reason, failed.detail) == (Reason.DNS, "The lookup of rebind.example took too long.")


@on_every_loop
async def test_an_ipv6_literal_is_reached() -> None:
    async with receiver(answering(OK), host="::1") as it, sender() as client:
        assert (await post(client, f"http://[::1]:{it.port}/")).status == 200
        assert b"Host: [::1]:%d\r\n" % it.port in it.requests[0].head


@on_every_loop
async def test_a_port_nobody_listens_on_fails_as_connect() -> None:
    async with receiver(answering(OK)) as it:
        url = it.url
    async with sender() as client:
        failed = await failure(client, url)
        assert (failed.reason, failed.detail) == (Reason.CONNECT, "Connection refused")


@on_every_loop
async def test_a_connection_that_is_never_taken_fails_as_timeout() -> None:
    with socket.socket() as listening:
        listening.bind((PUBLIC, 0))
        listening.listen(0)
        # The queue is full: the kernel drops what else arrives.
        waiting = [socket.socket() for _ in range(2)]
        for sock in waiting:
            sock.setblocking(False)
            sock.connect_ex(listening.getsockname())
        async with sender(connect_timeout=0.2) as client:
            failed = await failure(client, f"http://{PUBLIC}:{listening.getsockname()[1]}/")
            assert (failed.reason, failed.detail) == (Reason.TIMEOUT, "no connection was made")
        for sock in waiting:
            sock.close()


@on_every_loop
async def test_a_socket_that_cannot_be_made_fails_as_connect(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*args: int) -> socket.socket:
        raise OSError(errno.EACCES, "Permission denied")

    async with sender() as client:
        monkeypatch.setattr("webhooks.opening.socket.socket", forbidden)
        failed = await failure(client, "http://127.0.0.1:1/")
        monkeypatch.undo()
        assert (failed.reason, failed.detail) == (Reason.CONNECT, "Permission denied")


@on_every_loop
async def test_a_connection_that_led_elsewhere_is_closed_before_a_byte_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    class Rerouted(socket.socket):
        def getpeername(self) -> tuple[str, int]:
            return PRIVATE, super().getpeername()[1]

    async with receiver(answering(OK)) as it, sender() as client:
        monkeypatch.setattr("webhooks.opening.socket.socket", Rerouted)
        failed = await failure(client, it.url)
        monkeypatch.undo()
        assert (failed.reason, failed.detail) == (
            Reason.REFUSED_ADDRESS,
            "The connection led to another address than the one that was checked.",
        )
        await it.until(lambda it: it.closed == 1)
        assert it.requests == []


@on_every_loop
async def test_a_cancelled_connect_leaves_no_socket() -> None:
    with socket.create_server((PUBLIC, 0)) as listening:
        asked = asyncio.Event()

        async def resolve(host: str) -> list[str]:
            asked.set()
            return [PUBLIC]

        async with sender(resolve=resolve) as client:
            flying = asyncio.ensure_future(post(client, f"https://rebind.example:{listening.getsockname()[1]}/"))
            await asked.wait()
            await asyncio.sleep(0)
            flying.cancel()
            with pytest.raises(asyncio.CancelledError):
                await flying


def test_a_detail_is_printable_and_short() -> None:
    failed = SendFailure(Reason.PROTOCOL, "a\x00b\n\ud800" + "x" * 1000)
    assert failed.detail == "a?b??" + "x" * 495
