// One request to a loopback server: prepared bytes out, every chunk that comes back stamped.
#include "probe.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

// Waits for the socket: NULL when it is ready, else why not.
static const char *wait_io(int fd, short events, int64_t deadline) {
    for (;;) {
        struct pollfd fds[2] = {{fd, events, 0}, {stop_fd(), POLLIN, 0}};
        int64_t left = deadline - boot_ns();
        if (left <= 0) return "timeout";
        struct timespec wait = wait_slice(left);
        int n = ppoll(fds, 2, &wait, NULL);
        if (n < 0 && errno != EINTR) return "poll";
        if (n > 0 && fds[1].revents) return "stopped";
        if (n > 0 && fds[0].revents) return NULL;
    }
}

static const char *name_of(int err) {
    switch (err) {
    case ECONNREFUSED: return "refused";
    case ECONNRESET: case EPIPE: return "reset";
    case ETIMEDOUT: return "timeout";
    case EMFILE: case ENFILE: case ENOMEM: case ENOBUFS: return "no_resources";
    default: return "io_error";
    }
}

static const char *open_to(int port, int64_t deadline, int *out) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), one = 1;
    *out = fd;
    if (fd < 0) return name_of(errno);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (connect(fd, (struct sockaddr *)&to, sizeof to) == 0) return NULL;
    if (errno != EINPROGRESS) return name_of(errno);
    const char *why = wait_io(fd, POLLOUT, deadline);
    int err = 0;
    socklen_t n = sizeof err;
    if (!why && getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &n) == 0 && err) why = name_of(err);
    return why;
}

static const char *send_to(int fd, const char *p, size_t n, int64_t deadline) {
    while (n) {
        ssize_t k = send(fd, p, n, MSG_NOSIGNAL);
        if (k < 0 && errno == EAGAIN) {
            const char *why = wait_io(fd, POLLOUT, deadline);
            if (why) return why;
        } else if (k < 0 && errno != EINTR) {
            return name_of(errno);
        } else if (k > 0) {
            p += k;
            n -= (size_t)k;
        }
    }
    return NULL;
}

struct times { int64_t connect0, connect1, send0, send1, end, bytes; };

static const char *receive(int fd, struct stream *s, struct answer *a, struct times *t, int64_t deadline, int64_t max, char *chunk) {
    int64_t flush_at = INT64_MAX;   // what is kept is written a second later, between chunks: never between a chunk and its stamp
    for (;;) {
        const char *why = wait_io(fd, POLLIN, deadline < flush_at ? deadline : flush_at);
        if (why && flush_at < deadline && strcmp(why, "timeout") == 0) {
            stream_flush(s);
            flush_at = INT64_MAX;
            continue;
        }
        if (why) return why;
        int64_t t0 = boot_ns();
        ssize_t k = recv(fd, chunk, RAW_MAX, 0);
        int64_t t1 = boot_ns();
        if (k < 0 && (errno == EINTR || errno == EAGAIN)) continue;
        if (k < 0) return name_of(errno);
        if (k == 0) return answer_eof(a);
        size_t keep = t->bytes + k > max ? (size_t)(max - t->bytes) : (size_t)k;
        t->bytes += k;
        s->dropped += (size_t)k - keep;
        stream_put(s, t0, t1, keep < (size_t)k ? E2BIG : 0, chunk, keep);
        if (keep < (size_t)k) return "too_large";
        if (answer_feed(a, chunk, (size_t)k)) return "";
        if (t1 >= flush_at) {
            stream_flush(s);
            flush_at = INT64_MAX;
        } else if (flush_at == INT64_MAX) {
            flush_at = t1 + NS_S;
        }
    }
}

static void say_request(const struct request *r, const struct times *t, int step, int status, const char *error) {
    struct ev e;
    ev_new(&e, "request");
    ev_int(&e, "index", r->index);
    ev_int(&e, "step", step);
    ev_str(&e, "file", r->file);
    ev_int(&e, "stream", r->s.number);
    const char *names[] = {"t_connect0", "t_connect1", "t_send0", "t_send1", "t_end"};
    const int64_t times[] = {t->connect0, t->connect1, t->send0, t->send1, t->end};
    for (int i = 0; i < 5; i++) times[i] ? ev_int(&e, names[i], times[i]) : ev_null(&e, names[i]);
    ev_int(&e, "bytes", t->bytes);
    status ? ev_int(&e, "status", status) : ev_null(&e, "status");
    ev_str(&e, "error", error);
    ev_put(&e);
}

const char *http_play(struct request *r, int port, int64_t deadline_ms, int64_t max, struct buffer *buf, int step) {
    struct times t = {.connect0 = boot_ns()};
    struct answer a = {0};
    int fd = -1;
    int64_t deadline = t.connect0 + deadline_ms * NS_MS;
    char *chunk = xrealloc(NULL, RAW_MAX);
    r->s.buf = buf;
    const char *why = open_to(port, deadline, &fd);
    if (!why) {
        t.connect1 = t.send0 = boot_ns();
        why = send_to(fd, r->bytes, r->n, deadline);
    }
    if (!why) {
        t.send1 = boot_ns();
        why = receive(fd, &r->s, &a, &t, deadline, max, chunk);
    } else if (t.connect1 && strcmp(why, "reset") == 0) {
        receive(fd, &r->s, &a, &t, deadline, max, chunk);   // it refused what it had not read yet, and may have said why
    }
    t.end = boot_ns();
    if (fd >= 0) close(fd);
    stream_flush(&r->s);
    free(chunk);
    r->status = a.status;
    say_request(r, &t, step, a.status, why);
    stream_end(&r->s);
    r->s.buf = NULL;
    return why;
}

void http_skip(struct request *r, int step, const char *why) {
    say_request(r, &(struct times){0}, step, 0, why);
    stream_end(&r->s);
}

int http_get_status(int port, const char *path, int64_t deadline) {
    struct sb req = {0};
    struct answer a = {0};
    char chunk[4096];
    int fd = -1;
    int64_t soon = boot_ns() + NS_S;
    if (soon < deadline) deadline = soon;
    sb_text(&req, "GET ");
    sb_text(&req, path);
    sb_text(&req, " HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
    const char *why = open_to(port, deadline, &fd);
    if (!why) why = send_to(fd, req.p, req.n, deadline);
    // Read to the end, within reason: a server should not see its health check hang up.
    for (int turns = 0; !why && turns < 64; turns++) {
        why = wait_io(fd, POLLIN, deadline);
        ssize_t k = why ? 0 : recv(fd, chunk, sizeof chunk, 0);
        if (k <= 0 || answer_feed(&a, chunk, (size_t)k)) break;
    }
    if (fd >= 0) close(fd);
    sb_free(&req);
    return a.status;
}
