# SPDX-License-Identifier: MIT
# Congestion controls written in Python: a class whose objects are the records of connections (scripted.pyx).
