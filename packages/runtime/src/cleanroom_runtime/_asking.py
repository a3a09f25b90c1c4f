"""Asking a container engine, with errors that name it."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

from cleanroom import ContainerError
from cleanroom_runtime._engine import in_words

if TYPE_CHECKING:
    from cleanroom_runtime._engine import Engine


def ask_engine(
    engine: Engine,
    method: str,
    path: str,
    service_name: str | None = None,
    *,
    body: dict[str, Any] | bytes | None = None,
    timeout: float = 20.0,
) -> tuple[int, bytes]:
    """Send one request and return the status and the body of the answer.

    Args:
        engine: Where the engine is.
        method: For instance `"GET"`.
        path: Path and query of the engine's HTTP API.
        service_name: The service's name, for errors.
        body: What is sent along: what becomes JSON, or a tar archive.
        timeout: Seconds to wait for each part of the answer.

    Raises:
        ContainerError: The engine did not answer.
    """
    from cleanroom_runtime._warden._engine_api import ask

    try:
        return ask(engine.warden_record(), method, path, body=body, timeout=timeout)
    except OSError as exc:
        raise engine_error(
            engine, f"the engine does not answer: {in_words(exc)}", service_name
        ) from exc


def understood(engine: Engine, status: int, body: bytes, service_name: str | None = None) -> Any:
    """Return what an answer says; `None` where it says nothing.

    Raises:
        ContainerError: The engine refused.
    """
    from cleanroom_runtime._warden._engine_api import reason_in

    if status < 300:
        with contextlib.suppress(ValueError):
            return json.loads(body) if body else None
    message = f"the engine answered with status {status}: {reason_in(body)[:500]}"
    raise engine_error(engine, message, service_name)


def engine_error(engine: Engine, message: str, service_name: str | None) -> ContainerError:
    """Return an error that names the engine and says what to look at."""
    return ContainerError(
        message,
        service=service_name,
        backend="container",
        hint=f"the engine is {engine.url} (from {engine.source}); is it still running?",
    )
