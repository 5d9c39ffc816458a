"""No address of these tests is ever connected to; names are looked up by the tests themselves."""

import ipaddress

import pytest

from sparring.storage.addresses import forbidden, pinned, resolve
from sparring.storage.errors import Forbidden

FORBIDDEN = {
    "this machine": "127.0.0.1 127.255.255.254 ::1 0.0.0.0 0.1.2.3 ::",
    "private": "10.0.0.1 172.16.0.1 172.31.255.255 192.168.0.1 fc00::1 fd12:3456::1",
    "a provider's own": "100.64.0.1 100.100.100.200 168.63.129.16",
    "link": "169.254.169.254 169.254.170.2 fe80::1 fec0::1 fd00:ec2::254",
    "multicast": "224.0.0.1 239.255.255.255 ff02::1 ff0e::1",
    "broadcast and reserved": "255.255.255.255 240.0.0.1 192.0.0.8 192.0.0.170 192.88.99.1",
    "documentation and benchmarks": "192.0.2.1 198.51.100.1 203.0.113.1 198.18.0.1 2001:db8::1 3fff::1 2001:2::1 100::1",
    "mapped": "::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254",
    "compatible": "::127.0.0.1 ::10.0.0.1",
    "NAT64": "64:ff9b::7f00:1 64:ff9b::a9fe:a9fe 64:ff9b:1::7f00:1",
    "6to4": "2002:7f00:1:: 2002:a00:1::1 2002:a9fe:a9fe::",
    "Teredo": "2001:0:4136:e378:8000:63bf:80ff:fffe 2001:0:7f00:1:8000:63bf:f7f7:f7f7",
}
PUBLIC = "8.8.8.8 1.1.1.1 192.0.1.1 2606:4700:4700::1111 ::ffff:8.8.8.8 64:ff9b::808:808 2002:808:808::1 2001:0:808:808:8000:63bf:f7f7:f7f7"


@pytest.mark.parametrize("address", [pytest.param(a, id=f"{kind} {a}") for kind, some in FORBIDDEN.items() for a in some.split()])
def test_every_form_of_forbidden_address_is_refused(address: str) -> None:
    assert forbidden(ipaddress.ip_address(address))
    with pytest.raises(Forbidden, match="no public address") as error:
        pinned("models.example.com", 443, (), lambda host, port: [address])
    assert error.value.code == "address_forbidden"
    with pytest.raises(Forbidden):
        pinned("models.example.com", 443, (), lambda host, port: ["8.8.8.8", address])


@pytest.mark.parametrize("address", PUBLIC.split())
def test_public_addresses_are_not(address: str) -> None:
    assert not forbidden(ipaddress.ip_address(address))
    assert pinned("models.example.com", 443, (), lambda host, port: [address]) == (address,)


SPELLINGS = ("127.0.0.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0", "::1", "::ffff:127.0.0.1", "localhost")


@pytest.mark.parametrize("host", SPELLINGS)
def test_every_spelling_of_this_machine_is_looked_up_before_it_is_judged(host: str) -> None:
    with pytest.raises(Forbidden):
        pinned(host, 80, (), resolve)


def test_a_zone_does_not_hide_an_address() -> None:
    with pytest.raises(Forbidden):
        pinned("printer", 80, (), lambda host, port: ["fe80::1%eth0"])


def test_a_network_that_is_allowed_opens_no_other() -> None:
    allowed = (ipaddress.ip_network("10.1.0.0/16"),)
    assert pinned("model.internal", 80, allowed, lambda host, port: ["10.1.2.3"]) == ("10.1.2.3",)
    for address in ("10.2.0.1", "::ffff:10.1.2.3", "127.0.0.1"):
        with pytest.raises(Forbidden):
            pinned("model.internal", 80, allowed, lambda host, port, found=address: [found])


def test_a_host_without_address_is_no_host() -> None:
    with pytest.raises(OSError, match="no address"):
        pinned("nobody.example.com", 80, (), lambda host, port: [])
