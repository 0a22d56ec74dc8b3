# SPDX-License-Identifier: MIT
"""Floor 4: RFC 9293. The files are named after the chapters of its section 3.10."""
