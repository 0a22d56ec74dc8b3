# SPDX-License-Identifier: MIT
# The kernel's headers for packet sockets, interfaces and TAP, as far as the links use them, and the two memory orders
# that a shared ring needs. Declarations only: the numbers come from the headers when the C is compiled. The C library's
# own are in base/posix.pxd.

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from ustack.base.posix cimport sockaddr

cdef extern from "<net/if.h>" nogil:
    int IFNAMSIZ
    int IFF_UP
    cdef struct ifreq:
        char ifr_name[16]
        sockaddr ifr_hwaddr
        int ifr_mtu
        int ifr_ifindex
        short ifr_flags
        char *ifr_data


cdef extern from "<linux/if_tun.h>" nogil:
    short IFF_TAP, IFF_NO_PI, IFF_VNET_HDR
    unsigned long TUNSETIFF, TUNSETOFFLOAD, TUNSETVNETHDRSZ, TUNGETFEATURES
    int TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6


cdef extern from "<linux/if_ether.h>" nogil:
    int ETH_P_ALL, ETH_HLEN


cdef extern from "<linux/if_arp.h>" nogil:
    int ARPHRD_ETHER


cdef extern from "<linux/if_packet.h>" nogil:
    int PACKET_VERSION, PACKET_RX_RING, PACKET_TX_RING, PACKET_LOSS, PACKET_VNET_HDR, PACKET_STATISTICS
    int PACKET_QDISC_BYPASS, PACKET_IGNORE_OUTGOING, TPACKET_V2
    int PACKET_FANOUT, PACKET_FANOUT_DATA, PACKET_FANOUT_CBPF, PACKET_FANOUT_FLAG_UNIQUEID
    uint32_t TP_STATUS_KERNEL, TP_STATUS_USER, TP_STATUS_CSUMNOTREADY, TP_STATUS_CSUM_VALID, TP_STATUS_VLAN_VALID
    uint32_t TP_STATUS_AVAILABLE, TP_STATUS_SEND_REQUEST, TP_STATUS_WRONG_FORMAT
    uint32_t TP_STATUS_TS_SOFTWARE           # or when it came, long before it was stored
    int TPACKET_ALIGNMENT, TPACKET2_HDRLEN
    cdef struct tpacket2_hdr:
        uint32_t tp_status
        uint32_t tp_len
        uint32_t tp_snaplen
        uint16_t tp_mac
        uint32_t tp_sec                  # CLOCK_REALTIME, taken when the frame had been stored
        uint32_t tp_nsec
        uint16_t tp_vlan_tci
    cdef struct tpacket_req:
        unsigned int tp_block_size
        unsigned int tp_block_nr
        unsigned int tp_frame_size
        unsigned int tp_frame_nr
    cdef struct tpacket_stats:
        unsigned int tp_packets
        unsigned int tp_drops
    cdef struct sockaddr_ll:
        unsigned short sll_family
        uint16_t sll_protocol
        int sll_ifindex


cdef extern from "<linux/filter.h>" nogil:
    int BPF_LD, BPF_W, BPF_H, BPF_ABS, BPF_LEN, BPF_JMP, BPF_JEQ, BPF_JGT, BPF_K, BPF_RET
    cdef struct sock_filter:
        uint16_t code
        uint8_t jt
        uint8_t jf
        uint32_t k
    cdef struct sock_fprog:
        unsigned short len
        sock_filter *filter


cdef extern from "<linux/virtio_net.h>" nogil:
    int VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_F_DATA_VALID
    int VIRTIO_NET_HDR_GSO_NONE, VIRTIO_NET_HDR_GSO_TCPV4, VIRTIO_NET_HDR_GSO_TCPV6
    cdef struct virtio_net_hdr:
        uint8_t flags
        uint8_t gso_type
        uint16_t hdr_len
        uint16_t gso_size
        uint16_t csum_start
        uint16_t csum_offset


cdef extern from *:
    """
    #define ustack_load_acquire(address) __atomic_load_n((address), __ATOMIC_ACQUIRE)
    #define ustack_store_release(address, value) __atomic_store_n((address), (value), __ATOMIC_RELEASE)
    #if defined(__x86_64__) || defined(__i386__)
      #define ustack_relax() __builtin_ia32_pause()
    #else
      #define ustack_relax() __atomic_signal_fence(__ATOMIC_SEQ_CST)
    #endif
    """
    uint32_t load_acquire "ustack_load_acquire"(const uint32_t *address) noexcept nogil
    void store_release "ustack_store_release"(uint32_t *address, uint32_t value) noexcept nogil
    void relax "ustack_relax"() noexcept nogil
