"""The database itself refuses to change or take away an entry of the audit log.

TRUNCATE is left to whoever may empty the whole database. A later migration
that alters the table must run this again: SQLite makes a new table for that,
which has no triggers.
"""

from __future__ import annotations

from typing import Any

from django.db import migrations, router

TABLE = "subscriptions_auditentry"
REFUSAL = "An audit log is only added to."

FORWARDS = {
    "postgresql": [
        f"""
        CREATE OR REPLACE FUNCTION {TABLE}_only_added() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION '{REFUSAL}' USING ERRCODE = 'restrict_violation';
        END $$
        """,
        f"""
        CREATE TRIGGER {TABLE}_only_added BEFORE UPDATE OR DELETE ON {TABLE}
        FOR EACH ROW EXECUTE FUNCTION {TABLE}_only_added()
        """,
    ],
    "sqlite": [
        f"""
        CREATE TRIGGER {TABLE}_not_{deed}d BEFORE {deed.upper()} ON {TABLE}
        BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END
        """
        for deed in ("update", "delete")
    ],
}
BACKWARDS = {
    "postgresql": [f"DROP TRIGGER {TABLE}_only_added ON {TABLE}", f"DROP FUNCTION {TABLE}_only_added()"],
    "sqlite": [f"DROP TRIGGER {TABLE}_not_{deed}d" for deed in ("update", "delete")],
}


def put(apps: Any, schema_editor: Any) -> None:
    _run(FORWARDS, apps, schema_editor)


def take_away(apps: Any, schema_editor: Any) -> None:
    _run(BACKWARDS, apps, schema_editor)


def _run(statements: dict[str, list[str]], apps: Any, schema_editor: Any) -> None:
    connection = schema_editor.connection
    if router.allow_migrate_model(connection.alias, apps.get_model("subscriptions", "AuditEntry")):
        for statement in statements.get(connection.vendor, ()):
            schema_editor.execute(statement)


class Migration(migrations.Migration):
    dependencies = [("subscriptions", "0001_initial")]

    operations = [migrations.RunPython(put, take_away)]
