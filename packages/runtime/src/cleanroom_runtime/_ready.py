"""Waiting until a service answers, and not a moment longer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextvars import copy_context
from typing import TypeVar

from cleanroom import CleanroomError, StartTimeoutError
from cleanroom._secrets import scrub

T = TypeVar("T")

FIRST_PAUSE = 0.001
LONGEST_PAUSE = 0.05
_FIRST_KNOCK_PAUSE = 0.002
_PART_OF_THE_WAIT = 0.02
BROKEN = (NameError, ImportError, NotImplementedError)
"""What is raised by a question that is itself wrong."""
LONGEST_QUESTION = 5.0
"""Seconds that a question may take; who does not answer it may well answer the next one."""
_GRACE = 1.0
_LOOK_EVERY = 0.25


def wait_ready(
    ask: Callable[[float], None],
    check_alive: Callable[[], None],
    deadline: float,
    timeout: float,
    listens: Callable[[], bool] | None = None,
    *,
    patient: bool = False,
) -> None:
    """Ask until the answer is right.

    Args:
        ask: Puts the question, given the seconds it may take; raises while it is not answered.
        check_alive: Raises when the service has ended, with which waiting ends at once.
        deadline: When to give up, on the monotonic clock.
        timeout: The seconds that were allowed, for the message.
        listens: Whether the service listens where it is asked, which costs less to find out than
            a question. While it does not, none is put, but for one when time is up, which says
            what is wrong; when it begins to, one is put at once. Not given where that tells
            nothing.
        patient: Whether one question may take all the time that is left.

    Raises:
        StartTimeoutError: Time is up; says what went wrong last.
        NameError, ImportError, NotImplementedError: What asks is broken.
    """
    if listens is not None:
        _wait_for_port(listens, check_alive, deadline)
    pause = FIRST_PAUSE
    telling: Exception | None = None
    while True:
        began = time.monotonic()
        allowed = max(0.05, deadline - began)
        if not patient:
            allowed = min(LONGEST_QUESTION, allowed)
        try:
            _put(ask, allowed, check_alive)
        except BROKEN:
            raise  # no server will make up for it
        except Exception as exc:  # noqa: BLE001 - whatever else it is, it means not yet
            check_alive()
            cut_short = allowed < LONGEST_QUESTION and time.monotonic() - began >= allowed
            if telling is None or not cut_short:  # of that, all there is to tell is that it was
                telling = exc
            left = deadline - time.monotonic()
            if left <= 0:
                what, hint = _in_words(telling)
                raise StartTimeoutError(
                    f"not ready after {timeout:g} s; the last error was {what}",
                    hint=f"{hint}if it only needs more time, raise start_timeout",
                ) from telling
            time.sleep(min(pause, left))
            pause = min(pause * 1.5, LONGEST_PAUSE)
        else:
            return


def _put(ask: Callable[[float], None], seconds: float, check_alive: Callable[[], None]) -> None:
    """Put a question once, and give a long one up when the service has ended meanwhile."""
    if seconds <= LONGEST_QUESTION:
        ask(seconds)
    else:  # with some time more, as who gives up itself has more to say
        call_within(lambda: ask(seconds), seconds + _GRACE, check_alive)


def _wait_for_port(
    listens: Callable[[], bool], check_alive: Callable[[], None], deadline: float
) -> None:
    """Knock until the service listens or time is up, the more rarely the longer it takes."""
    began = time.monotonic()
    look_at = began + LONGEST_PAUSE
    while not listens():
        now = time.monotonic()
        if now >= deadline:
            return
        if now >= look_at:
            check_alive()
            look_at = now + LONGEST_PAUSE
        pause = max(_FIRST_KNOCK_PAUSE, (now - began) * _PART_OF_THE_WAIT)
        time.sleep(min(pause, LONGEST_PAUSE, deadline - now))


def _in_words(exc: Exception) -> tuple[str, str]:
    """What went wrong, and what the one who noticed advises, if anything."""
    if isinstance(exc, CleanroomError):
        return exc.message, f"{exc.hint}; " if exc.hint else ""
    return f"{type(exc).__name__}: {scrub(str(exc)).strip()}", ""


class NotReturnedError(TimeoutError):
    """A callable did not return in time."""


def call_within(
    call: Callable[[], T], seconds: float, meanwhile: Callable[[], None] | None = None
) -> T:
    """Return what a callable returns. One that hangs is left alone, in a thread of its own.

    Args:
        call: What to call.
        seconds: How long to wait for it.
        meanwhile: Called again and again; raises where it makes no sense to wait any longer.

    Raises:
        NotReturnedError: It did not return in time; is a `TimeoutError`.
        BaseException: What it raised, be it to end the test or the program.
    """
    returned: list[T] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            returned.append(call())
        except BaseException as exc:  # noqa: BLE001 - raised below
            raised.append(exc)

    context = copy_context()  # with the span, and the start, that this is part of
    thread = threading.Thread(
        target=context.run, args=(run,), name="cleanroom-question", daemon=True
    )
    thread.start()
    deadline = time.monotonic() + seconds
    while meanwhile is not None and thread.is_alive() and time.monotonic() < deadline:
        thread.join(min(_LOOK_EVERY, seconds))
        if thread.is_alive():
            meanwhile()
    thread.join(max(0.0, deadline - time.monotonic()))
    if raised:
        raise raised[0]
    if not returned:
        raise NotReturnedError(f"it did not return within {seconds:.1f} s")
    return returned[0]


def answers_within(ask: Callable[[float], None], seconds: float) -> bool:
    """Whether the question is answered rightly in time, even if the client library hangs."""

    def well() -> bool:
        try:
            ask(seconds)
        except BaseException:  # noqa: BLE001 - any error means the same: not healthy
            return False
        return True

    try:
        return call_within(well, seconds)
    except NotReturnedError:
        return False
