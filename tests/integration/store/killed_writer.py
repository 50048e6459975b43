"""Deploys in a loop and says so on stdout after each acknowledgement, until it is killed.

``test_store_survives_kill.py`` runs it: ``python killed_writer.py DATABASE``.
"""

import itertools
import sys
from pathlib import Path

from tramontane.base.ids import random_id
from tramontane.domain.definition import Definition, ModelSource, ServiceKind
from tramontane.store.store import open_store

store = open_store(Path(sys.argv[1]))
for number in itertools.count():
    definition = Definition(
        kind=ServiceKind.MODEL, source=ModelSource(reference="tiny"), drain_s=float(number)
    )
    _, deployment = store.deploy("p", f"s{number % 7}", definition, now=number, ids=random_id)
    sys.stdout.write(f"{deployment.id} {number}\n")
    sys.stdout.flush()
