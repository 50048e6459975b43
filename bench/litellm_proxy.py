"""LiteLLM's proxy as its own documentation says to run it in production.

One worker, no debug logging, a master key that every request must carry, no database, and nothing
that leaves the machine: no telemetry, no price list from the network. Installed once into a cache
outside the repository, in an environment of its own.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.envoys import wait_listening
from bench.load import Address

VERSION = "1.106.2"
MASTER_KEY = "sk-bench-1234"
START_S = 120.0


def find_cache() -> Path:
    """Return where peers are kept between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "tramontane-bench"


def install() -> Path:
    """Return the environment with LiteLLM in it, made at the first run."""
    directory = find_cache() / f"litellm-{VERSION}"
    done = directory / ".installed"
    if done.exists():
        return directory
    uv = Path(sys.executable).with_name("uv")
    python = directory / "bin" / "python"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    for command in (
        [uv, "venv", "--quiet", "--clear", "--python", version, directory],
        [uv, "pip", "install", "--quiet", "--python", python, f"litellm[proxy]=={VERSION}"],
    ):
        made = subprocess.run(command, capture_output=True, text=True)
        if made.returncode:
            raise RuntimeError(f"LiteLLM {VERSION} could not be installed: {made.stderr[-1500:]}")
    done.touch()
    return directory


@contextmanager
def run_litellm(directory: Path, model: str, backend: Address, port: int) -> Iterator[int]:
    """Run the proxy in front of ``backend`` until the block ends; yield its process id."""
    environment = install()
    config = directory / "litellm.json"
    config.write_text(json.dumps(make_config(model, backend)))
    log_path = directory / "litellm.log"
    command = [environment / "bin" / "litellm", "--config", config, "--host", "127.0.0.1"]
    command += ["--port", str(port), "--num_workers", "1", "--telemetry", "False"]
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            command,
            env=make_environment(environment, directory),
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        wait_listening(("127.0.0.1", port), process, log_path, START_S)
        yield process.pid
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def make_config(model: str, backend: Address) -> dict[str, object]:
    """Return its configuration (JSON is YAML), after "Best practices for production"."""
    host, port = backend
    parameters = {
        "model": f"openai/{model}",
        "api_base": f"http://{host}:{port}/v1",
        "api_key": "none",
    }
    return {
        "model_list": [{"model_name": model, "litellm_params": parameters}],
        "litellm_settings": {
            "set_verbose": False,
            "json_logs": True,
            "request_timeout": 600,
            "telemetry": False,
        },
        "general_settings": {"master_key": MASTER_KEY, "disable_spend_logs": True},
    }


def make_environment(environment: Path, home: Path) -> dict[str, str]:
    """Return its environment: production mode, quiet, and off the network."""
    return {
        "PATH": f"{environment / 'bin'}:{os.environ.get('PATH', '')}",
        "HOME": str(home),
        "LITELLM_MODE": "PRODUCTION",
        "LITELLM_LOG": "ERROR",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_TELEMETRY": "False",
        "DISABLE_ADMIN_UI": "True",
        "NO_DOCS": "True",
        "NO_PROXY": "*",
        "DO_NOT_TRACK": "1",
    }
