/* SPDX-License-Identifier: MIT
 *
 * A bare HTTP server on the kernel's TCP: what the kernel's stack can do when the application costs next to nothing.
 *
 * It is the upper reference of the benchmarks, so it leaves out everything that a web server needs and a measurement does
 * not (files, logs, limits in time), and nothing that would make it faster: one thread, edge-triggered epoll, non-blocking
 * sockets, whole responses prepared in memory, one system call to read and one to answer all pipelined requests.
 *
 *     epoll_server ADDRESS PORT PATH=BYTES...          epoll_server 198.18.0.2 80 /512.bin=512 /1m.bin=1048576
 *
 * The environment's TCP_CONGESTION names a congestion control. Prints one line when it listens; runs until it is killed.
 * It must not be put on a public network.
 * Read first: epoll(7), "Edge-triggered"; RFC 9112 sections 2.2, 9.3 (keep-alive, pipelining) and 9.6 (close).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
    HEAD_BYTES = 8192,      /* largest request head, and room for what is pipelined behind it */
    PIPELINE = 16,          /* responses gathered into one sendmsg() */
    EVENTS = 256,
    BACKLOG = 4096,         /* the kernel takes the smaller of this and net.core.somaxconn */
    FILES = 16,
    HELD_BYTES = 256 << 20, /* a longer body is never written: it is one page of zeros again and again, and costs none */
};

struct response {
    char *bytes;            /* status line, fields and body, one after the other */
    size_t length;
};

struct file {
    const char *path;
    size_t path_length;
    struct response keep;   /* the connection stays */
    struct response last;   /* the same with "Connection: close" */
};

/* Requests wait in `in`; responses that the socket has not taken wait in `out`. While `out` is not empty no request is
 * looked at: a client that does not read is not allowed to queue work. */
struct connection {
    int fd;
    bool closing;           /* the last response is in `out`: close when it has been sent */
    bool input_ended;       /* the client has sent its FIN */
    unsigned in_length;
    unsigned out_first, out_count;
    struct iovec out[PIPELINE];
    char in[HEAD_BYTES];
};

static struct file files[FILES];
static unsigned file_count;
static struct response not_found, bad_request, bad_method, head_too_large;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static struct response make_response(const char *status, size_t body_bytes, bool keep)
{
    char head[256];
    int head_bytes = snprintf(head, sizeof head,
                              "HTTP/1.1 %s\r\nServer: epoll\r\nContent-Type: application/octet-stream\r\n"
                              "Content-Length: %zu\r\n%s\r\n", status, body_bytes, keep ? "" : "Connection: close\r\n");
    struct response response = {calloc((size_t)head_bytes + body_bytes, 1), (size_t)head_bytes + body_bytes};
    if (response.bytes == NULL)
        die("calloc");
    memcpy(response.bytes, head, (size_t)head_bytes);
    if (body_bytes <= HELD_BYTES)
        memset(response.bytes + head_bytes, 'x', body_bytes);
    return response;
}

static void add_file(char *argument)
{
    char *equals = strrchr(argument, '='), *end;
    if (equals == NULL || argument[0] != '/' || file_count == FILES) {
        fprintf(stderr, "epoll_server: %s: want /PATH=BYTES, at most %d of them\n", argument, FILES);
        exit(2);
    }
    size_t bytes = strtoull(equals + 1, &end, 10);
    if (*end != '\0' || end == equals + 1) {
        fprintf(stderr, "epoll_server: %s: not a number of bytes\n", argument);
        exit(2);
    }
    *equals = '\0';
    files[file_count++] = (struct file){argument, strlen(argument), make_response("200 OK", bytes, true),
                                        make_response("200 OK", bytes, false)};
}

/* Does the field `Connection` of this head contain the token `wanted`? One line is looked at, as every real client sends it. */
static bool connection_says(const char *head, const char *end, const char *wanted)
{
    static const char name[] = "\r\nConnection:";
    for (const char *at = head; (at = memchr(at, '\r', (size_t)(end - at))) != NULL; at++) {
        if ((size_t)(end - at) < sizeof name - 1 || strncasecmp(at, name, sizeof name - 1) != 0)
            continue;
        const char *value = at + sizeof name - 1;
        while (value < end && *value == ' ')
            value++;
        return (size_t)(end - value) >= strlen(wanted) && strncasecmp(value, wanted, strlen(wanted)) == 0;
    }
    return false;
}

/* The response to one complete head, [head, end) with its empty line. Sets connection->closing when it is the last. */
static const struct response *answer(struct connection *connection, const char *head, const char *end)
{
    const char *line_end = memchr(head, '\r', (size_t)(end - head));
    connection->closing = true;
    if (memcmp(head, "GET ", 4) != 0)
        return &bad_method;
    const char *path = head + 4;
    const char *path_end = memchr(path, ' ', (size_t)(line_end - path));
    if (path_end == NULL || line_end - path_end != 9 || memcmp(path_end, " HTTP/1.", 8) != 0)
        return &bad_request;
    bool keep = path_end[8] == '0' ? connection_says(line_end, end, "keep-alive") : !connection_says(line_end, end, "close");
    for (unsigned i = 0; i < file_count; i++) {
        if ((size_t)(path_end - path) == files[i].path_length && memcmp(path, files[i].path, files[i].path_length) == 0) {
            connection->closing = !keep;
            return keep ? &files[i].keep : &files[i].last;
        }
    }
    return &not_found;
}

