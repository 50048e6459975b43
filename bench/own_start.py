"""Starts a program over and over and says how long it takes by itself. Runs inside ``own_sandbox``.

Reads one JSON line per start from stdin, answers with one on stdout. Only the standard library is
used, and nothing of the product: this is what its wakes are compared with.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PAUSE_S = 0.0005
PATIENCE_S = 60.0


def start_once(job: dict[str, Any]) -> dict[str, float]:
    """Start the program, ask it until it answers 200, end it; return the times since exec."""
    began = time.perf_counter()
    process = subprocess.Popen(
        job["command"],
        env=job["environment"],
        cwd=job["directory"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    listening_s = 0.0
    try:
        while time.perf_counter() - began < PATIENCE_S:
            try:
                first = ask(job["address"], job["request"].encode())
            except OSError:
                time.sleep(PAUSE_S)
                continue
            listening_s = listening_s or first[0] - began
            if first[1].startswith(b"HTTP/1.1 200"):
                return {"listening_s": listening_s, "first_byte_s": first[2] - began}
            time.sleep(PAUSE_S)
        raise RuntimeError("the program did not answer in time")
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if isinstance(job["address"], str):
            Path(job["address"]).unlink(missing_ok=True)


def ask(address: str | list[Any], request: bytes) -> tuple[float, bytes, float]:
    """Send the request; return when it was accepted, the first bytes, and when they came."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.connect(address if isinstance(address, str) else tuple(address))
        accepted = time.perf_counter()
        sock.sendall(request)
        data = sock.recv(65536)
        return accepted, data, time.perf_counter()


def main() -> None:
    """Serve until stdin ends."""
    for line in sys.stdin:
        print(json.dumps(start_once(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
