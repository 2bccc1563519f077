"""The console script `signalpost`, against a live server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.receiver import Reply
from webhooks.cli.main import main
from webhooks.cli.site import Site

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_django.live_server_helper import LiveServer

    from subscriptions.models import Tenant
    from tests.programs import Api

ROOT = Path(__file__).resolve().parents[2]
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


class TestTheSite:
    def test_that_nobody_answers_is_an_exit_status_of_its_own(self, offline: Callable[..., Any]) -> None:
        status, printed, said = offline("topics")
        assert (status, printed) == (3, "")
        assert "cannot be reached" in said

    @pytest.mark.parametrize(
        "url", ["", "hooks.example", "ftp://hooks.example", "https://", "https://a b/", "https://a:x"]
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


def test_it_needs_no_django_project(tmp_path: Path) -> None:
    """Nor its settings, nor its models."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DJANGO_")}
    environment["PYTHONPATH"] = str(ROOT)
    ask = "import sys, webhooks.cli.main as it; it.make_parser(); sys.exit('django.db' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", ask], cwd=tmp_path, env=environment, check=False).returncode == 0
    command = [sys.executable, "-m", "webhooks.cli.main", "--help"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert all(name in done.stdout for name in ("listen", "replay", "tail", "topics"))
