/* SPDX-License-Identifier: MIT
 *
 * lwIP serves a folder over a TAP device: lwip_files DIRECTORY DEVICE ADDRESS PORT.
 *
 * The stack is Debian's liblwip, through its raw interface: one thread reads frames, gives them to the stack, which calls
 * back, and sleeps in poll(2). Of all ways to use lwIP this costs least: no thread is woken for a frame, no socket is
 * between. Files are read or mapped once and kept. HTTP is as little as a measurement needs: GET, kept connections,
 * pipelined requests answered in order, "Connection: close".
 *
 * What the library fixes (its lwipopts.h): a window and a send buffer of 64 KiB, no SACK, no timestamps, checksums made
 * and verified in software, one copy of all that is sent. Its memory is malloc's, so that connections are as many as that
 * has room for. One thing is put right here: a lwIP whose memory is pools takes the oldest connection in TIME-WAIT for a
 * new one; this one would keep them all for 120 s, search their list for each SYN, and leave a SYN from a port that is in
 * it without an answer. Some dozens are kept, as many as such pools have room for.
 *
 * Prints one line when it listens; runs until it is killed. It must not be put on a public network.
 * Read first: lwIP's doc/rawapi.txt; RFC 9112 sections 2.2, 9.3 and 9.6.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <lwip/etharp.h>
#include <lwip/init.h>
#include <lwip/netif.h>
#include <lwip/priv/tcp_priv.h>
#include <lwip/tcp.h>
#include <lwip/timeouts.h>
#include <netif/ethernet.h>

enum {
    FRAME_BYTES = 1514,
    BURST = 64,                 /* frames between two looks at the timers */
    HEAD_BYTES = 8192,          /* of a request */
    BUCKETS = 1 << 16,
    KEPT_FILES = 200000,        /* as nginx is given in this comparison */
    READ_BYTES = 1 << 16,       /* a file up to this is read; a longer one is mapped */
    TIME_WAITS = 64,
};

struct head {
    size_t length;
    char bytes[160];
};

/* A whole response. One that is not kept goes with its connection. */
struct response {
    struct response *next;      /* in its bucket */
    char *path;
    const char *body;
    size_t body_length;
    bool kept, mapped;
    struct head heads[2];       /* the second says that the connection ends */
};

struct connection {
    struct tcp_pcb *pcb;
    struct pbuf *in;            /* what has come and is no answered request */
    struct response *out;       /* the response under way, and how much of head and body together has been written */
    size_t written;
    bool last, ended;           /* nothing follows `out`; the client has sent its FIN */
};

static struct response *buckets[BUCKETS];
static unsigned kept_files, closes;
static int site_fd, tap_fd;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

/* ---------------------------------------------------------------- files */

static void make_heads(struct response *response, const char *status)
{
    static const char *const ends[] = {"", "Connection: close\r\n"};
    for (int i = 0; i < 2; i++) {
        struct head *head = &response->heads[i];
        head->length = (size_t)snprintf(head->bytes, sizeof head->bytes,
                                        "HTTP/1.1 %s\r\nServer: lwip\r\nContent-Type: application/octet-stream\r\n"
                                        "Content-Length: %zu\r\n%s\r\n", status, response->body_length, ends[i]);
    }
}

static struct response *error_response(const char *status)
{
    struct response *response = calloc(1, sizeof *response);
    if (response == NULL)
        die("calloc");
    response->kept = true;
    make_heads(response, status);
    return response;
}

static void forget(struct response *response)
{
    if (response->kept)
        return;
    if (response->mapped)
        munmap((void *)response->body, response->body_length);
    else
        free((void *)response->body);
    free(response);
}

static bool fill(struct response *response, int fd)
{
    struct stat about;
    if (fstat(fd, &about) < 0 || !S_ISREG(about.st_mode))
        return false;
    size_t size = response->body_length = (size_t)about.st_size;
    response->mapped = size > READ_BYTES;
    if (response->mapped) {
        void *map = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
        if (map == MAP_FAILED)
            return false;
        response->body = map;
    } else {
        char *body = malloc(size + 1);
        response->body = body;
        if (body == NULL || read(fd, body, size) != (ssize_t)size) {
            free(body);
            return false;
        }
    }
    make_heads(response, "200 OK");
    return true;
}

