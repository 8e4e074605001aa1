// Processes: started in groups of their own, reaped in one place, never left behind.
#include "probe.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static struct proc *procs;          // under pump_lock; never freed while the job lives
static char run_mark[128];
static struct rlimit files_limit;

void proc_init(const char *run_id) {
    snprintf(run_mark, sizeof run_mark, "MELTBENCH_RUN=%s", run_id);
    if (files_limit.rlim_max) return;
    getrlimit(RLIMIT_NOFILE, &files_limit);
    struct rlimit more = {files_limit.rlim_max, files_limit.rlim_max};
    setrlimit(RLIMIT_NOFILE, &more);
}

static bool same_key(const char *a, const char *b) {
    size_t n = strcspn(a, "=");
    return strncmp(a, b, n + 1) == 0;
}

// The probe's environment, the settings of the step over it, and the mark that finds leftovers.
static char **make_env(char **set) {
    int n = 0, k = 0;
    while (environ[n]) n++;
    while (set && set[k]) k++;
    char **env = xrealloc(NULL, (size_t)(n + k + 2) * sizeof *env);
    int m = 0;
    for (int i = 0; i < n; i++) {
        bool replaced = same_key(run_mark, environ[i]);
        for (int j = 0; j < k; j++) replaced |= same_key(set[j], environ[i]);
        if (!replaced) env[m++] = environ[i];
    }
    for (int j = 0; j < k; j++) env[m++] = set[j];
    env[m++] = run_mark;
    env[m] = NULL;
    return env;
}

// In the child, which shares memory with us until exec: system calls only.
static void child(char **argv, char **env, struct caps *caps, volatile int *failed, int in, int out, int err, pid_t parent) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(127);
    setpgid(0, 0);
    struct sigaction dfl = {.sa_handler = SIG_DFL};
    for (int sig = 1; sig < 65; sig++)
        if (sig != SIGKILL && sig != SIGSTOP && (sig < 32 || sig > 34)) sigaction(sig, &dfl, NULL);
    dup2(in, 0);
    dup2(out, 1);
    dup2(err, 2);
    setrlimit(RLIMIT_NOFILE, &files_limit);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    *failed = caps ? caps_apply(caps) : 0;
    if (*failed) return;
    if (caps) caps->failed = NULL;
    execvpe(argv[0], argv, env);
    *failed = errno;
}

__attribute__((noinline)) int proc_exec(char **argv, char **set, struct caps *caps, int in, int out, int err, pid_t *pid) {
    char **env = make_env(set);
    volatile int failed = 0;
    pid_t parent = getpid();
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);   // no handler of ours may run in the shared memory
    pid_t p = vfork();
    if (p == 0) {
        child(argv, env, caps, &failed, in, out, err, parent);
        _exit(127);
    }
    int fork_failed = p < 0 ? errno : 0;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    free(env);
    if (fork_failed) return fork_failed;
    if (failed) waitpid(p, NULL, 0);
    *pid = p;
    return failed;
}

struct proc *proc_find(const char *name) {
    pump_lock();
    struct proc *p = procs;
    while (p && (p->owner == OWN_POLL || strcmp(p->name, name) != 0)) p = p->next;
    pump_unlock();
    return p;
}

static void say_spawn(const struct proc *p) {
    struct ev e;
    ev_new(&e, "spawn");
    e.t = p->t_spawn;
    ev_str(&e, "proc", p->name);
    ev_int(&e, "pid", p->pid);
    ev_int(&e, "pgid", p->pid);
    ev_int(&e, "start_ticks", (int64_t)p->start_ticks);
    ev_int(&e, "stdout", p->out->number);
    ev_int(&e, "stderr", p->err->number);
    struct sb cpus = {0};
    if (p->caps && p->caps->pinned) cpus_text(&p->caps->got, &cpus);
    cpus.n ? ev_str(&e, "cpus", cpus.p) : ev_null(&e, "cpus");
    bool capped = p->caps && p->caps->by;
    capped ? ev_str(&e, "memory_by", p->caps->by) : ev_null(&e, "memory_by");
    capped ? ev_int(&e, "memory_bytes", p->caps->memory) : ev_null(&e, "memory_bytes");
    sb_free(&cpus);
    ev_put(&e);
}

