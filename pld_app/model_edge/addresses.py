"""Where a model call may go."""

import ipaddress
from urllib.parse import urlsplit

# Metadata services hand out credentials; no model runs there, whatever an admin allows.
_NEVER = tuple(
    ipaddress.ip_network(net)
    for net in (
        "169.254.0.0/16",
        "fe80::/10",
        "fd00:ec2::254/128",
        "fd20:ce::254/128",
        "100.100.100.200/32",
        "168.63.129.16/32",
    )
)
# IPv6 forms that end in an IPv4 address: NAT64 (RFC 6052), IPv4-translated (RFC 2765), IPv4-compatible (RFC 4291).
_HOLDS_IPV4 = tuple(ipaddress.ip_network(net) for net in ("64:ff9b::/96", "::ffff:0:0:0/96", "::/96"))
_LOOPBACK_OR_NONE = (ipaddress.ip_address("::1"), ipaddress.ip_address("::"))
# Python calls everything global that no registry reserves; the internet is here (RFC 4291, section 2.4).
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


class AddressRefusedError(Exception):
    """The URL leads where this endpoint may not go; nothing was sent."""


def check_url(url: str) -> None:
    """Raise AddressRefusedError unless this is a plain http(s) base URL."""
    try:
        parts = urlsplit(url)
        port_ok = parts.port != 0
    except ValueError as error:
        raise AddressRefusedError("The base URL is not a valid address.") from error
    if parts.scheme not in {"http", "https"} or not parts.hostname or not port_ok:
        raise AddressRefusedError("The base URL must start with https:// (or http:// for a private server).")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise AddressRefusedError("The base URL must not hold a user, password, query or fragment.")


def _real_address(address: IPAddress) -> IPAddress:
    """The IPv4 address that an IPv6 form leads to, else the address itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address not in _LOOPBACK_OR_NONE and any(address in network for network in _HOLDS_IPV4):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else address)


def check_address(text: str, *, scheme: str, allow_private: bool) -> None:
    """Raise AddressRefusedError unless a request may go to this address (an IP address as text)."""
    address = _real_address(ipaddress.ip_address(text.partition("%")[0]))
    if any(address in network for network in _NEVER) or address.is_multicast or address.is_unspecified:
        raise AddressRefusedError(f"The endpoint's address {address} is never allowed.")
    if address.is_global and (address.version == 4 or address in _GLOBAL_UNICAST):
        if scheme != "https":
            raise AddressRefusedError("A public endpoint must use https://, or the key would travel in the clear.")
    elif not allow_private:
        raise AddressRefusedError(
            f"The endpoint's address {address} is private and private addresses are not allowed for it."
        )
