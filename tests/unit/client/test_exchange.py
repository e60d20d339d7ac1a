"""When a call is tried again, and when it is given up: each rule by itself, with a clock that the test turns."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plimsoll.client.errors import BusyError, DeadlineError, RejectedError, ServiceError, UnreachableError
from plimsoll.client.exchange import AttemptError, Call, Exchange, Reply, error_of, quoted, retry_after

CALL = Call("POST", "/v1/predict")


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Chance:
    value: float = 0.0

    def __call__(self) -> float:
        return self.value


@dataclass
class Turned:
    """An exchange whose clock and chance a test turns."""

    retries: int = 3
    timeout: float = 60.0
    clock: Clock = field(default_factory=Clock)
    chance: Chance = field(default_factory=Chance)

    def exchange(self) -> Exchange:
        return Exchange(CALL, self.retries, self.timeout, clock=self.clock, chance=self.chance)


def busy(status: int = 503, hint: str | None = None) -> Reply:
    body = json.dumps({"error": {"kind": "overloaded", "message": "the queue is full", "hint": ""}}).encode()
    return Reply(status, {} if hint is None else {"retry-after": hint}, body)


@pytest.mark.parametrize("status", [429, 503])
def test_it_waits_as_long_as_the_service_says(status: int) -> None:
    assert Turned().exchange().after_reply(busy(status, "7")) == 7.0


def test_many_clients_do_not_come_back_at_once() -> None:
    assert Turned(chance=Chance(1.0)).exchange().after_reply(busy(hint="8")) == 10.0


@pytest.mark.parametrize("hint", ["0", "-5", "nonsense", "nan"])
def test_a_hint_of_no_time_is_no_reason_to_hurry(hint: str) -> None:
    exchange = Turned(chance=Chance(1.0)).exchange()
    assert [exchange.after_reply(busy(hint=hint)) for _ in range(3)] == [0.2, 0.4, 0.8]


def test_an_hour_is_not_waited_for() -> None:
    assert Turned(timeout=7200).exchange().after_reply(busy(hint="3600")) == 60.0


def test_without_a_hint_the_pauses_double_up_to_a_limit() -> None:
    exchange = Turned(retries=8, timeout=3600, chance=Chance(1.0)).exchange()
    assert [exchange.after_reply(busy()) for _ in range(7)] == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


def test_the_last_try_raises_what_the_service_said() -> None:
    exchange = Turned(retries=2).exchange()
    assert exchange.after_reply(busy(hint="1")) == 1.0
    assert exchange.after_reply(busy(hint="1")) == 1.0
    with pytest.raises(BusyError, match="the queue is full") as raised:
        exchange.after_reply(busy(429, "1"))
    assert (raised.value.status, raised.value.kind, raised.value.retry_after) == (429, "overloaded", 1.0)


def test_a_pause_that_leads_past_the_deadline_is_not_begun() -> None:
    turned = Turned(timeout=10)
    exchange = turned.exchange()
    turned.clock.now += 4
    with pytest.raises(BusyError):
        exchange.after_reply(busy(hint="6"))
    assert turned.exchange().after_reply(busy(hint="6")) == 6.0


def test_nothing_is_sent_after_the_deadline() -> None:
    turned = Turned(timeout=10)
    exchange = turned.exchange()
    assert exchange.remaining() == 10.0
    turned.clock.now += 10
    with pytest.raises(DeadlineError, match="within 10 s"):
        exchange.remaining()


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 413, 415, 422])
def test_a_4xx_is_never_tried_again(status: int) -> None:
    with pytest.raises(RejectedError) as raised:
        Turned().exchange().after_reply(
            Reply(
                status,
                {"retry-after": "1", "x-request-id": "abc"},
                b'{"error": {"kind": "input", "message": "no", "hint": "do"}}',
            )
        )
    assert (raised.value.status, raised.value.message, raised.value.hint, raised.value.request_id) == (
        status,
        "no",
        "do",
        "abc",
    )


@pytest.mark.parametrize(
    ("status", "kind"),
    [(500, ServiceError), (502, ServiceError), (504, DeadlineError), (408, DeadlineError), (307, ServiceError)],
)
def test_nor_is_anything_else(status: int, kind: type[ServiceError]) -> None:
    with pytest.raises(ServiceError) as raised:
        Turned().exchange().after_reply(
            Reply(status, {"location": "https://elsewhere/"}, b"<h1>Bad\x1b[31m gateway</h1>")
        )
    assert type(raised.value) is kind
    assert "\x1b" not in str(raised.value)


def test_no_connection_is_tried_again_and_then_reported() -> None:
    exchange = Turned(retries=2).exchange()
    assert [exchange.after_failure(AttemptError("refused", "unsent")) for _ in range(2)] == [0.1, 0.2]
    with pytest.raises(UnreachableError, match="refused"):
        exchange.after_failure(AttemptError("refused", "unsent"))


def test_a_connection_that_closes_without_an_answer_is_tried_once_more() -> None:
    exchange = Turned().exchange()
    assert exchange.after_failure(AttemptError("disconnected", "dropped")) == 0.1
    with pytest.raises(UnreachableError, match="disconnected"):
        exchange.after_failure(AttemptError("disconnected", "dropped"))


def test_what_broke_in_the_middle_is_not() -> None:
    with pytest.raises(UnreachableError):
        Turned().exchange().after_failure(AttemptError("reset", "broken"))
    with pytest.raises(DeadlineError):
        Turned().exchange().after_failure(AttemptError("read timeout", "late"))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2", 2.0),
        (" 2.5 ", 2.5),
        ("-3", 0.0),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 90.0),
        ("nan", None),
        ("inf", None),
        ("soon", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_is_read_in_both_forms(text: str | None, seconds: float | None) -> None:
    assert retry_after(text, now=lambda: 10.0) == seconds


@given(status=st.integers(300, 599), body=st.binary(max_size=300), hint=st.text(max_size=30))
def test_whatever_comes_is_put_in_words(status: int, body: bytes, hint: str) -> None:
    """A proxy's page, a lie, half of an answer: an error with a line that can be shown, never another exception."""
    error = error_of(Reply(status, {"retry-after": hint, "location": hint}, body))
    assert error.message
    assert all(sign.isprintable() for sign in error.message + error.hint + error.kind)


@pytest.mark.parametrize(
    "body",
    [b"[" * 100_000, b'{"error": ' * 50_000, b'{"error": {"message": NaN}}', b'{"error": ["a"]}', b"\xff\xfe", b"null"],
)
def test_hostile_bodies_are_quoted(body: bytes) -> None:
    error = error_of(Reply(500, {}, body))
    assert error.message.startswith("HTTP 500")
    assert len(error.message) < 300


def test_a_long_body_is_cut() -> None:
    assert len(quoted("é".encode() * 10_000)) < 210
