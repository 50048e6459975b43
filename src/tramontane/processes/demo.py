"""What ``make demo`` runs: the platform, an app and a model, both called as users call them.

Everything goes through ``tram`` and the gateway, as it would by hand; a second run finds all of it
there and changes nothing.
"""

import json
import os
import shlex
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import openai

from tramontane.processes.arguments import default_home

TRAM = Path(sys.executable).with_name("tram")
APP = Path("examples/hello-python")
QUESTION = "What is the capital of Portugal?"
DEMO_CLAIM = ("--country", "DE", "--operator", "Demo claim (nobody checked it)")


def tram(*arguments: str, quiet: bool = False) -> str:
    """Run one command of ``tram`` and return what it printed; end the demo if it fails."""
    if not quiet:
        print(f"$ tram {shlex.join(arguments)}", flush=True)
    done = subprocess.run([TRAM, *arguments], capture_output=quiet, text=True)
    if done.returncode != 0:
        print(done.stderr or "", file=sys.stderr, end="")
        raise SystemExit(done.returncode)
    return done.stdout or ""


def runs() -> bool:
    """Return whether the platform answers."""
    return subprocess.run([TRAM, "status"], capture_output=True).returncode == 0


def start_platform() -> None:
    """Bring the platform up unless it is; without a terminal nobody can be asked where it is."""
    if runs():
        print("The platform runs already.")
        return
    claimed = (default_home().expanduser() / "claim.json").exists()
    flags = ("--gateway", os.environ["TRAM_GATEWAY"]) if "TRAM_GATEWAY" in os.environ else ()
    if address := os.environ.get("TRAM_API_LISTEN"):
        flags = (*flags, "--api", address)
    if sys.stdin.isatty() or claimed:
        tram("up", "--detach", *flags)
        return
    print(
        "Nobody is at a terminal to say where this machine stands, so the demo CLAIMS that it\n"
        "stands in Germany (DE), and every explanation labels it so. For real work,\n"
        "say where it is with: tram up --country CC --operator NAME",
        flush=True,
    )
    tram("up", "--detach", *flags, *DEMO_CLAIM)


def fetch(url: str) -> str:
    """Return the body of a GET through the gateway.

    ``*.localhost`` means this machine (RFC 6761), but not every resolver knows: the request goes
    to the loopback address, with the name in its Host header as a browser would send it.
    """
    host = url.removeprefix("http://").partition("/")[0]
    port = host.rpartition(":")[2]
    request = urllib.request.Request(f"http://127.0.0.1:{port}/", headers={"Host": host})
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
        return answer.read().decode()


def ask_model(gateway: str) -> str:
    """Ask the model one question with the official client, under a key made for this."""
    created = json.loads(tram("tokens", "create", "--project", "default", "-o", "json", quiet=True))
    client = openai.OpenAI(base_url=f"{gateway}/v1", api_key=created["token"])
    try:
        answer = client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": QUESTION}], temperature=0
        )
        return (answer.choices[0].message.content or "").strip()
    finally:
        tram("tokens", "delete", created["id"], quiet=True)


def main() -> int:
    """Run the demo; the platform stays up."""
    begun = time.monotonic()
    start_platform()
    tram("deploy", str(APP), "--name", "hello", "--policy", "eu")
    tram("deploy", "--model", "tiny", "--name", "tiny", "--policy", "eu")
    status = json.loads(tram("status", "-o", "json", quiet=True))
    app = json.loads(tram("services", "get", "hello", "-o", "json", quiet=True))["url"]
    api, gateway = status["control_plane"]["address"], status["gateway"]["address"]
    rows = (
        ("API and its docs", f"{api}/docs"),
        ("App", app),
        ("App answers", fetch(app)),
        ("Model", f"{gateway}/v1 (model: tiny)"),
        ("Asked", QUESTION),
        ("Model answers", ask_model(gateway)),
        ("Why it runs here", "tram why hello"),
        ("Stop it all", f"{TRAM.relative_to(Path.cwd())} down"),
    )
    print(f"\nReady in {time.monotonic() - begun:.1f} s.\n")
    for name, value in rows:
        print(f"{name + ':':<18}{value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
