// The step http: request files into memory, then N workers play them, once or in a circle; and the step ready.
#include "probe.h"

#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WORKERS_MAX 256
#define REQUESTS_MAX (256u << 20)   // bytes of all requests of a step

struct play {
    struct request *r;
    const char *name;
    int n, port, step;
    int64_t deadline_ms, max_bytes, pause_ms;
    const struct proc *server;
    struct until until;
    atomic_int next, done, failed, in_vain, workers;   // in_vain: since the last answer with status 200
};

static struct play P;   // one http step at a time

// A connection that broke may be the first sign of a server's end, which the kernel tells a moment later.
static void await_end(const struct play *p, const char *why) {
    bool broken = *why && strcmp(why, "timeout") != 0 && strcmp(why, "too_large") != 0;
    for (int i = 0; broken && p->server && p->server->running && i < 40; i++) usleep(5000);
}

// A circle in which nothing is answered any more would only fill the journal.
static bool is_over(struct play *p) { return stop_wanted() || (p->until.ms && p->in_vain >= p->n) || until_over(&p->until); }

static bool is_served(const struct play *p) { return !p->server || p->server->running; }

// Before each request that is still to be made. Looked up once a second: a server that died is not waited for, nor is a limit.
static void pause_before(struct play *p) {
    int64_t now = boot_ns(), end = now + p->pause_ms * NS_MS;
    for (; now < end && is_served(p) && (p->until.ms || p->next < p->n) && !is_over(p); now = boot_ns()) {
        struct pollfd stop = {stop_fd(), POLLIN, 0};
        struct timespec wait = wait_slice(end - now < NS_S ? end - now : NS_S);
        ppoll(&stop, 1, &wait, NULL);
    }
}

// The next request to be made, or NULL. In a circle it is a copy with a stream of its own: a run of hours makes
// thousands of few files, and none of them is kept.
static struct request *claim(struct play *p, struct request *copy) {
    if (is_over(p)) return NULL;
    int i = atomic_fetch_add(&p->next, 1);
    if (!p->until.ms) return i < p->n ? &p->r[i] : NULL;
    *copy = p->r[i % p->n];
    copy->index = i;
    stream_open(&copy->s, NULL, p->name, "http", copy->file, 0);
    return copy;
}

static void *play_main(void *arg) {
    struct play *p = arg;
    struct request copy, *r;
    struct buffer *buf = buffer_new(1024, RAW_MAX);
    while (pause_before(p), is_served(p) && (r = claim(p, &copy))) {
        const char *why = http_play(r, p->port, p->deadline_ms, p->max_bytes, buf, p->step);
        r->played = true;
        if (*why) atomic_fetch_add(&p->failed, 1);
        if (!*why && r->status == 200) p->in_vain = 0;
        else atomic_fetch_add(&p->in_vain, 1);
        await_end(p, why);
        atomic_fetch_add(&p->done, 1);
        main_wake();
    }
    buffer_free(buf);
    atomic_fetch_sub(&p->workers, 1);
    main_wake();
    return NULL;
}

static bool load(struct request *r, int index, const char *word, size_t *total, struct sb *why) {
    char path[4200];
    struct request q = {.index = index, .file = word};
    char *file = word_expand(word, why);
    if (!file) return false;
    snprintf(path, sizeof path, "%s%s%s", *file == '/' ? "" : RUN_DIR, *file == '/' ? "" : "/", file);
    size_t cap = 65536;
    ssize_t n;
    do {
        cap *= 4;
        q.bytes = xrealloc(q.bytes, cap);
        n = read_text(path, q.bytes, cap);
    } while (n + 1 >= (ssize_t)cap && cap < REQUESTS_MAX);
    free(file);
    if (n > 0) *total += (size_t)n;
    if (n < 0 || *total >= REQUESTS_MAX) {
        sb_text(why, "request ");
        sb_text(why, word);
        sb_text(why, ": ");
        sb_text(why, n < 0 ? strerror((int)-n) : "too large");
        free(q.bytes);
        return false;
    }
    q.n = (size_t)n;
    q.bytes = xrealloc(q.bytes, q.n);
    *r = q;
    return true;
}

// The process that was given this port, the newest if several.
static const struct proc *server_of(struct step *s, const char *port) {
    struct step *first = s - step_now();
    for (struct step *t = s - 1; t >= first; t--) {
        if (strcmp(t->op->word, "spawn") != 0) continue;
        for (int i = 0; i < t->n; i++)
            if (word_names(t->w[i], "port", port)) return proc_find(t->name);
    }
    return NULL;
}

