// The pump: one thread that reads what processes print, line by line, and reaps them when they end.
#include "probe.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define PIPES_MAX 256
#define POLLED_MAX 1024

struct pipe_in {
    struct stream *s;
    int fd;
    bool bounded, cut;          // bounded: log_bytes holds; cut: the rest of this line is dropped
    int64_t kept, t_first, t_last;
    size_t n, tail_n;           // tail_n: all that ever went to the ring
    char *tail, line[LINE_BYTES];
};

static pthread_mutex_t lock;   // recursive: pipes, procs, polls and ports
static struct pipe_in *pipes[PIPES_MAX];
static int n_pipes, wake_fd = -1;
static pthread_t thread;
static bool running;
static int64_t log_bytes, flushed;

void pump_lock(void) { pthread_mutex_lock(&lock); }
void pump_unlock(void) { pthread_mutex_unlock(&lock); }

// Async-signal-safe: also the handler of SIGCHLD.
void pump_wake(void) {
    int saved = errno;
    uint64_t one = 1;
    if (write(wake_fd, &one, sizeof one) < 0) errno = saved;   // full: it is readable already
    errno = saved;
}

static void on_child(int sig) {
    (void)sig;
    pump_wake();
}

static void to_tail(struct pipe_in *p, const char *data, size_t n) {
    if (!p->tail) p->tail = xrealloc(NULL, TAIL_BYTES);
    for (size_t i = 0; i < n; i++) p->tail[p->tail_n++ % TAIL_BYTES] = data[i];
}

static void deliver(struct pipe_in *p) {
    int64_t bytes = (int64_t)p->n + 1;
    if (p->tail || (p->bounded && p->kept + bytes > log_bytes)) {
        to_tail(p, p->line, p->n);
        to_tail(p, "\n", 1);
    } else {
        stream_put(p->s, p->t_first, p->t_last, p->cut ? E2BIG : 0, p->line, p->n);
        p->kept += bytes;
    }
    p->n = 0;
    p->cut = false;
}

// Splits what was read into lines; a line is stamped by its first and its last byte.
static void take(struct pipe_in *p, const char *data, size_t n, int64_t now) {
    while (n) {
        const char *end = memchr(data, '\n', n);
        size_t k = end ? (size_t)(end - data) : n, room = LINE_BYTES - p->n, keep = k < room ? k : room;
        if (p->n == 0 && !p->cut) p->t_first = now;
        p->t_last = now;
        memcpy(p->line + p->n, data, keep);
        p->n += keep;
        p->s->dropped += k - keep;
        if (k > keep) p->cut = true;
        if (end) deliver(p);
        data += k + (end != NULL);
        n -= k + (end != NULL);
    }
}

// The kept end of a stream that ran past its bound, line by line; the first may have lost its head.
static void put_tail(struct pipe_in *p) {
    size_t have = p->tail_n < TAIL_BYTES ? p->tail_n : TAIL_BYTES, from = p->tail_n - have;
    p->s->dropped += from;
    int err = from ? E2BIG : 0;
    for (size_t i = 0; i < have; i++) {
        char c = p->tail[(from + i) % TAIL_BYTES];
        if (c != '\n' && p->n < LINE_BYTES) p->line[p->n++] = c;
        if (c != '\n') continue;
        stream_put(p->s, p->t_last, p->t_last, err, p->line, p->n);
        p->n = 0;
        err = 0;
    }
    free(p->tail);
    p->tail = NULL;
}

static void close_pipe(int i) {
    struct pipe_in *p = pipes[i];
    pipes[i] = pipes[--n_pipes];
    if (p->n || p->cut) deliver(p);   // a last line without its newline
    if (p->tail) put_tail(p);
    stream_end(p->s);
    buffer_free(p->s->buf);
    p->s->buf = NULL;
    close(p->fd);
    free(p);
}

