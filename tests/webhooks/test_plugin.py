"""The pytest plugin, in a small host project with a pytest of its own."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from textwrap import dedent

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent

SETTINGS = """
    SECRET_KEY = "of a test"
    USE_TZ = True
    DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
    DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
    INSTALLED_APPS = [
        "django.contrib.auth", "django.contrib.contenttypes", "django_rq", "subscriptions", "webhooks", "store",
    ]
    # Nobody listens there: whoever rings is heard to fail.
    RQ_QUEUES = {"default": {"URL": "redis://127.0.0.1:1", "SERIALIZER": "rq.serializers.JSONSerializer"}}
    RQ = {"WORKER_CLASS": "webhooks.worker.Worker"}
"""
MODELS = """
    from django.db import models

    class Customer(models.Model):
        name = models.CharField(max_length=50)

    class Order(models.Model):
        customer = models.ForeignKey(Customer, models.CASCADE)
        status = models.CharField(max_length=10, default="new")
"""
WEBHOOKS = """
    from subscriptions import catalog
    from store.models import Order

    catalog.register(Order, tenant="customer", fields=["id", "status"])
"""
CONFTEST = """
    import pytest
    from store.models import Customer
    from subscriptions.models import Tenant

    @pytest.fixture
    def customer(db):
        customer = Customer.objects.create(name="Ada")
        Tenant.objects.create(slug="ada", name="Ada", key=str(customer.pk))
        return customer
"""
NOT_FROM_HERE = ("PYTEST_", "DJANGO_", "DATABASE_URL", "REDIS_URL", "COV_", "COVERAGE_")


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A project with our package installed, as far as pytest can tell."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    points = "".join(f"{name} = {target}\n" for name, target in project["entry-points"]["pytest11"].items())
    files = {
        "site/signalpost-0.dist-info/METADATA": "Metadata-Version: 2.1\nName: signalpost\nVersion: 0\n",
        "site/signalpost-0.dist-info/entry_points.txt": f"[pytest11]\n{points}",
        "settings.py": SETTINGS,
        "store/__init__.py": "",
        "store/models.py": MODELS,
        "store/webhooks.py": WEBHOOKS,
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(dedent(text))
    return tmp_path


def run(host: Path, tests: str, *arguments: str, conftest: str = CONFTEST, status: int = 0) -> str:
    (host / "conftest.py").write_text(dedent(conftest))
    (host / "test_store.py").write_text(dedent(tests))
    environment = {name: value for name, value in os.environ.items() if not name.startswith(NOT_FROM_HERE)}
    environment["PYTHONPATH"] = os.pathsep.join(map(str, (host / "site", host, ROOT)))
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-W", "error", *arguments, "test_store.py"]
    done = subprocess.run(command, cwd=host, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


def test_a_host_asserts_what_it_sends(host: Path) -> None:
    run(
        host,
        """
        import httpx
        import pytest
        import respx
        from django.db import transaction
        from store.models import Order
        from subscriptions.models import Tenant

        @pytest.mark.django_db
        def test_in_the_tests_transaction(customer, webhooks_sent, django_capture_on_commit_callbacks):
            with django_capture_on_commit_callbacks(execute=True):
                order = Order.objects.create(customer=customer)
                with transaction.atomic():
                    Order.objects.create(customer=customer)
                    transaction.set_rollback(True)
                order.status = "paid"
                order.save()
            assert webhooks_sent.topics == ["store.order.created", "store.order.updated"]
            assert webhooks_sent.one("store.order.updated").changes == {"status": {"from": "new", "to": "paid"}}
            assert webhooks_sent.one("store.order.updated").tenant == "ada"

        @pytest.mark.django_db(transaction=True)
        def test_committed(customer, webhooks_sent):
            Order.objects.create(customer=customer)
            assert webhooks_sent.topics == ["store.order.created"]

        def test_without_the_mark(webhooks_sent, customer):
            assert webhooks_sent.check(lambda: Order.objects.create(customer=customer), change={"status": "paid"})

        def test_delivered(customer, webhooks_sent, respx_mock):
            webhooks_sent.subscribe(Tenant.objects.get(), "store.order.*", url="https://billing.example/")
            Order.objects.create(customer=customer)
            route = respx_mock.post("https://billing.example/").respond(204)
            (attempt,) = webhooks_sent.deliver(respx_mock)
            assert attempt.delivered
            assert route.call_count == 1
        """,
        "--ds=settings",
    )


def test_a_failure_says_what_was_sent_and_what_had_no_tenant(host: Path) -> None:
    output = run(
        host,
        """
        from store.models import Customer, Order

        def test_it(customer, webhooks_sent):
            Order.objects.create(customer=customer)
            Order.objects.create(customer=Customer.objects.create(name="Nobody"))
            assert webhooks_sent.topics == ["store.order.created", "store.order.deleted"]
        """,
        "--ds=settings",
        status=1,
    )
    assert "1 sent, 2 expected" in output
    assert "not sent: store.order.deleted" in output
    assert "1. store.order.created of ada: {" in output
    assert "1 of store.order had no tenant" in output


USES = """
    def test_it(webhooks_sent):
        raise RuntimeError("unreachable")
"""
PASSES = """
    import sys

    def test_nothing_of_django_was_imported():
        assert not [name for name in sys.modules if name.split(".")[0] in {"django", "subscriptions", "httpx"}]
"""


def test_without_pytest_django_it_is_harmless_and_says_what_it_needs(host: Path) -> None:
    absent = ("-p", "no:django", "-p", "no:randomly", "-p", "no:schemathesis", "-p", "no:respx", "-p", "no:anyio")
    run(host, PASSES, *absent, conftest="")
    output = run(host, USES, *absent, conftest="", status=1)
    assert "needs pytest-django" in output
    assert "RuntimeError" not in output


def test_without_our_apps_it_says_what_it_needs(host: Path) -> None:
    settings = dedent(SETTINGS).replace('"django_rq", "subscriptions", "webhooks", "store",', "")
    (host / "settings.py").write_text(settings)
    output = run(host, USES, "--ds=settings", conftest="", status=1)
    assert "INSTALLED_APPS" in output
    assert "RuntimeError" not in output


def test_its_entry_point_leads_to_the_plugin() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (target,) = project["entry-points"]["pytest11"].values()
    assert hasattr(importlib.import_module(target), "webhooks_sent")
