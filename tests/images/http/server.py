"""A small HTTP server for a minimal Python: `/health` is OK, `/env/NAME` tells a variable."""

import os
import socket
import threading


def main() -> None:
    port = int(os.environ.get("PORT", "8080"))
    with socket.create_server(("0.0.0.0", port)) as listener:
        print(f"listening on port {port}")
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=answer, args=(connection,), daemon=True).start()


def answer(connection: socket.socket) -> None:
    with connection, connection.makefile("rb") as lines:
        request = lines.readline().decode().split()
        while lines.readline().strip():
            pass  # headers
        if len(request) != 3:
            return
        path = request[1].partition("?")[0]
        print(f"{request[0]} {path}")
        status, body = look_up(path)
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode() + body)


def look_up(path: str) -> tuple[str, bytes]:
    if path == "/health":
        return "200 OK", b"OK"
    name = path.removeprefix("/env/")
    if name != path and name in os.environ:
        return "200 OK", os.environ[name].encode()
    return "404 Not Found", b"not found"


main()
