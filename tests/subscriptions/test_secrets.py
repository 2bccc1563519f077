"""Signing secrets: what is one, and who can read them again."""

from __future__ import annotations

import base64

import pytest
from django.test import override_settings

from subscriptions import secrets


def test_a_new_secret_is_32_random_bytes() -> None:
    one, other = secrets.generate(), secrets.generate()
    assert one != other
    assert len(secrets.key_of(one)) == len(secrets.key_of(other)) == 32


@pytest.mark.parametrize(("size", "well"), [(23, False), (24, True), (64, True), (65, False)])
def test_a_secret_has_24_to_64_bytes(size: int, well: bool) -> None:
    secret = "whsec_" + base64.b64encode(bytes(size)).decode()
    if well:
        assert secrets.key_of(secret) == bytes(size)
    else:
        with pytest.raises(ValueError, match="base64 of 24 to 64 bytes"):
            secrets.key_of(secret)


def test_what_is_kept_does_not_show_the_secret_and_differs_each_time() -> None:
    secret = secrets.generate()
    one, other = secrets.encrypt(secret), secrets.encrypt(secret)
    assert one != other
    assert secret.encode() not in one
    assert secrets.decrypt(one) == secrets.decrypt(other) == secret


def test_the_newest_key_encrypts_and_older_ones_still_decrypt() -> None:
    secret = secrets.generate()
    with override_settings(SIGNALPOST_ENCRYPTION_KEYS=("old passphrase",)):
        by_old = secrets.encrypt(secret)
    with override_settings(SIGNALPOST_ENCRYPTION_KEYS=("new passphrase", "old passphrase")):
        assert secrets.decrypt(by_old) == secret
        by_new = secrets.encrypt(secret)
    with override_settings(SIGNALPOST_ENCRYPTION_KEYS=("new passphrase",)):
        assert secrets.decrypt(by_new) == secret
        with pytest.raises(ValueError, match="No key of SIGNALPOST_ENCRYPTION_KEYS"):
            secrets.decrypt(by_old)


def test_without_keys_the_secret_key_and_its_fallbacks_are_they() -> None:
    with override_settings(SECRET_KEY="of last year"):
        kept = secrets.encrypt("whsec_x")
    with override_settings(SECRET_KEY="of this year", SECRET_KEY_FALLBACKS=["of last year"]):
        assert secrets.decrypt(kept) == "whsec_x"
    with override_settings(SECRET_KEY="of this year"), pytest.raises(ValueError, match="opens this secret"):
        secrets.decrypt(kept)


def test_what_was_altered_is_not_read() -> None:
    kept = bytearray(secrets.encrypt(secrets.generate()))
    kept[-5] ^= 1
    with pytest.raises(ValueError, match="opens this secret"):
        secrets.decrypt(bytes(kept))
