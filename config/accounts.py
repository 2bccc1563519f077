"""Accounts of this project's own: sign-up, sign-in, two factors, by django-allauth.

A host project with a sign-in of its own needs none of this.
"""

from __future__ import annotations

import base64
import logging
import secrets
from typing import TYPE_CHECKING, Any, ClassVar

from allauth.account import forms as account
from allauth.account.adapter import DefaultAccountAdapter
from allauth.account.stages import EmailVerificationStage
from allauth.core import context as current
from allauth.mfa.adapter import DefaultMFAAdapter
from allauth.mfa.base import forms as factors
from allauth.mfa.totp.forms import ActivateTOTPForm
from django import forms
from django.conf import settings
from django.contrib import messages
from django.contrib.auth import get_user_model
from django.db import IntegrityError, transaction
from django.shortcuts import redirect
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from subscriptions import names, people
from subscriptions.edits import Refused
from subscriptions.founding import found
from subscriptions.models import Tenant, home
from subscriptions.pages.invitations import INVITATION
from subscriptions.secrets import decrypt, encrypt
from subscriptions.trail import Actor, address_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from django.contrib.auth.models import User
    from django.http import HttpRequest, HttpResponse
    from django.utils.functional import _StrPromise as StrPromise

    from subscriptions.models import Invitation

logger = logging.getLogger(__name__)

NAME_LENGTH = Tenant._meta.get_field("name").max_length
USERNAME_LENGTH = get_user_model()._meta.get_field("username").max_length or 0


NEW_PASSWORD = {"password1": _("New password"), "password2": _("New password, again")}


def invitation_of(request: HttpRequest) -> Invitation | None:
    """The one in the session, as long as it is open."""
    token = request.session.get(INVITATION)
    try:
        return people.opened(token) if token else None
    except Refused:
        return None


def open_for_sign_up(request: HttpRequest) -> bool:
    return settings.SIGNUP or invitation_of(request) is not None


class CompanyField(forms.CharField):
    """What a tenant is called."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            label=_("Company"),
            max_length=NAME_LENGTH,
            help_text=_("Or team, or project: whose webhooks these are. You can change it later."),
            widget=forms.TextInput(attrs={"autocomplete": "organization"}),
            validators=[names.check],
            **kwargs,
        )


class Labelled(forms.Form):
    """Its fields have labels, and no placeholder that says the same."""

    labels: ClassVar[Mapping[str, StrPromise]] = {}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, field in self.fields.items():
            field.widget.attrs.pop("placeholder", None)
            field.label = self.labels.get(name, field.label)


class AddEmail(Labelled, account.AddEmailForm):  # type: ignore[misc]
    labels = {"email": _("New address")}


class ChangePassword(Labelled, account.ChangePasswordForm):  # type: ignore[misc]
    labels = {"oldpassword": _("Password until now"), **NEW_PASSWORD}


class SetPassword(Labelled, account.SetPasswordForm):  # type: ignore[misc]
    labels = NEW_PASSWORD


class ResetPassword(Labelled, account.ResetPasswordForm):  # type: ignore[misc]
    pass


class ResetPasswordKey(Labelled, account.ResetPasswordKeyForm):  # type: ignore[misc]
    labels = NEW_PASSWORD


class Reauthenticate(Labelled, account.ReauthenticateForm):  # type: ignore[misc]
    pass


class Code(Labelled, factors.AuthenticateForm):  # type: ignore[misc]
    pass


class CodeAgain(Labelled, factors.ReauthenticateForm):  # type: ignore[misc]
    pass


class FirstCode(Labelled, ActivateTOTPForm):  # type: ignore[misc]
    pass


class SignUp(Labelled, account.SignupForm):  # type: ignore[misc]
    """A person with a tenant of their own; with an open invitation, a member of another's."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.invitation = invitation_of(current.request)
        email = self.fields["email"]
        if self.invitation is None:
            self.fields["company"] = CompanyField()
        else:
            email.disabled = True
            self.initial["email"] = self.invitation.email
        self.order_fields(["company", "email", "password1"])

    def clean(self) -> dict[str, Any] | None:
        cleaned = super().clean()
        if self.invitation is not None and self.account_already_exists:
            # Whoever holds the invitation reads this address' mail, and may know.
            self.add_error("email", Accounts.error_messages["email_taken"])
        return cleaned

    def try_save(self, request: HttpRequest) -> tuple[User | None, HttpResponse | None]:
        try:
            with transaction.atomic(), transaction.atomic(using=home()):
                saved: tuple[User | None, HttpResponse | None] = super().try_save(request)
                return saved
        except IntegrityError:  # a double click: the other request has just made this account
            trouble = Accounts.error_messages["email_taken"]
        except Refused as refused:  # the invitation, meanwhile
            trouble = str(refused)
        messages.error(request, trouble)
        return None, redirect("account_login")

    def save(self, request: HttpRequest) -> User:
        invitation = self.invitation
        if invitation is not None and invitation.mailed_at:
            # The link went to this address and nowhere else.
            Accounts(request).stash_verified_email(request, invitation.email)
        user: User = super().save(request)
        actor = Actor(user.email, user.pk, address_of(request))
        if invitation is None:
            found(self.cleaned_data["company"], owner=user, actor=actor)
        else:
            people.accept(request.session.pop(INVITATION), user=user, actor=actor)
            messages.success(request, gettext("Welcome to %(tenant)s.") % {"tenant": invitation.tenant.name})
        return user


