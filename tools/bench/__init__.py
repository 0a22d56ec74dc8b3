# SPDX-License-Identifier: MIT
"""`ustack bench`: the stack and everybody else under the same loads, in one command, with a report."""
