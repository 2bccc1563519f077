"""Pages that ask before something is done."""

from __future__ import annotations

from django import forms
from django.utils.translation import gettext_lazy

from subscriptions.models import Subscription

LONGEST = Subscription._meta.get_field("disabled_reason").max_length


class ReasonForm(forms.Form):
    """`help_text` says who reads it."""

    reason = forms.CharField(
        label=gettext_lazy("Reason"),
        max_length=LONGEST,
        widget=forms.TextInput(attrs={"size": 60}),
        help_text=gettext_lazy("The tenant sees it too."),
    )