// At most a few chunks a turn, so that one loud process does not starve the others. True at its end.
static bool read_pipe(struct pipe_in *p, int chunks) {
    static char chunk[65536];
    while (chunks--) {
        ssize_t k = read(p->fd, chunk, sizeof chunk);
        if (k < 0 && errno == EINTR) continue;
        if (k < 0) return errno != EAGAIN;
        if (k == 0) return true;
        take(p, chunk, (size_t)k, boot_ns());
    }
    return false;
}

// With the lock held. The stream outlives the pipe: the process remembers its number.
void pump_add(int fd, const char *channel, const char *kind, bool bounded, struct stream **out) {
    struct pipe_in *p = memset(xrealloc(NULL, sizeof *p), 0, sizeof *p);
    *out = p->s = xrealloc(NULL, sizeof *p->s);
    p->fd = fd;
    p->bounded = bounded;
    fcntl(fd, F_SETFL, O_NONBLOCK);
    bool room = n_pipes < PIPES_MAX;
    stream_open(p->s, room ? buffer_new(256, 32768) : NULL, channel, kind, "", room ? 0 : E2BIG);
    if (room) {
        pipes[n_pipes++] = p;
        return;
    }
    stream_end(p->s);
    close(fd);
    free(p);
}

static void flush_all(int64_t now) {
    for (int i = 0; i < n_pipes; i++) stream_flush(pipes[i]->s);
    flushed = now;
}

static void serve(const struct pollfd *fds, int n) {
    uint64_t count;
    while (read(wake_fd, &count, sizeof count) < 0 && errno == EINTR) {}
    for (int i = n_pipes - 1; i >= 0; i--) {
        bool ready = false;
        for (int k = 1; k < n && !ready; k++) ready = fds[k].fd == pipes[i]->fd && fds[k].revents;
        if (ready && read_pipe(pipes[i], 4)) close_pipe(i);
    }
    polls_ready();
    proc_reap();
}

static void *pump_main(void *arg) {
    static struct pollfd fds[POLLED_MAX];
    pump_lock();
    while (running) {
        int64_t now = boot_ns(), next = polls_run(now);
        if (now - flushed >= NS_S) flush_all(now);
        if (n_pipes && flushed + NS_S < next) next = flushed + NS_S;
        if (procs_watch() && now + NS_S < next) next = now + NS_S;
        int n = 1, extra[POLLED_MAX - PIPES_MAX - 1];
        fds[0] = (struct pollfd){wake_fd, POLLIN, 0};
        for (int i = 0; i < n_pipes; i++) fds[n++] = (struct pollfd){pipes[i]->fd, POLLIN, 0};
        int k = polls_fds(extra, POLLED_MAX - PIPES_MAX - 1);
        for (int i = 0; i < k; i++) fds[n++] = (struct pollfd){extra[i], POLLIN, 0};
        pump_unlock();
        struct timespec wait = wait_slice(next - boot_ns());
        ppoll(fds, (nfds_t)n, next == INT64_MAX ? NULL : &wait, NULL);
        pump_lock();
        serve(fds, n);
    }
    pump_unlock();
    return arg;
}

static void pump_init(void) {
    pthread_mutexattr_t attr;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&lock, &attr);
}

void pump_start(const struct job *job) {
    pump_init();
    log_bytes = job->log_bytes;
    wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    flushed = boot_ns();
    running = true;
    struct sigaction act = {.sa_handler = on_child, .sa_flags = SA_RESTART | SA_NOCLDSTOP};
    sigaction(SIGCHLD, &act, NULL);
    polls_start(job, flushed);
    pthread_create(&thread, NULL, pump_main, NULL);
}

void pump_stop(void) {
    pump_lock();
    running = false;
    pump_unlock();
    pump_wake();
    pthread_join(thread, NULL);
    pump_lock();
    while (n_pipes) {   // what is left in the pipes, then their end, whoever still holds them
        read_pipe(pipes[n_pipes - 1], 64);
        close_pipe(n_pipes - 1);
    }
    polls_stop();
    pump_unlock();
}
