"""The settings as a process of its own sees them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django import VERSION

ROOT = Path(__file__).resolve().parent.parent.parent
ASIDE = (
    "DATABASE_URL", "REDIS_URL", "SECRET_KEY", "SIGNALPOST_", "DJANGO_SETTINGS_MODULE", "HTTPS", "EMAIL_URL", "SIGNUP"
)  # fmt: skip


def read(expression: str, **env: str) -> Any:
    """What `expression` is over `config.settings` as `s`, in a fresh process."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(ASIDE)}
    code = f"import json; from config import settings as s; print(json.dumps({expression}, default=str))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={**clean, **env}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr.splitlines()[-1])
    return json.loads(done.stdout)


def test_with_nothing_set_everything_is_embedded(tmp_path: Path) -> None:
    database, redis, key, debug = read(
        "[s.DATABASES['default'], s.REDIS_URL, s.SECRET_KEY, s.DEBUG]", SIGNALPOST_DATA_DIR=str(tmp_path)
    )
    assert database["NAME"] == str(tmp_path / "signalpost.sqlite3")
    assert database["OPTIONS"]["transaction_mode"] == "IMMEDIATE"
    assert redis == f"unix://{tmp_path}/valkey.sock"
    assert len(key) >= 50
    assert debug is False


def test_two_variables_switch_to_postgresql_and_redis(tmp_path: Path) -> None:
    database, queues = read(
        "[s.DATABASES['default'], s.RQ_QUEUES]",
        SIGNALPOST_DATA_DIR=str(tmp_path),
        DATABASE_URL="postgres://ann:pw@db.example:5433/post",
        REDIS_URL="redis://queue.example:6380/2",
        SECRET_KEY="k",
    )
    assert database["ENGINE"] == "django.db.backends.postgresql"
    assert (database["HOST"], database["PORT"], database["NAME"]) == ("db.example", 5433, "post")
    assert queues["default"]["URL"] == "redis://queue.example:6380/2"


def test_a_shared_database_wants_its_key_from_outside(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="SECRET_KEY"):
        read("s.DEBUG", SIGNALPOST_DATA_DIR=str(tmp_path), DATABASE_URL="postgres://u@h/d")


def test_a_secret_may_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("from a file\n")
    key = read("s.SECRET_KEY", SIGNALPOST_DATA_DIR=str(tmp_path), SECRET_KEY_FILE=str(tmp_path / "key"))
    assert key == "from a file"


def test_every_setting_of_signalpost_may_come_from_the_environment(tmp_path: Path) -> None:
    assert read(
        "[s.SIGNALPOST_ALLOWED_NETWORKS, s.SIGNALPOST_LEASE_SECONDS, s.SIGNALPOST_CAPTURE_ERRORS,"
        " s.SIGNALPOST_RETRY_SCHEDULE]",
        SIGNALPOST_DATA_DIR=str(tmp_path),
        SIGNALPOST_ALLOWED_NETWORKS="10.0.0.0/8,192.168.0.0/16",
        SIGNALPOST_LEASE_SECONDS="90",
        SIGNALPOST_CAPTURE_ERRORS="log",
        SIGNALPOST_RETRY_SCHEDULE="1,2.5",
    ) == [["10.0.0.0/8", "192.168.0.0/16"], 90.0, "log", [1.0, 2.5]]


@pytest.mark.parametrize(
    ("variable", "value"), [("SIGNALPOST_BODY_LIMIT", "1 MB"), ("SIGNALPOST_RETRY_SCHEDULE", "5,soon")]
)
def test_a_setting_that_cannot_be_read_is_named(tmp_path: Path, variable: str, value: str) -> None:
    with pytest.raises(RuntimeError, match=f"{variable} in the environment: .*{value[-4:]}"):
        read("s.DEBUG", SIGNALPOST_DATA_DIR=str(tmp_path), **{variable: value})


def test_https_turns_on_what_tls_needs(tmp_path: Path) -> None:
    expression = "[s.SECURE_SSL_REDIRECT, s.SESSION_COOKIE_SECURE, s.CSRF_COOKIE_SECURE, s.SECURE_HSTS_SECONDS]"
    assert read(expression, SIGNALPOST_DATA_DIR=str(tmp_path)) == [False, False, False, 0]
    assert read(expression, SIGNALPOST_DATA_DIR=str(tmp_path), HTTPS="1") == [True, True, True, 31_536_000]


