"""How this process reaches Prefect's server: whether it answers, and which proxy is on the way."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit
from urllib.request import getproxies, getproxies_environment, proxy_bypass

import httpx
from prefect import get_client
from prefect.client.base import ServerType
from prefect.client.orchestration import SyncPrefectClient
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    PREFECT_SERVER_ALLOW_EPHEMERAL_MODE,
    temporary_settings,
)

from data_contracts.errors import ServerError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
TIMEOUT = httpx.Timeout(30, connect=10)  # a server at work on much takes its time; one that is there takes the call
NO_ANSWER = (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError)
ADVICE = "start it (make serve), correct PREFECT_API_URL, or unset it: every run then starts a temporary one"


def leave_loopback_out_of_proxies() -> None:
    """Add loopback to NO_PROXY and no_proxy, for this process and its children, where a proxy is set.

    A proxy looks for 127.0.0.1 on its own machine. What the user has there stays; `no_proxy` goes before `NO_PROXY`, so
    that the one that is missing starts as the other.
    """
    if not getproxies_environment().keys() - {"no"}:
        return
    lower, upper = os.environ.get("no_proxy"), os.environ.get("NO_PROXY")
    for name, given in (
        ("no_proxy", upper if lower is None else lower),
        ("NO_PROXY", lower if upper is None else upper),
    ):
        hosts = [host.strip() for host in (given or "").split(",") if host.strip()]
        if "*" not in hosts:
            os.environ[name] = ",".join([*hosts, *(host for host in LOOPBACK if host not in hosts)])


def proxy_of(url: str) -> str | None:
    """Host and port of the proxy that requests to `url` go through; None where they go directly."""
    parts, proxies = urlsplit(url), getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or proxy_bypass(parts.hostname or ""):
        return None
    return urlsplit(proxy if "//" in proxy else f"//{proxy}").netloc.rpartition("@")[2]


@contextmanager
def asked_once() -> Iterator[SyncPrefectClient]:
    """A client of the configured server that tries nothing again: a server that is not there is told at once."""
    with (
        temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}),
        get_client(sync_client=True, httpx_settings={"timeout": TIMEOUT}) as client,
    ):
        yield client


def server_version() -> str:
    """The version of the configured server, empty for Prefect Cloud. Raises one of NO_ANSWER."""
    with asked_once() as client:
        if client.server_type is not ServerType.CLOUD:
            return client.api_version()
        if problem := client.api_healthcheck():
            raise problem
        return ""


def no_answer(error: BaseException) -> str:
    """What was tried, and why it failed, in one line."""
    url = PREFECT_API_URL.value() or ""
    parts = urlsplit(url)
    shown = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    way = f" through the proxy {proxy}" if (proxy := proxy_of(url)) else ""
    reason = str(error).splitlines()[0] if str(error) else ""
    return f"{shown} does not answer{way}: {type(error).__name__}{f', {reason}' if reason else ''}"


def refuse_silent_server() -> None:
    """Raise ServerError when the configured server does not answer, or none is configured and none may be started."""
    if not PREFECT_API_URL.value():
        if not PREFECT_SERVER_ALLOW_EPHEMERAL_MODE.value():
            raise ServerError(
                "PREFECT_API_URL: none is set, and PREFECT_SERVER_ALLOW_EPHEMERAL_MODE forbids a temporary server; set "
                "one of them"
            )
        return
    leave_loopback_out_of_proxies()
    try:
        server_version()
    except NO_ANSWER as error:
        raise ServerError(f"PREFECT_API_URL: {no_answer(error)}; {ADVICE}") from error
