"""Settings of this repository's own project.

Everything comes from the environment; a secret may also come from a file
named by NAME_FILE. README.md lists every setting, what it does and its danger.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import environ
from csp.constants import NONE, SELF
from django import VERSION
from django.core.exceptions import ImproperlyConfigured
from environ.fileaware_mapping import FileAwareMapping

from config.embedded import lasting_secret, socket_url
from config.logs import logging_config
from subscriptions.conf import DEFAULTS


class Environment(FileAwareMapping):  # type: ignore[misc]
    """NAME_FILE names a file that holds the value; editors and `echo` end it with a newline."""

    def __getitem__(self, key: str) -> str:
        value: str = super().__getitem__(key)
        return value.rstrip("\r\n")


class Env(environ.Env):  # type: ignore[misc]
    ENVIRON = Environment()


env = Env()

BASE_DIR = Path(__file__).resolve().parent.parent
DATA_DIR = Path(env.str("SIGNALPOST_DATA_DIR", default=str(BASE_DIR / "var"))).resolve()

EMBEDDED = "DATABASE_URL" not in env.ENVIRON and "DATABASE_URL_FILE" not in env.ENVIRON

if EMBEDDED:
    DATA_DIR.mkdir(parents=True, exist_ok=True, mode=0o700)

DEBUG = env.bool("DEBUG", default=False)
# One machine keeps its own key beside its own database; with a database that
# several machines may share, the key must be given, or they would disagree.
SECRET_KEY = (
    lasting_secret(DATA_DIR / "secret_key")
    if EMBEDDED and not env.str("SECRET_KEY", default="")
    else env.str("SECRET_KEY")
)
SECRET_KEY_FALLBACKS: list[str] = env.list("SECRET_KEY_FALLBACKS", default=[])
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"])
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[])

INSTALLED_APPS = [
    "config.admin.Admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "django_htmx",
    "heroicons",
    "csp",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "django_rq",
    "rest_framework",
    "subscriptions",
    "webhooks",
    *env.list("SIGNALPOST_APPS", default=["examples.shop"]),
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "csp.middleware.CSPMiddleware",
    "config.policy.QueuePages",
    "django_htmx.middleware.HtmxMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "subscriptions.zones.ReadersZone",
]

# Our own files only: no inline script or style, no other host.
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF, "data:"],
        "connect-src": [SELF],
        "form-action": [SELF],
        "base-uri": [NONE],
        "frame-ancestors": [NONE],
    }
}

ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
ASGI_APPLICATION = "config.asgi.application"

TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "config" / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

DATABASES: dict[str, dict[str, Any]] = {
    "default": env.db("DATABASE_URL", default=f"sqlite:///{DATA_DIR / 'signalpost.sqlite3'}"),
}
for _database in DATABASES.values():
    if _database["ENGINE"] == "django.db.backends.sqlite3":
        # IMMEDIATE: a transaction that reads and then writes waits for its
        # turn at the start, instead of failing in the middle.
        _database["OPTIONS"] = {
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
        }
    else:
        _database.setdefault("CONN_MAX_AGE", 60)
        _database.setdefault("CONN_HEALTH_CHECKS", True)
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

REDIS_URL = env.str("REDIS_URL", default=socket_url(DATA_DIR))
RQ_QUEUES = {
    "default": {"URL": REDIS_URL, "DEFAULT_TIMEOUT": 600, "SERIALIZER": "rq.serializers.JSONSerializer"},
}
RQ = {"WORKER_CLASS": "webhooks.worker.Worker"}
# What sign-in counts. Short timeouts: a Redis that hangs must keep nobody out.
CACHES: dict[str, dict[str, Any]] = {
    "default": {
        "BACKEND": "config.limits.Counters",
        "LOCATION": REDIS_URL,
        "KEY_PREFIX": "signalpost",
        "OPTIONS": {"serializer": "config.limits.Json", "socket_timeout": 0.5, "socket_connect_timeout": 0.5},
    }
}

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("UserAttributeSimilarityValidator", "MinimumLengthValidator", "CommonPasswordValidator")
]

DEFAULT_FROM_EMAIL = env.str("DEFAULT_FROM_EMAIL", default="signalpost@localhost")
_mail: dict[str, Any] = env.email_url("EMAIL_URL", default="consolemail://")
EMAIL_SECONDS = 10  # for a mail server to answer
if VERSION >= (6, 1):
    _names = {
        "host": "EMAIL_HOST",
        "port": "EMAIL_PORT",
        "username": "EMAIL_HOST_USER",
        "password": "EMAIL_HOST_PASSWORD",
        "use_tls": "EMAIL_USE_TLS",
        "use_ssl": "EMAIL_USE_SSL",
        "file_path": "EMAIL_FILE_PATH",
    }
    _options = {option: _mail[name] for option, name in _names.items() if _mail.get(name)}
    if "host" in _options:
        _options["timeout"] = EMAIL_SECONDS
    MAILERS = {
        "default": {
            "BACKEND": _mail["EMAIL_BACKEND"],
            "OPTIONS": _options,
        }
    }
else:
    globals().update(_mail, EMAIL_TIMEOUT=EMAIL_SECONDS)

# Accounts, by django-allauth; config/accounts.py has what is ours about them.
SIGNUP = env.bool("SIGNUP", default=True)
# Where no mail server is named, mail is printed, and nobody can be made to read it.
MAILED = bool({"EMAIL_URL", "EMAIL_URL_FILE"} & set(env.ENVIRON))
AUTHENTICATION_BACKENDS = ["allauth.account.auth_backends.AuthenticationBackend"]
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = LOGOUT_REDIRECT_URL = "home"
ACCOUNT_ADAPTER = "config.accounts.Accounts"
ACCOUNT_FORMS = {
    "add_email": "config.accounts.AddEmail",
    "change_password": "config.accounts.ChangePassword",
    "login": "config.accounts.SignIn",
    "reauthenticate": "config.accounts.Reauthenticate",
    "reset_password": "config.accounts.ResetPassword",
    "reset_password_from_key": "config.accounts.ResetPasswordKey",
    "set_password": "config.accounts.SetPassword",
    "signup": "config.accounts.SignUp",
}
ACCOUNT_LOGIN_METHODS = {"email", "username"}
ACCOUNT_SIGNUP_FIELDS = ["email*", "password1*"]
ACCOUNT_EMAIL_VERIFICATION = "mandatory" if MAILED else "optional"
ACCOUNT_LOGIN_ON_EMAIL_CONFIRMATION = True
ACCOUNT_CHANGE_EMAIL = True
ACCOUNT_REAUTHENTICATION_REQUIRED = True
ACCOUNT_EMAIL_NOTIFICATIONS = True
ACCOUNT_EMAIL_SUBJECT_PREFIX = ""
ACCOUNT_SESSION_REMEMBER = True
MFA_ADAPTER = "config.accounts.TwoFactors"
MFA_FORMS = {
    "activate_totp": "config.accounts.FirstCode",
    "authenticate": "config.accounts.Code",
    "reauthenticate": "config.accounts.CodeAgain",
}
MFA_ALLOW_UNVERIFIED_EMAIL = not MAILED
MFA_TOTP_ISSUER = "Signalpost"
MFA_TOTP_TOLERANCE = 1

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_I18N = True
FORMAT_MODULE_PATH = ["config.formats"]
USE_TZ = True

STATIC_URL = "static/"
STATIC_ROOT = DATA_DIR / "static"
if EMBEDDED:
    STATIC_ROOT.mkdir(exist_ok=True)  # WhiteNoise warns where it is missing
WHITENOISE_USE_FINDERS = True

# Behind TLS: HTTPS=1 turns on the redirect, HSTS and secure cookies.
HTTPS = env.bool("HTTPS", default=False)
# Load balancers ask by HTTP, and take no redirect for an answer.
SECURE_REDIRECT_EXEMPT = [r"^healthz$", r"^readyz$"]
SECURE_SSL_REDIRECT = SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = HTTPS
SECURE_HSTS_SECONDS = 31_536_000 if HTTPS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = HTTPS
if env.bool("TRUST_X_FORWARDED_PROTO", default=False):
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")

try:
    LOGGING = logging_config(env.str("LOG_LEVEL", default="INFO"), env.str("LOG_FORMAT", default="line"))
except ValueError as _error:
    raise ImproperlyConfigured(str(_error)) from _error

# Each of Signalpost's own settings may come from the environment, too, as the
# kind of value that its default in subscriptions/conf.py has; a mapping may not.
for _name, _default in DEFAULTS.items():
    _variable = f"SIGNALPOST_{_name}"
    if isinstance(_default, dict) or not {_variable, f"{_variable}_FILE"} & set(env.ENVIRON):
        continue
    try:
        if isinstance(_default, tuple):
            _item = float if _default and isinstance(_default[0], int | float) else str
            globals()[_variable] = env.list(_variable, cast=_item)
        else:
            globals()[_variable] = env.get_value(_variable, cast=type(_default))
    except ValueError as _error:
        raise ImproperlyConfigured(f"{_variable} in the environment: {_error}") from _error
