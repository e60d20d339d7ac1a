"""Who asks, where proxies pass requests on."""

from __future__ import annotations

import pytest

from plimsoll.serve.access.authorizer import AccessSettings
from plimsoll.serve.access.proxies import TrustedProxies

PROXIES = TrustedProxies(AccessSettings(trusted_proxies=("10.0.0.0/8", "127.0.0.1", "2001:db8::/32")).trusted_proxies)


@pytest.mark.parametrize(
    ("peer", "named", "caller"),
    [
        ("192.0.2.1", [], "192.0.2.1"),
        ("192.0.2.1", ["198.51.100.1"], "192.0.2.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["203.0.113.9, 198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["203.0.113.9", "198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["203.0.113.9, 198.51.100.1, 10.1.1.1"], "198.51.100.1"),
        ("10.0.0.1", ["10.2.2.2, 10.1.1.1"], "10.2.2.2"),
        ("10.0.0.1", ["198.51.100.1, nonsense"], "10.0.0.1"),
        ("10.0.0.1", ["nonsense, 10.1.1.1"], "10.1.1.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1:4711"], "198.51.100.1"),
        ("10.0.0.1", ["[2001:4860::1]:443"], "2001:4860::1"),
        ("10.0.0.1", ["::ffff:198.51.100.1"], "198.51.100.1"),
        ("::ffff:10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("2001:db8::7", ["2001:4860::1"], "2001:4860::1"),
        ("", ["198.51.100.1"], "198.51.100.1"),
        ("", [], ""),
        ("10.0.0.1", [",".join(["203.0.113.9"] + ["10.1.1.1"] * 1000)], "10.1.1.1"),
        ("10.0.0.1", ["\xff\x00"], "10.0.0.1"),
    ],
)
def test_the_caller_is_the_last_that_a_trusted_proxy_names(peer: str, named: list[str], caller: str) -> None:
    headers = [(b"x-forwarded-for", value.encode("latin-1")) for value in named]
    assert PROXIES.caller(peer, [(b"host", b"a"), *headers]) == caller


def test_by_default_only_this_machine_is_trusted() -> None:
    proxies = TrustedProxies(AccessSettings().trusted_proxies)
    headers = [(b"x-forwarded-for", b"198.51.100.1")]
    assert proxies.caller("127.0.0.1", headers) == proxies.caller("::1", headers) == "198.51.100.1"
    assert proxies.caller("10.0.0.1", headers) == "10.0.0.1"
