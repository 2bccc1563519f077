"""The console script `signalpost`, against a live server."""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import re
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from django.utils import timezone

from subscriptions.models import Subscription
from tests.receiver import Reply
from tests.traffic import make_deliveries
from webhooks import replays
from webhooks.cli import AWAY, DONE, FAILED, WRONG, replaying, site, temporary
from webhooks.cli.main import main, make_parser
from webhooks.cli.showing import GOOD, Out
from webhooks.cli.site import Site
from webhooks.models import Delivery, Replay

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_django.live_server_helper import LiveServer

    from subscriptions.models import Tenant
    from tests.programs import Api

pytestmark = pytest.mark.on("sqlite")

ROOT = Path(__file__).resolve().parents[2]
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
KEY = "sp_live_" + "k" * 43


class Answering(ThreadingHTTPServer):
    """A site that is none of ours: answers each GET with the next of `replies`."""

    def __init__(self, *replies: Reply) -> None:
        super().__init__(("127.0.0.1", 0), AnsweringOne)
        self.replies, self.asked = iter(replies), list[str]()
        self.thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> Answering:
        self.thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        self.shutdown()
        self.thread.join(5)
        self.server_close()


class AnsweringOne(BaseHTTPRequestHandler):
    server: Answering

    def do_DELETE(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        reply = next(self.server.replies)
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(reply.body)

    def log_message(self, *args: Any) -> None:
        """Quiet."""


@pytest.fixture
def cli(
    live_server: LiveServer, api: Api, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Any]:
    """`cli("topics")`: the exit status, what it printed, and what it said."""
    # The console script sets up no log; the project of these tests has one.
    monkeypatch.setattr(logging.getLogger("httpx"), "disabled", True)
    monkeypatch.setenv("SIGNALPOST_URL", live_server.url)
    monkeypatch.setenv("SIGNALPOST_API_KEY", api.value)

    def run(*arguments: str) -> tuple[int, str, str]:
        try:
            status = main(arguments)
        except SystemExit as end:
            status = int(end.code or 0)
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """The same where nobody answers."""
    monkeypatch.setenv("SIGNALPOST_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("SIGNALPOST_API_KEY", KEY)

    def run(*arguments: str) -> tuple[int, str, str]:
        try:
            status = main(arguments)
        except SystemExit as end:
            status = int(end.code or 0)
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run


class TestTopics:
    def test_all_are_listed(self, cli: Callable[..., Any]) -> None:
        status, printed, said = cli("topics")
        assert (status, said) == (0, "")
        names = [line.split()[0] for line in printed.splitlines()]
        assert {"shop.order.created", "signalpost.subscription.disabled"} <= set(names)

    def test_as_json_each_is_an_object(self, cli: Callable[..., Any]) -> None:
        _, printed, _ = cli("topics", "--json")
        rows = [json.loads(line) for line in printed.splitlines()]
        (updated,) = [row for row in rows if row["name"] == "shop.order.updated"]
        assert "status" in updated["changing"]

    def test_one_is_shown_with_its_schema_and_a_sample(self, cli: Callable[..., Any]) -> None:
        status, printed, _ = cli("topics", "shop.order.updated")
        assert status == 0
        assert '"title": "shop.order.updated"' in printed
        assert "Sample" in printed
        _, printed, _ = cli("topics", "shop.order.updated", "--json")
        row = json.loads(printed)
        assert row["schema"]["title"] == "shop.order.updated"
        assert row["sample"]["type"] == "shop.order.updated"

    def test_one_that_there_is_not_fails_in_words(self, cli: Callable[..., Any]) -> None:
        status, printed, said = cli("topics", "shop.order.paid/..")
        assert (status, printed) == (1, "")
        assert said.startswith("Error: Nothing is here. ")

    def test_an_operator_names_the_tenant(
        self, cli: Callable[..., Any], operator: Api, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SIGNALPOST_API_KEY", operator.value)
        assert cli("topics")[0] == 1
        assert cli("topics", "--tenant", tenant.slug)[0] == 0


class TestTheKey:
    def test_it_may_lie_in_a_file(
        self, cli: Callable[..., Any], api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("SIGNALPOST_API_KEY")
        file = tmp_path / "key"
        file.write_text(f"{api.value}\n")
        file.chmod(0o600)
        assert cli("topics", "--key-file", str(file))[::2] == (0, "")
        file.chmod(0o644)
        assert "can be read by others" in cli("topics", "--key-file", str(file))[2]

    @pytest.mark.parametrize("arguments", [("--key", KEY), ("--api-key", KEY), (KEY,)])
    def test_it_has_no_place_on_the_command_line(self, offline: Callable[..., Any], arguments: tuple[str, ...]) -> None:
        assert offline("tail", *arguments)[0] == 2

    @pytest.mark.parametrize("key", ["", "   ", "two words", "sp_live_\u00e9"])
    def test_what_is_no_key_is_sent_nowhere(
        self, offline: Callable[..., Any], key: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SIGNALPOST_API_KEY", key)
        status, _, said = offline("topics")
        assert status == 2
        assert "key" in said

    def test_a_file_that_is_not_there_is_wrongly_written(self, offline: Callable[..., Any]) -> None:
        assert offline("topics", "--key-file", "/nowhere")[0] == 2

    def test_one_that_was_revoked_fails_with_the_sites_words(self, cli: Callable[..., Any], api: Api) -> None:
        api.key.revoke()
        status, _, said = cli("topics")
        assert status == 1
        assert "No valid key" in said
        assert api.value not in said

    def test_as_json_an_error_is_an_object(self, cli: Callable[..., Any], api: Api) -> None:
        api.key.revoke()
        _, printed, said = cli("topics", "--json")
        assert printed == ""
        error = json.loads(said)
        assert (error["code"], error["status"]) == ("unauthorized", 401)

    def test_in_the_clear_it_is_warned_of(self, offline: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SIGNALPOST_URL", "http://127.0.0.2:1")
        assert "in the clear" in offline("topics")[2]

    def test_it_goes_to_no_other_host(self) -> None:
        """A page that names another one as the next is read where the first was."""
        pages = [
            {"data": [{"name": "a"}], "next": "http://127.0.0.2:1/api/v1/topics/?cursor=x"},
            {"data": [{"name": "b"}], "next": None},
        ]
        with Answering(*(Reply(200, body=json.dumps(page).encode()) for page in pages)) as other:
            with Site(other.url, KEY) as site:
                assert [row["name"] for row in site.all("topics/")] == ["a", "b"]
            assert other.asked == ["/api/v1/topics/", "/api/v1/topics/?cursor=x"]


class TestReplay:
    @pytest.fixture
    def subscription(self, tenant: Tenant, subscribe: Callable[..., Subscription]) -> Subscription:
        return subscribe(tenant, "*")

    @pytest.fixture
    def failed(self, subscription: Subscription) -> list[Delivery]:
        return make_deliveries(subscription, 3, status="failed", ended_at=timezone.now(), next_attempt_at=None)

    def test_deliveries_by_their_numbers(self, cli: Callable[..., Any], failed: list[Delivery]) -> None:
        first, _, last = failed
        status, printed, _ = cli("replay", str(first.pk), str(last.pk))
        assert status == 0
        assert printed.splitlines() == [
            f"delivery {each.pk} of shop.order.created will be sent again." for each in (first, last)
        ]
        assert list(Delivery.objects.open().order_by("pk")) == [first, last]

    def test_one_that_there_is_not_keeps_no_other_from_it(
        self, cli: Callable[..., Any], failed: list[Delivery]
    ) -> None:
        status, printed, _ = cli("replay", "0", str(failed[0].pk), "--json")
        assert status == 1
        wrong, right = map(json.loads, printed.splitlines())
        assert (wrong["id"], wrong["code"]) == (0, "not_found")
        assert (right["id"], right["status"]) == (failed[0].pk, "pending")

    def test_a_key_that_may_not_is_told_once(
        self,
        cli: Callable[..., Any],
        make_api: Callable[..., Api],
        failed: list[Delivery],
        tenant: Tenant,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("SIGNALPOST_API_KEY", make_api(tenant, scopes=["read"]).value)
        status, printed, said = cli("replay", *(str(each.pk) for each in failed))
        assert (status, printed) == (1, "")
        assert said.count("Error:") == 1

    def test_what_failed_since_of_a_subscription(
        self, cli: Callable[..., Any], failed: list[Delivery], subscription: Subscription
    ) -> None:
        Delivery.objects.filter(pk=failed[0].pk).update(ended_at=timezone.now() - timedelta(hours=3))
        arguments = ("replay", "--since", "2h", "--subscription", str(subscription.pk))
        assert cli(*arguments, "--dry-run")[:2] == (0, "2 deliveries found.\n")
        assert not Replay.objects.exists()
        status, printed, _ = cli(*arguments, "--yes")
        replay = Replay.objects.get()
        assert (status, printed) == (0, f"Replay {replay.pk} has begun: 2 deliveries.\n")
        assert replay.kind == Replay.Kind.FAILED

    def test_what_filters_match(self, cli: Callable[..., Any], failed: list[Delivery]) -> None:
        assert cli("replay", "--topic", "shop.customer.*", "--dry-run")[1] == "0 deliveries found.\n"
        assert cli("replay", "--topic", "shop.*", "--since", "1d", "--yes")[0] == 0
        assert Replay.objects.get().kind == Replay.Kind.FILTERED
        assert cli("replay", "--status", "delivered", "--dry-run", "--json")[1] == '{"number": 0, "exact": true}\n'

    def test_it_may_wait_until_all_are_at_their_end(
        self, cli: Callable[..., Any], failed: list[Delivery], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def worked(seconds: float) -> None:
            replays.advance()
            Delivery.objects.open().update(status="delivered", ended_at=timezone.now(), next_attempt_at=None)

        monkeypatch.setattr("webhooks.cli.replaying.time.sleep", worked)
        status, printed, _ = cli("replay", "--status", "failed", "--wait", "--yes")
        assert status == 0
        assert printed.splitlines()[-1].endswith(": 3 delivered, 0 failed, 0 open")

    def test_what_fails_again_is_an_exit_status(
        self, cli: Callable[..., Any], failed: list[Delivery], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def worked(seconds: float) -> None:
            replays.advance()
            Delivery.objects.open().update(status="failed", ended_at=timezone.now(), next_attempt_at=None)

        monkeypatch.setattr("webhooks.cli.replaying.time.sleep", worked)
        assert cli("replay", "--status", "failed", "--wait", "--yes")[0] == 1

    @pytest.mark.parametrize(("answer", "status"), [("n", 1), ("", 1), ("y", 0)])
    def test_in_a_terminal_it_asks_first(
        self, cli: Callable[..., Any], failed: list[Delivery], monkeypatch: pytest.MonkeyPatch, answer: str, status: int
    ) -> None:
        monkeypatch.setattr("sys.stdin", Terminal())
        monkeypatch.setattr("builtins.input", lambda question: answer)
        assert cli("replay", "--status", "failed")[0] == status
        assert Replay.objects.exists() is (status == 0)

    @pytest.mark.parametrize(
        "arguments",
        [(), ("1", "--since", "2h"), ("one",), ("--since", "2y"), ("--since", "2999-01-01"), ("--status", "lost")],
    )
    def test_what_is_written_wrongly_asks_nobody(self, offline: Callable[..., Any], arguments: tuple[str, ...]) -> None:
        assert offline("replay", *arguments)[0] == 2

    @pytest.mark.parametrize(
        ("text", "then"),
        [
            ("90m", NOON - timedelta(minutes=90)),
            (" 2w ", NOON - timedelta(weeks=2)),
            ("2026-11-20T09:30:00Z", datetime(2026, 11, 20, 9, 30, tzinfo=UTC)),
            ("2026-11-20T09:30+02:00", datetime(2026, 11, 20, 7, 30, tzinfo=UTC)),
            ("2026-11-20", datetime(2026, 11, 20).astimezone(UTC)),
        ],
    )
    def test_moments_are_read(self, text: str, then: datetime) -> None:
        assert replaying.moment(text, now=NOON) == then


def nobody() -> str:
    """As getpass has it of a number that stands for nobody."""
    raise KeyError("uid not found: 1000")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class TestTheTemporarySubscription:
    def test_its_end_is_put_off_once_half_of_its_time_is_over(self, live_server: LiveServer, api: Api) -> None:
        with Site(live_server.url, api.value) as site:
            own = temporary.Temporary(site, ["*"])
            own.open()
            row = Subscription.objects.get()
            own.renew()
            assert Subscription.objects.get().version == row.version
            Subscription.objects.filter(pk=row.pk).update(name=row.name.replace("until 2", "until 1"))
            own.renew_at = datetime.now(UTC)
            own.renew()
            assert Subscription.objects.get().name[:-6] == row.name[:-6]
            assert own.renew_at > datetime.now(UTC) + timedelta(hours=5)
            own.close()
        assert not Subscription.objects.exists()

    def test_whose_it_is_holds_nothing_that_a_name_may_not(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("getpass.getuser", lambda: "a\tb\u202e, until 2020-01-01T00:00Z")
        name = temporary.Temporary.__dict__["_name"](SimpleNamespace())
        found = temporary.NAME.fullmatch(name)
        assert found is not None
        assert found[1] > "2026"
        assert name.isprintable()
        monkeypatch.setattr("getpass.getuser", nobody)
        assert "somebody@" in temporary.Temporary.__dict__["_name"](SimpleNamespace())

    def test_more_than_one_request_deletes_is_asked_for_again(self) -> None:
        with Answering(Reply(202, {"retry-after": "0"}), Reply(204)) as other:
            with Site(other.url, KEY) as site:
                site.delete("subscriptions/3/")
            assert other.asked == ["/api/v1/subscriptions/3/"] * 2


class TestWhatIsPrinted:
    def test_colours_only_in_a_terminal_that_wants_them(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.delenv("NO_COLOR", raising=False)
        assert printed(Terminal()) == "\x1b[32mdone\x1b[0m\n"
        assert printed(io.StringIO()) == "done\n"
        monkeypatch.setenv("NO_COLOR", "1")
        assert printed(Terminal()) == "done\n"

    def test_nothing_that_comes_from_the_site_steers_the_terminal(self) -> None:
        stream = io.StringIO()
        Out(results=stream).line("a\x1b]0;b\x07\u202ec\nd")
        assert stream.getvalue() == "a\\x1b]0;b\\x07\\u202ec\\nd\n"

    def test_a_reader_that_goes_away_ends_it_quietly(self, live_server: LiveServer, api: Api) -> None:
        environment = {**os.environ, "SIGNALPOST_URL": live_server.url, "SIGNALPOST_API_KEY": api.value}
        command = f"set -o pipefail; {sys.executable} -m webhooks.cli.main topics --json | head -n 1"
        shell = ["bash", "-c", command]
        done = subprocess.run(shell, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


def printed(stream: io.StringIO) -> str:
    Out(results=stream).line("done", colour=GOOD)
    return stream.getvalue()


class TestTheSite:
    def test_that_nobody_answers_is_an_exit_status_of_its_own(self, offline: Callable[..., Any]) -> None:
        status, printed, said = offline("topics")
        assert (status, printed) == (3, "")
        assert "cannot be reached" in said

    @pytest.mark.parametrize(
        "url",
        [
            "",
            "hooks.example",
            "ftp://hooks.example",
            "https://",
            "https://a b/",
            "https://a:x",
            "https://xn--/",
            "http://[::1",
            "http://a:0",
        ],
    )
    def test_an_address_that_is_none_is_wrongly_written(
        self, offline: Callable[..., Any], url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SIGNALPOST_URL", url)
        assert offline("topics")[0] == 2

    @pytest.mark.parametrize(
        "given", ["https://a.example", "https://a.example/", "https://a.example/api/v1", "https://a.example/api/v1/"]
    )
    def test_its_address_may_be_that_of_the_api(self, given: str) -> None:
        with Site(given, KEY) as site:
            assert site.url == "https://a.example/api/v1/"

    def test_it_may_lie_below_a_path(self) -> None:
        with Site("https://a.example/hooks/", KEY) as site:
            assert site.url == "https://a.example/hooks/api/v1/"

    @pytest.mark.parametrize(
        ("reply", "status", "words"),
        [
            (Reply(200, body=b"<html>"), 1, "not as Signalpost's API does"),
            (Reply(200, body=b"[]"), 1, "not as Signalpost's API does"),
            (Reply(200, body=b"null"), 1, "not as Signalpost's API does"),
            (Reply(204), 1, "not as Signalpost's API does"),
            (Reply(200, body=b"[" * 200_000), 1, "not as Signalpost's API does"),
            (Reply(200, body=b"{}"), 1, "without 'data'"),
            (Reply(200, body=b'{"data": 5, "next": null}'), 1, "not as Signalpost's API does"),
            (Reply(200, body=b'{"data": [5], "next": null}'), 1, "not as Signalpost's API does"),
            (Reply(200, body=b'{"data": [{}], "next": null}'), 1, "without 'name'"),
            (Reply(400, body=b'{"title": "No", "errors": 5}'), 1, "No."),
            (Reply(400, body=b'{"title": "No", "errors": [5, {"field": "/a", "detail": "b"}]}'), 1, "/a: b"),
            (Reply(301, {"location": "https://elsewhere.example/"}), 1, "elsewhere.example"),
            (Reply(404, body=b"nothing"), 1, "There is no API of Signalpost at"),
            (Reply(418, body=b'["no problem"]'), 1, "418"),
            (Reply(502, body=b"<html>"), 3, "502"),
            (Reply(503, {"retry-after": "7"}), 3, "503"),
        ],
    )
    def test_whatever_it_answers_is_told_in_words(
        self, offline: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, reply: Reply, status: int, words: str
    ) -> None:
        with Answering(reply) as anything:
            monkeypatch.setenv("SIGNALPOST_URL", anything.url)
            ended, printed, said = offline("topics")
        assert (ended, printed) == (status, "")
        assert words in said

    def test_an_answer_without_an_end_is_not_waited_for(
        self, offline: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("webhooks.cli.site.MOST", 100_000)
        with Answering(Reply(200, body=b'{"data": "' + b"x" * 1_000_000 + b'"}')) as endless:
            monkeypatch.setenv("SIGNALPOST_URL", endless.url)
            status, printed, said = offline("topics")
        assert (status, printed) == (1, "")
        assert "without an end" in said

    def test_no_site_makes_it_wait_for_ever(self) -> None:
        assert site._retry_after(httpx.Response(503, headers={"retry-after": "9" * 30})) == site.LONGEST_WAIT
        assert site._retry_after(httpx.Response(503, headers={"retry-after": "7"})) == 7.0

    def test_a_password_in_its_address_would_take_the_place_of_the_key(
        self, offline: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SIGNALPOST_URL", "https://alice:hush@a.example/")
        status, _printed, said = offline("topics")
        assert status == 2
        assert "hush" not in said


def test_it_needs_no_django_project(tmp_path: Path) -> None:
    """Nor its settings, nor its models."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DJANGO_")}
    environment["PYTHONPATH"] = str(ROOT)
    ask = "import sys, webhooks.cli.main as it; it.make_parser(); sys.exit('django.db' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", ask], cwd=tmp_path, env=environment, check=False).returncode == 0
    command = [sys.executable, "-m", "webhooks.cli.main", "--help"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert all(name in done.stdout for name in ("listen", "replay", "tail", "topics"))


def test_the_page_shows_every_option_and_exit_status() -> None:
    page = (ROOT / "docs" / "cli.md").read_text()
    (commands,) = [each for each in make_parser()._actions if isinstance(each, argparse._SubParsersAction)]
    for name, parser in commands.choices.items():
        assert f"signalpost {name}" in page
        options = [option for action in parser._actions for option in action.option_strings]
        missing = [option for option in options if option not in {"-h", "--help"} and option not in page]
        assert not missing, name
    table = page.split("| exit status |")[1]
    assert re.findall(r"^\| (\d) \|", table, re.MULTILINE) == [str(each) for each in (DONE, FAILED, WRONG, AWAY)]
