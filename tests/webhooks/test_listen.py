from __future__ import annotations

import http.client
import io
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from hypothesis import given
from hypothesis import strategies as st

from webhooks import signing
from webhooks.management import listening, printing
from webhooks.management.commands import listen
from webhooks.management.listening import Orders, Received, Receiver
from webhooks.management.stopping import stopped_by_signals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_" + "A" * 44
BODY = b'{"type":"shop.order.updated","data":{"object":{"id":1}}}'


def signed(body: bytes = BODY, *, webhook_id: str = "evt_1", secret: str = SECRET, age: int = 0) -> dict[str, str]:
    return signing.headers(webhook_id=webhook_id, timestamp=int(time.time()) - age, body=body, secrets=[secret])


def received(body: bytes = BODY, **fields: Any) -> Received:
    given = Received(datetime(2026, 11, 21, 9, 30, 0, 123_456, tzinfo=UTC), "evt_1", body, "", again=False, status=204)
    return replace(given, **fields)


@dataclass
class Listening:
    """A receiver at work, and what it told of."""

    port: int = 0
    webhooks: list[Received] = field(default_factory=list)
    nonsense: list[str] = field(default_factory=list)
    told: threading.Condition = field(default_factory=threading.Condition)

    def on_webhook(self, webhook: Received) -> None:
        with self.told:
            self.webhooks.append(webhook)
            self.told.notify_all()

    def on_nonsense(self, text: str) -> None:
        with self.told:
            self.nonsense.append(text)
            self.told.notify_all()

    def wait_for(self, *, webhooks: int = 0, nonsense: int = 0) -> None:
        with self.told:
            assert self.told.wait_for(
                lambda: len(self.webhooks) >= webhooks and len(self.nonsense) >= nonsense, timeout=10
            ), (self.webhooks, self.nonsense)

    def post(self, body: bytes = BODY, headers: dict[str, str] | None = None) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("POST", "/", body, signed(body) if headers is None else headers)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def raw(self, sent: bytes) -> bytes:
        """What comes back for `sent`, until the other side closes, or has
        enough before it has read all of it."""
        back = b""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            with suppress(ConnectionError):
                connection.sendall(sent)
                connection.shutdown(socket.SHUT_WR)
            with suppress(ConnectionError):
                while chunk := connection.recv(65_536):
                    back += chunk
        return back


@pytest.fixture
def listening_with() -> Iterator[Callable[..., Listening]]:
    receivers: list[tuple[Receiver, threading.Thread]] = []

    def start(*secrets: str, **orders: Any) -> Listening:
        at = Listening()
        receiver = Receiver(
            ("127.0.0.1", 0),
            secrets=secrets or (SECRET,),
            orders=Orders(**orders),
            on_webhook=at.on_webhook,
            on_nonsense=at.on_nonsense,
        )
        at.port = receiver.server_port
        thread = threading.Thread(target=receiver.serve_forever, args=(0.01,))
        thread.start()
        receivers.append((receiver, thread))
        return at

    yield start
    for receiver, thread in receivers:
        receiver.shutdown()
        receiver.server_close()
        thread.join()


@pytest.fixture
def at(listening_with: Callable[..., Listening]) -> Listening:
    return listening_with()


class TestVerdict:
    def test_a_webhook_that_verifies_is_answered_with_204(self, at: Listening) -> None:
        assert at.post() == (204, "")
        (webhook,) = at.webhooks
        assert (webhook.webhook_id, webhook.body, webhook.problem, webhook.status) == ("evt_1", BODY, "", 204)

    @pytest.mark.parametrize(
        ("make_headers", "why"),
        [
            (dict, "The webhook-id header is missing."),
            (
                lambda: signed(secret=OTHER),
                "No signature matches: it was made with another secret, or for another body.",
            ),
            (lambda: signed(b"{}"), "No signature matches: it was made with another secret, or for another body."),
            (lambda: signed(age=3_600), "The webhook-timestamp is 3600 s old; at most 300 s are accepted."),
        ],
    )
    def test_one_that_does_not_is_answered_with_400_and_the_reason(
        self, at: Listening, make_headers: Callable[[], dict[str, str]], why: str
    ) -> None:
        status, text = at.post(headers=make_headers())
        assert (status, at.webhooks[0].status) == (400, 400)
        assert re.sub("36\\d\\d", "3600", text.strip()) == re.sub("36\\d\\d", "3600", at.webhooks[0].problem) == why

    def test_any_of_several_secrets_will_do(self, listening_with: Callable[..., Listening]) -> None:
        at = listening_with(OTHER, SECRET)
        assert at.post()[0] == at.post(headers=signed(secret=OTHER))[0] == 204

    def test_an_empty_body_is_not_verified(self, at: Listening) -> None:
        assert at.post(b"", {**signed(), "content-length": "0"})[0] == 400

    def test_bytes_of_any_kind_are_a_body(self, at: Listening) -> None:
        body = bytes(range(256))
        assert at.post(body)[0] == 204
        assert at.webhooks[0].body == body


