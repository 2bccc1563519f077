"""Receivers that nobody would write, and one delivery that cannot be sent:
each hurts only itself."""

from __future__ import annotations

import gzip
import socket
import struct
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from subscriptions.models import Secret, Subscription
from tests.servers import wait_for
from webhooks.models import Attempt, Delivery, Event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.faults.world import World


BOMB = gzip.compress(bytes(50_000_000))
IN_TIME = {"SIGNALPOST_REQUEST_TIMEOUT": "4", "SIGNALPOST_TOTAL_TIMEOUT": "5", "SIGNALPOST_LEASE_SECONDS": "15"}


def never_answers(client: socket.socket) -> None:
    while client.recv(65536):
        pass


def a_byte_a_second(client: socket.socket) -> None:
    for byte in b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok":
        client.sendall(bytes([byte]))
        time.sleep(0.5)


def endless_body(client: socket.socket) -> None:
    client.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    while True:
        client.sendall(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")


def gzip_bomb(client: socket.socket) -> None:
    head = f"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {len(BOMB)}\r\n\r\n"
    client.sendall(head.encode() + BOMB)


def headers_without_end(client: socket.socket) -> None:
    client.sendall(b"HTTP/1.1 200 OK\r\n")
    for number in range(100):
        client.sendall(f"x-{number}: {'x' * 65536}\r\n".encode())
    client.sendall(b"content-length: 2\r\n\r\nok")


def invalid_status_line(client: socket.socket) -> None:
    client.sendall(b"HTTP/9.9 two hundred\r\n\r\n")


def reset_in_the_body(client: socket.socket) -> None:
    client.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf of")
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def closes_at_once(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def continues_for_ever(client: socket.socket) -> None:
    while True:
        client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        time.sleep(0.5)


# What each comes to in the end: an empty reason is a delivery.
STRANGERS: dict[Callable[[socket.socket], None], str] = {
    never_answers: "timeout",
    a_byte_a_second: "timeout",
    endless_body: "",
    gzip_bomb: "",
    headers_without_end: "too_large",
    invalid_status_line: "protocol",
    reset_in_the_body: "protocol",
    closes_at_once: "protocol",
    continues_for_ever: "timeout",
}


@contextmanager
def stranger(handle: Callable[[socket.socket], None]) -> Iterator[str]:
    """The URL at which every request is answered so."""

    def answer(client: socket.socket) -> None:
        with client, suppress(OSError):
            client.recv(65536)
            handle(client)

    def listen() -> None:
        with suppress(OSError):
            while True:
                client, _ = server.accept()
                threading.Thread(target=answer, args=(client,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0), backlog=128) as server:
        threading.Thread(target=listen, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"
        server.shutdown(socket.SHUT_RDWR)


def test_strangers_harm_nobody_but_themselves(world: World) -> None:
    """All of them at once, beside a receiver that is as it should be."""
    good, *others = world.subscribe("good", *(handle.__name__ for handle in STRANGERS))
    with ExitStack() as stack:
        for subscription, handle in zip(others, STRANGERS, strict=True):
            url = stack.enter_context(stranger(handle))
            Subscription.objects.filter(pk=subscription.pk).update(url=url)
        worker = world.working(**IN_TIME, SIGNALPOST_RETRY_SCHEDULE="0.2")
        world.sell(12)
        wait_for(lambda: world.count(subscription=good, status="delivered") == 12)
        world.reconcile(timeout=90)
    assert Attempt.objects.filter(delivery__subscription=good).count() == 12
    for subscription, (handle, reason) in zip(others, STRANGERS.items(), strict=True):
        deliveries = Delivery.objects.filter(subscription=subscription)
        assert set(deliveries.values_list("status", flat=True)) == {"failed" if reason else "delivered"}, handle
        assert set(Attempt.objects.filter(delivery__in=deliveries).values_list("reason", flat=True)) == {reason}, handle
    for attempt in Attempt.objects.filter(delivery__subscription__in=others, reason=""):
        assert attempt.response_cut
        assert len(bytes(attempt.response_body)) == 16_384
    assert peak_memory(worker.process.pid) < 300_000_000
    assert worker.stop() == 0


def peak_memory(pid: int) -> int:
    """Bytes."""
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def test_a_secret_that_no_key_opens_fails_alone(world: World) -> None:
    bad, _ = world.subscribe("bad", "good")
    Secret.objects.filter(subscription=bad).update(ciphertext=b"no ciphertext of ours")
    world.working()
    world.sell(12)
    world.reconcile()
    assert world.count(subscription=bad, status="failed") == 12
    assert world.delivered() == 12
    assert set(Attempt.objects.filter(delivery__subscription=bad).values_list("reason", flat=True)) == {"unsendable"}
    # Once there is a secret again, what failed can be sent.
    Secret.objects.filter(subscription=bad).delete()
    bad.rotate_secret()
    again = world.start("replay", "--subscription", str(bad.pk), "--yes")
    assert again.process.wait(40) == 0, again.text
    world.all_delivered(24)


@pytest.mark.parametrize(
    "poison",
    [
        {"event": {"body": b""}},
        {"url": "http://[not an address/"},
        {"url": "http://127.0.0.1:99999/"},
        {"url": "http://ex\0ample\r\n/"},
        {"url": "http://127.0.0.1:1/" + "x" * 1_900},
    ],
    ids=["no body", "no url", "no port", "control characters", "a long path to nobody"],
)
def test_a_row_that_cannot_be_sent_fails_alone(world: World, poison: dict[str, Any]) -> None:
    good, bad = world.subscribe("good", "bad")
    world.sell(12)
    if "url" in poison:
        url = poison["url"].replace("\0", "" if world.postgresql else "\0")
        Subscription.objects.filter(pk=bad.pk).update(url=url)
        poisoned = Delivery.objects.filter(subscription=bad)
    else:
        event = Event.objects.earliest("pk")
        Event.objects.filter(pk=event.pk).update(**poison["event"])
        poisoned = Delivery.objects.filter(event=event)
    worker = world.working(SIGNALPOST_RETRY_SCHEDULE="0.2,0.2")
    world.settle()
    assert set(poisoned.values_list("status", flat=True)) == {"failed"}
    others = Delivery.objects.exclude(pk__in=poisoned.values("pk"))
    assert set(others.values_list("status", flat=True)) == {"delivered"}
    assert others.filter(subscription=good).exists()
    assert world.audited() == {}
    assert worker.stop() == 0


def test_an_event_that_cannot_be_matched_holds_nobody_up(world: World) -> None:
    world.subscribe("one")
    world.sell(12)
    event = Event.objects.earliest("pk")
    Event.objects.filter(pk=event.pk).update(changed={"not": ["a", "list"]}, topic="\x7f.*")
    world.working()
    world.settle()
    assert world.delivered() == 11
    assert world.audited() == {}
