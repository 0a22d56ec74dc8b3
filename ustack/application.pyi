class Application:
    """Base class of applications written in Cython: a table of nogil upcalls (application.pxd)."""
