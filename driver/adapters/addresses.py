"""Which host an address means: this one, under whichever of its names, or another."""

from __future__ import annotations

import re
import socket
from urllib.parse import urlsplit

from contracts.errors import without_userinfo

_LOOPBACK = re.compile(r"(?<=://)(127\.0\.0\.1|\[::1\])(?=[:/]|$)")
_HOST = re.compile(r"^[^/?#]+//[^/?#]+")
"""A URL's scheme and host, before its path."""


def is_here(url: str) -> bool:
    """Return whether a URL's host is this one: a loopback name, or an address of its own."""
    return any(map(_is_own, _numbers(url)))


def is_same_host(one: str, other: str) -> bool:
    """Return whether two URLs name the same host; a name that nobody knows is only itself."""
    return not _numbers(one).isdisjoint(_numbers(other))


def is_same_address(one: str, other: str) -> bool:
    """Return whether two URLs are one, with or without a password: this host is `localhost` too.

    Capitals in scheme and host make no other one (RFC 3986, 6.2.2.1).
    """
    return _plain(one) == _plain(other)


def _plain(url: str) -> str:
    lowered = _HOST.sub(lambda found: found[0].lower(), without_userinfo(url))
    return _LOOPBACK.sub("localhost", lowered)


def _numbers(url: str) -> set[str]:
    """Return the IP addresses of a URL's host, or its name where it has none now."""
    host = urlsplit(url).hostname or ""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return {host}
    return {str(address[0]) for *_, address in found}


def _is_own(number: str) -> bool:
    """Return whether an IP address is this host's: only on its own can a socket be bound."""
    family = socket.AF_INET6 if ":" in number else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((number, 0))
    except OSError:
        return False
    return True
