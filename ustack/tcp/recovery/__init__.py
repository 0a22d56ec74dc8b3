# SPDX-License-Identifier: MIT
"""The sender's half: acknowledgments, round-trip times and timeouts, what the path carries."""
