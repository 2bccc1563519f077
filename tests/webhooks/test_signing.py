from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from datetime import UTC, datetime
from typing import Any

import pytest
import standardwebhooks
import svix.webhooks
from hypothesis import given
from hypothesis import strategies as st

from subscriptions import secrets
from webhooks import signing
from webhooks.signing import VerificationError

# The vector that the official libraries test themselves with.
ID, AT, BODY = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
SIGNED = {"webhook-id": ID, "webhook-timestamp": str(AT), "webhook-signature": SIGNATURE}
OTHER = "whsec_" + base64.b64encode(b"o" * 32).decode()

texts = st.text(st.characters(exclude_categories=["Cs"]))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
bodies = st.builds(
    lambda value, ascii_only, indent: json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode(),
    values,
    st.booleans(),
    st.sampled_from([None, 0, 2]),
)
whsecs = st.binary(min_size=24, max_size=64).map(lambda key: "whsec_" + base64.b64encode(key).decode())


def verify(headers: dict[str, str] = SIGNED, body: bytes = BODY, secrets: Any = (SECRET,), **options: Any) -> None:
    signing.verify(headers, body, secrets, **{"now": AT, **options})


class TestHeaders:
    def test_the_official_vector_comes_out(self) -> None:
        assert signing.headers(webhook_id=ID, timestamp=AT, body=BODY, secrets=[SECRET]) == SIGNED

    def test_the_signature_is_hmac_sha256_over_id_timestamp_and_the_exact_bytes(self) -> None:
        body = b'{"a":\n "\xc3\xa9\\u0000"}'
        key = bytes(range(64))
        secret = "whsec_" + base64.b64encode(key).decode()
        made = signing.headers(webhook_id="evt_1", timestamp=7, body=body, secrets=[secret])["webhook-signature"]
        version, _, signature = made.partition(",")
        assert version == "v1"
        assert base64.b64decode(signature) == hmac.digest(key, b"evt_1.7." + body, hashlib.sha256)

    def test_during_a_rotation_every_live_secret_signs_newest_first(self) -> None:
        alone = signing.headers(webhook_id=ID, timestamp=AT, body=BODY, secrets=[OTHER])["webhook-signature"]
        both = signing.headers(webhook_id=ID, timestamp=AT, body=BODY, secrets=[OTHER, SECRET])["webhook-signature"]
        assert both == f"{alone} {SIGNATURE}"

    @pytest.mark.parametrize("webhook_id", ["", "evt.1", "evt 1", "evt\r\n1", "evt_é", "evt_1\n"])
    def test_an_id_that_would_make_the_signed_content_ambiguous_is_refused(self, webhook_id: str) -> None:
        with pytest.raises(ValueError, match="webhook-id"):
            signing.headers(webhook_id=webhook_id, timestamp=AT, body=BODY, secrets=[SECRET])

    def test_an_empty_body_is_refused(self) -> None:
        with pytest.raises(ValueError, match="no body"):
            signing.headers(webhook_id=ID, timestamp=AT, body=b"", secrets=[SECRET])

    def test_no_secret_is_refused(self) -> None:
        with pytest.raises(ValueError, match="no secret"):
            signing.headers(webhook_id=ID, timestamp=AT, body=BODY, secrets=[])

    @pytest.mark.parametrize("secret", ["", "whsec_", "whsec_!!!", SECRET.removeprefix("whsec_"), "whsec_c2hvcnQ="])
    def test_what_is_no_secret_is_refused(self, secret: str) -> None:
        with pytest.raises(ValueError, match="A secret is whsec_"):
            signing.headers(webhook_id=ID, timestamp=AT, body=BODY, secrets=[SECRET, secret])


class TestOfficialLibraries:
    @given(body=bodies, live=st.lists(whsecs, min_size=1, max_size=3, unique=True))
    def test_standardwebhooks_verifies_with_each_live_secret(self, body: bytes, live: list[str]) -> None:
        headers = signing.headers(webhook_id="evt_0192", timestamp=int(time.time()), body=body, secrets=live)
        for secret in live:
            assert standardwebhooks.Webhook(secret).verify(body, headers) == json.loads(body)

    @given(body=bodies, live=st.lists(whsecs, min_size=1, max_size=3, unique=True))
    def test_svix_verifies_with_each_live_secret(self, body: bytes, live: list[str]) -> None:
        headers = signing.headers(webhook_id="evt_0192", timestamp=int(time.time()), body=body, secrets=live)
        for secret in live:
            svix.webhooks.Webhook(secret).verify(body, headers)

    def test_they_take_the_secret_as_the_tenant_sees_it(self) -> None:
        secret = secrets.generate()
        headers = signing.headers(webhook_id="evt_0192", timestamp=int(time.time()), body=BODY, secrets=[secret])
        standardwebhooks.Webhook(secret).verify(BODY, headers)
        svix.webhooks.Webhook(secret).verify(BODY, headers)

    @pytest.mark.parametrize("library", [standardwebhooks.Webhook, svix.webhooks.Webhook])
    def test_they_refuse_what_another_secret_signed(self, library: Any) -> None:
        headers = signing.headers(webhook_id="evt_0192", timestamp=int(time.time()), body=BODY, secrets=[SECRET])
        with pytest.raises(standardwebhooks.WebhookVerificationError):
            library(OTHER).verify(BODY, headers)

    @given(body=bodies, secret=whsecs)
    def test_we_verify_what_they_sign(self, body: bytes, secret: str) -> None:
        signature = standardwebhooks.Webhook(secret).sign("msg_1", datetime.fromtimestamp(AT, UTC), body.decode())
        verify({**SIGNED, "webhook-id": "msg_1", "webhook-signature": signature}, body, [secret])


