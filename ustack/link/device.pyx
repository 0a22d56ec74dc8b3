# SPDX-License-Identifier: MIT
"""The Python face that every link shares: capabilities, counters, close, context manager."""

from libc.string cimport memset

from ustack.link.gate cimport Gate, warn_unclosed


cdef class Link:
    """Base class of all links. Not useful by itself: see packet_mmap, tap, sim and tee.

    A link carries whole Ethernet frames for one engine. It is a context manager; leaving it closes it.
    """

    def __cinit__(self, *args: object, **kwargs: object) -> None:
        memset(&self.c, 0, sizeof(link_t))
        self.c.wake_fd = -1
        self.closed = False
        self.gate = Gate()

    cpdef void close(self) except *:
        self.gate.check("close()")
        self.closed = True

    cdef void raise_parked(self) except *:
        pass

    def __del__(self) -> None:
        if self.warns and not self.closed:
            warn_unclosed(self)
            self.gate.defer(self._close_dropped)

    def _close_dropped(self) -> None:
        # The gate's owner runs this (Gate.serve).
        self.gate.closing = True
        try:
            self.close()
        finally:
            self.gate.closing = False

    def fileno(self) -> int:
        """Descriptor to wait on for received frames; raises OSError for links that have none."""
        raise OSError("this link has no file descriptor")

    @property
    def mac(self) -> str:
        """Our station address, colon-separated."""
        return ":".join(f"{self.c.mac[i]:02x}" for i in range(6))

    @property
    def caps(self) -> dict[str, int | bool]:
        """What the device does for us: mtu and max_frame in bytes, offloads as booleans."""
        return {
            "mtu": self.c.caps.mtu,
            "max_frame": self.c.caps.max_frame,
            "tx_checksum": bool(self.c.caps.tx_checksum),
            "tx_segmentation": bool(self.c.caps.tx_segmentation),
            "rx_checksum": bool(self.c.caps.rx_checksum),
        }

    def counters(self) -> dict[str, int]:
        """Frames, bytes and drops in both directions since the link was opened."""
        if not self.closed and self.c.ops != NULL:
            self.c.ops.refresh_counters(&self.c)
        cdef link_counters_t *k = &self.c.counters
        return {
            "rx_frames": k.rx_frames, "rx_bytes": k.rx_bytes,
            "rx_dropped": k.rx_dropped, "rx_truncated": k.rx_truncated,
            "tx_frames": k.tx_frames, "tx_bytes": k.tx_bytes,
            "tx_dropped": k.tx_dropped, "tx_submits": k.tx_submits, "waits": k.waits,
        }

    def __enter__(self) -> Link:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