/* The response for a path, which begins with a slash; NULL where there is no such file. */
static struct response *find(const char *path, size_t length)
{
    size_t hash = 5381;
    for (size_t i = 0; i < length; i++)
        hash = hash * 33 + (unsigned char)path[i];
    struct response **bucket = &buckets[hash % BUCKETS];
    for (struct response *one = *bucket; one != NULL; one = one->next)
        if (strlen(one->path) == length && memcmp(one->path, path, length) == 0)
            return one;
    char *name = strndup(path, length);
    struct response *response = calloc(1, sizeof *response);
    if (name == NULL || response == NULL)
        die("malloc");
    bool inside = length > 1 && name[1] != '/' && strstr(name, "/..") == NULL;     /* an absolute name leaves the site */
    int fd = inside ? openat(site_fd, name + 1, O_RDONLY | O_CLOEXEC) : -1;
    bool found = fd >= 0 && fill(response, fd);
    if (fd >= 0)
        close(fd);
    if (!found || kept_files == KEPT_FILES) {
        free(name);
    } else {
        kept_files++;
        response->kept = true;
        response->path = name;
        response->next = *bucket;
        *bucket = response;
    }
    if (found)
        return response;
    free(response);
    return NULL;
}

/* ---------------------------------------------------------------- requests */

static bool says_close(const char *head, size_t length)
{
    static const char field[] = "\r\nconnection: close\r\n";
    for (const char *at = head; (at = memchr(at, '\r', (size_t)(head + length - at))) != NULL; at++)
        if ((size_t)(head + length - at) >= sizeof field - 1 && strncasecmp(at, field, sizeof field - 1) == 0)
            return true;
    return false;
}

/* Begin the response to one head, whose last bytes are its empty line. */
static void answer(struct connection *connection, const char *head, size_t length)
{
    static struct response *bad, *missing;
    if (bad == NULL) {
        bad = error_response("400 Bad Request");
        missing = error_response("404 Not Found");
    }
    const char *line_end = memchr(head, '\r', length);
    const char *path = head + 4;
    const char *path_end = length > 5 && memcmp(head, "GET /", 5) == 0 ? memchr(path, ' ', (size_t)(line_end - path)) : NULL;
    connection->written = 0;
    if (path_end == NULL || line_end - path_end != 9 || memcmp(path_end, " HTTP/1.", 8) != 0) {
        connection->out = bad;
        connection->last = true;
        return;
    }
    struct response *found = find(path, (size_t)(path_end - path));
    connection->out = found != NULL ? found : missing;
    connection->last = path_end[8] == '0' || says_close(head, length);
}

/* Take the next whole head, if there is one, and begin its response. */
static bool take_request(struct connection *connection)
{
    static char joined[HEAD_BYTES];
    struct pbuf *in = connection->in;
    if (in == NULL)
        return false;
    const char *head = in->payload;
    size_t length = in->len;
    const char *blank = memmem(head, length, "\r\n\r\n", 4);
    if (blank == NULL && in->next != NULL) {
        head = joined;
        length = pbuf_copy_partial(in, joined, HEAD_BYTES, 0);
        blank = memmem(head, length, "\r\n\r\n", 4);
    }
    if (blank != NULL) {
        length = (size_t)(blank + 4 - head);
        answer(connection, head, length);
    } else if (length >= HEAD_BYTES) {
        answer(connection, "\r\n", 2);
    } else {
        return false;
    }
    connection->in = pbuf_free_header(in, (u16_t)length);
    tcp_recved(connection->pcb, (u16_t)length);
    return true;
}

/* ---------------------------------------------------------------- connections */

/* Write as much of one piece as there is room for; the stack copies it. False: there is none. */
static bool put(struct connection *connection, const char *bytes, size_t length, u8_t more)
{
    size_t now = LWIP_MIN(length, LWIP_MIN(tcp_sndbuf(connection->pcb), 0xFFFF));
    if (now == 0 || tcp_write(connection->pcb, bytes, (u16_t)now, (u8_t)(TCP_WRITE_FLAG_COPY | more)) != ERR_OK)
        return false;
    connection->written += now;
    return true;
}