class TestAgain:
    def test_an_id_that_was_verified_before_comes_again(self, at: Listening) -> None:
        at.post()
        at.post(headers=signed(webhook_id="evt_2"))
        at.post()
        assert [webhook.again for webhook in at.webhooks] == [False, False, True]

    def test_a_stranger_cannot_use_up_an_id(self, at: Listening) -> None:
        at.post(headers=signed(secret=OTHER))
        at.post()
        at.post(headers=signed(secret=OTHER))
        assert [webhook.again for webhook in at.webhooks] == [False, False, False]

    def test_only_the_last_ids_are_remembered(self, at: Listening, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(listening, "REMEMBERED", 2)
        for webhook_id in ("evt_1", "evt_2", "evt_1", "evt_3", "evt_1", "evt_2"):
            at.post(headers=signed(webhook_id=webhook_id))
        assert [webhook.again for webhook in at.webhooks] == [False, False, True, False, True, False]


class TestOrders:
    def test_the_first_times_fail_as_told_and_then_it_is_well(self, listening_with: Callable[..., Listening]) -> None:
        at = listening_with(status=500, times=2)
        assert [at.post()[0] for _ in range(4)] == [500, 500, 204, 204]
        assert [webhook.status for webhook in at.webhooks] == [500, 500, 204, 204]

    def test_without_times_every_one_fails(self, listening_with: Callable[..., Listening]) -> None:
        at = listening_with(status=410)
        assert [at.post()[0] for _ in range(3)] == [410, 410, 410]

    def test_what_is_not_verified_fails_as_told_and_says_why(self, listening_with: Callable[..., Listening]) -> None:
        at = listening_with(status=503, times=1)
        assert at.post(headers={}) == (503, "The webhook-id header is missing.\n")
        assert at.post(headers={})[0] == 400

    @pytest.mark.parametrize("status", [200, 204, 299, 301, 304, 404, 429, 599])
    def test_any_status_can_be_told(self, listening_with: Callable[..., Listening], status: int) -> None:
        assert listening_with(status=status).post() == (status, "")

    def test_of_many_at_once_exactly_so_many_fail(self, listening_with: Callable[..., Listening]) -> None:
        at = listening_with(status=500, times=5)
        statuses: list[int] = []
        threads = [threading.Thread(target=lambda: statuses.append(at.post()[0])) for _ in range(60)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(statuses) == [204] * 55 + [500] * 5

    def test_a_delay_comes_before_the_answer_but_not_before_the_telling(
        self, listening_with: Callable[..., Listening], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        go, waits = threading.Event(), []

        def sleep(seconds: float) -> None:
            waits.append(seconds)
            assert go.wait(10)

        monkeypatch.setattr("webhooks.management.listening.time.sleep", sleep)
        at = listening_with(delay=7.5)
        answers: list[int] = []
        sender = threading.Thread(target=lambda: answers.append(at.post()[0]))
        sender.start()
        at.wait_for(webhooks=1)
        assert answers == []
        go.set()
        sender.join()
        assert (answers, waits) == ([204], [7.5])


class TestStrangers:
    def test_a_body_over_the_limit_is_refused_and_never_kept(self, at: Listening) -> None:
        status, text = at.post(b"x" * (listening.BODY_LIMIT + 1))
        assert (status, text) == (413, "The body has 1,048,577 bytes; the limit is 1,048,576.\n")
        assert at.webhooks == []
        assert at.post(b"1" * listening.BODY_LIMIT)[0] == 204

    def test_of_a_body_without_end_only_so_much_is_read(self, at: Listening) -> None:
        back = at.raw(b"POST / HTTP/1.1\r\ncontent-length: 999999999999\r\n\r\n" + b"x" * 1000)
        assert back.startswith(b"HTTP/1.1 413 ")

    @pytest.mark.parametrize(
        ("request_", "status"),
        [
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"400"),  # the hello of TLS
            (b"\x00\xff\x1b[2J\r\n\r\n", b"400"),
            (b"POST / HTTP/9.9\r\n\r\n", b"505"),
            (b"POST /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", b"414"),
            (b"POST / HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n", b"431"),
            (b"POST / HTTP/1.1\r\na: " + b"b" * 70_000 + b"\r\n\r\n", b"431"),
            (b"BREW / HTTP/1.1\r\n\r\n", b"501"),
            (b"POST / HTTP/1.1\r\n\r\n", b"411"),
            (b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", b"411"),
            (b"POST / HTTP/1.1\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n{}", b"411"),
            (b"POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n", b"400"),
            (b"POST / HTTP/1.1\r\ncontent-length: 1e3\r\n\r\n", b"400"),
            (b"POST / HTTP/1.1\r\ncontent-length: \r\n\r\n", b"400"),
            (b"POST / HTTP/1.1\r\ncontent-length: " + b"9" * 5_000 + b"\r\n\r\n", b"400"),
            (b"POST / HTTP/1.1\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}", b"400"),
            (b"POST / HTTP/1.1\r\ncontent-length: 10\r\n\r\n{}", b"400"),
            (b"GET / HTTP/1.1\r\n\r\n", b"405"),
            (b"HEAD / HTTP/1.1\r\n\r\n", b"405"),
        ],
    )
    def test_a_malformed_request_is_refused_and_the_next_one_served(
        self, at: Listening, request_: bytes, status: bytes
    ) -> None:
        assert at.raw(request_).startswith(b"HTTP/1.1 " + status)
        assert len(at.nonsense) == 1
        assert at.nonsense[0].endswith(f"Answered {status.decode()}.")
        assert at.webhooks == []
        assert at.post()[0] == 204

    def test_https_where_it_is_http_is_told_as_that(self, at: Listening) -> None:
        at.raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")
        assert at.nonsense == ["The sender speaks TLS; here the URL begins with http://. Answered 400."]

    def test_nothing_after_a_refused_request_is_taken_for_another_one(self, at: Listening) -> None:
        back = at.raw(b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n")
        assert back.count(b"HTTP/1.1 405") == 1
        assert b"connection: close" in back

    def test_several_webhooks_may_share_a_connection(self, at: Listening) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", at.port, timeout=10)
        for _ in range(3):
            connection.request("POST", "/", BODY, signed())
            assert connection.getresponse().read() == b""
        connection.close()
        assert len(at.webhooks) == 3

    def test_a_sender_that_goes_away_is_nothing_to_speak_of(
        self, listening_with: Callable[..., Listening], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gone = threading.Event()
        monkeypatch.setattr("webhooks.management.listening.time.sleep", lambda _: gone.wait(10))
        at = listening_with()
        connection = socket.create_connection(("127.0.0.1", at.port), timeout=10)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")  # close by RST
        head = "".join(f"{name}: {value}\r\n" for name, value in signed().items())
        connection.sendall(f"POST / HTTP/1.1\r\ncontent-length: {len(BODY)}\r\n{head}\r\n".encode() + BODY)
        at.wait_for(webhooks=1)
        connection.close()
        gone.set()
        assert at.post()[0] == 204
        assert at.nonsense == []

    def test_a_mistake_of_ours_costs_one_request_and_is_told(
        self, at: Listening, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            patch.setattr("webhooks.management.listening.signing.verify", lambda *_: 1 / 0)
            assert at.raw(b"POST / HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}") == b""
            at.wait_for(nonsense=1)
        assert at.nonsense == ["ZeroDivisionError: division by zero"]
        assert at.post()[0] == 204

    def test_a_connection_that_says_nothing_is_closed(self, at: Listening, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(listening.Handler, "timeout", 0.05)
        with socket.create_connection(("127.0.0.1", at.port), timeout=10) as silent:
            assert silent.recv(1) == b""


class TestHeadline:
    def test_it_says_when_what_and_that_it_is_verified(self) -> None:
        at = received().at.astimezone().strftime("%H:%M:%S")
        assert printing.headline(received()) == f"{at} shop.order.updated evt_1: verified. Answered 204."

    def test_it_says_that_it_is_not_verified_and_why(self) -> None:
        line = printing.headline(received(problem="No signature matches.", status=400))
        assert line.endswith(" shop.order.updated evt_1: NOT VERIFIED: No signature matches. Answered 400.")

    def test_it_marks_what_comes_again(self) -> None:
        assert "evt_1 again: verified." in printing.headline(received(again=True))

    @pytest.mark.parametrize("body", [b"", b"no", b"[]", b"7", b"{}", b'{"type":7}', b'{"type":""}', b"[" * 200_000])
    def test_a_body_without_a_topic_is_said_to_have_none(self, body: bytes) -> None:
        assert "(no topic) (no id): " in printing.headline(received(body, webhook_id=""))

    def test_it_is_one_line_of_bounded_length_whatever_comes(self) -> None:
        body = json.dumps({"type": "\n\x1b[2J" * 100_000}).encode()
        line = printing.headline(received(body, webhook_id="\r\n" * 100_000))
        assert "\n" not in line
        assert len(line) < 3_000


class TestIndented:
    def test_json_is_laid_out(self) -> None:
        assert printing.indented(b'{"a":["\xc3\xa9"]}') == '    {\n      "a": [\n        "é"\n      ]\n    }'

    @pytest.mark.parametrize(
        ("body", "shown"),
        [
            (b"", "    "),
            (b"plain\ntext", "    plain\n    text"),
            (b"\xff\x00", "    \\xff\\x00"),
            (b"[NaN]", "    [NaN]"),
            (b"null", "    null"),
            (b"9" * 5_000, "    " + "9" * 5_000),  # more digits than int() takes
        ],
    )
    def test_anything_else_is_shown_as_it_is(self, body: bytes, shown: str) -> None:
        assert printing.indented(body) == shown

    @pytest.mark.parametrize("body", [b"[" * 200_000, b"[" * 400 + b"1," * 300_000 + b"1" + b"]" * 400, b"x" * 10**6])
    def test_it_is_cut_and_says_so(self, body: bytes) -> None:
        shown = printing.indented(body)
        assert shown.endswith("\n    (cut here)")
        assert len(shown) < 2 * printing.BODY_LIMIT + 100

    @given(st.binary() | st.text().map(lambda text: json.dumps(text, ensure_ascii=False).encode(errors="replace")))
    def test_nothing_reaches_the_terminal_but_what_can_be_printed(self, body: bytes) -> None:
        assert all(line.isprintable() for line in printing.indented(body).split("\n"))


class TestPlain:
    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            ("\x1b]0;owned\x07", "\\x1b]0;owned\\x07"),
            ("\x9b31m", "\\x9b31m"),  # the one-byte form of ESC [
            ("a\rb\nc\td\0", "a\\rb\\nc\\td\\x00"),
            ("user\u202etxt.exe", "user\\u202etxt.exe"),  # right to left
            ("\ud800", "\\ud800"),
            ("é 漢 😀", "é 漢 😀"),
        ],
    )
    def test_what_could_steer_a_terminal_becomes_its_escape(self, text: str, shown: str) -> None:
        assert printing.plain(text) == shown


class TestAsJson:
    def test_it_is_one_line_that_says_everything(self) -> None:
        assert json.loads(printing.as_json(received())) == {
            "time": "2026-11-21T09:30:00.123+00:00",
            "topic": "shop.order.updated",
            "id": "evt_1",
            "verified": True,
            "problem": "",
            "again": False,
            "status": 204,
            "body": json.loads(BODY),
        }

    @pytest.mark.parametrize("body", [b"", b"no", b"\xff\x00", b"[NaN]", b"9" * 5_000, b"[" * 200_000])
    def test_a_body_that_is_no_json_is_a_string(self, body: bytes) -> None:
        assert json.loads(printing.as_json(received(body)))["body"] == body.decode(errors="replace")

    @given(st.binary())
    def test_it_is_ascii_without_controls_whatever_comes(self, body: bytes) -> None:
        line = printing.as_json(received(body, problem="why \x1b"))
        assert line.isascii()
        assert line.isprintable()


@dataclass
class Process:
    """`manage.py listen` as it is started by hand, where no database and no queue answers."""

    popen: subprocess.Popen[bytes]
    stdout: int
    buffer: bytes = b""

    def line(self) -> str:
        while b"\n" not in self.buffer:
            ready, _, _ = select.select([self.stdout], [], [], 20)
            assert ready, f"no line came, only {self.buffer!r}"
            chunk = os.read(self.stdout, 65_536)
            assert chunk, f"it ended after {self.buffer!r}: {self.popen.communicate()}"
            self.buffer += chunk
        line, self.buffer = self.buffer.split(b"\n", 1)
        return line.decode()

    def listening(self) -> Listening:
        line = self.line()
        found = re.search(r"http://127\.0\.0\.1:(\d+)/", line)
        assert found, line
        return Listening(port=int(found[1]))

    def stop(self, number: int) -> tuple[int, str, str]:
        self.popen.send_signal(number)
        out, err = self.popen.communicate(timeout=10)
        return self.popen.returncode, (self.buffer + out).decode(), err.decode()


@pytest.fixture
def run_listen(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    env = {
        **os.environ,
        "DATABASE_URL": "postgres://nobody@127.0.0.1:1/none",
        "REDIS_URL": "redis://127.0.0.1:1",
        "SECRET_KEY": "x" * 60,
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "SIGNALPOST_DATA_DIR": str(tmp_path),
        "PYTHONUNBUFFERED": "",  # what it prints must come without help
    }
    started: list[Process] = []

    def run(*options: str, **more: Any) -> Process:
        popen = subprocess.Popen(
            [sys.executable, "manage.py", "listen", "--port", "0", "--secret", SECRET, *options],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            **more,
        )
        assert popen.stdout is not None
        started.append(Process(popen, popen.stdout.fileno()))
        return started[-1]

    yield run
    for process in started:
        process.popen.kill()
        process.popen.communicate()


class TestProcess:
    def test_it_prints_each_webhook_as_it_comes_and_ends_well_on_ctrl_c(
        self, run_listen: Callable[..., Process]
    ) -> None:
        process = run_listen("--status", "500", "--times", "1")
        at = process.listening()
        assert at.post()[0] == 500
        assert process.line().endswith(" shop.order.updated evt_1: verified. Answered 500.")
        assert [process.line() for _ in range(8)] == printing.indented(BODY).split("\n")
        assert at.post()[0] == 204
        assert process.line().endswith(" shop.order.updated evt_1 again: verified. Answered 204.")
        assert at.post(b"\x1b[2J", {})[0] == 400
        assert at.raw(b"\x1b[2J\r\n\r\n")
        code, out, err = process.stop(signal.SIGINT)
        assert (code, out.splitlines()[-1]) == (0, "Stopped; 3 received, 1 not verified.")
        assert err.startswith("Not a webhook: ")
        assert "\x1b" not in out + err
        assert "Traceback" not in err

    def test_json_lines_and_sigterm_in_the_middle_of_a_delay(self, run_listen: Callable[..., Process]) -> None:
        process = run_listen("--json", "--delay", "60", "--secret", OTHER)
        listening_line = process.listening()
        head = "".join(f"{name}: {value}\r\n" for name, value in signed(secret=OTHER).items())
        with socket.create_connection(("127.0.0.1", listening_line.port), timeout=10) as waiting:
            waiting.sendall(f"POST / HTTP/1.1\r\ncontent-length: {len(BODY)}\r\n{head}\r\n".encode() + BODY)
            line = json.loads(process.line())
            assert (line["verified"], line["body"]) == (True, json.loads(BODY))
            assert process.stop(signal.SIGTERM) == (0, "", "")

    def test_quiet_prints_no_body_and_a_reader_that_leaves_ends_it(self, run_listen: Callable[..., Process]) -> None:
        process = run_listen("--quiet")
        at = process.listening()
        at.post()
        assert process.line().endswith("verified. Answered 204.")
        assert process.popen.stdout is not None
        assert process.popen.stderr is not None
        process.popen.stdout.close()
        with suppress(OSError):  # the answer may not come any more
            at.post()
        assert process.popen.wait(10) == 0
        assert process.popen.stderr.read() == b""

    def test_started_in_the_background_it_still_hears_sigint(self, run_listen: Callable[..., Process]) -> None:
        process = run_listen("--quiet", preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
        process.listening()
        assert process.stop(signal.SIGINT)[0] == 0

    def test_a_port_that_is_taken_is_said_in_one_line(self, run_listen: Callable[..., Process]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            process = run_listen("--port", str(port))
            out, err = process.popen.communicate(timeout=20)
        assert (process.popen.returncode, out) == (1, b"")
        assert err.decode() == (
            f"CommandError: Port {port} is taken. Choose another with --port, or --port 0 for any that is free.\n"
        )


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "why"),
        [
            ([], "--secret"),
            (["--secret", "swordfish"], "A secret is whsec_"),
            (["--secret", SECRET, "--port", "65536"], "from 0 to 65535"),
            (["--secret", SECRET, "--port", "http"], "from 0 to 65535"),
            (["--secret", SECRET, "--status", "199"], "from 200 to 599"),
            (["--secret", SECRET, "--status", "600"], "from 200 to 599"),
            (["--secret", SECRET, "--status", "500", "--times", "0"], "argument --times"),
            (["--secret", SECRET, "--times", "2"], "--times goes with --status"),
            (["--secret", SECRET, "--delay", "-1"], "argument --delay"),
            (["--secret", SECRET, "--delay", "nan"], "argument --delay"),
            (["--secret", SECRET, "--quiet", "--json"], "not allowed with"),
            (["--secret", SECRET, "--host", "256.0.0.1"], "Cannot listen on 256.0.0.1 port 9000"),
            (["--secret", SECRET, "--host", "192.0.2.1"], "Cannot listen on 192.0.2.1 port 9000"),
        ],
    )
    def test_a_wrong_one_is_refused_with_the_reason(self, options: list[str], why: str) -> None:
        with pytest.raises(CommandError, match=re.escape(why)):
            call_command("listen", *options)

    def test_a_refused_secret_is_not_shown(self) -> None:
        with pytest.raises(CommandError) as refused:
            call_command("listen", "--secret", "swordfish")
        assert "swordfish" not in str(refused.value)

    @pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
    def test_it_listens_on_ipv6_too(self) -> None:
        try:
            receiver = Receiver(
                ("::1", 0), secrets=[SECRET], orders=Orders(), on_webhook=lambda _: None, on_nonsense=lambda _: None
            )
        except OSError:
            pytest.skip("no IPv6 loopback here")
        with receiver:
            assert receiver.url == f"http://[::1]:{receiver.server_port}/"


class TestInAThread:
    def test_it_can_be_called_from_a_thread_and_leaves_signals_alone(self) -> None:
        """As a demo or a test may start it."""
        before = signal.getsignal(signal.SIGTERM)
        lines = io.StringIO()
        command = listen.Command(stdout=lines)
        log = listen.Log(command, form="quiet")
        receiver = command._receiver(
            log, {"host": "127.0.0.1", "port": 0, "secret": [SECRET], "status": None, "times": None, "delay": 0.0}
        )

        def serve() -> None:
            with receiver, stopped_by_signals():
                receiver.serve_forever(0.01)

        thread = threading.Thread(target=serve)
        thread.start()
        assert Listening(port=receiver.server_port).post()[0] == 204
        receiver.shutdown()
        thread.join()
        log.stopped()
        log.webhook(received())
        log.nonsense("late")
        assert signal.getsignal(signal.SIGTERM) is before
        assert lines.getvalue().splitlines()[-1] == "Stopped; 1 received."
