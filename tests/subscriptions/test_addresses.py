# ruff: noqa: RUF001 — characters that look like others are what is tested
"""Which URLs and addresses may be targets."""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING

import pytest
from django.core.exceptions import ValidationError
from hypothesis import given
from hypothesis import strategies as st

from subscriptions.addresses import (
    ParsedTarget,
    RefusedAddress,
    check_url,
    is_public,
    parse_networks,
    refusal,
    without_values,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_django.fixtures import Settings

    from subscriptions.models import Subscription, Tenant


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://example.com", ("https", "example.com", 443)),
        ("http://example.com", ("http", "example.com", 80)),
        ("HTTPS://Example.COM/In?x=1", ("https", "example.com", 443)),
        ("https://example.com:8443/", ("https", "example.com", 8443)),
        ("https://example.com:65535?x", ("https", "example.com", 65535)),
        ("https://example.com/path@with?q=http://10.0.0.1/", ("https", "example.com", 443)),
        ("https://my_app.example.com", ("https", "my_app.example.com", 443)),
        ("https://1password.example", ("https", "1password.example", 443)),
        ("https://1.2.3.4.example", ("https", "1.2.3.4.example", 443)),
        ("https://xn--bcher-kva.example/", ("https", "xn--bcher-kva.example", 443)),
        ("https://Bücher.example/ü", ("https", "xn--bcher-kva.example", 443)),
        ("https://例え.テスト/", ("https", "xn--r8jz45g.xn--zckzah", 443)),
        ("https://faß.example/", ("https", "xn--fa-hia.example", 443)),  # IDNA 2003 would say fass
        ("https://" + "a" * 63 + ".example", ("https", "a" * 63 + ".example", 443)),
        ("https://example.com/" + "a" * 1980, ("https", "example.com", 443)),
    ],
)
def test_a_url_that_may_be_a_target_is_read(url: str, target: tuple[str, str, int]) -> None:
    assert check_url(url) == ParsedTarget(*target, ip=None)


