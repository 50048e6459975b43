"""A worker: it takes no requests, does a piece of work every two seconds, and ends on SIGTERM.

Deploy it with `tram deploy examples/hello-worker`, then read `tram logs -f hello-worker`.
"""

import os
import signal
import threading

stopping = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stopping.set())

greeting = os.environ.get("GREETING", "Hello")
count = 0
while not stopping.is_set():
    count += 1
    print(f"{greeting}, world! Piece of work {count} is done.", flush=True)
    stopping.wait(2)
print("Asked to stop: nothing is left half done.", flush=True)
