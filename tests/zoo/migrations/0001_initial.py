"""Makes a table of whatever models the zoo has: one that is added for a test
needs no migration of its own. (Without any, the tables would be made before
those that their foreign keys refer to, which PostgreSQL refuses.)"""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.conf import settings
from django.db import migrations


def make_tables(state: Any, schema_editor: Any) -> None:
    for model in apps.get_app_config("zoo").get_models():
        if model._meta.can_migrate(schema_editor.connection):
            schema_editor.create_model(model)


class Migration(migrations.Migration):
    initial = True
    dependencies = [
        ("subscriptions", "__first__"),
        ("contenttypes", "__latest__"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]
    operations = [migrations.RunPython(make_tables)]
