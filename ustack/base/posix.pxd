# SPDX-License-Identifier: MIT
# The C library and the system calls, as far as this project uses them: each header is declared here and nowhere else.
#
# Declarations only: numbers and layouts come from the headers when the C is compiled, and a struct lists the fields
# that are used. What is about packet sockets, interfaces and TAP is in link/packet_abi.pxd. Some functions have names
# of their own here (open_descriptor, close_descriptor, socket_listen): as `open`, `close` and `listen` they would hide
# Python's, a link's and a transport's.
#
# Read first: the manual page of each. A new header goes here; tests/test_house.py holds the rule.

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t

# First: others hold a timespec.
cdef extern from "<time.h>" nogil:
    cdef struct timespec:
        long tv_sec
        long tv_nsec
    const int CLOCK_MONOTONIC, CLOCK_REALTIME, CLOCK_THREAD_CPUTIME_ID
    int clock_gettime(int clock, timespec *out)
    ctypedef long time_t
    cdef struct tm:
        int tm_sec
        int tm_min
        int tm_hour
        int tm_mday
        int tm_mon
        int tm_year
        int tm_wday
    tm *gmtime_r(const time_t *when, tm *out)


cdef extern from "<arpa/inet.h>" nogil:
    uint16_t htons(uint16_t value)
    uint16_t ntohs(uint16_t value)
    uint32_t htonl(uint32_t value)
    uint32_t ntohl(uint32_t value)
    const char *inet_ntop(int family, const void *address, char *out, unsigned int length)


cdef extern from "<dlfcn.h>" nogil:
    void *RTLD_DEFAULT
    const int RTLD_LAZY, RTLD_NOLOAD, RTLD_DI_LINKMAP
    void *dlopen(const char *path, int flags)
    int dlclose(void *handle)
    int dlinfo(void *handle, int request, void *out)
    void *dlsym(void *handle, const char *name)


cdef extern from "<errno.h>" nogil:
    const int ECANCELED                 # not in libc.errno
    int *errno_at "__errno_location"()  # for who has to put it back


cdef extern from "<fcntl.h>" nogil:
    const int O_RDONLY, O_RDWR, O_NONBLOCK, O_NOCTTY, O_CLOEXEC
    int open_descriptor "open"(const char *path, int flags, ...)
    cdef struct f_owner_ex:
        int type
        int pid
    const int F_DUPFD_CLOEXEC, F_GETFL, F_SETFL, F_SETSIG, F_SETOWN_EX, F_OWNER_TID, O_ASYNC
    int fcntl(int fd, int command, ...)


cdef extern from "<link.h>" nogil:
    cdef union elf_value_t:
        uint64_t d_val
        uint64_t d_ptr
    ctypedef struct Elf64_Dyn:
        int64_t d_tag
        elf_value_t d_un
    ctypedef struct Elf64_Rela:
        uint64_t r_offset
        uint64_t r_info
    ctypedef struct Elf64_Sym:
        uint32_t st_name
    cdef struct link_map:
        uint64_t l_addr
        Elf64_Dyn *l_ld
    const int64_t DT_NULL, DT_JMPREL, DT_PLTRELSZ, DT_RELA, DT_RELASZ, DT_STRTAB, DT_SYMTAB


cdef extern from "<netinet/in.h>" nogil:
    cdef struct in_addr:
        uint32_t s_addr
    cdef struct sockaddr_in:
        unsigned short sin_family
        uint16_t sin_port
        in_addr sin_addr
    const int IPPROTO_IP, IPPROTO_TCP, IP_TOS, IP_TTL, IP_RECVERR


cdef extern from "<netinet/tcp.h>" nogil:
    cdef struct tcp_info:
        unsigned char tcpi_state
        uint32_t tcpi_snd_mss
        uint32_t tcpi_unacked
        uint32_t tcpi_rtt
        uint32_t tcpi_rttvar
        uint32_t tcpi_snd_ssthresh
        uint32_t tcpi_snd_cwnd
        uint32_t tcpi_total_retrans
    const int TCP_NODELAY, TCP_USER_TIMEOUT, TCP_CONGESTION, TCP_INFO, TCP_CORK


cdef extern from "<poll.h>" nogil:
    cdef struct pollfd:
        int fd
        short events
        short revents
    const short POLLIN, POLLOUT, POLLERR, POLLHUP, POLLNVAL
    int ppoll(pollfd *fds, unsigned long nfds, const timespec *timeout, const void *sigmask)


cdef extern from "<pthread.h>" nogil:
    ctypedef unsigned long pthread_t
    ctypedef struct pthread_attr_t:
        pass
    const int PTHREAD_CREATE_DETACHED
    int pthread_attr_init(pthread_attr_t *attributes)
    int pthread_attr_destroy(pthread_attr_t *attributes)
    int pthread_attr_setdetachstate(pthread_attr_t *attributes, int state)
    int pthread_attr_setstacksize(pthread_attr_t *attributes, size_t bytes)
    int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *) noexcept nogil,
                       void *argument)
    int pthread_kill(pthread_t thread, int number)
    int sched_yield()