struct proc *proc_start(const char *name, enum owner owner, char **argv, char **env, struct caps *caps, int *error) {
    int out[2], err[2], null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    *error = null < 0 ? errno : 0;
    if (null < 0) return NULL;
    bool first = pipe2(out, O_CLOEXEC) == 0;
    if (!first || pipe2(err, O_CLOEXEC) != 0) {   // descriptors ran out: the job ends with this
        *error = errno;
        if (first) close(out[0]), close(out[1]);
        close(null);
        return NULL;
    }
    struct proc *p = memset(xrealloc(NULL, sizeof *p), 0, sizeof *p);
    p->name = xstrdup(name);
    p->owner = owner;
    p->caps = caps;
    if (caps) caps_prepare(caps, strchr(run_mark, '=') + 1);
    p->oom_before = caps_oom_kills(caps);
    pump_lock();   // held until the process is in the list, so that its end cannot be missed
    p->t_spawn = boot_ns();
    *error = proc_exec(argv, env, caps, null, out[1], err[1], &p->pid);
    struct rusage own;   // until exec the child has our memory, and the kernel counts our peak as its own
    p->maxrss_floor = getrusage(RUSAGE_SELF, &own) == 0 ? own.ru_maxrss * 1024LL : 0;
    if (!*error) {
        struct pstat st = {0};
        p->start_ticks = pstat_read(p->pid, &st) ? st.start_ticks : 0;
        p->running = true;
        pump_add(out[0], name, owner == OWN_LINES ? "lines" : "out", owner != OWN_LINES, &p->out);
        pump_add(err[0], name, "err", true, &p->err);
        say_spawn(p);
        for (struct proc *old = procs; old; old = old->next) old->gone |= old->pid == p->pid;   // the number is this one's now
        p->next = procs;
        procs = p;
    } else {
        close(out[0]);
        close(err[0]);
    }
    pump_unlock();
    close(out[1]);
    close(err[1]);
    close(null);
    if (caps) caps_started(caps);
    pump_wake();
    if (!*error) return p;
    free(p->name);
    free(p);
    return NULL;
}

static void say_exit(struct proc *p, const struct rusage *u) {
    struct ev e;
    ev_new(&e, "exit");
    e.t = p->t_exit;
    ev_str(&e, "proc", p->name);
    ev_int(&e, "pid", p->pid);
    bool killed = WIFSIGNALED(p->status);
    killed ? ev_null(&e, "code") : ev_int(&e, "code", WEXITSTATUS(p->status));
    killed ? ev_int(&e, "signal", WTERMSIG(p->status)) : ev_null(&e, "signal");
    ev_int(&e, "utime_ns", u->ru_utime.tv_sec * NS_S + u->ru_utime.tv_usec * 1000LL);
    ev_int(&e, "stime_ns", u->ru_stime.tv_sec * NS_S + u->ru_stime.tv_usec * 1000LL);
    ev_int(&e, "maxrss_bytes", u->ru_maxrss * 1024LL);
    ev_int(&e, "maxrss_floor_bytes", p->maxrss_floor);
    ev_bool(&e, "by_us", p->by_us);
    int64_t now = caps_oom_kills(p->caps);
    if (killed && WTERMSIG(p->status) == SIGKILL && !p->by_us && (now < 0 || p->oom_before < 0)) ev_null(&e, "oom");
    else ev_bool(&e, "oom", killed && WTERMSIG(p->status) == SIGKILL && !p->by_us && now > p->oom_before);
    ev_put(&e);
}