struct look { struct play *p; int seen; };

static bool moved(void *arg) {
    struct look *k = arg;
    return k->p->workers == 0 || k->p->done != k->seen;
}

static void unload(struct play *p) {
    for (int i = 0; i < p->n; i++) free(p->r[i].bytes);
    free(p->r);
    *p = (struct play){0};
}

// Before the step: no request is read from the disk, and no stream of one that is made once opened, while the clock runs.
bool http_prepare(struct step *s, struct sb *why) {
    P = (struct play){.r = xrealloc(NULL, (size_t)s->n * sizeof *P.r), .name = s->name, .step = step_now()};
    size_t total = 0;
    for (int i = http_files(s); i < s->n; i++, P.n++) {
        if (!load(&P.r[P.n], P.n, s->w[i], &total, why)) {
            unload(&P);
            return false;
        }
    }
    for (int i = 0; i < http_count(s); i++) stream_open(&P.r[i].s, NULL, s->name, "http", P.r[i].file, 0);
    return true;
}

static void show_progress(const struct play *p, int of) {
    if (p->until.ms) run_elapsed((boot_ns() - p->until.start) / NS_MS, p->until.ms);
    run_progress(p->done, of);
}

static void run_workers(int concurrency, int of) {
    pthread_t threads[WORKERS_MAX];
    int n = of && concurrency > of ? of : concurrency, made = 0;
    P.workers = n;
    while (made < n && pthread_create(&threads[made], NULL, play_main, &P) == 0) made++;
    atomic_fetch_sub(&P.workers, n - made);
    for (struct look k = {&P, 0}; main_wait(INT64_MAX, moved, &k) == WAIT_DONE && P.workers; show_progress(&P, of)) k.seen = P.done;
    for (int i = 0; i < made; i++) pthread_join(threads[i], NULL);
}

int step_http(struct step *s, struct sb *why) {
    P.port = port_get(s->w[0]);
    P.deadline_ms = word_int(s->w[2]);
    P.max_bytes = word_int(s->w[3]);
    P.pause_ms = http_pause_ms(s);
    P.server = server_of(s, s->w[0]);
    int64_t concurrency = word_int(s->w[1]);
    until_start(&P.until, s);
    run_workers(concurrency < 1 ? 1 : concurrency > WORKERS_MAX ? WORKERS_MAX : (int)concurrency, http_count(s));
    int failed = P.failed;
    for (int i = 0; i < http_count(s); i++) {
        if (P.r[i].played) continue;
        http_skip(&P.r[i], P.step, stop_wanted() ? "stopped" : "process_ended");
        failed++;
    }
    bool dead = P.server && !P.server->running, none = failed == (P.until.ms ? P.done : P.n), vain = P.until.ms && P.in_vain >= P.n;
    if (dead) proc_reason(P.server, why);
    else if (P.until.ms && !P.done) sb_text(why, "a limit was reached before the first request");
    else if (vain && !none) sb_text(why, "no request of the last round was answered");
    else if (none || vain) sb_text(why, "all requests failed");
    bool bad = dead || none || vain;
    unload(&P);
    return bad;
}

int step_ready(struct step *s, struct sb *why) {
    struct proc *p = proc_find(s->name);
    int port = port_get(s->w[0]), polls = 0, status = 0;
    int64_t deadline = boot_ns() + word_int(s->w[2]) * NS_MS, now = boot_ns();
    char *path = word_expand(s->w[1], why);
    if (!p || !path) return 1;
    while (p->running && !stop_wanted() && (now = boot_ns()) < deadline) {
        polls++;
        status = http_get_status(port, path, deadline);
        now = boot_ns();
        // Asked less often the longer it takes: the load time stays good to a hundredth, the load undisturbed.
        int64_t pause = (now - p->t_spawn) / 100;
        pause = pause < 10 * NS_MS ? 10 * NS_MS : pause > 200 * NS_MS ? 200 * NS_MS : pause;
        if (status == 200 || main_wait(now + pause, proc_ended, p) != WAIT_LATE) break;
    }
    free(path);
    struct ev e;
    ev_new(&e, "ready");
    e.t = now;
    ev_str(&e, "proc", s->name);
    status ? ev_int(&e, "status", status) : ev_null(&e, "status");
    ev_int(&e, "polls", polls);
    status == 200 ? ev_int(&e, "load_ns", now - p->t_spawn) : ev_null(&e, "load_ns");
    ev_put(&e);
    if (status == 200) return 0;
    if (!p->running) proc_reason(p, why);
    else sb_text(why, "not ready in time");
    return 1;
}
