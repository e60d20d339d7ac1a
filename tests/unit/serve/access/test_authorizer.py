"""Who is let in, for what, and how often."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import ValidationError

from helpers.access_keys import Clock, run, write_keys
from plimsoll.serve.access.authorizer import AccessSettings, Admission, Authorizer, Caller, Right, loopback, network
from plimsoll.serve.access.keys import Rate, Role, Terms
from plimsoll.serve.messages import Problem, RequestError


def caller(*tokens: str, address: str = "192.0.2.1", local: bool = False) -> Caller:
    return Caller(frozenset(token.encode() for token in tokens), address, local)


def refused(authorizer: Authorizer, who: Caller, right: Right = "predict") -> Problem:
    with pytest.raises(RequestError) as raised:
        run(authorizer.admit(who, right))
    return raised.value.problem


@pytest.fixture
def keyed(tmp_path: Path) -> tuple[Authorizer, dict[str, str], Clock]:
    """An authorizer with a key of each kind, and its clock."""
    clock = Clock()
    past = datetime.fromtimestamp(500, UTC)
    soon = datetime.fromtimestamp(1500, UTC)
    terms: dict[str, Terms] = {
        "asks": Terms(),
        "looks": Terms("metrics"),
        "rules": Terms("admin"),
        "slow": Terms(rate=Rate.parse("1/s"), burst=2),
        "counted": Terms(rate=Rate.parse("10/s"), burst=10, counts="pictures"),
        "over": Terms(expires=past),
        "ends": Terms(expires=soon),
    }
    tokens = write_keys(tmp_path / "keys.toml", **terms)
    return Authorizer(AccessSettings(keys=tmp_path / "keys.toml"), clock=clock, now=clock), tokens, clock


@pytest.mark.parametrize(
    ("who", "rights"),
    [
        ("asks", {"predict", "report"}),
        ("looks", {"metrics"}),
        ("rules", {"predict", "report", "metrics", "control"}),
    ],
)
def test_a_role_may_what_it_says_and_nothing_else(
    keyed: tuple[Authorizer, dict[str, str], Clock], who: str, rights: set[str]
) -> None:
    needs: tuple[Right, ...] = ("predict", "report", "metrics", "control")
    for right in needs:
        if right in rights:
            admission = run(keyed[0].admit(caller(keyed[1][who]), right))
            assert admission.key is not None
            assert admission.key.name == who
        else:
            problem = refused(keyed[0], caller(keyed[1][who]), right)
            assert problem.status == 403
            assert who in problem.message


def test_keys_are_needed_and_end(keyed: tuple[Authorizer, dict[str, str], Clock]) -> None:
    authorizer, tokens, clock = keyed
    assert refused(authorizer, caller(local=True)).status == 401
    assert refused(authorizer, caller(tokens["asks"], tokens["slow"])).status == 401
    assert "expired" in refused(authorizer, caller(tokens["over"])).message
    run(authorizer.admit(caller(tokens["ends"]), "predict"))
    clock.now = 1500
    assert refused(authorizer, caller(tokens["ends"])).status == 401


def test_a_key_has_its_own_rate(keyed: tuple[Authorizer, dict[str, str], Clock]) -> None:
    authorizer, tokens, clock = keyed
    for _ in range(2):
        run(authorizer.admit(caller(tokens["slow"]), "predict"))
    problem = refused(authorizer, caller(tokens["slow"], address="198.51.100.7"))
    assert (problem.status, problem.kind, problem.retry_after) == (429, "overloaded", 1.0)
    clock.now += 0.96
    problem = refused(authorizer, caller(tokens["slow"]))
    assert (problem.retry_seconds, "1 s" in problem.hint) == (1, True), "the hint says what Retry-After says"
    clock.now -= 0.96
    run(authorizer.admit(caller(tokens["asks"]), "predict"))
    clock.now += 1
    run(authorizer.admit(caller(tokens["slow"]), "predict"))


def test_pictures_are_charged_where_they_count(keyed: tuple[Authorizer, dict[str, str], Clock]) -> None:
    authorizer, tokens, clock = keyed
    run(authorizer.admit(caller(tokens["counted"]), "predict")).settle(30)
    assert refused(authorizer, caller(tokens["counted"])).retry_after == pytest.approx(2.1)
    clock.now += 2.1
    run(authorizer.admit(caller(tokens["counted"]), "predict")).settle(1)
    for _ in range(2):
        run(authorizer.admit(caller(tokens["slow"]), "predict")).settle(30)
    assert refused(authorizer, caller(tokens["slow"])).retry_after == 1.0


def test_without_keys_reports_are_shown_on_the_machine_of_the_service_alone() -> None:
    for control in ("local", "anybody", "nobody"):
        authorizer = Authorizer(AccessSettings.model_validate({"control": control}))
        assert run(authorizer.admit(caller(local=True), "report")) == Admission()
        assert refused(authorizer, caller(local=False), "report").status == 403


@pytest.mark.parametrize(
    ("control", "local", "allowed"),
    [("local", True, True), ("local", False, False), ("anybody", False, True), ("nobody", True, False)],
)
def test_who_controls_models_without_keys(
    control: Literal["local", "anybody", "nobody"], local: bool, allowed: bool
) -> None:
    authorizer = Authorizer(AccessSettings(control=control))
    if allowed:
        assert run(authorizer.admit(caller(local=local), "control")) == Admission()
    else:
        assert refused(authorizer, caller(local=local), "control").status == 403
    run(authorizer.admit(caller(), "predict"))
    run(authorizer.admit(caller(), "metrics"))


def test_addresses_share_a_limit_by_network() -> None:
    clock = Clock()
    authorizer = Authorizer(AccessSettings.model_validate({"address_rate": "1/s", "address_burst": 1}), clock=clock)
    run(authorizer.admit(caller(address="2001:db8:1:2::1"), "predict"))
    assert refused(authorizer, caller(address="2001:db8:1:2:ffff::9")).status == 429
    run(authorizer.admit(caller(address="2001:db8:1:3::1"), "predict"))
    run(authorizer.admit(caller(address="192.0.2.1"), "predict"))
    assert refused(authorizer, caller(address="::ffff:192.0.2.1")).status == 429
    run(authorizer.admit(caller(address="192.0.2.2"), "predict"))


def test_without_settings_everybody_may_ask() -> None:
    authorizer = Authorizer(AccessSettings())
    for _ in range(1000):
        assert run(authorizer.admit(caller(), "predict")) == Admission()


def test_addresses() -> None:
    assert [network(address) for address in ("", "/run/socket", "fe80::1%eth0")] == ["", "/run/socket", "fe80::/64"]
    assert [
        loopback(address)
        for address in ("127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "10.0.0.1", "", "localhost")
    ] == [True] * 4 + [False] * 3


@pytest.mark.parametrize(
    "settings",
    [{"address_rate": "fast"}, {"address_burst": 0}, {"open_paths": ["metrics"]}, {"control": "all"}, {"typo": 1}],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        AccessSettings.model_validate(settings)


def test_an_empty_file_lets_nobody_in(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "k").write_text("")
    authorizer = Authorizer(AccessSettings(keys=tmp_path / "k"))
    assert "nobody is let in" in caplog.text
    assert refused(authorizer, caller("plm_00000000_" + "A" * 43)).status == 401
    assert refused(authorizer, caller()).status == 401


def test_every_role_has_rights() -> None:
    from typing import get_args

    from plimsoll.serve.access.authorizer import _RIGHTS

    assert set(_RIGHTS) == set(get_args(Role))