def test_a_literal_address_is_read() -> None:
    assert check_url("https://198.41.0.4:1/") == ParsedTarget(
        "https", "198.41.0.4", 1, ipaddress.IPv4Address("198.41.0.4")
    )
    assert check_url("https://[2606:4700::ABCD]/") == ParsedTarget(
        "https", "2606:4700::abcd", 443, ipaddress.IPv6Address("2606:4700::abcd")
    )


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("", "Begin the URL with https:// or http://"),
        ("example.com", "Begin the URL with https:// or http://"),
        ("//example.com", "Begin the URL with https:// or http://"),
        ("https:example.com", "Begin the URL with https:// or http://"),
        ("https:/example.com", "Begin the URL with https:// or http://"),
        ("ftp://example.com", "Begin the URL with https:// or http://"),
        ("file:///etc/passwd", "Begin the URL with https:// or http://"),
        ("gopher://example.com", "Begin the URL with https:// or http://"),
        ("javascript:alert(1)", "Begin the URL with https:// or http://"),
        ("http+unix://example.com", "Begin the URL with https:// or http://"),
        ("httpſ://example.com", "Begin the URL with https:// or http://"),
        ("https://example.com/" + "a" * 1981, "The URL has 2,001 characters; the limit is 2,000."),
        (" https://example.com", "a space or an invisible character"),
        ("https://example.com/a b", "a space or an invisible character"),
        ("https://example.com\n", "a space or an invisible character"),
        ("https://exam\tple.com", "a space or an invisible character"),
        ("https://example.com/\x00", "a space or an invisible character"),
        ("https://example.com/\x7f", "a space or an invisible character"),
        ("https://example.com\u00a0/", "a space or an invisible character"),
        ("https://exam\u200bple.com/", "a space or an invisible character"),
        ("https://example.com/\u202e", "a space or an invisible character"),
        ("https://example.com/\ud800", "a space or an invisible character"),
        ("https://example.com\\@10.0.0.1/", "holds a backslash; write /"),
        ("https://example.com/#part", "Leave out the #"),
        ("https://example.com#@10.0.0.1", "Leave out the #"),
        ("https://alice@example.com/", "Leave out the user name and password"),
        ("https://alice:secret@example.com/", "Leave out the user name and password"),
        ("https://@example.com/", "Leave out the user name and password"),
        ("https://198.41.0.4@10.0.0.1/", "Leave out the user name and password"),
        ("https://example.com:/", "The port is wrong"),
        ("https://example.com:0/", "The port is wrong"),
        ("https://example.com:65536/", "The port is wrong"),
        ("https://example.com:080/", "The port is wrong"),
        ("https://example.com:+80/", "The port is wrong"),
        ("https://example.com:-1/", "The port is wrong"),
        ("https://example.com:８０/", "The port is wrong"),
        ("https://example.com:http/", "The port is wrong"),
        ("https://example.com:1:2/", "an IPv6 address in [brackets]"),
        ("https://2606:4700::1/", "an IPv6 address in [brackets]"),
        ("https://[2606:4700::1/", "an IPv6 address in [brackets]"),
        ("https://[2606:4700::1]x/", "an IPv6 address in [brackets]"),
        ("https://x[2606:4700::1]/", "an IPv6 address in [brackets]"),
        ("https://", "The URL names no host"),
        ("https:///path", "The URL names no host"),
        ("https://:443/", "The URL names no host"),
        ("https://?x", "The URL names no host"),
        ("https://[]/", "not an IPv6 address"),
        ("https://[example.com]/", "not an IPv6 address"),
        ("https://[198.41.0.4]/", "not an IPv6 address"),
        ("https://[v1.x]/", "not an IPv6 address"),
        ("https://[2606:4700::1%eth0]/", "Leave out the % and the zone"),
        ("https://[fe80::1%25eth0]/", "Leave out the % and the zone"),
        ("https://ex%61mple.com/", "without percent-encoding"),
        ("https://127%2e0%2e0%2e1/", "without percent-encoding"),
        ("https://example.com./", "Leave out the dot at the end"),
        ("https://127.0.0.1./", "Leave out the dot at the end"),
        ("https://example。com/", "Write plain dots"),
        ("https://127。0。0。1/", "Write plain dots"),
        ("https://127．0．0．1/", "Write plain dots"),
        ("https://127｡0.0.1/", "Write plain dots"),
        ("https://１２７.0.0.1/", "not a valid internationalized name"),
        ("https://①②⑦.0.0.1/", "not a valid internationalized name"),
        ("https://☃.example/", "not a valid internationalized name"),
        ("https://" + "ü" * 64 + ".example/", "not a valid internationalized name"),
        ("https://a..example/", "not a valid name"),
        ("https://.example.com/", "not a valid name"),
        ("https://-a.example/", "not a valid name"),
        ("https://a-.example/", "not a valid name"),
        ("https://a,b.example/", "not a valid name"),
        ("https://a;b.example/", "not a valid name"),
        ("https://a!b.example/", "not a valid name"),
        ("https://*.example/", "not a valid name"),
        ("https://" + "a" * 64 + ".example", "not a valid name"),
        ("https://" + "a." * 125 + "example", "not a valid name"),
        ("https://127.1/", "four plain numbers"),
        ("https://127.0.1/", "four plain numbers"),
        ("https://2130706433/", "four plain numbers"),
        ("https://0x7f.1/", "four plain numbers"),
        ("https://0x7f000001/", "four plain numbers"),
        ("https://0X7F.0.0.1/", "four plain numbers"),
        ("https://0177.0.0.1/", "four plain numbers"),
        ("https://198.41.0.04/", "four plain numbers"),
        ("https://198.41.0.256/", "four plain numbers"),
        ("https://198.41.0.4.5/", "four plain numbers"),
        ("https://example.0x/", "four plain numbers"),
        ("https://example.42/", "four plain numbers"),
        ("https://0/", "four plain numbers"),
    ],
)
def test_a_url_that_could_be_read_in_two_ways_is_refused_with_what_to_write(url: str, sentence: str) -> None:
    with pytest.raises(RefusedAddress) as caught:
        check_url(url)
    assert sentence in str(caught.value)
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize(
    ("host", "kind"),
    [
        ("10.0.0.1", "private"),
        ("127.0.0.1", "loopback"),
        ("169.254.169.254", "link-local"),
        ("100.100.100.200", "carrier-grade NAT"),
        ("168.63.129.16", "a cloud provider's internal one"),
        ("[::1]", "loopback"),
        ("[::ffff:198.41.0.4]", "an IPv4-mapped one"),
        ("[::ffff:c629:4]", "an IPv4-mapped one"),
        ("[fd00:ec2::254]", "private"),
        ("[64:ff9b::a9fe:a9fe]", "a NAT64 one"),
    ],
)
def test_a_literal_address_that_is_not_public_is_refused_by_its_kind(host: str, kind: str) -> None:
    with pytest.raises(RefusedAddress) as caught:
        check_url(f"http://{host}/")
    assert str(caught.value) == f"This address is {kind}; use one that is reached from the internet."


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST", "a.localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback"]
)
def test_names_of_this_machine_are_refused_unless_loopback_is_allowed(host: str) -> None:
    for networks in ([], ["10.0.0.0/8"]):
        with pytest.raises(RefusedAddress, match="This address is loopback"):
            check_url(f"http://{host}:8000/", allowed_networks=networks)
    for network in ("127.0.0.0/8", "127.0.0.1/32", "::1/128", "0.0.0.0/0"):
        assert check_url(f"http://{host}:8000/", allowed_networks=[network]).host == host.lower()


