# SPDX-License-Identifier: MIT
"""Scenario files of simulations, whatever is in them.

What cannot be simulated is refused in one line that begins with the file's name, and nothing else is raised. What can
be is the same when it is read again, and goes through pickle to other processes. An input is a file.
"""

from __future__ import annotations

import pickle

from ustack.sim.document import Document, ScenarioError
from ustack.sim.reading import scenario_of
from ustack.tools.fuzz.target import Target

# In no folder that exists: what a scenario names (recorded rates, controls in Python) is not there.
FILE = "/nonexistent/scenario.toml"
MESSAGE_MOST = 2000


class Scenarios(Target):
    """Scenario files."""

    def one(self, data: bytes) -> None:
        """See the module."""
        try:
            scenario = scenario_of(Document.parse(data, FILE))
        except ScenarioError as error:
            said = str(error)
            assert said.startswith(FILE), said
            assert "\n" not in said, said
            assert len(said) <= MESSAGE_MOST, len(said)
            return
        assert scenario == scenario_of(Document.parse(data, FILE))
        assert pickle.loads(pickle.dumps(scenario)) == scenario
