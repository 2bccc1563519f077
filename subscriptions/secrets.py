"""Signing secrets: made, read and kept encrypted."""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
from functools import lru_cache

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings

from subscriptions.conf import conf

PREFIX = "whsec_"
# Standard Webhooks, "Secret generation": 24 to 64 random bytes.
SHORTEST, LONGEST, USUAL = 24, 64, 32


def generate() -> str:
    """A new secret, `whsec_` and 32 random bytes in base64."""
    return PREFIX + base64.b64encode(secrets.token_bytes(USUAL)).decode()


def key_of(secret: str) -> bytes:
    """The key bytes that `secret` stands for.

    Raises ValueError where it is not `whsec_` and base64 of 24 to 64 bytes.
    """
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except binascii.Error as error:
        raise ValueError("A secret is whsec_ followed by base64.") from error
    if not (secret.startswith(PREFIX) and SHORTEST <= len(key) <= LONGEST):
        raise ValueError(f"A secret is {PREFIX} followed by base64 of {SHORTEST} to {LONGEST} bytes.")
    return key


def encrypt(secret: str) -> bytes:
    return _box(_keys()).encrypt(secret.encode())


def decrypt(ciphertext: bytes) -> str:
    """Raises ValueError where none of the keys in use made `ciphertext`."""
    try:
        return _box(_keys()).decrypt(ciphertext).decode()
    except InvalidToken as error:
        raise ValueError("No key of SIGNALPOST_ENCRYPTION_KEYS (or SECRET_KEY) opens this secret.") from error


def _keys() -> tuple[str, ...]:
    return conf.encryption_keys or (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)


@lru_cache(maxsize=4)
def _box(keys: tuple[str, ...]) -> MultiFernet:
    """The first key encrypts, all of them decrypt. Keys are passphrases of any
    form; SHA-256 makes them the 32 bytes that Fernet wants."""
    return MultiFernet(
        Fernet(base64.urlsafe_b64encode(hashlib.sha256(b"signalpost.secret:" + key.encode()).digest())) for key in keys
    )
