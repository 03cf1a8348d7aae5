"""Connections to web servers: public addresses and those of private networks, but none of this machine or its cloud.

Web addresses come from manifests, which somebody else may have written. Without this, a line could read the services of
the machine that runs the job, or the credentials that a cloud's metadata service gives it.
"""

from __future__ import annotations

import errno
import socket
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

from echo_targets.schemas.errors import UserError

METADATA = tuple(map(ip_address, ("fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "168.63.129.16", "192.0.0.192")))
"""Metadata services of AWS, Google, Alibaba, Azure and Oracle that have no link-local address."""
THIS_NETWORK = ip_network("0.0.0.0/8")
TRANSLATED = (ip_network("64:ff9b::/96"), ip_network("::/96"))
"""IPv6 addresses whose last 32 bits are an IPv4 address."""


class ForbiddenAddress(PermissionError):
    """A web address leads to this machine or to a cloud's metadata service."""


async def open_session(**options: Any) -> Any:
    """Return an aiohttp session whose every connection is checked, also after a redirect: a factory for fsspec."""
    import aiohttp

    try:
        connector = aiohttp.TCPConnector(socket_factory=_open_socket)
    except TypeError as error:
        raise UserError(f"aiohttp {aiohttp.__version__} can't check addresses: pip install 'aiohttp>=3.12'") from error
    return aiohttp.ClientSession(connector=connector, **options)


def forbidden(address: str) -> str | None:
    """Return what is wrong with connecting to an IP address, or None."""
    ip = _inner(ip_address(address.partition("%")[0]))
    if ip.is_loopback or ip.is_unspecified or ip in THIS_NETWORK:
        return "this machine"
    if ip.is_link_local or ip in METADATA:
        return "a link-local address or a cloud's metadata service"
    return "no address of a single machine" if ip.is_multicast or ip.is_reserved else None


def _inner(ip: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Return the IPv4 address that an IPv6 address stands for, if any."""
    if isinstance(ip, IPv4Address):
        return ip
    if any(ip in network for network in TRANSLATED) and int(ip) > 1:  # ::1 and :: are no IPv4 addresses
        return IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour or (ip.teredo and ip.teredo[1]) or ip


def _open_socket(found: tuple[Any, ...]) -> socket.socket:
    """Return a socket for a resolved address; what is checked is what is connected to."""
    family, kind, protocol, _, place = found
    if why := forbidden(place[0]):
        raise ForbiddenAddress(errno.EACCES, f"{place[0]} is {why}, from which no audio is loaded")
    return socket.socket(family, kind, protocol)