// With pump_lock held, in the pump's thread: every child that ended, ours or come to us.
void proc_reap(void) {
    int status;
    struct rusage u;
    pid_t pid;
    while ((pid = wait4(-1, &status, WNOHANG, &u)) > 0) {
        int64_t now = boot_ns();
        struct proc *p = procs;
        while (p && !(p->pid == pid && p->running)) p = p->next;
        if (!p) {
            polls_reaped(pid, status);
            continue;
        }
        p->status = status;
        p->t_exit = now;
        say_exit(p, &u);
        p->gone = kill(-pid, 0) != 0;
        p->running = false;   // before its files are closed: see sampler_open
        sampler_close(p->name);
        main_wake();
    }
}

bool proc_ended(void *p) { return !((struct proc *)p)->running; }

void proc_reason(const struct proc *p, struct sb *why) {
    sb_text(why, "process ");
    sb_text(why, p->name);
    sb_text(why, WIFSIGNALED(p->status) ? " died of signal " : " ended with ");
    sb_int(why, WIFSIGNALED(p->status) ? WTERMSIG(p->status) : WEXITSTATUS(p->status));
}

static bool group_gone(struct proc *p) {
    pump_lock();
    if (!p->gone && !p->running) p->gone = kill(-p->pid, 0) != 0;
    bool gone = p->gone;
    pump_unlock();
    return gone;
}

// The number of a group is free once its last member ends, and the kernel tells nobody: looked at again and again.
bool procs_watch(void) {
    bool watching = false;
    for (struct proc *p = procs; p; p = p->next) watching |= !p->running && !group_gone(p);
    return watching;
}

// A group without its leader is signalled only while someone of ours is in it.
static void kill_group(struct proc *p, int sig) {
    pump_lock();
    if (!group_gone(p)) {
        if (p->running || group_is_ours(p->pid, run_mark)) kill(-p->pid, sig);
        else p->gone = true;
    }
    pump_unlock();
}

// Waits for the group to end, whether a stop is wanted or not. The kernel tells of the leader only.
static void wait_group(struct proc *p, int64_t ms) {
    int64_t until = boot_ns() + ms * NS_MS;
    while (!group_gone(p) && boot_ns() < until) usleep(5000);
}

// The same, but a stop cuts a long grace short.
static void wait_grace(struct proc *p, int64_t ms) {
    int64_t now = boot_ns(), until = now + ms * NS_MS, least = END_GRACE_MS * NS_MS;
    for (; !group_gone(p) && now < until; now = boot_ns()) {
        if (until - now > least && stop_due(now)) until = now + least;
        usleep(5000);
    }
}

void proc_stop(struct proc *p, int64_t grace_ms) {
    if (group_gone(p)) return;
    struct pstat kin[256];
    int n = descendants(p->pid, 0, kin, 256);
    pump_lock();
    if (p->running) p->by_us = true;
    pump_unlock();
    kill_group(p, SIGTERM);
    wait_grace(p, grace_ms);
    kill_group(p, SIGKILL);
    // What left the group is told apart from a later process of the same number by its start.
    for (int i = 0; i < n; i++)
        if (is_same(kin[i].pid, kin[i].start_ticks)) kill(kin[i].pid, SIGKILL);
    wait_group(p, 5000);
}

void proc_stop_all(int64_t grace_ms) {
    pump_lock();
    struct proc *first = procs;
    pump_unlock();
    for (struct proc *p = first; p; p = p->next) {
        if (group_gone(p)) continue;
        pump_lock();
        if (p->running) p->by_us = true;
        pump_unlock();
        kill_group(p, SIGTERM);
    }
    for (struct proc *p = first; p; p = p->next) {
        wait_group(p, grace_ms);
        grace_ms = grace_ms > 100 ? 100 : grace_ms;   // the first waited for all
        kill_group(p, SIGKILL);
        wait_group(p, 5000);
    }
}