/* False: a part waits for room. */
static bool send_response(struct connection *connection)
{
    struct response *out = connection->out;
    const struct head *head = &out->heads[connection->last];
    size_t whole = head->length + out->body_length;
    while (connection->written < whole) {
        size_t at = connection->written;
        bool wrote = at < head->length
            ? put(connection, head->bytes + at, head->length - at, out->body_length > 0 ? TCP_WRITE_FLAG_MORE : 0)
            : put(connection, out->body + (at - head->length), whole - at, 0);
        if (!wrote)
            return false;
    }
    connection->out = NULL;
    forget(out);
    return true;
}

static void release(struct connection *connection)
{
    if (connection->out != NULL)
        forget(connection->out);
    if (connection->in != NULL)
        pbuf_free(connection->in);
    free(connection);
}

/* Send and take requests until the one has no room or the other nothing that is whole; close when that is all. The stack
 * sends what was written after the call back that this is in. Where it has no memory to close, on_poll() tries again. */
static void go_on(struct connection *connection)
{
    while (connection->out != NULL || (!connection->last && take_request(connection)))
        if (!send_response(connection))
            return;
    if (!connection->last && !connection->ended)
        return;
    struct tcp_pcb *pcb = connection->pcb;
    if (connection->in != NULL) {       /* unread bytes would make the FIN a reset */
        tcp_recved(pcb, connection->in->tot_len);
        pbuf_free(connection->in);
        connection->in = NULL;
    }
    connection->last = true;
    if (tcp_close(pcb) != ERR_OK)
        return;
    tcp_arg(pcb, NULL);
    tcp_recv(pcb, NULL);
    tcp_sent(pcb, NULL);
    tcp_err(pcb, NULL);
    tcp_poll(pcb, NULL, 0);
    closes++;
    release(connection);
}

static err_t on_received(void *argument, struct tcp_pcb *pcb, struct pbuf *in, err_t error)
{
    struct connection *connection = argument;
    LWIP_UNUSED_ARG(error);
    if (in == NULL)
        connection->ended = true;
    else if (connection->last) {
        tcp_recved(pcb, in->tot_len);
        pbuf_free(in);
    } else if (connection->in == NULL)
        connection->in = in;
    else
        pbuf_cat(connection->in, in);
    go_on(connection);
    return ERR_OK;
}

static err_t on_sent(void *argument, struct tcp_pcb *pcb, u16_t length)
{
    struct connection *connection = argument;
    LWIP_UNUSED_ARG(pcb);
    LWIP_UNUSED_ARG(length);
    if (connection->out != NULL)
        go_on(connection);
    return ERR_OK;
}

static err_t on_poll(void *argument, struct tcp_pcb *pcb)
{
    struct connection *connection = argument;
    LWIP_UNUSED_ARG(pcb);
    if (connection->out != NULL || connection->last)
        go_on(connection);
    return ERR_OK;
}

/* The stack has removed the connection: a reset, or no answer. */
static void on_error(void *argument, err_t error)
{
    LWIP_UNUSED_ARG(error);
    release(argument);
}

static err_t on_accepted(void *argument, struct tcp_pcb *pcb, err_t error)
{
    LWIP_UNUSED_ARG(argument);
    if (error != ERR_OK || pcb == NULL)
        return ERR_VAL;
    struct connection *connection = calloc(1, sizeof *connection);
    if (connection == NULL)
        return ERR_MEM;
    connection->pcb = pcb;
    tcp_nagle_disable(pcb);
    tcp_arg(pcb, connection);
    tcp_recv(pcb, on_received);
    tcp_sent(pcb, on_sent);
    tcp_err(pcb, on_error);
    tcp_poll(pcb, on_poll, 2);
    return ERR_OK;
}

/* Of the connections in TIME-WAIT, newest first, those beyond the bound go as they do when a pool is empty. */
static void forget_time_waits(void)
{
    closes = 0;
    struct tcp_pcb *pcb = tcp_tw_pcbs;
    for (unsigned i = 0; pcb != NULL && i < TIME_WAITS; i++)
        pcb = pcb->next;
    while (pcb != NULL) {
        struct tcp_pcb *next = pcb->next;
        tcp_abort(pcb);
        pcb = next;
    }
}

