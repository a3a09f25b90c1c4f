"""Waiting until a service answers, and what is said when it does not."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from cleanroom import ProcessError, ServiceError, StartTimeoutError
from cleanroom_runtime._ready import wait_ready


def wait(
    ask: Callable[[float], None],
    seconds: float = 0.2,
    check_alive: Callable[[], None] = lambda: None,
    listens: Callable[[], bool] | None = None,
) -> None:
    wait_ready(ask, check_alive, time.monotonic() + seconds, seconds, listens)


def test_it_asks_until_the_answer_is_right() -> None:
    """Waiting ends with the first right answer, and no question comes after it."""
    errors = [OSError("not yet"), ValueError("nor now")]
    asked = []

    def ask(timeout: float) -> None:
        asked.append(timeout)
        if errors:
            raise errors.pop()

    wait(ask, 10)
    assert len(asked) == 3
    assert all(0 < timeout <= 10 for timeout in asked)


def test_it_asks_as_soon_as_the_service_listens() -> None:
    """Nothing is asked until then; afterwards, nothing but the answer counts."""
    knocks = iter([False, False, True])
    errors = [OSError("starting up")]
    asked = []

    def ask(timeout: float) -> None:
        asked.append(next(knocks, "no more"))
        if errors:
            raise errors.pop()

    wait(ask, 10, listens=lambda: next(knocks))
    assert asked == ["no more", "no more"]


def test_where_nothing_ever_listens() -> None:
    """One question is put when time is up, and what it meets is told."""
    asked: list[float] = []

    def ask(timeout: float) -> None:
        asked.append(time.monotonic())
        raise OSError("nobody there")

    began = time.monotonic()
    with pytest.raises(StartTimeoutError, match=r"not ready after 0\.2 s; .* nobody there"):
        wait(ask, listens=lambda: False)
    (when,) = asked
    assert 0.2 <= when - began < 5


def test_who_ends_before_it_listens_is_not_waited_for() -> None:
    """Waiting ends soon when the service has ended, also while nothing is asked."""

    def ended() -> None:
        raise ProcessError("it ended")

    began = time.monotonic()
    with pytest.raises(ProcessError, match="it ended"):
        wait(lambda timeout: None, 30, ended, listens=lambda: False)
    assert time.monotonic() - began < 5


def test_the_last_error_is_told() -> None:
    """A timeout says what went wrong last, without passwords, and which setting gives more time."""

    def ask(timeout: float) -> None:
        raise OSError("no way to redis://u:secret@h")

    with pytest.raises(StartTimeoutError, match=r"not ready after 0\.2 s; .* OSError") as caught:
        wait(ask)
    assert "secret" not in str(caught.value)
    assert caught.value.hint == "if it only needs more time, raise start_timeout"
    assert isinstance(caught.value.__cause__, OSError)


def test_advice_is_passed_on() -> None:
    """What the one who asked advises comes before the advice to wait longer."""

    def ask(timeout: float) -> None:
        raise ServiceError("wrong answer", hint="ask for another one")

    with pytest.raises(StartTimeoutError, match=r"last error was wrong answer\n") as caught:
        wait(ask)
    assert str(caught.value.hint).startswith("ask for another one; ")


def test_a_question_cut_short_tells_nothing() -> None:
    """That the last question had no time left is not told where another error tells more."""
    asked = []

    def ask(timeout: float) -> None:
        asked.append(timeout)
        if len(asked) > 1:
            time.sleep(timeout)
            raise TimeoutError("no answer")
        raise OSError("it is loading")

    with pytest.raises(StartTimeoutError, match="it is loading"):
        wait(ask)
    assert len(asked) > 1


def test_a_question_that_always_hangs() -> None:
    """Where there is nothing else to tell, that it hung is told."""

    def ask(timeout: float) -> None:
        time.sleep(timeout)
        raise TimeoutError("no answer")

    with pytest.raises(StartTimeoutError, match="TimeoutError: no answer"):
        wait(ask)


def test_what_asks_is_broken() -> None:
    """A mistake in what asks ends the waiting at once: no server will make up for it."""

    def ask(timeout: float) -> None:
        raise NameError("tiemout")

    with pytest.raises(NameError):
        wait(ask, 30)


def test_who_has_ended_is_not_waited_for() -> None:
    """Waiting ends at once when the service has ended."""

    def ask(timeout: float) -> None:
        raise OSError("refused")

    def ended() -> None:
        raise ProcessError("it ended")

    began = time.monotonic()
    with pytest.raises(ProcessError, match="it ended"):
        wait(ask, 30, ended)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(("patient", "allowed"), [(False, 5), (True, 30)])
def test_how_long_one_question_may_take(patient: bool, allowed: float) -> None:
    """At most 5 s, or all the time that is left for one who is patient."""
    asked: list[float] = []
    wait_ready(asked.append, lambda: None, time.monotonic() + 30, 30, patient=patient)
    assert asked == [pytest.approx(allowed, abs=1)]


def test_a_long_question_ends_with_the_service() -> None:
    """Who has ended is not asked any longer, however long one question may take."""
    began = time.monotonic()

    def ended() -> None:
        if time.monotonic() > began + 0.5:
            raise ProcessError("it ended")

    with pytest.raises(ProcessError, match="it ended"):
        wait_ready(lambda _: time.sleep(20), ended, began + 30, 30, patient=True)
    assert time.monotonic() - began < 5


def test_a_long_question_fails_as_a_short_one() -> None:
    """What it raises is told, and it is put again."""
    errors = [OSError("not yet"), ServiceError("wrong")]

    def ask(timeout: float) -> None:
        if errors:
            raise errors.pop()

    wait_ready(ask, lambda: None, time.monotonic() + 30, 30, patient=True)
    assert not errors
