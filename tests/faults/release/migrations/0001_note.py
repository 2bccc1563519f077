from __future__ import annotations

from django.db import migrations


def add(table: str) -> migrations.RunSQL:
    return migrations.RunSQL(f"ALTER TABLE {table} ADD COLUMN note varchar(200) NULL")


class Migration(migrations.Migration):
    """What the next release adds to every table, while this one's workers run."""

    dependencies = [("webhooks", "0001_initial"), ("shop", "0001_initial")]

    operations = [
        add("webhooks_event"),
        add("webhooks_delivery"),
        add("webhooks_attempt"),
        add("subscriptions_subscription"),
        add("subscriptions_secret"),
        add("shop_customer"),
    ]
