"""Saying where a service listens."""

from __future__ import annotations

import os
import socket
import sys

import pytest

from cleanroom_runtime._listening import of_process


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell")
def test_an_address_of_ipv4_that_a_socket_of_ipv6_has() -> None:
    """It is the address of IPv4: who is asked at 127.0.0.1 does listen there."""
    try:
        listener = socket.create_server(
            ("::ffff:127.0.0.1", 0), family=socket.AF_INET6, dualstack_ipv6=True
        )
    except (OSError, ValueError) as exc:
        pytest.skip(f"no IPv6 here: {exc}")
    with listener:
        port = listener.getsockname()[1]
        assert of_process(os.getpid(), port) == ""