@pytest.mark.parametrize(
    "host", ["intranet", "printer.local", "metadata.google.internal", "router.lan", "nas.home.arpa", "a.localdomain"]
)
def test_names_of_a_private_network_are_refused_unless_one_is_allowed(host: str) -> None:
    with pytest.raises(RefusedAddress, match="This address is private"):
        check_url(f"http://{host}/")
    assert check_url(f"http://{host}/", allowed_networks=["10.0.0.0/8"]).host == host


def edges(network: str) -> list[str]:
    net = ipaddress.ip_network(network)
    return [str(net[0]), str(net[net.num_addresses // 2]), str(net[-1])]


@pytest.mark.parametrize(
    ("network", "kind"),
    [
        ("0.0.0.0/8", "unspecified"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "carrier-grade NAT"),
        ("127.0.0.0/8", "loopback"),
        ("168.63.129.16/32", "a cloud provider's internal one"),
        ("169.254.0.0/16", "link-local"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved"),
        ("192.0.2.0/24", "for documentation"),
        ("192.31.196.0/24", "reserved"),
        ("192.52.193.0/24", "reserved"),
        ("192.88.99.0/24", "a 6to4 relay"),
        ("192.168.0.0/16", "private"),
        ("192.175.48.0/24", "reserved"),
        ("198.18.0.0/15", "for benchmarks"),
        ("198.51.100.0/24", "for documentation"),
        ("203.0.113.0/24", "for documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/5", "reserved"),
        ("255.255.255.255/32", "broadcast"),
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("::7f00:0/104", "an IPv4-compatible one"),
        ("::ffff:0:0/96", "an IPv4-mapped one"),
        ("::ffff:0:0:0/96", "an IPv4-translated one"),
        ("64:ff9b::/96", "a NAT64 one"),
        ("64:ff9b:1::/48", "a NAT64 one"),
        ("100::/64", "for discarding"),
        ("1000::/4", "reserved"),
        ("2001::/32", "a Teredo one"),
        ("2001:2::/48", "reserved"),
        ("2001:20::/28", "reserved"),
        ("2001:1ff:ffff::/48", "reserved"),
        ("2001:db8::/32", "for documentation"),
        ("2002::/16", "a 6to4 one"),
        ("2606:4700::5efe:0:0/96", "an ISATAP one"),
        ("2606:4700::200:5efe:0:0/96", "an ISATAP one"),
        ("2620:4f:8000::/48", "reserved"),
        ("3fff::/20", "for documentation"),
        ("4000::/2", "reserved"),
        ("5f00::/16", "a segment routing one"),
        ("8000::/2", "reserved"),
        ("fc00::/7", "private"),
        ("fe00::/9", "reserved"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "site-local"),
        ("ff00::/8", "multicast"),
    ],
)
def test_every_address_of_a_special_network_is_refused(network: str, kind: str) -> None:
    for address in edges(network):
        parsed = ipaddress.ip_address(address)
        found = refusal(parsed)
        # A network's own edges may be more special still.
        assert found == kind or (kind, found) == ("reserved", "a segment routing one")
        assert not is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "1.0.0.0", "1.1.1.1", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255",
        "128.0.0.0", "168.63.129.15", "168.63.129.17", "169.253.255.255", "169.255.0.0", "172.15.255.255",
        "172.32.0.0", "192.0.1.0", "192.0.3.0", "192.167.255.255", "192.169.0.0", "198.17.255.255", "198.20.0.0",
        "203.0.112.255", "203.0.114.0", "223.255.255.255",
        "2000::1", "2001:200::1", "2001:db7:ffff::1", "2001:db9::1", "2003::1", "2606:4700:4700::1111",
        "2606:4700::5eff:7f00:1", "2a00:1450:4001:80b::200e", "3ffe:ffff::1", "3fff:1000::1",
    ],
)  # fmt: skip
def test_the_neighbours_of_special_networks_are_public(address: str) -> None:
    assert is_public(address)
    assert is_public(ipaddress.ip_address(address))


def test_an_address_bound_to_an_interface_is_refused_even_where_its_network_is_allowed() -> None:
    address = ipaddress.ip_address("fe80::1%eth0")
    assert refusal(address, allowed_networks=["fe80::/10"]) == "bound to one network interface"


def test_allowed_networks_permit_exactly_what_they_list() -> None:
    allowed = ["10.1.0.0/16", "127.0.0.1/32", "fd00:1::/32"]
    assert is_public("10.1.255.255", allowed)
    assert is_public("127.0.0.1", allowed)
    assert is_public("fd00:1::5", allowed)
    assert is_public("1.1.1.1", allowed)
    for address in ("10.2.0.0", "127.0.0.2", "fd00:2::", "::1"):
        assert not is_public(address, allowed)


@pytest.mark.parametrize(
    "address",
    ["::ffff:127.0.0.1", "::127.0.0.1", "::ffff:0:127.0.0.1", "64:ff9b::127.0.0.1", "2002:7f00:1::",
     "2606:4700::5efe:127.0.0.1", "2001:0:7f00:1::"],
)  # fmt: skip
def test_an_ipv4_network_permits_no_ipv6_address_that_embeds_its_own(address: str) -> None:
    assert not is_public(address, ["127.0.0.0/8", "0.0.0.0/0"])
    with pytest.raises(RefusedAddress):
        check_url(f"http://[{address}]/", allowed_networks=["127.0.0.0/8"])
    assert is_public(address, [f"{address}/128"])


def test_a_network_that_is_none_is_named() -> None:
    with pytest.raises(ValueError, match=r"10\.0\.0\.1/8 has host bits set"):
        parse_networks(["127.0.0.0/8", "10.0.0.1/8"])
    with pytest.raises(ValueError, match="loopback"):
        check_url("https://example.com", allowed_networks=["loopback"])
    assert parse_networks([ipaddress.ip_network("10.0.0.0/8"), "::1"]) == parse_networks(["10.0.0.0/8", "::1/128"])


def test_an_address_that_is_none_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="example"):
        is_public("example.com")


@given(st.text(alphabet="0123456789abcdefxX.", min_size=1, max_size=20))
def test_no_spelling_of_a_private_ipv4_address_gets_through(host: str) -> None:
    """What the system's resolver takes for a number is either the number we read, or refused."""
    try:
        number = socket.inet_ntoa(socket.inet_aton(host))
    except OSError:
        return
    try:
        target = check_url(f"http://{host}/")
    except RefusedAddress:
        return
    assert target.host == number
    assert is_public(number)


@given(st.ip_addresses(v=6))
def test_nothing_outside_global_unicast_is_public(address: ipaddress.IPv6Address) -> None:
    if address not in ipaddress.ip_network("2000::/3") or address.ipv4_mapped or address.teredo or address.sixtofour:
        assert not is_public(address)


@given(st.ip_addresses(v=4))
def test_whatever_python_calls_private_is_refused(address: ipaddress.IPv4Address) -> None:
    if address.is_private or address.is_multicast or address.is_reserved:
        assert not is_public(address)


def test_a_subscription_is_refused_an_address_that_is_not_public(
    subscribe: Callable[..., Subscription], tenant: Tenant, settings: Settings
) -> None:
    settings.SIGNALPOST_ALLOWED_NETWORKS = []
    subscription = subscribe(tenant, "shop.order.*")
    subscription.full_clean()
    subscription.url = "http://10.0.0.1/"
    with pytest.raises(ValidationError) as caught:
        subscription.full_clean()
    assert caught.value.message_dict == {"url": ["This address is private; use one that is reached from the internet."]}
    settings.SIGNALPOST_ALLOWED_NETWORKS = ["10.0.0.0/8"]
    subscription.full_clean()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://a.example/hooks", "https://a.example/hooks"),
        ("https://a.example/?token=secret", "https://a.example/?token=…"),
        ("https://a.example/h?a=1&token=s=t&b=", "https://a.example/h?a=…&token=…&b=…"),
        ("https://a.example/h?c2VjcmV0", "https://a.example/h?…"),
        ("https://a.example/h?a=1;b=2?c", "https://a.example/h?a=…&b=…"),
        ("https://a.example/h?", "https://a.example/h?"),
        ("/h?token=secret", "/h?token=…"),
        ("inbox:", "inbox:"),
    ],
)
def test_an_address_is_shown_without_what_its_query_says(url: str, shown: str) -> None:
    assert without_values(url) == shown