class SignIn(Labelled, account.LoginForm):  # type: ignore[misc]
    """By address; those whom `createsuperuser` made may write their username there."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.may_sign_up = open_for_sign_up(current.request)
        self.fields["login"].label = _("Email")
        self.fields["login"].widget.attrs = {"autocomplete": "username", "inputmode": "email", "autocapitalize": "none"}
        self.fields["password"].help_text = ""


class EmailVerification(EmailVerificationStage):  # type: ignore[misc]
    def handle(self) -> tuple[HttpResponse | None, bool]:
        if self.login.user is not None and self.login.user.is_staff:
            return None, True  # whoever made them staff has vouched for them
        answer: tuple[HttpResponse | None, bool] = super().handle()
        return answer


class Accounts(DefaultAccountAdapter):  # type: ignore[misc]
    wrong = _("Email or password is not right.")  # and not which of the two
    error_messages = {
        **DefaultAccountAdapter.error_messages,
        "email_password_mismatch": wrong,
        "username_password_mismatch": wrong,
        "too_many_login_attempts": _("Too many tries that failed. Wait five minutes, then try again."),
        "email_taken": _("There is an account with this address already. Sign in, or reset its password."),
    }

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        return open_for_sign_up(request)

    def clean_email(self, email: str) -> str:
        names.check(email)
        cleaned: str = super().clean_email(email)
        return cleaned

    def populate_username(self, request: HttpRequest, user: User) -> None:
        """The address, so that the database lets only one of two equal sign-ups through."""
        of_another = get_user_model().objects.filter(username=user.email).exclude(email__iexact=user.email)
        if len(user.email) <= USERNAME_LENGTH and not of_another.exists():
            user.username = user.email
        else:
            super().populate_username(request, user)

    def get_client_ip(self, request: HttpRequest) -> str:
        return address_of(request) or "unknown"

    def get_login_stages(self) -> list[str]:
        own = f"{__name__}.{EmailVerification.__name__}"
        verification = f"{EmailVerificationStage.__module__}.{EmailVerificationStage.__name__}"
        return [own if stage == verification else stage for stage in super().get_login_stages()]

    def send_mail(self, template_prefix: str, email: str, context: dict[str, Any]) -> None:
        try:
            super().send_mail(template_prefix, email, context)
        except OSError as error:  # smtplib's errors are among them
            logger.error("No mail %s: %s", template_prefix, type(error).__name__)
            messages.error(current.request, gettext("The mail could not be sent. Try again in some minutes."))


class TwoFactors(DefaultMFAAdapter):  # type: ignore[misc]
    """Encrypted at rest, with the keys of the signing secrets."""

    def encrypt(self, text: str) -> str:
        return encrypt(text).decode()

    def decrypt(self, encrypted_text: str) -> str:
        try:
            return decrypt(encrypted_text.encode())
        except ValueError:
            logger.error("No key opens a second factor; its codes are refused")
            # One that nobody knows: of an empty secret everybody has the codes.
            return base64.b32encode(secrets.token_bytes(20)).decode()
