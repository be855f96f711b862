"""Calls to this machine never go through a proxy; calls to others go through the one that is set."""

from __future__ import annotations

import logging
import os
from importlib.util import find_spec

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_PROXIES = ("all_proxy", "http_proxy", "https_proxy")
log = logging.getLogger(__name__)


def spare_loopback() -> None:
    """Set it in the environment, which every library and every process that is started from here reads.

    A kind of proxy that the HTTP client does not speak is left out and named: with it the client makes no connection at all,
    not even one that needs no proxy.
    """
    said = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    hosts = [host.strip() for host in said.split(",") if host.strip()]
    if "*" not in hosts:
        value = ",".join(dict.fromkeys((*hosts, *LOOPBACK)))
        os.environ["no_proxy"] = os.environ["NO_PROXY"] = value  # some libraries read one, some the other
    for name in [name for name in os.environ if name.lower() in _PROXIES]:
        scheme = os.environ[name].partition("://")[0] if "://" in os.environ[name] else "http"
        if not _spoken(scheme.lower()):
            del os.environ[name]
            log.warning("%s: a %s proxy is not used. Use an http proxy, or a socks5 one with `pip install 'httpx[socks]'`.", name, scheme)


def _spoken(scheme: str) -> bool:
    return scheme in ("http", "https") or (scheme in ("socks5", "socks5h") and find_spec("socksio") is not None)