/* Turns complete heads into responses until one is missing, `out` is full or the connection is to end. */
static void take_requests(struct connection *connection)
{
    char *head = connection->in, *in_end = connection->in + connection->in_length;
    while (connection->out_count < PIPELINE && !connection->closing) {
        char *blank = memmem(head, (size_t)(in_end - head), "\r\n\r\n", 4);
        const struct response *response;
        if (blank != NULL) {
            response = answer(connection, head, blank + 4);
            head = blank + 4;
        } else if (head == connection->in && connection->in_length == HEAD_BYTES) {
            response = &head_too_large;
            connection->closing = true;
            head = in_end;
        } else {
            break;
        }
        connection->out[connection->out_count++] = (struct iovec){response->bytes, response->length};
    }
    connection->in_length = (unsigned)(in_end - head);
    if (head != connection->in)
        memmove(connection->in, head, connection->in_length);
}

/* 1: everything was sent; 0: the socket is full, EPOLLOUT will come; -1: the connection is gone. */
static int send_responses(struct connection *connection)
{
    while (connection->out_first < connection->out_count) {
        struct msghdr message = {.msg_iov = connection->out + connection->out_first,
                                 .msg_iovlen = connection->out_count - connection->out_first};
        ssize_t sent = sendmsg(connection->fd, &message, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0)
            return errno == EAGAIN ? 0 : -1;
        for (size_t left = (size_t)sent; left > 0;) {
            struct iovec *first = connection->out + connection->out_first;
            size_t taken = left < first->iov_len ? left : first->iov_len;
            first->iov_base = (char *)first->iov_base + taken;
            first->iov_len -= taken;
            left -= taken;
            connection->out_first += first->iov_len == 0;
        }
    }
    connection->out_first = connection->out_count = 0;
    return 1;
}

/* Returns false when the connection is over. An edge comes once: go on until the socket is empty or full. A read that does
 * not fill the buffer has emptied the socket (epoll(7), question 9), which saves the call that would only say EAGAIN, unless
 * the client's FIN is known to be behind it. */
static bool serve(struct connection *connection, uint32_t events)
{
    bool more_input = (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
    for (;;) {
        int sent = send_responses(connection);
        if (sent <= 0)
            return sent == 0;
        if (connection->closing)
            return false;
        take_requests(connection);
        if (connection->out_count > 0)
            continue;
        if (connection->input_ended)
            return false;
        if (!more_input)
            return true;
        size_t room = HEAD_BYTES - connection->in_length;
        ssize_t got = recv(connection->fd, connection->in + connection->in_length, room, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return errno == EAGAIN;
        connection->input_ended = got == 0;
        connection->in_length += (unsigned)got;
        more_input = (size_t)got == room || (events & EPOLLRDHUP) != 0;
    }
}

static void accept_all(int epoll_fd, int listen_fd)
{
    for (;;) {
        int fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0 && errno == EAGAIN)
            return;
        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
                die("accept4");
            continue;       /* the error of a connection that failed while it waited (accept(2)), or a signal */
        }
        struct connection *connection = malloc(sizeof *connection);
        if (connection == NULL)
            die("malloc");
        connection->fd = fd;
        connection->closing = connection->input_ended = false;
        connection->in_length = connection->out_first = connection->out_count = 0;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
        struct epoll_event event = {EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, {.ptr = connection}};
        if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
            die("epoll_ctl");
    }
}

static int listen_on(const char *address, const char *port)
{
    struct sockaddr_in where = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    if (inet_pton(AF_INET, address, &where.sin_addr) != 1) {
        fprintf(stderr, "epoll_server: %s: not an IPv4 address\n", address);
        exit(2);
    }
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        die("socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
    /* Connections take the listener's congestion control over. */
    const char *control = getenv("TCP_CONGESTION");
    if (control != NULL && setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, control, (socklen_t)strlen(control)) < 0)
        die(control);
    if (bind(fd, (struct sockaddr *)&where, sizeof where) < 0 || listen(fd, BACKLOG) < 0)
        die(address);
    return fd;
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: epoll_server ADDRESS PORT PATH=BYTES...\n");
        return 2;
    }
    for (int i = 3; i < argc; i++)
        add_file(argv[i]);
    not_found = make_response("404 Not Found", 0, false);
    bad_request = make_response("400 Bad Request", 0, false);
    bad_method = make_response("405 Method Not Allowed", 0, false);
    head_too_large = make_response("431 Request Header Fields Too Large", 0, false);

    struct rlimit descriptors;
    if (getrlimit(RLIMIT_NOFILE, &descriptors) == 0) {
        descriptors.rlim_cur = descriptors.rlim_max;
        setrlimit(RLIMIT_NOFILE, &descriptors);
    }
    int listen_fd = listen_on(argv[1], argv[2]), epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event listening = {EPOLLIN, {.ptr = NULL}}, events[EVENTS];
    if (epoll_fd < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listen_fd, &listening) < 0)
        die("epoll");
    printf("ready http://%s:%s/\n", argv[1], argv[2]);
    fflush(stdout);

    for (;;) {
        int count = epoll_wait(epoll_fd, events, EVENTS, -1);
        if (count < 0 && errno != EINTR)
            die("epoll_wait");
        for (int i = 0; i < count; i++) {
            struct connection *connection = events[i].data.ptr;
            if (connection == NULL) {
                accept_all(epoll_fd, listen_fd);
            } else if (!serve(connection, events[i].events)) {
                close(connection->fd);
                free(connection);
            }
        }
    }
}
