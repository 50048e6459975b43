"""Nothing acknowledged is lost: the writing process is killed at random points, then read back."""

import random
import subprocess
import sys
from pathlib import Path

from tramontane.store.store import open_store

WRITER = Path(__file__).with_name("killed_writer.py")
ROUNDS = 6


def test_acknowledged_deployments_survive_kill_9(tmp_path: Path) -> None:
    database = tmp_path / "tramontane.db"
    randomness = random.Random(20261123)
    acknowledged: dict[str, int] = {}
    for _ in range(ROUNDS):
        # Round 1 may die during the migration; every later one starts on what a kill left.
        acknowledged |= run_and_kill(database, after_lines=randomness.choice([0, 1, 5, 40]))
    store = open_store(database)
    deployments = {
        deployment.id: deployment
        for service_id in store.list_service_ids()
        for deployment in store.list_deployments(service_id)
    }
    lost = [each for each in acknowledged if each not in deployments]
    assert lost == []
    assert all(deployments[key].definition.drain_s == n for key, n in acknowledged.items())  # type: ignore[index]
    for record in store.list_services():
        newest = store.list_deployments(record.service.id)[0]
        assert record.service.desired_deployment == newest.id
    store.close()


def run_and_kill(database: Path, *, after_lines: int) -> dict[str, int]:
    writer = subprocess.Popen(
        [sys.executable, str(WRITER), str(database)], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    lines = [writer.stdout.readline() for _ in range(after_lines)]
    writer.kill()
    lines += writer.stdout.read().splitlines()
    writer.stdout.close()
    writer.wait()
    # The last line may be cut off; it counts only if it came whole.
    whole = [line.split() for line in lines if len(line.split()) == 2]
    return {key: int(number) for key, number in whole if len(key) == 20}


def test_kill_9_during_migration_leaves_a_database_that_opens(tmp_path: Path) -> None:
    database = tmp_path / "tramontane.db"
    randomness = random.Random(7)
    for _ in range(4):
        writer = subprocess.Popen(
            [sys.executable, str(WRITER), str(database)], stdout=subprocess.DEVNULL
        )
        try:
            writer.wait(timeout=randomness.uniform(0.3, 0.9))
        except subprocess.TimeoutExpired:
            writer.kill()
            writer.wait()
    open_store(database).close()
    assert database.stat().st_mode & 0o777 == 0o600
    for beside in tmp_path.glob("tramontane.db-*"):
        assert beside.stat().st_mode & 0o777 == 0o600