cdef extern from "<semaphore.h>" nogil:
    ctypedef struct sem_t:
        pass
    int sem_init(sem_t *semaphore, int shared, unsigned int value)
    int sem_wait(sem_t *semaphore)
    int sem_post(sem_t *semaphore)
    int sem_destroy(sem_t *semaphore)


cdef extern from "<sys/eventfd.h>" nogil:
    const int EFD_NONBLOCK, EFD_CLOEXEC
    int eventfd(unsigned int value, int flags)


cdef extern from "<sys/resource.h>" nogil:
    cdef struct rlimit:
        uint64_t rlim_cur
    const int RLIMIT_NOFILE
    int getrlimit(int resource, rlimit *limit)


cdef extern from "<signal.h>" nogil:
    ctypedef struct sigset_t:
        pass
    cdef union sigval:
        void *sival_ptr
    cdef struct sigevent:
        int sigev_notify
        int sigev_signo
        sigval sigev_value
    ctypedef struct siginfo_t:
        int si_signo
        int si_code
        int si_pid
        int si_fd
        long si_band
        sigval si_value
    const int SIGEV_SIGNAL, SA_SIGINFO, SA_RESTART, SI_ASYNCIO
    const int SIGIO, SIGPIPE, SIGRTMIN, SIG_BLOCK, SIGBUS, SIGFPE, SIGILL, SIGSEGV
    int sigemptyset(sigset_t *set)
    int sigaddset(sigset_t *set, int number)
    int sigfillset(sigset_t *set)
    int sigdelset(sigset_t *set, int number)
    int sigismember(const sigset_t *set, int number)
    int sigpending(sigset_t *set)
    const int SIGTERM, SIGALRM, SIGINT, SIGHUP, SIGUSR1, SIGCHLD, SIGKILL, SIG_SETMASK, SIG_UNBLOCK
    void (*SIG_IGN)(int number)
    void (*SIG_DFL)(int number)
    cdef struct sigaction_t "sigaction":
        void (*sa_handler)(int number)
        void (*sa_sigaction)(int number, siginfo_t *info, void *context)
        sigset_t sa_mask
        int sa_flags
    int sigaction(int number, const sigaction_t *action, sigaction_t *before)
    int kill(int pid, int number)
    int pthread_sigmask(int how, const sigset_t *set, sigset_t *before)
    int sigtimedwait(const sigset_t *set, siginfo_t *info, const timespec *timeout)


# After <signal.h>: its control block holds a sigevent.
cdef extern from "<aio.h>" nogil:
    cdef struct aiocb:
        int aio_fildes
        void *aio_buf
        size_t aio_nbytes
        int64_t aio_offset
        sigevent aio_sigevent
    const int AIO_NOTCANCELED
    int aio_read(aiocb *block)
    int aio_error(const aiocb *block)
    ssize_t aio_return(aiocb *block)
    int aio_suspend(const aiocb *const *blocks, int count, const timespec *timeout)
    int aio_cancel(int fd, aiocb *block)


cdef extern from "<sys/epoll.h>" nogil:
    cdef union epoll_data_t:
        uint64_t u64
    cdef struct epoll_event:
        uint32_t events
        epoll_data_t data
    const int EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLL_CTL_DEL
    const uint32_t EPOLLIN, EPOLLPRI, EPOLLOUT, EPOLLERR, EPOLLHUP, EPOLLRDHUP, EPOLLET, EPOLLEXCLUSIVE, EPOLLONESHOT
    int epoll_create1(int flags)
    int epoll_ctl(int epoll_fd, int operation, int fd, epoll_event *event)
    int epoll_wait(int epoll_fd, epoll_event *events, int most, int timeout_ms)


cdef extern from "<sys/ioctl.h>" nogil:
    int ioctl(int fd, unsigned long request, ...)
    const int FIONREAD, TIOCOUTQ
    const int SIOCGIFHWADDR, SIOCGIFINDEX, SIOCGIFMTU, SIOCGIFFLAGS, SIOCSIFFLAGS, SIOCGIFNAME


cdef extern from "<sys/mman.h>" nogil:
    void *mmap(void *address, size_t length, int protection, int flags, int fd, long offset)
    void *mremap(void *address, size_t old_length, size_t new_length, int flags)
    int munmap(void *address, size_t length)
    int mprotect(void *address, size_t length, int protection)
    int madvise(void *address, size_t length, int advice)
    void *MAP_FAILED
    const int PROT_NONE, PROT_READ, PROT_WRITE
    const int MAP_SHARED, MAP_PRIVATE, MAP_ANONYMOUS, MAP_NORESERVE, MAP_POPULATE, MREMAP_MAYMOVE
    const int MADV_DONTNEED, MADV_NOHUGEPAGE, MADV_WILLNEED


cdef extern from "<sys/prctl.h>" nogil:
    const int PR_SET_PDEATHSIG
    int prctl(int option, unsigned long value)