@pytest.mark.parametrize(("level", "heard"), [("WARNING", False), ("INFO", True)])
def test_the_log_level_holds_for_loggers_that_rq_sets_itself(tmp_path: Path, level: str, heard: bool) -> None:
    code = "import django, logging; django.setup(); log = logging.getLogger('rq.worker'); log.setLevel('INFO'); log.info('drained')"
    clean = {name: value for name, value in os.environ.items() if not name.startswith(ASIDE)}
    env = {"DJANGO_SETTINGS_MODULE": "config.settings", "SIGNALPOST_DATA_DIR": str(tmp_path), "LOG_LEVEL": level}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={**clean, **env}, capture_output=True, text=True, check=True
    )
    assert ("drained" in done.stderr) is heard


def test_the_log_may_be_for_machines(tmp_path: Path) -> None:
    code = (
        "import django, logging; django.setup();"
        "logging.getLogger('webhooks').warning('Delivery %d has failed', 7, extra={'delivery': 7})"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith(ASIDE)}
    env = {"DJANGO_SETTINGS_MODULE": "config.settings", "SIGNALPOST_DATA_DIR": str(tmp_path), "LOG_FORMAT": "json"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={**clean, **env}, capture_output=True, text=True, check=True
    )
    (line,) = map(json.loads, done.stderr.splitlines())
    assert (line["message"], line["delivery"]) == ("Delivery 7 has failed", 7)


def test_a_format_of_the_log_that_there_is_not_is_named(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="LOG_FORMAT is 'xml'"):
        read("s.DEBUG", SIGNALPOST_DATA_DIR=str(tmp_path), LOG_FORMAT="xml")


def test_gunicorns_own_lines_go_the_way_of_all_others(tmp_path: Path) -> None:
    code = "import json, runpy; print(json.dumps(runpy.run_path('gunicorn.conf.py')['logconfig_dict']))"
    clean = {name: value for name, value in os.environ.items() if not name.startswith(ASIDE)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**clean, "SIGNALPOST_DATA_DIR": str(tmp_path), "LOG_FORMAT": "json"},
        capture_output=True,
        text=True,
        check=True,
    )
    made = json.loads(done.stdout)
    assert made["handlers"]["stderr"]["formatter"] == "json"
    assert made["loggers"] == {"gunicorn.error": {"propagate": True}, "gunicorn.access": {"propagate": False}}


@pytest.mark.skipif(VERSION < (6, 1), reason="settings.MAILERS came with Django 6.1")
def test_mail_goes_by_the_server_of_its_url(tmp_path: Path) -> None:
    url = "smtp+tls://user:pass@mail.example:587"
    options = read("s.MAILERS['default']['OPTIONS']", SIGNALPOST_DATA_DIR=str(tmp_path), EMAIL_URL=url)
    assert options == {
        "host": "mail.example", "port": 587, "username": "user", "password": "pass", "use_tls": True, "timeout": 10,
    }  # fmt: skip


@pytest.mark.skipif(VERSION >= (6, 1), reason="settings.MAILERS took their place in Django 6.1")
def test_mail_goes_by_the_server_of_its_url_before_mailers(tmp_path: Path) -> None:
    url = "smtp+tls://user:pass@mail.example:587"
    read_ones = (
        "[s.EMAIL_HOST, s.EMAIL_PORT, s.EMAIL_HOST_USER, s.EMAIL_HOST_PASSWORD, s.EMAIL_USE_TLS, s.EMAIL_TIMEOUT]"
    )
    values = read(read_ones, SIGNALPOST_DATA_DIR=str(tmp_path), EMAIL_URL=url)
    assert values == ["mail.example", 587, "user", "pass", True, 10]


@pytest.mark.parametrize(
    ("env", "verification"), [({}, "optional"), ({"EMAIL_URL": "smtp://mail.example"}, "mandatory")]
)
def test_an_address_is_confirmed_where_mail_can_be_read(tmp_path: Path, env: dict[str, str], verification: str) -> None:
    expression = "[s.ACCOUNT_EMAIL_VERIFICATION, s.MFA_ALLOW_UNVERIFIED_EMAIL, s.SIGNUP]"
    optional = verification == "optional"
    assert read(expression, SIGNALPOST_DATA_DIR=str(tmp_path), **env) == [verification, optional, True]


def test_sign_up_is_turned_off_by_a_variable(tmp_path: Path) -> None:
    assert read("s.SIGNUP", SIGNALPOST_DATA_DIR=str(tmp_path), SIGNUP="0") is False


def test_sign_ins_are_counted_in_the_redis_of_the_queue(tmp_path: Path) -> None:
    url = "redis://queue.example:6380/2"
    assert read("s.CACHES['default']['LOCATION']", SIGNALPOST_DATA_DIR=str(tmp_path), REDIS_URL=url) == url
