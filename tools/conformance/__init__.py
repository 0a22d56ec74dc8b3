# SPDX-License-Identifier: MIT
"""What the RFCs ask of a TCP, the tests that show it, and what the kernel's stack says to the same questions.

    python -m ustack.tools.conformance             write docs/conformance.md from tests/data
    python -m ustack.tools.conformance --kernel    ask the kernel of this machine before (needs root)

tables: the requirements, as data. questions: scripts for either stack, and what the RFC has for an answer. kernelbed:
the kernel's stack at the end of a TAP device, with the face of the testbed. document: the page that is made of it all.
"""
