"""Waiting until a service answers, and not a moment longer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from cleanroom import CleanroomError, StartTimeoutError
from cleanroom._secrets import scrub

FIRST_PAUSE = 0.001
LONGEST_PAUSE = 0.05
_FIRST_WATCH = 0.008
_BETWEEN_KNOCKS = 0.0015
BROKEN = (NameError, ImportError, NotImplementedError)
"""What is raised by a question that is itself wrong."""
_LONGEST_QUESTION = 5.0


def wait_ready(
    ask: Callable[[float], None],
    check_alive: Callable[[], None],
    deadline: float,
    timeout: float,
    listens: Callable[[], bool] | None = None,
) -> None:
    """Ask until the answer is right.

    Args:
        ask: Puts the question, given the seconds it may take; raises while it is not answered.
        check_alive: Raises when the service has ended, with which waiting ends at once.
        deadline: When to give up, on the monotonic clock.
        timeout: The seconds that were allowed, for the message.
        listens: Whether the service listens where it is expected to, which costs less to find out
            than a question. While it does not, only few are put; when it begins to, one is put at
            once. Not given where that tells nothing.

    Raises:
        StartTimeoutError: Time is up; says what went wrong last.
        NameError, ImportError, NotImplementedError: What asks is broken.
    """
    pause = FIRST_PAUSE
    watch = _FIRST_WATCH
    telling: Exception | None = None
    while True:
        if listens is not None:
            if _begins(listens, min(time.monotonic() + watch, deadline)):
                listens = None
            watch = min(watch * 2, LONGEST_PAUSE)
        began = time.monotonic()
        allowed = max(0.05, min(_LONGEST_QUESTION, deadline - began))
        try:
            ask(allowed)
        except BROKEN:
            raise  # no server will make up for it
        except Exception as exc:  # noqa: BLE001 - whatever else it is, it means not yet
            check_alive()
            cut_short = allowed < _LONGEST_QUESTION and time.monotonic() - began >= allowed
            if telling is None or not cut_short:  # of that, all there is to tell is that it was
                telling = exc
            left = deadline - time.monotonic()
            if left <= 0:
                what, hint = _in_words(telling)
                raise StartTimeoutError(
                    f"not ready after {timeout:g} s; the last error was {what}",
                    hint=f"{hint}if it only needs more time, raise start_timeout",
                ) from telling
            if listens is None:
                time.sleep(min(pause, left))
                pause = min(pause * 1.5, LONGEST_PAUSE)
        else:
            return


def _begins(listens: Callable[[], bool], until: float) -> bool:
    """Wait until the service listens, no longer than until then; return whether it does."""
    while not listens():
        left = until - time.monotonic()
        if left <= 0:
            return False
        time.sleep(min(_BETWEEN_KNOCKS, left))
    return True


def _in_words(exc: Exception) -> tuple[str, str]:
    """What went wrong, and what the one who noticed advises, if anything."""
    if isinstance(exc, CleanroomError):
        return exc.message, f"{exc.hint}; " if exc.hint else ""
    return f"{type(exc).__name__}: {scrub(str(exc)).strip()}", ""


def answers_within(ask: Callable[[float], None], seconds: float) -> bool:
    """Whether the question is answered rightly in time, even if the client library hangs."""
    answered = threading.Event()
    done = threading.Event()

    def run() -> None:
        try:
            ask(seconds)
            answered.set()
        except Exception:  # noqa: BLE001, S110 - any error means the same: not healthy
            pass
        finally:
            done.set()

    threading.Thread(target=run, name="cleanroom-health", daemon=True).start()
    done.wait(seconds)
    return answered.is_set()
