// The worker: runs the job, stops when told, and leaves nothing behind.
#include "probe.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <unistd.h>

static atomic_int stop_why;
static int stopping_fd = -1, wake_fd = -1;
static int64_t job_until;

static void poke(int fd) {
    int saved = errno;
    uint64_t one = 1;
    if (write(fd, &one, sizeof one) < 0) errno = saved;   // full: it is readable already
    errno = saved;
}

void stop_request(enum stop why) {
    int none = STOP_NONE;
    atomic_compare_exchange_strong(&stop_why, &none, why);
    poke(stopping_fd);
    poke(wake_fd);
}

enum stop stop_wanted(void) { return (enum stop)atomic_load(&stop_why); }
bool stop_due(int64_t now) {
    if (now >= job_until) stop_request(STOP_DURATION);
    return stop_wanted() != STOP_NONE;
}

int stop_fd(void) { return stopping_fd; }
void main_wake(void) { poke(wake_fd); }

enum waited main_wait(int64_t until, bool (*done)(void *), void *arg) {
    for (;;) {
        uint64_t count;
        while (read(wake_fd, &count, sizeof count) > 0) {}
        if (done && done(arg)) return WAIT_DONE;
        int64_t now = boot_ns();
        if (stop_due(now)) return WAIT_STOP;
        if (now >= until) return WAIT_LATE;
        struct pollfd fd = {wake_fd, POLLIN, 0};
        struct timespec wait = wait_slice((until < job_until ? until : job_until) - now);
        ppoll(&fd, 1, &wait, NULL);
    }
}

static const char *stop_name(enum stop why) {
    static const char *const names[] = {"", "signal", "stop", "duration", "full", "guard", "steal"};
    return names[why];
}

static void on_stop(int sig) {
    stop_request(sig == STEAL_SIGNAL ? STOP_STEAL : sig == SIGUSR2 ? STOP_COMMAND : sig == SIGALRM ? STOP_GUARD : STOP_SIGNAL);
}

static void install_handlers(pid_t guard) {
    struct sigaction act = {.sa_handler = on_stop, .sa_flags = SA_RESTART};
    const int signals[] = {SIGTERM, SIGINT, SIGHUP, STEAL_SIGNAL, SIGUSR2, SIGALRM};
    sigset_t none;
    for (int i = 0; i < 6; i++) sigaction(signals[i], &act, NULL);
    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    // A guard that dies tells us by a signal that nobody else sends.
    prctl(PR_SET_PDEATHSIG, SIGALRM);
    if (getppid() != guard) stop_request(STOP_GUARD);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
}

static void say_begin(const struct job *job, pid_t guard) {
    char id[64];
    struct ev e;
    boot_id(id);
    ev_new(&e, "begin");
    ev_str(&e, "run", job->run_id);
    ev_str(&e, "probe", PROBE_VERSION "+" PROBE_SOURCE);
    ev_str(&e, "target", PROBE_TARGET);
    ev_int(&e, "pid", getpid());
    ev_int(&e, "guard_pid", guard);
    ev_str(&e, "boot_id", id);
    int64_t time_ns = time_namespace();
    if (time_ns < 0) ev_null(&e, "time_namespace");
    else ev_int(&e, "time_namespace", time_ns);
    ev_clocks(&e);
    ev_int(&e, "uid", (int64_t)geteuid());
    ev_put(&e);
}

static bool start_helpers(const struct job *job, struct sb *why) {
    for (int i = 0; i < job->n_channels; i++) {
        struct channel *c = &job->channels[i];
        if (c->kind != CH_LINES) continue;
        char **argv = words_expand(c->argv, why);
        int error = 0;
        if (argv && !proc_start(c->name, OWN_LINES, argv, NULL, NULL, &error)) {
            // A helper that cannot start is a source that is missing, not a failed run.
            struct stream s;
            stream_open(&s, NULL, c->name, "lines", c->argv[0], error);
            stream_end(&s);
        }
        words_free(argv);
    }
    return true;
}

static void say_end(const char *result, const char *reason, const struct job *job, bool finished) {
    struct ev e;
    ev_new(&e, "end");
    ev_str(&e, "result", result);
    ev_str(&e, "reason", reason);
    finished || !job->n_steps ? ev_null(&e, "step") : ev_int(&e, "step", step_now());
    ev_int(&e, "visits", lease_visits(RUN_DIR));
    ev_clocks(&e);
    ev_put(&e);
}

static void say_stopping(void) {
    struct ev e;
    ev_new(&e, "stopping");
    ev_str(&e, "by", stop_name(stop_wanted()));
    ev_put(&e);
}

static void sweep(const struct job *job) {
    kill_descendants(getpid(), 0);
    kill_marked(job->run_id, getppid());
}

// Swept after whatever may still have started a process: the steps, the polls, the undo list.
static void leave_nothing(const struct job *job) {
    polls_end();
    sampler_transition();
    proc_stop_all(END_GRACE_MS);
    sweep(job);
    sampler_stop();
    pump_stop();
    sweep(job);
    undo_restore(RUN_DIR);
    sweep(job);
}

int worker_main(struct job *job, pid_t guard) {
    struct sb why = {0};
    char path[PATH_BYTES];
    stopping_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (stopping_fd < 0 || wake_fd < 0) return 1;
    job_until = boot_ns() + job->duration_ms * NS_MS;
    proc_init(job->run_id);
    install_handlers(guard);
    if (journal_start_writer() != 0) return 1;
    say_begin(job, guard);
    journal_sync();   // with the boot's id, by which a reboot is known whatever becomes of the state
    pump_start(job);
    sampler_start(job);
    bool ok = start_helpers(job, &why) && steps_run(job, &why);
    if (stop_wanted()) say_stopping();
    leave_nothing(job);
    const char *result = stop_wanted() ? "stopped" : ok ? "done" : "failed";
    const char *reason = stop_wanted() == STOP_STEAL ? "stolen" : stop_wanted() ? stop_name(stop_wanted()) : ok ? "" : why.n ? why.p : "failed";
    say_end(result, reason, job, ok);
    if (journal_close() != 0) return 1;   // the guard tries again
    snprintf(path, sizeof path, "%s/reserve", RUN_DIR);
    unlink(path);
    lease_job_over(strrchr(RUN_DIR, '/') + 1);
    state_write(RUN_DIR, &(struct state){"ended", "", "", result, step_now(), job->n_steps, 0, 0, getpid(), guard, 0, 0, reason});
    return 0;
}
