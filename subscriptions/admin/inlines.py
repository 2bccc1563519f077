from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.forms import BaseInlineFormSet
from django.utils.text import capfirst

if TYPE_CHECKING:
    from django.forms import ModelForm


class LabelledFormSet(BaseInlineFormSet):  # type: ignore[type-arg]
    """The admin's tables name their columns, and leave their fields without a name."""

    def add_fields(self, form: ModelForm[Any], index: int | None) -> None:
        super().add_fields(form, index)
        for name, field in form.fields.items():
            label: Any = field.label or name.replace("_", " ")
            field.widget.attrs.setdefault("aria-label", capfirst(str(label)))