cdef extern from "<sys/select.h>" nogil:
    ctypedef struct fd_set:
        pass
    const int FD_SETSIZE
    void FD_ZERO(fd_set *set)
    void FD_SET(int fd, fd_set *set)
    bint FD_ISSET(int fd, const fd_set *set)
    int pselect(int fds, fd_set *reading, fd_set *writing, fd_set *exceptions, const timespec *timeout,
                const void *sigmask)


cdef extern from "<sys/sendfile.h>" nogil:
    ssize_t sendfile(int out_fd, int in_fd, int64_t *offset, size_t length)


cdef extern from "<sys/socket.h>" nogil:
    cdef struct sockaddr:
        unsigned short sa_family
        char sa_data[14]
    cdef struct linger:
        int l_onoff
        int l_linger
    cdef struct msghdr:
        iovec *msg_iov
        size_t msg_iovlen
        void *msg_control
        size_t msg_controllen
    cdef struct cmsghdr:
        int cmsg_level
        int cmsg_type
    cmsghdr *CMSG_FIRSTHDR(msghdr *message)
    void *CMSG_DATA(cmsghdr *control)
    cdef struct mmsghdr:
        msghdr msg_hdr
        unsigned int msg_len
    const int AF_INET, AF_INET6, AF_NETLINK, AF_PACKET, AF_XDP
    const int SOCK_DGRAM, SOCK_RAW, SOCK_STREAM, SOCK_CLOEXEC, SOCK_NONBLOCK
    const int MSG_DONTWAIT, MSG_NOSIGNAL, MSG_TRUNC, MSG_MORE, MSG_ZEROCOPY, MSG_ERRQUEUE, SHUT_WR, SHUT_RDWR
    const int SOL_SOCKET, SOL_PACKET, SO_ERROR, SO_SNDBUF, SO_RCVBUF, SO_SNDBUFFORCE, SO_ATTACH_FILTER
    const int SO_DETACH_FILTER, SO_REUSEADDR, SO_REUSEPORT, SO_KEEPALIVE, SO_LINGER, SO_ACCEPTCONN
    const int SO_OOBINLINE, SO_ZEROCOPY
    int socket(int domain, int kind, int protocol)
    int bind(int fd, const sockaddr *address, unsigned int length)
    int socket_listen "listen"(int fd, int backlog)
    int socket_connect "connect"(int fd, const sockaddr *address, unsigned int length)
    int socket_shutdown "shutdown"(int fd, int how)
    int accept4(int fd, sockaddr *address, unsigned int *length, int flags)
    int getpeername(int fd, sockaddr *address, unsigned int *length)
    int getsockname(int fd, sockaddr *address, unsigned int *length)
    ssize_t sendmsg(int fd, const msghdr *message, int flags)
    ssize_t recvmsg(int fd, msghdr *message, int flags)
    int setsockopt(int fd, int level, int name, const void *value, unsigned int length)
    int getsockopt(int fd, int level, int name, void *value, unsigned int *length)
    ssize_t send(int fd, const void *data, size_t length, int flags)
    ssize_t recv(int fd, void *data, size_t length, int flags)
    int sendmmsg(int fd, mmsghdr *messages, unsigned int count, int flags)


cdef extern from "<sys/stat.h>" nogil:
    cdef struct stat_t "stat":
        unsigned long st_dev
        unsigned long st_ino
        unsigned int st_mode
        long long st_size
        timespec st_mtim
        timespec st_ctim
    int fstat(int fd, stat_t *out)
    int fstatat(int directory_fd, const char *path, stat_t *out, int flags)
    bint S_ISREG(unsigned int mode)


cdef extern from "<sys/syscall.h>" nogil:
    const long SYS_openat2, SYS_gettid, SYS_io_uring_setup, SYS_io_uring_enter, SYS_io_uring_register, SYS_pidfd_open


cdef extern from "<sys/time.h>" nogil:
    cdef struct timeval:
        long tv_sec
        long tv_usec
    cdef struct itimerval:
        timeval it_interval
        timeval it_value
    const int ITIMER_REAL
    int setitimer(int which, const itimerval *value, itimerval *before)


cdef extern from "<sys/wait.h>" nogil:
    const int WNOHANG
    int waitpid(int pid, int *status, int options)


cdef extern from "<sys/uio.h>" nogil:
    cdef struct iovec:
        void *iov_base
        size_t iov_len
    ssize_t writev(int fd, const iovec *pieces, int count)


cdef extern from "<unistd.h>" nogil:
    int close_descriptor "close"(int fd)
    int getpid()
    int getppid()
    ssize_t read(int fd, void *data, size_t length)
    ssize_t write(int fd, const void *data, size_t length)
    int64_t lseek(int fd, int64_t offset, int whence)
    int ftruncate(int fd, int64_t length)
    const int SEEK_CUR, SEEK_END, SEEK_SET
    long syscall(long number, ...)
    long sysconf(int name)
    const int _SC_PAGESIZE, _SC_NPROCESSORS_CONF
    int fork()
    void _exit(int status)
