# SPDX-License-Identifier: MIT
"""`ustack load`: a load client whose TCP is this project's own."""
