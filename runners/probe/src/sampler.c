// File channels: one thread reads open descriptors at absolute deadlines and keeps what it read, undigested.
#include "probe.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ROWS 128
#define ROW_RAW 8192
#define WHOLE 2048   // a text shorter than this was read whole: kernel files fill a page before they stop

struct source { struct stream s; int fd; bool pipe; int64_t period, next; const char *process; };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;   // sources, their streams, scratch
static struct source *sources[STREAMS_MAX];
static int n_sources;
static char scratch[RAW_MAX + 1];
static const struct job *the_job;
static pthread_t thread;
static bool running;
static int64_t base, flushed;
// Where the thread sleeps to. The signal handler clears it, so a wake between reading and sleeping is not lost.
static struct timespec sleep_until;
static clockid_t sleep_clock = CLOCK_BOOTTIME;

static void on_wake(int sig) {
    (void)sig;
    *(volatile time_t *)&sleep_until.tv_sec = 0;
    *(volatile long *)&sleep_until.tv_nsec = 0;
}

static ssize_t read_at(struct source *f, size_t at) {
    ssize_t k;
    do k = f->pipe ? read(f->fd, scratch + at, RAW_MAX + 1 - at) : pread(f->fd, scratch + at, RAW_MAX + 1 - at, (off_t)at);
    while (k < 0 && errno == EINTR);
    return k;
}

static void read_one(struct source *f, int64_t *t0, int64_t *t1) {
    size_t n = 0;
    int err = 0;
    *t0 = boot_ns();
    for (;;) {
        ssize_t k = read_at(f, n);
        if (k < 0 && errno == ESPIPE && !f->pipe) {
            f->pipe = true;
            continue;
        }
        if (k < 0 && n == 0) err = errno;
        if (k <= 0) break;
        n += (size_t)k;
        if (n < WHOLE || n > RAW_MAX || f->pipe) break;
    }
    *t1 = boot_ns();
    if (n > RAW_MAX) {
        n = RAW_MAX;
        err = E2BIG;
    }
    stream_put(&f->s, *t0, *t1, err, scratch, n);
}

static void read_due(int64_t now) {
    for (int i = 0; i < n_sources; i++) {
        struct source *f = sources[i];
        if (!f->period || f->next > now) continue;
        int64_t t0, t1;
        read_one(f, &t0, &t1);
        stream_deadline(&f->s, &f->next, f->period, t0, t1);
        now = t1;
    }
}

static void flush_all(int64_t now) {
    for (int i = 0; i < n_sources; i++) stream_flush(&sources[i]->s);
    flushed = now;
}

static void sleep_now(void) {
    int err = clock_nanosleep(sleep_clock, TIMER_ABSTIME, &sleep_until, NULL);
    if (err == 0 || err == EINTR) return;
    // A kernel that cannot sleep on the boot clock: the other one, and a little shorter for what lies between.
    sleep_clock = CLOCK_MONOTONIC;
}

static void *sampler_main(void *arg) {
    pthread_mutex_lock(&lock);
    while (running) {
        int64_t now = boot_ns();
        read_due(now);
        now = boot_ns();
        if (now - flushed >= NS_S) flush_all(now);
        int64_t next = flushed + NS_S;
        for (int i = 0; i < n_sources; i++)
            if (sources[i]->period && sources[i]->next < next) next = sources[i]->next;
        if (sleep_clock == CLOCK_MONOTONIC) next += clock_ns(CLOCK_MONOTONIC) - boot_ns();
        sleep_until = to_timespec(next);
        pthread_mutex_unlock(&lock);
        sleep_now();
        pthread_mutex_lock(&lock);
    }
    pthread_mutex_unlock(&lock);
    return arg;
}

void sampler_start(const struct job *job) {
    struct sigaction act = {.sa_handler = on_wake};
    sigaction(SIGUSR1, &act, NULL);
    the_job = job;
    base = flushed = boot_ns();
    running = true;
    sampler_open(NULL);
    pthread_create(&thread, NULL, sampler_main, NULL);
}

static void wake(void) {
    if (thread) pthread_kill(thread, SIGUSR1);
}

struct opening { const struct channel *c; const char *process; };

// With the lock held: opens one path as a stream of its own, and reads it once.
static int open_one(const char *path, void *arg) {
    const struct opening *o = arg;
    struct source *f = memset(xrealloc(NULL, sizeof *f), 0, sizeof *f);
    f->fd = n_sources < STREAMS_MAX ? open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK) : -1;
    int err = f->fd >= 0 ? 0 : n_sources < STREAMS_MAX ? errno : E2BIG;
    stream_open(&f->s, err ? NULL : buffer_new(ROWS, ROW_RAW), o->c->name, "file", path, err);
    if (err) {
        stream_end(&f->s);
        free(f);
        return 0;
    }
    f->period = o->c->period;
    f->process = o->process;
    int64_t t0, t1;
    read_one(f, &t0, &t1);
    if (f->period) {
        f->next = base + o->c->offset;
        if (f->next <= t1) f->next += ((t1 - f->next) / f->period + 1) * f->period;
    }
    sources[n_sources++] = f;
    return 0;
}

// Names are looked up before the lock is taken: the pump holds its own lock when it closes what we open.
void sampler_open(const char *process) {
    for (int i = 0; i < the_job->n_channels; i++) {
        const struct channel *c = &the_job->channels[i];
        if (c->kind != CH_FILE || (process ? !word_names(c->path, "pid", process) : !word_plain(c->path))) continue;
        struct sb why = {0};
        char *pattern = word_pattern(c->path, &why);
        struct opening o = {c, process};
        pthread_mutex_lock(&lock);
        // A path with no match is opened as it is written: the errno says why there is none.
        if (pattern && glob_each(pattern, open_one, &o) == 0) open_one(pattern, &o);
        pthread_mutex_unlock(&lock);
        free(pattern);
        sb_free(&why);
    }
    struct proc *p = process ? proc_find(process) : NULL;
    if (p && !p->running) sampler_close(process);   // it ended while its files were being opened
    wake();
}

static void close_at(int i) {
    struct source *f = sources[i];
    sources[i] = sources[--n_sources];
    stream_end(&f->s);
    buffer_free(f->s.buf);
    close(f->fd);
    free(f);
}

void sampler_close(const char *process) {
    pthread_mutex_lock(&lock);
    for (int i = n_sources - 1; i >= 0; i--)
        if (sources[i]->process && strcmp(sources[i]->process, process) == 0) close_at(i);
    pthread_mutex_unlock(&lock);
}

void sampler_transition(void) {
    pthread_mutex_lock(&lock);
    int64_t t0, t1;
    for (int i = 0; i < n_sources; i++) read_one(sources[i], &t0, &t1);
    flush_all(boot_ns());
    pthread_mutex_unlock(&lock);
}

void sampler_stop(void) {
    pthread_mutex_lock(&lock);
    running = false;
    pthread_mutex_unlock(&lock);
    wake();
    pthread_join(thread, NULL);
    while (n_sources) close_at(n_sources - 1);
}
