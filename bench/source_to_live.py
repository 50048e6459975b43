"""From a directory of source to an answer, beside a person who does the same by hand.

Ours: ``tram deploy examples/hello-python`` on a platform that has built nothing yet, until the
service answers through the gateway; then the same after an edit of one line. By hand: ``uv venv``,
``uv pip install`` and ``uvicorn`` until it answers; after an edit, a restart. Downloads are not
counted: both start with the same packages in uv's download cache, and nothing else.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.platform import Platform

from bench.envoys import wait_listening
from bench.gateways import free_port
from bench.load import connect, exchange, make_request
from bench.platforms import EXAMPLES, PROJECT, run_platform, run_tram
from bench.report import Ratio, Report, Side, ours, percentile

NAME = "source-to-live"
EXAMPLE = "hello-python"
ROUNDS = 4
SERVER = ("uvicorn", "uvloop", "httptools", "websockets")
"""What the platform adds to run such an app; a person has to as well."""
EDITS = 2
"""Redeployments in each round."""


@dataclass(kw_only=True)
class Times:
    """Seconds of one side."""

    cold_s: list[float] = field(default_factory=list)
    edited_s: list[float] = field(default_factory=list)


async def run() -> Report:
    """Measure and report."""
    product, by_hand = Times(), Times()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        caches = folder / "caches"
        fetch_packages(folder, caches)
        for number in range(ROUNDS):
            measures = [(measure_product, product), (measure_by_hand, by_hand)]
            for measure, times in measures if number % 2 else reversed(measures):
                measure(folder / f"{measure.__name__}{number}", caches, times)
    return make_report(product, by_hand)


def fetch_packages(folder: Path, caches: Path) -> None:
    """Deploy once on a platform of its own, and keep what it downloaded."""
    with run_platform() as platform:
        platform.tram("deploy", copy_example(folder / "fetching"), "--name", EXAMPLE)
        shutil.copytree(platform.home / "builds" / "caches", caches, symlinks=True)


def measure_product(folder: Path, caches: Path, times: Times) -> None:
    """Deploy on a platform that has built nothing, then after edits."""
    source = copy_example(folder)
    with run_platform() as platform:
        target = platform.home / "builds" / "caches"
        shutil.copytree(caches, target, symlinks=True, dirs_exist_ok=True)
        times.cold_s.append(deploy(platform, source, "Hello"))
        for number in range(EDITS):
            times.edited_s.append(deploy(platform, source, edit(source, number)))


def measure_by_hand(folder: Path, caches: Path, times: Times) -> None:
    """Install and start, then restart after edits."""
    source = copy_example(folder)
    python = source / ".venv" / "bin" / "python"
    # The caches are laid out as <scope>/<tool>; a person has one.
    cache = next(caches.glob("*/uv"))
    environment = {**os.environ, "UV_CACHE_DIR": str(cache)}
    uv = str(Path(sys.executable).with_name("uv"))
    began = time.perf_counter()
    for command in (
        [uv, "venv", "--quiet", str(source / ".venv")],
        [uv, "pip", "install", "--quiet", "--python", str(python), "-r", "pyproject.toml", *SERVER],
    ):
        subprocess.run(command, cwd=source, env=environment, check=True, capture_output=True)
    with serve(source, python, "Hello"):
        times.cold_s.append(time.perf_counter() - began)
    for number in range(EDITS):
        word = edit(source, number)
        began = time.perf_counter()
        with serve(source, python, word):
            times.edited_s.append(time.perf_counter() - began)


def deploy(platform: Platform, source: Path, word: str) -> float:
    """Deploy and return the seconds until the answer says ``word``."""
    began = time.perf_counter()
    run_tram(platform, "deploy", str(source), "--name", EXAMPLE)
    with connect(("127.0.0.1", platform.gateway_port)) as sock:
        answer = exchange(sock, make_request(f"{EXAMPLE}.{PROJECT}.localhost"))
    assert word.encode() in answer, f"{answer!r} does not say {word!r}"
    return time.perf_counter() - began


@contextmanager
def serve(source: Path, python: Path, word: str) -> Iterator[None]:
    """Run the app by hand until the block ends; entered when it has answered."""
    port = free_port()
    log_path = source / "server.log"
    command = [python, "-m", "uvicorn", "main:app", "--port", str(port), "--no-access-log"]
    with log_path.open("wb") as log:
        process = subprocess.Popen(command, cwd=source, stdout=log, stderr=log)
    try:
        wait_listening(("127.0.0.1", port), process, log_path)
        with connect(("127.0.0.1", port)) as sock:
            answer = exchange(sock, make_request("localhost"))
        assert word.encode() in answer, f"{answer!r} does not say {word!r}"
        yield
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def copy_example(folder: Path) -> Path:
    """Return a copy of the example that may be edited."""
    skipped = shutil.ignore_patterns(".venv", "__pycache__")
    return Path(shutil.copytree(EXAMPLES / EXAMPLE, folder / EXAMPLE, ignore=skipped))


def edit(source: Path, number: int) -> str:
    """Change one line of the app; return what it says from now on."""
    file, word = source / "main.py", f"Hello{number}"
    text = file.read_text()
    before = '"Hello"' if number == 0 else f'"Hello{number - 1}"'
    assert text.count(f'GREETING", {before}') == 1
    file.write_text(text.replace(f'GREETING", {before}', f'GREETING", "{word}"'))
    return word


def make_report(product: Times, by_hand: Times) -> Report:
    """Put the numbers together."""
    sides = [
        Side(
            name=name,
            version=version,
            values={
                "cold p50 s": percentile(times.cold_s, 0.5),
                "cold p99 s": percentile(times.cold_s, 0.99),
                "after an edit p50 s": percentile(times.edited_s, 0.5),
                "after an edit p99 s": percentile(times.edited_s, 0.99),
            },
        )
        for name, times, version in (
            ("tram deploy", product, ours("uv")),
            ("by hand", by_hand, f"{ours('uv').rpartition(', ')[2]}, uvicorn"),
        )
    ]
    cold = zip(product.cold_s, by_hand.cold_s, strict=True)
    edited = zip(product.edited_s, by_hand.edited_s, strict=True)
    ratios = [
        Ratio(what="cold, ours over by hand", rounds=tuple(a / b for a, b in cold)),
        Ratio(what="after an edit, ours over by hand", rounds=tuple(a / b for a, b in edited)),
        Ratio(what="cold", rounds=tuple(product.cold_s), unit="s", goal="≤ 10 s"),
        Ratio(what="after an edit", rounds=tuple(product.edited_s), unit="s", goal="≤ 2 s"),
    ]
    raw = {
        name: {"cold_s": times.cold_s, "edited_s": times.edited_s}
        for name, times in (("product", product), ("by_hand", by_hand))
    }
    return Report(name=NAME, sides=sides, ratios=ratios, raw=raw)
