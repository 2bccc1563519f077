"""A receiver proves that it is the host in the URL, or hears nothing."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.webhooks.strangers import OK, Receiver, answering, failure, on_every_loop, post, receiver, sender
from webhooks.failures import Reason
from webhooks.opening import tls_context

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

HOST = "receiver.example"
DAY = timedelta(days=1)


def name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


class Authority:
    """A certificate authority of the test's own."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = name("The test's authority")
        key_usage = x509.KeyUsage(
            digital_signature=True,
            key_cert_sign=True,
            crl_sign=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )
        self.certificate = (
            self._builder(self.name, self.key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(key_usage, critical=True)
            .sign(self.key, hashes.SHA256())
        )

    @property
    def cadata(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, ends: timedelta = DAY
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 10 * DAY)
            .not_valid_after(now + ends)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )

    def server(self, tmp_path: Path, *hosts: str, common: str = "unrelated", ends: timedelta = DAY) -> ssl.SSLContext:
        """What a receiver with a certificate for `hosts` serves with."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(name(common), key, ends=ends)
        if hosts:
            builder = builder.add_extension(x509.SubjectAlternativeName(_names(hosts)), critical=False)
        chain = tmp_path / "chain.pem"
        certificate = builder.sign(self.key, hashes.SHA256())
        chain.write_bytes(pem(key) + certificate.public_bytes(serialization.Encoding.PEM))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain)
        return context


def _names(hosts: Sequence[str]) -> list[x509.GeneralName]:
    return [
        x509.DNSName(host) if host[0].isalpha() or host[0] == "*" else x509.IPAddress(ipaddress.ip_address(host))
        for host in hosts
    ]


@dataclass
class Trusted:
    authority: Authority
    context: ssl.SSLContext


@pytest.fixture(scope="module")
def trusted() -> Trusted:
    authority = Authority()
    return Trusted(authority, tls_context(cadata=authority.cadata))


async def resolve(host: str) -> list[str]:
    return ["127.0.0.1"]


def secure(it: Receiver, host: str = HOST) -> str:
    return f"https://{host}:{it.port}/"


@pytest.mark.parametrize(
    ("host", "names"), [(HOST, [HOST]), ("in.receiver.example", ["other.example", "*.receiver.example"])]
)
@on_every_loop
async def test_a_certificate_for_the_host_is_accepted(
    trusted: Trusted, tmp_path: Path, host: str, names: list[str]
) -> None:
    tls = trusted.authority.server(tmp_path, *names)
    asked: list[str | None] = []
    tls.sni_callback = lambda _, name, __: asked.append(name)
    async with (
        receiver(answering(OK), tls=tls) as it,
        sender(resolve=resolve, ssl_context=trusted.context) as client,
    ):
        for _ in range(2):
            assert (await post(client, secure(it, host), body=b"x" * 500_000)).body == b"ok"
        assert (it.connections, it.requests[1].body) == (1, b"x" * 500_000)
        assert asked == [host]


@on_every_loop
async def test_a_certificate_for_the_address_is_accepted(trusted: Trusted, tmp_path: Path) -> None:
    async with (
        receiver(answering(OK), tls=trusted.authority.server(tmp_path, "127.0.0.1")) as it,
        sender(ssl_context=trusted.context) as client,
    ):
        assert (await post(client, secure(it, "127.0.0.1"))).status == 200


@pytest.mark.parametrize(
    ("names", "common", "ends", "detail"),
    [
        (["other.example"], "x", DAY, "Hostname mismatch"),
        (["*.receiver.example"], "x", DAY, "Hostname mismatch"),
        (["127.0.0.1"], "x", DAY, "Hostname mismatch"),
        ([], HOST, DAY, "Hostname mismatch"),
        (["other.example"], HOST, DAY, "Hostname mismatch"),
        ([HOST], "x", -DAY, "certificate has expired"),
    ],
)
@on_every_loop
async def test_a_certificate_that_proves_nothing_fails_as_tls(
    trusted: Trusted, tmp_path: Path, *, names: list[str], common: str, ends: timedelta, detail: str
) -> None:
    tls = trusted.authority.server(tmp_path, *names, common=common, ends=ends)
    async with (
        receiver(answering(OK), tls=tls) as it,
        sender(resolve=resolve, ssl_context=trusted.context) as client,
    ):
        failed = await failure(client, secure(it))
        assert failed.reason is Reason.TLS
        assert failed.detail.startswith("The certificate was refused: ")
        assert detail in failed.detail
        assert it.requests == []


@on_every_loop
async def test_a_certificate_of_an_unknown_authority_fails_as_tls(tmp_path: Path) -> None:
    async with (
        receiver(answering(OK), tls=Authority().server(tmp_path, HOST)) as it,
        sender(resolve=resolve) as client,  # with the system's authorities
    ):
        failed = await failure(client, secure(it))
        assert failed.reason is Reason.TLS
        assert "unable to get local issuer certificate" in failed.detail


@on_every_loop
async def test_a_self_signed_certificate_fails_as_tls(trusted: Trusted, tmp_path: Path) -> None:
    stranger = Authority()
    chain = tmp_path / "self.pem"
    chain.write_bytes(pem(stranger.key) + stranger.cadata.encode())
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(chain)
    async with (
        receiver(answering(OK), tls=tls) as it,
        sender(resolve=resolve, ssl_context=trusted.context) as client,
    ):
        failed = await failure(client, secure(it))
        assert (failed.reason, failed.detail) == (Reason.TLS, "The certificate was refused: self-signed certificate.")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
@on_every_loop
async def test_a_receiver_of_old_tls_fails_as_tls(trusted: Trusted, tmp_path: Path) -> None:
    tls = trusted.authority.server(tmp_path, HOST)
    tls.minimum_version = tls.maximum_version = ssl.TLSVersion.TLSv1_1
    tls.set_ciphers("DEFAULT:@SECLEVEL=0")
    async with (
        receiver(answering(OK), tls=tls) as it,
        sender(resolve=resolve, ssl_context=trusted.context) as client,
    ):
        assert (await failure(client, secure(it))).reason is Reason.TLS


@on_every_loop
async def test_a_receiver_without_tls_fails_as_tls(trusted: Trusted) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, it: Receiver) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with receiver(handle) as it, sender(resolve=resolve, ssl_context=trusted.context) as client:
        failed = await failure(client, secure(it))
        assert (failed.reason, failed.detail) == (Reason.TLS, "The TLS handshake failed: wrong version number.")


@on_every_loop
async def test_a_handshake_that_is_broken_off_fails_as_tls(trusted: Trusted) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, it: Receiver) -> None:
        await reader.read(1)
        writer.transport.abort()

    async with receiver(handle) as it, sender(resolve=resolve, ssl_context=trusted.context) as client:
        failed = await failure(client, secure(it))
        assert (failed.reason, failed.detail) == (Reason.TLS, "Connection reset by peer")


@on_every_loop
async def test_a_handshake_that_hangs_fails_as_timeout(trusted: Trusted) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, it: Receiver) -> None:
        await reader.read(-1)

    async with (
        receiver(handle) as it,
        sender(resolve=resolve, ssl_context=trusted.context, connect_timeout=0.2) as client,
    ):
        failed = await failure(client, secure(it))
        assert (failed.reason, failed.detail) == (Reason.TIMEOUT, "the TLS handshake did not end")
        await it.until(lambda it: it.closed == 1)


@on_every_loop
async def test_a_certificate_that_fails_at_one_address_is_not_looked_for_at_the_next(
    trusted: Trusted, tmp_path: Path
) -> None:
    async def several(host: str) -> list[str]:
        return ["127.0.0.1", "127.0.0.1"]

    tls = trusted.authority.server(tmp_path, "other.example")
    asked: list[str | None] = []
    tls.sni_callback = lambda _, name, __: asked.append(name)
    async with (
        receiver(answering(OK), tls=tls) as it,
        sender(resolve=several, ssl_context=trusted.context) as client,
    ):
        assert (await failure(client, secure(it))).reason is Reason.TLS
        assert asked == [HOST]


@on_every_loop
async def test_closing_over_tls_waits_for_no_farewell(trusted: Trusted, tmp_path: Path) -> None:
    async with receiver(answering(OK), tls=trusted.authority.server(tmp_path, HOST)) as it:
        async with sender(resolve=resolve, ssl_context=trusted.context) as client:
            await post(client, secure(it))
        await it.until(lambda it: it.closed == 1)


@on_every_loop
async def test_an_answer_over_tls_that_ends_with_the_connection_is_whole(trusted: Trusted, tmp_path: Path) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, it: Receiver) -> None:
        await reader.readuntil(b"{}")
        writer.write(b"HTTP/1.0 200 OK\r\n\r\nall of it")

    async with (
        receiver(handle, tls=trusted.authority.server(tmp_path, HOST)) as it,
        sender(resolve=resolve, ssl_context=trusted.context) as client,
    ):
        assert (await post(client, secure(it))).body == b"all of it"


def test_the_context_is_strict() -> None:
    context = tls_context()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert not context.hostname_checks_common_name
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