class TestVerify:
    def test_the_official_vector_is_verified(self) -> None:
        verify()

    def test_the_clock_is_the_machine_s_unless_one_is_given(self) -> None:
        headers = signing.headers(webhook_id=ID, timestamp=int(time.time()), body=BODY, secrets=[SECRET])
        signing.verify(headers, BODY, [SECRET])
        with pytest.raises(VerificationError, match="old"):
            signing.verify(SIGNED, BODY, [SECRET])

    def test_names_of_headers_may_be_of_any_case(self) -> None:
        verify({name.title(): value for name, value in SIGNED.items()})

    @pytest.mark.parametrize("live", [[SECRET, OTHER], [OTHER, SECRET]])
    def test_any_of_several_secrets_will_do(self, live: list[str]) -> None:
        verify(secrets=live)

    @pytest.mark.parametrize(
        "signatures",
        [
            f"v1,AAAA {SIGNATURE}",
            f"{SIGNATURE} v1,AAAA",
            f"v2,AAAA {SIGNATURE}",
            f"v1a,{'x' * 88} {SIGNATURE}",
            f"junk , v1 {SIGNATURE}",
            f"v1,é {SIGNATURE}",
            f"v1,\udc80 {SIGNATURE}",
        ],
    )
    def test_one_good_signature_among_others_will_do(self, signatures: str) -> None:
        verify({**SIGNED, "webhook-signature": signatures})

    @pytest.mark.parametrize("name", list(SIGNED))
    @pytest.mark.parametrize("value", [None, ""])
    def test_a_missing_header_is_named(self, name: str, value: str | None) -> None:
        headers = {key: given for key, given in {**SIGNED, name: value}.items() if given is not None}
        with pytest.raises(VerificationError, match=f"^The {name} header is missing\\.$"):
            verify(headers)

    @pytest.mark.parametrize("timestamp", ["now", "1e9", "-5", "1.5", " 1614265330", "\uff11\uff16", "9" * 5000])
    def test_a_timestamp_that_is_no_number_of_seconds_is_refused(self, timestamp: str) -> None:
        with pytest.raises(VerificationError, match="not a number of Unix seconds"):
            verify({**SIGNED, "webhook-timestamp": timestamp})

    @pytest.mark.parametrize("age", [300, -300, 0, 299.9])
    def test_the_tolerance_is_five_minutes_either_way(self, age: float) -> None:
        verify(now=AT + age)

    def test_a_webhook_from_too_long_ago_is_refused(self) -> None:
        with pytest.raises(VerificationError, match="301 s old; at most 300 s"):
            verify(now=AT + 301)

    def test_a_webhook_from_too_far_ahead_is_refused(self) -> None:
        with pytest.raises(VerificationError, match="301 s in the future; at most 300 s"):
            verify(now=AT - 301)

    def test_another_tolerance_may_be_given(self) -> None:
        verify(now=AT + 301, tolerance=301)
        with pytest.raises(VerificationError, match="at most 10 s"):
            verify(now=AT + 11, tolerance=10)

    @pytest.mark.parametrize(
        "changed",
        [
            {"body": BODY + b" "},
            {"body": b""},
            {"secrets": [OTHER]},
            {"secrets": []},
            {"headers": {**SIGNED, "webhook-id": "msg_other"}},
            {"headers": {**SIGNED, "webhook-timestamp": str(AT + 1)}},
            {"headers": {**SIGNED, "webhook-signature": SIGNATURE.replace("g0h", "G0h")}},
            {"headers": {**SIGNED, "webhook-signature": SIGNATURE.rstrip("=")}},
            {"headers": {**SIGNED, "webhook-signature": "v1,"}},
        ],
    )
    def test_whatever_is_changed_no_signature_matches(self, changed: dict[str, Any]) -> None:
        with pytest.raises(VerificationError, match="No signature matches"):
            verify(**changed)

    @pytest.mark.parametrize("signatures", ["v2,AAAA", "v1a,AAAA", SIGNATURE.removeprefix("v1,"), "   ", "V1,AAAA"])
    def test_versions_we_do_not_know_are_ignored(self, signatures: str) -> None:
        with pytest.raises(VerificationError, match="holds no v1 signature"):
            verify({**SIGNED, "webhook-signature": signatures})

    @pytest.mark.parametrize("webhook_id", ["msg_é", "msg_\udc80"])
    def test_an_id_that_is_not_ascii_is_refused(self, webhook_id: str) -> None:
        with pytest.raises(VerificationError, match="other than ASCII"):
            verify({**SIGNED, "webhook-id": webhook_id})

    def test_signatures_are_compared_in_constant_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        compare_digest = hmac.compare_digest
        compared: list[tuple[bytes, bytes]] = []

        def spy(one: bytes, other: bytes) -> bool:
            compared.append((one, other))
            return compare_digest(one, other)

        monkeypatch.setattr("webhooks.signing.hmac.compare_digest", spy)
        verify({**SIGNED, "webhook-signature": f"{SIGNATURE} v1,AAAA"}, secrets=[SECRET, OTHER])
        assert len(compared) == 4

    @given(
        headers=st.dictionaries(st.sampled_from(sorted(SIGNED)), st.text()),
        body=st.binary(),
    )
    def test_whatever_a_stranger_sends_is_refused_by_a_verification_error(
        self, headers: dict[str, str], body: bytes
    ) -> None:
        with pytest.raises(VerificationError):
            verify({**SIGNED, "webhook-signature": "v1,AAAA", **headers}, body)
