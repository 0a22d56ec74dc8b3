# SPDX-License-Identifier: MIT
"""A wire between two interfaces, for real stacks: rate, delay, queue, loss, order. Sees links, knows no stack."""
