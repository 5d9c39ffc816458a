"""Which addresses a request that strangers asked for may go to: those of the public internet, and those an operator has allowed."""

import ipaddress
import socket
from collections.abc import Callable, Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from sparring.storage.errors import Forbidden

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Resolver = Callable[[str, int], Iterable[str]]
"""(host, port) -> its addresses, as text. Raises OSError where there are none."""

_NAT64 = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"))
_COMPATIBLE = IPv6Network("::/96")
_CLOSED: tuple[Network, ...] = (
    # What the library calls global and is not for us: protocol assignments, 6to4 relays, a cloud's host agent, site-local, documentation.
    IPv4Network("192.0.0.0/24"),
    IPv4Network("192.88.99.0/24"),
    IPv4Network("168.63.129.16/32"),
    IPv6Network("fec0::/10"),
    IPv6Network("3fff::/20"),
)


def resolve(host: str, port: int) -> list[str]:
    """Every address of a host, by the system's own ways; they read numbers such as 2130706433 and 0177.1 as addresses, too."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(where[0]) for *_, where in found))


def forbidden(address: Address) -> bool:
    """Whether it is no address of the public internet, or wraps one that is none: mapped, NAT64, 6to4, Teredo."""
    inner = list(_wrapped(address)) if isinstance(address, IPv6Address) else []
    if inner:
        return any(map(forbidden, inner))
    if any(address.version == network.version and address in network for network in _CLOSED):
        return True
    special = address.is_multicast or address.is_reserved or address.is_unspecified or address.is_loopback or address.is_link_local
    return special or not address.is_global


def _wrapped(address: IPv6Address) -> Iterator[IPv4Address]:
    if address.ipv4_mapped:
        yield address.ipv4_mapped
    if address.sixtofour:
        yield address.sixtofour
    if address.teredo:
        yield from address.teredo
    if any(address in network for network in _NAT64) or (address in _COMPATIBLE and int(address) > 1):
        yield IPv4Address(int(address) & 0xFFFFFFFF)


def pinned(host: str, port: int, allowed: Iterable[Network], resolver: Resolver = resolve) -> tuple[str, ...]:
    """The addresses of a host, looked up once, for requests to be sent to and to no others.

    Args:
        host: a name, or an address in any spelling.
        port: of the endpoint.
        allowed: networks in which an address may lie that is otherwise forbidden.
        resolver: looks the host up.

    Raises:
        Forbidden: one of the addresses is forbidden.
        OSError: there are none.
    """
    allowed = tuple(allowed)
    found = tuple(resolver(host, port))
    if not found:
        raise OSError(f"{host} has no address")
    for text in found:
        address = ipaddress.ip_address(text)
        bare = ipaddress.ip_address(text.partition("%")[0])
        if forbidden(bare) and not any(address.version == network.version and bare in network for network in allowed):
            raise Forbidden(
                "address_forbidden",
                f"{host} is at {text}, which is no public address",
                "An operator of the service may allow it: name its network in `addresses`, in the list of endpoints.",
            )
    return found
