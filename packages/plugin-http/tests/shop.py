"""The service of the tests: a small HTTP API that misbehaves when it is told to."""

from __future__ import annotations

import argparse
import contextlib
import http.server
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

ANSWERS = {
    "/": (404, "text/plain", b"nothing here"),
    "/health": (200, "text/plain", b"all is OK here"),
    "/json": (
        200,
        "application/json",
        b'{"status": "ok", "checks": [{"name": "db", "up": true}], "count": 1}',
    ),
    "/list": (200, "application/json", b'["a", {"b": 1, "c": 2}]'),
    "/broken": (200, "application/json", b'{"status": '),
    "/teapot": (418, "text/plain", b"short and stout"),
    "/fail": (500, "text/plain", b"no database " + b"x" * 1000),
    "/empty": (204, "", b""),
    "/plain": (200, "text/plain", "schön".encode()),
    "/latin": (200, "text/plain; charset=iso-8859-1", "schön".encode("latin-1")),
    "/odd": (200, "text/plain; charset=klingon", b"OK"),
}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        path = self.path.partition("?")[0].removeprefix("/base")
        name = path.strip("/").partition("/")[0]
        answer = getattr(self, f"answer_{name}", None)
        if answer is not None:
            with contextlib.suppress(ConnectionError):
                answer(path)
        elif path == "/state" and Path("broken").exists():
            self.reply(500, "text/plain", b"broken")
        else:
            self.reply(*ANSWERS.get(path, ANSWERS["/health" if path == "/state" else "/"]))

    do_POST = do_GET  # noqa: N815

    def reply(self, status: int, kind: str, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        if kind:
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def answer_moved(self, path: str) -> None:
        self.reply(302, "text/plain", b"", Location="/health")

    def answer_away(self, path: str) -> None:
        self.reply(302, "text/plain", b"", Location="http://127.0.0.1:9/login")

    def answer_circle(self, path: str) -> None:
        self.reply(302, "text/plain", b"round and round", Location="/circle")

    def answer_to(self, path: str) -> None:
        """Lead to what stands behind it: `/to/health`."""
        self.reply(307, "text/plain", b"", Location=path.removeprefix("/to"))

    def answer_malformed(self, path: str) -> None:
        self.reply(302, "text/plain", b"", Location="http://[nowhere/login?token=hush")

    def answer_ftp(self, path: str) -> None:
        self.reply(302, "text/plain", b"", Location="ftp://127.0.0.1/login")

    def answer_zipped(self, path: str) -> None:
        self.reply(200, "text/plain", b"OK", Content_Encoding="gzip")

    def answer_echo(self, path: str) -> None:
        told = {
            "method": self.command,
            "path": self.path,
            "headers": {key.lower(): value for key, value in self.headers.items()},
            "env": dict(os.environ),
            "cwd": os.getcwd(),
            "argv": sys.argv[1:],
        }
        self.reply(200, "application/json", json.dumps(told).encode(), Set_Cookie="visited=yes")

    def answer_private(self, path: str) -> None:
        allowed = self.headers.get("X-Key") == "secret key"
        self.reply(200 if allowed else 401, "text/plain", b"OK" if allowed else b"who are you")

    def answer_slow(self, path: str) -> None:
        time.sleep(60)

    def answer_drip(self, path: str) -> None:
        """Begin at once and never come to an end: no single wait is long."""
        self.send_response(200)
        self.send_header("Content-Length", "100000")
        self.end_headers()
        for _ in range(100_000):
            self.wfile.write(b"x")
            time.sleep(0.05)

    def answer_flood(self, path: str) -> None:
        self.send_response(200)
        self.end_headers()
        while True:
            self.wfile.write(b"OK " * 10_000)


def listen_elsewhere(host: str, port: int) -> None:
    with socket.create_server((host, 0)) as listener:
        print(f"I listen on {listener.getsockname()[1]}", flush=True)
        time.sleep(60)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--do", default="serve")
    parser.add_argument("--certificate")
    options = parser.parse_args()
    print("the shop opens")
    if options.do == "exit":
        sys.exit("no goods")
    if options.do == "sleep":
        time.sleep(60)
    if options.do == "elsewhere":
        listen_elsewhere(options.host, options.port)
    if options.do == "gibberish":
        with socket.create_server((options.host, options.port)) as listener:
            while True:
                connection, _ = listener.accept()
                with connection:
                    connection.sendall(b"220 mail.example ready\r\n")
    if options.do == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    server = http.server.ThreadingHTTPServer((options.host, options.port), Handler)
    if options.certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(options.certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    if options.do == "workers":
        for _ in range(2):  # which share the socket, as those of real servers do
            if os.fork() == 0:
                subprocess.Popen(["sleep", "600"], start_new_session=True)
                break
    server.serve_forever()


if __name__ == "__main__":
    main()