/* ---------------------------------------------------------------- the device */

static err_t put_frame(struct netif *netif, struct pbuf *frame)
{
    LWIP_UNUSED_ARG(netif);
    /* LWIP_NETIF_TX_SINGLE_PBUF is what the library is built with. */
    if (frame->next != NULL)
        return ERR_IF;
    ssize_t sent;
    do
        sent = write(tap_fd, frame->payload, frame->len);
    while (sent < 0 && errno == EINTR);
    return sent == frame->len ? ERR_OK : ERR_IF;
}

static err_t init_netif(struct netif *netif)
{
    static const u8_t address[ETH_HWADDR_LEN] = {0x02, 0x6c, 0x77, 0x49, 0x50, 0x01};
    netif->name[0] = 't';
    netif->name[1] = 'p';
    netif->mtu = FRAME_BYTES - SIZEOF_ETH_HDR;
    netif->hwaddr_len = ETH_HWADDR_LEN;
    memcpy(netif->hwaddr, address, sizeof address);
    netif->flags = NETIF_FLAG_BROADCAST | NETIF_FLAG_ETHARP | NETIF_FLAG_ETHERNET;
    netif->output = etharp_output;
    netif->linkoutput = put_frame;
    return ERR_OK;
}

static void open_device(const char *name)
{
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI};
    tap_fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (tap_fd < 0)
        die("/dev/net/tun");
    snprintf(request.ifr_name, sizeof request.ifr_name, "%s", name);
    if (ioctl(tap_fd, TUNSETIFF, &request) < 0)
        die(name);
}

/* Gives the stack what has come, a burst at most. */
static void take_frames(struct netif *netif)
{
    static struct pbuf *spare;
    for (int i = 0; i < BURST; i++) {
        if (spare == NULL)
            spare = pbuf_alloc(PBUF_RAW, FRAME_BYTES, PBUF_RAM);
        if (spare == NULL)
            die("pbuf_alloc");
        ssize_t got = read(tap_fd, spare->payload, FRAME_BYTES);
        if (got < 0 && errno != EAGAIN && errno != EINTR)
            die("read");
        if (got <= 0)
            return;
        struct pbuf *frame = spare;
        spare = NULL;
        pbuf_realloc(frame, (u16_t)got);
        if (netif->input(frame, netif) != ERR_OK)
            pbuf_free(frame);
    }
}

int main(int argc, char **argv)
{
    static struct netif netif;
    ip4_addr_t address, mask, none = {0};
    if (argc != 5 || !ip4addr_aton(argv[3], &address)) {
        fprintf(stderr, "usage: lwip_files DIRECTORY DEVICE ADDRESS PORT\n");
        return 2;
    }
    site_fd = open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (site_fd < 0)
        die(argv[1]);
    open_device(argv[2]);
    lwip_init();
    IP4_ADDR(&mask, 255, 255, 255, 0);
    if (netif_add(&netif, &address, &mask, &none, NULL, init_netif, ethernet_input) == NULL)
        return 1;
    netif_set_default(&netif);
    netif_set_up(&netif);
    netif_set_link_up(&netif);
    struct tcp_pcb *listener = tcp_new_ip_type(IPADDR_TYPE_V4);
    if (listener == NULL || tcp_bind(listener, IP4_ADDR_ANY, (u16_t)atoi(argv[4])) != ERR_OK)
        return 1;
    tcp_accept(tcp_listen(listener), on_accepted);
    printf("ready http://%s:%s/\n", argv[3], argv[4]);
    fflush(stdout);
    for (;;) {
        struct pollfd ready = {.fd = tap_fd, .events = POLLIN};
        u32_t sleep_ms = sys_timeouts_sleeptime();
        if (poll(&ready, 1, sleep_ms > 1000 ? 1000 : (int)sleep_ms) < 0 && errno != EINTR)
            die("poll");
        take_frames(&netif);
        sys_check_timeouts();
        if (closes >= TIME_WAITS)
            forget_time_waits();
    }
}
