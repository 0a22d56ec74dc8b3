# SPDX-License-Identifier: MIT
"""The public test kit: two stacks on a simulated wire, a scripted peer, segment builders."""
