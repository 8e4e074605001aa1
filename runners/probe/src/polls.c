// Poll channels: a program is run each period; what it prints is one reading.
#include "probe.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

// err of a reading: 0, an errno, 0x100 + exit status, 0x200 + signal.
struct poll_src {
    const struct channel *c;
    struct stream s;
    pid_t pid;                 // 0: not running
    int fd, status;
    bool eof, late, dropped;
    int64_t next, t0, until;
    int64_t kicked;            // when a transition asked for a reading that begins after it; 0: none asked
    size_t n;
    char *out;
};

static struct poll_src *polls;
static int n_polls;
static bool ending;

void polls_start(const struct job *job, int64_t base) {
    polls = xrealloc(NULL, (size_t)job->n_channels * sizeof *polls);
    for (int i = 0; i < job->n_channels; i++) {
        const struct channel *c = &job->channels[i];
        if (c->kind != CH_POLL) continue;
        struct poll_src *p = &polls[n_polls++];
        *p = (struct poll_src){.c = c, .fd = -1, .next = c->period ? base : INT64_MAX, .out = xrealloc(NULL, RAW_MAX)};
        struct sb line = {0};
        for (char **w = c->argv; *w; w++) {
            if (w != c->argv) sb_text(&line, " ");
            sb_text(&line, *w);
        }
        stream_open(&p->s, buffer_new(64, RAW_MAX), c->name, "poll", line.p, 0);
        sb_free(&line);
    }
}

static void kick_done(struct poll_src *p) {
    p->kicked = 0;
    main_wake();
}

static void finish(struct poll_src *p) {
    int64_t now = boot_ns();
    int err = p->late ? ETIMEDOUT : WIFSIGNALED(p->status) ? 0x200 + WTERMSIG(p->status) : WEXITSTATUS(p->status) ? 0x100 + WEXITSTATUS(p->status) : 0;
    if (!err && p->n > RAW_MAX) err = E2BIG;
    if (p->n > RAW_MAX) p->s.dropped += p->n - RAW_MAX;
    if (!p->dropped) stream_put(&p->s, p->t0, now, err, p->out, p->n > RAW_MAX ? RAW_MAX : p->n);
    stream_flush(&p->s);
    close(p->fd);
    p->fd = -1;
    p->pid = 0;
    if (p->t0 >= p->kicked) kick_done(p);   // one that was under way at the edge says nothing of what came after
}

static void start(struct poll_src *p, int64_t now) {
    struct sb why = {0};
    char **argv = words_expand(p->c->argv, &why);
    sb_free(&why);
    if (!argv) {   // names a process that does not run: nothing to read yet
        kick_done(p);
        return;
    }
    int out[2], null = open("/dev/null", O_RDWR | O_CLOEXEC), err = null < 0 || pipe2(out, O_CLOEXEC) != 0 ? errno : 0;
    p->t0 = now;
    p->n = 0;
    p->late = p->eof = false;
    if (!err) {
        err = proc_exec(argv, NULL, NULL, null, out[1], null, &p->pid);
        close(out[1]);
        if (err) close(out[0]);
    }
    if (null >= 0) close(null);
    words_free(argv);
    if (err) {
        p->pid = 0;
        stream_put(&p->s, now, boot_ns(), err, NULL, 0);
        stream_flush(&p->s);
        kick_done(p);
        return;
    }
    p->fd = out[0];
    fcntl(p->fd, F_SETFL, O_NONBLOCK);
    p->until = now + p->c->deadline_ms * NS_MS;
}

static void drain(struct poll_src *p) {
    char spill[4096];
    for (int turn = 0; turn < 32 && p->pid; turn++) {
        bool room = p->n < RAW_MAX;
        ssize_t k = room ? read(p->fd, p->out + p->n, RAW_MAX - p->n) : read(p->fd, spill, sizeof spill);
        if (k < 0 && errno == EINTR) continue;
        if (k == 0) p->eof = true;
        if (k <= 0) return;
        p->n += (size_t)k;
    }
}

// With pump_lock held, like all below.
int64_t polls_run(int64_t now) {
    int64_t soonest = INT64_MAX;
    for (int i = 0; i < n_polls && !ending; i++) {
        struct poll_src *p = &polls[i];
        if (p->pid && !p->late && now >= p->until) {
            p->late = true;
            kill(-p->pid, SIGKILL);
        }
        if (p->next <= now || (p->kicked && !p->pid)) {
            if (p->next <= now) stream_deadline(&p->s, &p->next, p->c->period, now, now);
            if (p->pid) p->s.overruns++;
            else start(p, now);
        }
        if (p->next < soonest) soonest = p->next;
        if (p->pid && !p->late && p->until < soonest) soonest = p->until;
    }
    return soonest;
}

int polls_fds(int *fds, int max) {
    int n = 0;
    for (int i = 0; i < n_polls && n < max; i++)
        if (polls[i].pid && !polls[i].eof) fds[n++] = polls[i].fd;
    return n;
}

void polls_ready(void) {
    for (int i = 0; i < n_polls; i++)
        if (polls[i].pid) drain(&polls[i]);
}

void polls_reaped(pid_t pid, int status) {
    for (int i = 0; i < n_polls; i++) {
        if (polls[i].pid != pid) continue;
        drain(&polls[i]);   // it has ended: what it wrote is in the pipe
        polls[i].status = status;
        finish(&polls[i]);
    }
}

static bool all_kicked(void *arg) {
    (void)arg;
    bool done = true;
    pump_lock();
    for (int i = 0; i < n_polls; i++) done &= !polls[i].kicked;
    pump_unlock();
    return done;
}

void polls_kick(bool wait) {
    if (!n_polls) return;
    pump_lock();
    int64_t now = boot_ns();
    for (int i = 0; i < n_polls; i++) polls[i].kicked = now;
    pump_unlock();
    pump_wake();
    if (wait) main_wait(INT64_MAX, all_kicked, NULL);
}

void polls_end(void) {
    pump_lock();
    ending = true;
    for (int i = 0; i < n_polls; i++) {
        if (!polls[i].pid) continue;
        polls[i].dropped = true;
        kill(-polls[i].pid, SIGKILL);
    }
    pump_unlock();
}

void polls_stop(void) {
    for (int i = 0; i < n_polls; i++) {
        if (polls[i].pid) {
            kill(-polls[i].pid, SIGKILL);
            waitpid(polls[i].pid, &polls[i].status, 0);
            drain(&polls[i]);
            finish(&polls[i]);
        }
        stream_end(&polls[i].s);
        buffer_free(polls[i].s.buf);
        free(polls[i].out);
    }
    n_polls = 0;
}
