"""Which URLs, and which IP addresses, a webhook may be sent to.

Pure: it looks nothing up. A URL is checked when it is saved and again when it
is sent; the addresses its name resolves to are checked when the socket opens.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING

import idna
from django.utils import formats
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop as noop

if TYPE_CHECKING:
    from collections.abc import Iterable

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# In the place of a URL: the receiver that is built in, which no network leads to.
INBOX = "inbox:"
# And none at all: what would be sent waits to be fetched.
FEED = "feed:"
URL_LIMIT = 2000  # characters, the width of the column
HOST_LIMIT = 253  # RFC 1035
DEFAULT_PORTS = {"http": 80, "https": 443}
PORT_MAX = 65535

_URL = re.compile(r"(?P<scheme>[a-z]+)://(?P<authority>[^/?#]*)[^#]*(?P<fragment>#.*)?", re.IGNORECASE)
_AUTHORITY = re.compile(r"(?P<host>\[[^\[\]]*\]|[^:\[\]]*)(:(?P<port>[^:]*))?")
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
# What IDNA takes for dots between labels.
_OTHER_DOTS = "\u3002\uff0e\uff61"
# What inet_aton() would take for a number; WHATWG's "ends in a number".
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")

# Not `ipaddress.is_global`: it calls multicast, ::127.0.0.1, fec0::/10 and
# 168.63.129.16 global, and changes with the Python version. From the IANA
# special-purpose registries (RFC 6890 and what followed), first match names.
_REFUSED_V4 = [
    (IPv4Network(network), name)
    for network, name in [
        ("0.0.0.0/8", noop("unspecified")),
        ("10.0.0.0/8", noop("private")),
        ("100.64.0.0/10", noop("carrier-grade NAT")),
        ("127.0.0.0/8", noop("loopback")),
        ("168.63.129.16/32", noop("a cloud provider's internal one")),  # Azure's host, from every machine there
        ("169.254.0.0/16", noop("link-local")),  # the metadata of most clouds
        ("172.16.0.0/12", noop("private")),
        ("192.0.0.0/24", noop("reserved")),
        ("192.0.2.0/24", noop("for documentation")),
        ("192.31.196.0/24", noop("reserved")),  # AS112
        ("192.52.193.0/24", noop("reserved")),  # AMT
        ("192.88.99.0/24", noop("a 6to4 relay")),
        ("192.168.0.0/16", noop("private")),
        ("192.175.48.0/24", noop("reserved")),  # AS112
        ("198.18.0.0/15", noop("for benchmarks")),
        ("198.51.100.0/24", noop("for documentation")),
        ("203.0.113.0/24", noop("for documentation")),
        ("224.0.0.0/4", noop("multicast")),
        ("255.255.255.255/32", noop("broadcast")),
        ("240.0.0.0/4", noop("reserved")),
    ]
]
_REFUSED_V6 = [
    (IPv6Network(network), name)
    for network, name in [
        ("::/128", noop("unspecified")),
        ("::1/128", noop("loopback")),
        ("::ffff:0:0/96", noop("an IPv4-mapped one")),
        ("::ffff:0:0:0/96", noop("an IPv4-translated one")),
        ("::/96", noop("an IPv4-compatible one")),
        ("64:ff9b::/96", noop("a NAT64 one")),
        ("64:ff9b:1::/48", noop("a NAT64 one")),
        ("100::/64", noop("for discarding")),
        ("2001::/32", noop("a Teredo one")),
        ("2001::/23", noop("reserved")),  # ORCHID, benchmarks, anycast services
        ("2001:db8::/32", noop("for documentation")),
        ("2002::/16", noop("a 6to4 one")),
        ("2620:4f:8000::/48", noop("reserved")),  # AS112
        ("3fff::/20", noop("for documentation")),
        ("5f00::/16", noop("a segment routing one")),
        ("fc00::/7", noop("private")),
        ("fe80::/10", noop("link-local")),
        ("fec0::/10", noop("site-local")),
        ("ff00::/8", noop("multicast")),
    ]
]
_GLOBAL_UNICAST = IPv6Network("2000::/3")
# Interface identifiers of RFC 5214 section 6.1, with the "u" bit off and on.
_ISATAP = (0x00005EFE, 0x02005EFE)

# Names that can only mean this machine, or one of its network.
_LOOPBACK_NAMES = frozenset({"localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback"})
_LOOPBACK = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))
_LOCAL_SUFFIXES = (".local", ".localdomain", ".internal", ".intranet", ".lan", ".home.arpa")


class RefusedAddress(ValueError):  # noqa: N818 — the word of the attempt's reason
    """Says, in a sentence for people, why a URL may not be a target."""


@dataclass(frozen=True, slots=True)
class ParsedTarget:
    """What a checked URL says; `host` is lower-case ASCII, an IPv6 literal without its brackets."""

    scheme: str
    host: str
    port: int
    ip: Address | None


def without_values(url: str) -> str:
    """With what its query asks, and not with what that says."""
    address, mark, query = url.partition("?")
    pairs = [pair.partition("=") for pair in re.split("[&;]", query)]
    # A word alone may be a token, too.
    return address + mark + "&".join(f"{name}=…" if sign else "…" for name, sign, _value in pairs if name or sign)


def parse_networks(networks: Iterable[str | Network]) -> tuple[Network, ...]:
    """`networks` in CIDR notation; ValueError names the first that is wrong."""
    return _parse_networks(tuple(str(network) for network in networks))


@functools.lru_cache(maxsize=64)
def _parse_networks(networks: tuple[str, ...]) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(network) for network in networks)


def refusal(address: Address, *, allowed_networks: Iterable[str | Network] = ()) -> str:
    """The kind of `address` if nothing may be sent there, such as "private"; empty if it may.

    `allowed_networks` permit exactly what they list: an IPv4 network does not
    permit the IPv6 addresses that embed its own, which some routers and
    kernels take elsewhere.
    """
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        return noop("bound to one network interface")
    if any(address in network for network in parse_networks(allowed_networks)):
        return ""
    if isinstance(address, IPv4Address):
        return next((name for network, name in _REFUSED_V4 if address in network), "")
    return _refusal_v6(address)


def _refusal_v6(address: IPv6Address) -> str:
    for network, name in _REFUSED_V6:
        if address in network:
            return name
    if address not in _GLOBAL_UNICAST:
        return noop("reserved")
    if (int(address) >> 32) & 0xFFFFFFFF in _ISATAP:
        return noop("an ISATAP one")
    return ""


def is_public(address: str | Address, allowed_networks: Iterable[str | Network] = ()) -> bool:
    """Whether a socket may be opened to `address`; ValueError if it is none."""
    return not refusal(ipaddress.ip_address(address), allowed_networks=allowed_networks)


def check_target(url: str, *, allowed_networks: Iterable[str | Network] = ()) -> None:
    """Whether a subscription may have `url`: what may be sent to, `INBOX`, or `FEED`.

    Raises RefusedAddress with a sentence for whoever typed it.
    """
    if url not in {INBOX, FEED}:
        check_url(url, allowed_networks=allowed_networks)


def check_url(url: str, *, allowed_networks: Iterable[str | Network] = ()) -> ParsedTarget:
    """Read `url` as strictly as a target deserves.

    Anything that two parsers might read differently is refused instead of
    being interpreted. http is taken as well as https: bodies are signed, and
    private networks that the operator allows often have no certificates.

    Raises RefusedAddress with a sentence for whoever typed the URL.
    """
    return _check_url(url, parse_networks(allowed_networks))


@functools.lru_cache(maxsize=4096)
def _check_url(url: str, networks: tuple[Network, ...]) -> ParsedTarget:
    scheme, authority = _split(url)
    match = _AUTHORITY.fullmatch(authority)
    if match is None:
        raise RefusedAddress(_("Write the host as a name or an address, an IPv6 address in [brackets]."))
    port = _port(match["port"], scheme=scheme)
    ip, host = _host(match["host"], networks=networks)
    return ParsedTarget(scheme=scheme, host=host, port=port, ip=ip)


def _grouped(number: int) -> str:
    return formats.number_format(number, force_grouping=True)


def _split(url: str) -> tuple[str, str]:
    """The scheme and the authority of `url`."""
    if len(url) > URL_LIMIT:
        raise RefusedAddress(
            _("The URL has %(long)s characters; the limit is %(limit)s.")
            % {"long": _grouped(len(url)), "limit": _grouped(URL_LIMIT)}
        )
    # Not printable: controls, spaces of every kind, invisible format
    # characters, lone surrogates.
    if " " in url or not url.isprintable():
        raise RefusedAddress(
            _("The URL holds a space or an invisible character; write it percent-encoded or leave it out.")
        )
    if "\\" in url:
        raise RefusedAddress(_("The URL holds a backslash; write / instead."))
    match = _URL.fullmatch(url)
    scheme = match["scheme"].lower() if match else ""
    if match is None or scheme not in DEFAULT_PORTS:
        raise RefusedAddress(_("Begin the URL with https:// or http://, as in https://example.com/webhooks."))
    if match["fragment"]:
        raise RefusedAddress(_("Leave out the # and what follows it; it is never sent."))
    if "@" in match["authority"]:
        raise RefusedAddress(_("Leave out the user name and password before the @; the signature proves who sends."))
    return scheme, match["authority"]


def _port(text: str | None, *, scheme: str) -> int:
    if text is None:
        return DEFAULT_PORTS[scheme]
    if not _PORT.fullmatch(text) or int(text) > PORT_MAX:
        raise RefusedAddress(
            _("The port is wrong; write a number from 1 to %(most)s, or leave out the colon.") % {"most": PORT_MAX}
        )
    return int(text)


def _host(text: str, *, networks: tuple[Network, ...]) -> tuple[Address | None, str]:
    if not text:
        raise RefusedAddress(_("The URL names no host; write one, as in https://example.com/webhooks."))
    if text.startswith("["):
        ip: Address | None = _ipv6(text[1:-1])
        host = text[1:-1].lower()
    else:
        host = _ascii(text)
        ip = _ipv4(host)
    if ip is None:
        _check_name(host, networks=networks)
    elif kind := refusal(ip, allowed_networks=networks):
        raise RefusedAddress(
            _("This address is %(kind)s; use one that is reached from the internet.") % {"kind": _(kind)}
        )
    return ip, host


def _ipv6(text: str) -> IPv6Address:
    if "%" in text:
        raise RefusedAddress(_("Leave out the % and the zone after it; they mean something only on one machine."))
    try:
        return IPv6Address(text)
    except ValueError:
        raise RefusedAddress(_("What stands in the brackets is not an IPv6 address.")) from None


def _ipv4(host: str) -> IPv4Address | None:
    """The address that `host` is, None if it is a name."""
    if not _NUMBER.fullmatch(host.rpartition(".")[2]):
        return None
    try:
        return IPv4Address(host)
    except ValueError:
        raise RefusedAddress(_("Write the IPv4 address as four plain numbers, as in 198.41.0.4.")) from None


def _ascii(text: str) -> str:
    """`text` in lower case, a name in other scripts as IDNA 2008 writes it."""
    if "%" in text:
        raise RefusedAddress(_("Write the host without percent-encoding."))
    if text.endswith("."):
        raise RefusedAddress(_("Leave out the dot at the end of the host."))
    if any(dot in text for dot in _OTHER_DOTS):
        raise RefusedAddress(_("Write plain dots between the parts of the host."))
    if text.isascii():
        host = text.lower()
    else:
        try:
            host = idna.encode(text.lower()).decode("ascii")
        except idna.IDNAError:
            raise RefusedAddress(_("The host is not a valid internationalized name.")) from None
    if len(host) > HOST_LIMIT or not all(_LABEL.fullmatch(label) for label in host.split(".")):
        raise RefusedAddress(
            _("The host is not a valid name: letters, digits and hyphens between dots, as in example.com.")
        )
    return host


def _check_name(host: str, *, networks: tuple[Network, ...]) -> None:
    """Refuse early what could only be refused later. The name's addresses
    are checked whenever it is connected to, whatever this says."""
    if host in _LOOPBACK_NAMES or host.endswith(".localhost"):
        if not any(network.overlaps(loopback) for network in networks for loopback in _LOOPBACK):
            raise RefusedAddress(_("This address is loopback: it means the sending machine itself."))
    elif not networks and ("." not in host or host.endswith(_LOCAL_SUFFIXES)):
        raise RefusedAddress(_("This address is private; use a full name that is reached from the internet."))
