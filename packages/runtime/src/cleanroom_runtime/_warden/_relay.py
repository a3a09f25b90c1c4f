"""A relay: passes on what comes in at one address of this machine to a service at another.

A program of its own, started as ``ADDRESS SUBNET HOST PORT``: it listens at ADDRESS, on a port that
it writes to its standard output, and passes connections from SUBNET on to HOST and PORT. Others are
closed at once: an address of this machine may be reached by other ways than its own network. When
somebody has come it writes a further line, so that one knows that there is a way.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import sys
import threading
import time

_CONNECT_TIMEOUT = 20.0
_CHUNK = 65536
_IP_FREEBIND = 15
"""Takes an address that is not there yet: Podman makes a network when a container starts in it."""
_PATIENCE = 10
"""Seconds of silence after which a connection's other end is asked whether it is there, and
between three more such questions."""


def main(address: str, subnet: str, host: str, port: str) -> None:
    """Serve until this process is ended."""
    allowed = ipaddress.ip_network(subnet, strict=False)
    if ipaddress.ip_address(address).is_unspecified:
        raise ValueError(f"{address} is every address of this machine")
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        if sys.platform == "linux":
            listener.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        listener.bind((address, 0))
        listener.listen(128)
        print(listener.getsockname()[1], flush=True)  # noqa: T201
        used = False
        while True:
            try:
                near, (peer, *_) = listener.accept()
            except OSError:  # it is gone already, or too many are open
                time.sleep(0.02)
                continue
            if ipaddress.ip_address(peer) not in allowed:
                near.close()
                continue
            if not used:
                used = True
                print("used", flush=True)  # noqa: T201
            threading.Thread(target=_serve, args=(near, host, int(port)), daemon=True).start()


def _serve(near: socket.socket, host: str, port: int) -> None:
    with near, contextlib.suppress(OSError):
        far = socket.create_connection((host, port), _CONNECT_TIMEOUT)
        with far:
            for end in (near, far):
                _set_up(end)
            back = threading.Thread(target=_pass_on, args=(far, near), daemon=True)
            back.start()
            _pass_on(near, far)
            back.join()


def _set_up(end: socket.socket) -> None:
    """Send small messages at once, and notice when the other end vanishes without a word."""
    end.settimeout(None)
    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", _PATIENCE),
        ("TCP_KEEPINTVL", _PATIENCE),
        ("TCP_KEEPCNT", 3),
    ):
        if hasattr(socket, option):
            end.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    """Pass on all that comes from one end, and its end; an error ends both directions."""
    try:
        while data := source.recv(_CHUNK):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


if __name__ == "__main__":
    main(*sys.argv[1:])
