"""The driver is killed at random moments of a whole run, again and again: the service comes back,
nothing published is broken, and the run ends with the same bytes.

FAULTS is the number of kills (20; `make faults`: 200), FAULT_SEED repeats a campaign.
"""

from __future__ import annotations

import os
import random
import shutil
import time

import pytest

from contracts.stages import TRAINING_LOG
from tests.e2e.host import Host
from tests.faults.machine import (
    at_work,
    published,
    recover,
    require_service,
)
from tests.faults.tally import Tally

pytestmark = [pytest.mark.docker, pytest.mark.slow]

KILLS = int(os.environ.get("FAULTS", "20"))
SEED = int(os.environ.get("FAULT_SEED", time.time_ns() % 1_000_000))
LONGEST_S = 9.0
"""Before the next kill: longer than a stage takes to start, so that every run gets on."""
WHOLE_RUNS = 2
"""At least so many come to their end between the kills, and one after them."""
SAME_BYTES = {"snapshot", "fetch", "split", "train", "merge", "gguf"}
"""Stages whose outputs hold no sampled answer."""
TIMED = {TRAINING_LOG.name}
"""Outputs of theirs that tell how long something took."""


class Campaign:
    """Kills one driver after the other; whole runs in between begin anew."""

    def __init__(self, host: Host, tally: Tally) -> None:
        self.host = host
        self.tally = tally
        self.random = random.Random(SEED)  # noqa: S311  # repeatable, no secret
        self.kills = self.runs = 0
        self._seen: dict[tuple[str, str, str], tuple[str, int]] = {}
        """Digest of each artifact, and the run that made it first."""
        self.made_again: set[str] = set()
        """Stages whose artifacts a later run has made again, to the same bytes."""

    def go(self) -> None:
        """Kill KILLS drivers, then let the last run end."""
        while self.kills < KILLS:
            with at_work(self.host, "run") as driver:
                # One is let go on to its end now and then, also on a machine too slow for the rest:
                # artifacts that are made once only are compared with themselves.
                due = self.kills >= (self.runs + 1) * KILLS / (WHOLE_RUNS + 1)
                if due or driver.ended_within(self.random.uniform(0.2, LONGEST_S)):
                    self._begin_anew(driver.wait(), driver.said())
                    continue
                driver.kill()
                self.kills += 1
            self._compare()
            if self.random.random() < 0.4:
                self.tally.recovered(recover(self.host))
            self.tally.survived("kills of the driver")
        with at_work(self.host, "run") as driver:
            exit_code = driver.wait()
        assert exit_code == 0, driver.said()
        require_service(self.host)
        self._compare()
        self.runs += 1

    def _begin_anew(self, exit_code: int, said: str) -> None:
        assert exit_code == 0, said
        require_service(self.host)
        self._compare()
        self.runs += 1
        for name in ("store", "runs", "test_sets"):
            shutil.rmtree(self.host.workspace / name)

    def _compare(self) -> None:
        """Hold what is published against what earlier runs have, whose files are gone."""
        for key, digest in published(self.host).items():
            if key[0] in SAME_BYTES and key[2] not in TIMED:
                first, run = self._seen.setdefault(key, (digest, self.runs))
                assert first == digest, f"{key} differs"
                if run < self.runs:
                    self.made_again.add(key[0])


def test_the_driver_is_killed_at_random_moments(host: Host, tally: Tally) -> None:
    campaign = Campaign(host, tally)
    tally.note(f"FAULT_SEED={SEED} for {KILLS} kills of the driver")
    campaign.go()
    tally.note(f"  between them, {campaign.runs} runs came to their end")
    assert campaign.kills == KILLS
    assert campaign.runs > WHOLE_RUNS
    assert campaign.made_again >= {"split", "train", "gguf"}
