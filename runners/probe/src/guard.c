// The guard: starts the worker, waits for it, and does its duty should it die. Also: stop, recover.
#include "probe.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

char RUN_DIR[PATH_MAX], ROOT_DIR[PATH_MAX];

static int complain(int code, const char *what, const char *why) {
    dprintf(2, "meltprobe: %s: %s\n", what, why);
    return code;
}

bool resolve_dir(const char *dir) {
    if (!realpath(dir, RUN_DIR)) return false;
    strcpy(ROOT_DIR, RUN_DIR);
    char *slash = strrchr(ROOT_DIR, '/');
    slash[slash == ROOT_DIR] = 0;
    return true;
}

// -1 with errno EWOULDBLOCK while another job holds it.
int lock_root(const char *root) {
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s/lock", root);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0 && errno == EACCES) fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return -1;
    // A job that was killed a moment ago holds it until the kernel has taken it apart.
    int err = EWOULDBLOCK;
    for (int i = 0; i < 20 && err == EWOULDBLOCK; i++) {
        if (flock(fd, LOCK_EX | LOCK_NB) == 0) return fd;
        err = errno;
        usleep(25000);
    }
    close(fd);
    errno = err;
    return -1;
}

static void leave_none(const char *run_id, uint64_t since) {
    if (since) kill_descendants(getpid(), since);
    if (run_id) kill_marked(run_id, 0);
}

// By the state; where a power cut took it, by the journal.
static bool began_before(const char *dir, const char *journal_boot) {
    char text[4096], id[64];
    return other_boot(state_text(dir, text, sizeof text) && state_boot(text, id) && *id ? id : journal_boot);
}

static void say_reboot(void) {
    char id[64];
    struct ev e;
    boot_id(id);
    ev_new(&e, "reboot");
    ev_str(&e, "boot_id", id);
    ev_put(&e);
}

// What the worker would have done: kill, restore, close the journal. Harmless when it is done already.
int mend(const char *dir, uint64_t since) {
    char path[PATH_BYTES], reserve[PATH_BYTES];
    struct job job;
    struct sb why = {0};
    struct seen seen;
    snprintf(path, sizeof path, "%s/job", dir);
    bool known = job_load(path, &job, &why) == 0;
    sb_free(&why);
    proc_init(known ? job.run_id : "");
    leave_none(known ? job.run_id : NULL, since);
    snprintf(path, sizeof path, "%s/journal", dir);
    snprintf(reserve, sizeof reserve, "%s/reserve", dir);
    int err = journal_reopen(path, reserve, &seen);
    if (err) {   // no journal can be had: the settings are put back all the same
        undo_restore(dir);
        return err;
    }
    bool rebooted = !seen.ended && began_before(dir, seen.boot_id);
    if (rebooted) say_reboot();   // what follows is stamped by another clock
    undo_restore(dir);
    leave_none(known ? job.run_id : NULL, since);
    const char *reason = rebooted ? "device_rebooted" : "probe_killed";
    struct ev e;
    ev_new(&e, "end");
    ev_str(&e, "result", "failed");
    ev_str(&e, "reason", reason);
    ev_null(&e, "step");
    ev_int(&e, "visits", lease_visits(dir));
    ev_clocks(&e);
    if (seen.ended) sb_free(&e.b);
    else ev_put(&e);
    err = journal_close();
    unlink(reserve);
    lease_job_over(strrchr(dir, '/') + 1);
    state_write(dir, &(struct state){.state = "ended", .op = "", .name = "", .result = "failed", .reason = seen.ended ? "" : reason});
    return err;
}

// A power cut may leave the state empty or missing: the undo list alone is enough to mend, and a journal without it too.
static bool needs_mending(const char *dir) {
    char text[4096];
    bool told = state_text(dir, text, sizeof text);
    return run_has(dir, "undo") || (told ? !state_ended(text) : run_has(dir, "journal"));
}

static int recover_all(const char *root, const char *except) {
    DIR *dir = opendir(root);
    if (!dir) return errno;
    struct dirent *d;
    int err = 0;
    while ((d = readdir(dir))) {
        char path[PATH_BYTES];
        if (d->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "%s/%s", root, d->d_name);
        if ((except && strcmp(path, except) == 0) || !needs_mending(path)) continue;
        int e = mend(path, 0);
        if (e) err = e;
    }
    closedir(dir);
    lease_job_over(NULL);   // none runs: ROOT is locked by us
    return err;
}

int cmd_recover(const char *root) {
    signal(SIGPIPE, SIG_IGN);
    if (!realpath(root, ROOT_DIR)) return complain(EXIT_WRITE, root, strerror(errno));
    int lock = lock_root(ROOT_DIR);
    if (lock < 0) {
        bool busy = errno == EWOULDBLOCK;
        int failed = complain(busy ? EXIT_BUSY : EXIT_WRITE, root, busy ? "a job is running" : strerror(errno));
        if (busy) lease_visit();
        return failed;
    }
    int err = recover_all(ROOT_DIR, NULL);
    close(lock);
    return err ? complain(EXIT_WRITE, root, strerror(err)) : 0;
}

static sigset_t watched(void) {
    const int signals[] = {SIGTERM, SIGINT, SIGHUP, STEAL_SIGNAL, SIGUSR2, SIGALRM, SIGCHLD};
    sigset_t set;
    sigemptyset(&set);
    for (int i = 0; i < 7; i++) sigaddset(&set, signals[i]);
    return set;
}

// Until the worker ends; signals to the guard are the worker's.
static int guard_wait(pid_t worker) {
    sigset_t set = watched();
    for (;;) {
        int status, sig = sigwaitinfo(&set, NULL);
        pid_t pid;
        while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
            if (pid == worker) return status;
        if (pid < 0 && errno == ECHILD) return -1;   // it is gone and nobody can say how
        if (sig > 0 && sig != SIGCHLD && sig != SIGALRM) kill(worker, sig);
    }
}

static int guard_main(struct job *job, int told) {
    sigset_t set = watched();
    pid_t guard = getpid();
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_CHILD_SUBREAPER, 1);   // what the worker leaves comes to the guard
    pid_t worker = fork();
    if (worker < 0) return complain(EXIT_WRITE, "fork", strerror(errno));
    if (worker == 0) {
        state_write(RUN_DIR, &(struct state){"starting", "", "", "", 0, job->n_steps, 0, 0, getpid(), guard, 0, 0, NULL});
        if (told >= 0) close(told);
        _exit(worker_main(job, guard));
    }
    if (told >= 0) close(told);
    struct pstat st = {0};
    pstat_read(worker, &st);   // a zombie at the worst: nobody else waits for it
    if (guard_wait(worker) == 0) return 0;
    return mend(RUN_DIR, st.start_ticks) ? EXIT_WRITE : 0;
}

void close_inherited(void) {
    DIR *dir = opendir("/proc/self/fd");
    struct dirent *d;
    while (dir && (d = readdir(dir))) {
        int fd = atoi(d->d_name);
        if (fd > 2 && fd != dirfd(dir)) close(fd);
    }
    if (dir) closedir(dir);
    // A closed standard descriptor would be given to the journal.
    int fd;
    while ((fd = open("/dev/null", O_RDWR)) >= 0 && fd <= 2) {}
    close(fd);
}

// Returns in the guard; the caller's process waits until the worker's pid is in the state, and leaves.
static int go_behind(void) {
    int told[2];
    if (pipe2(told, O_CLOEXEC) != 0) return -1;
    pid_t pid = fork();
    if (pid < 0) return -1;
    if (pid > 0) {
        char byte;
        close(told[1]);
        while (read(told[0], &byte, 1) < 0 && errno == EINTR) {}
        _exit(0);
    }
    close(told[0]);
    setsid();
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int fd = 0; fd < 3; fd++) dup2(null, fd);
    if (null > 2) close(null);
    return told[1];
}

static int prepare(struct job *job, int64_t token) {
    char path[PATH_BYTES];
    struct sb why = {0};
    snprintf(path, sizeof path, "%s/job", RUN_DIR);
    int bad = job_load(path, job, &why);
    if (bad) return complain(bad, "malformed job", why.p);
    const char *run = strrchr(RUN_DIR, '/') + 1;
    // Before the lock: who lost the lease is told so, also while a job of the thief runs.
    bad = lease_admit(run, token, 0);
    if (bad) return bad;
    if (lock_root(ROOT_DIR) < 0) return complain(errno == EWOULDBLOCK ? EXIT_BUSY : EXIT_WRITE, ROOT_DIR, errno == EWOULDBLOCK ? "another job is running" : strerror(errno));
    wait_lock();
    recover_all(ROOT_DIR, RUN_DIR);
    return lease_admit(run, token, job->duration_ms);   // last: from here on the lease is the job's
}

static int make_journal(const struct job *job) {
    char path[PATH_BYTES], reserve[PATH_BYTES];
    snprintf(path, sizeof path, "%s/journal", RUN_DIR);
    snprintf(reserve, sizeof reserve, "%s/reserve", RUN_DIR);
    if (access(path, F_OK) == 0) return complain(EXIT_WRITE, path, "exists: a run is never repeated in its folder");
    // The state comes first: a death from here on is seen by recover.
    state_write(RUN_DIR, &(struct state){.state = "starting", .op = "", .name = "", .result = "", .steps = job->n_steps});
    int err = journal_create(path, reserve, job->journal_bytes);
    snprintf(reserve, sizeof reserve, "%s/state", RUN_DIR);
    if (err) unlink(reserve);
    else if (sync_path(reserve) == 0 && sync_path(RUN_DIR) == 0 && sync_path(ROOT_DIR) == 0)
        sync_path("/proc/self/exe");   // whoever comes after a power cut asks this program, which may have been put there just now
    return err ? complain(EXIT_WRITE, path, strerror(err)) : 0;
}

// --token N as the word at `at` and the next: true with N, or without either with -1.
static bool token_word(int argc, char **argv, int at, int64_t *token) {
    *token = -1;
    if (argc <= at) return true;
    if (argc != at + 2 || strcmp(argv[at], "--token") != 0) return false;
    return (*token = word_int(argv[at + 1])) > 0;
}

int cmd_run(int argc, char **argv) {
    bool detach = argc > 3 && strcmp(argv[3], "--detach") == 0;
    static struct job job;
    int64_t token;
    if (argc < 3 || !token_word(argc, argv, 3 + detach, &token)) return complain(EXIT_USAGE, "usage", "meltprobe run DIR [--detach] [--token N]");
    close_inherited();
    if (!resolve_dir(argv[2])) return complain(EXIT_WRITE, argv[2], strerror(errno));
    int err = prepare(&job, token), told = -1;
    if (err) return err;
    err = make_journal(&job);
    if (!err && detach && (told = go_behind()) < 0) err = complain(EXIT_WRITE, "fork", strerror(errno));
    if (err) {
        lease_job_over(strrchr(RUN_DIR, '/') + 1);
        return err;
    }
    return guard_main(&job, told);
}

int job_stop(const char *dir, bool steal) {
    char text[4096];
    if (!resolve_dir(dir) || !(state_text(RUN_DIR, text, sizeof text) || run_has(RUN_DIR, "journal"))) return complain(EXIT_WRITE, dir, "no job was started here");
    for (int i = 0; i < 1200; i++) {
        bool told = state_text(RUN_DIR, text, sizeof text);
        if (told ? state_ended(text) && !state_pid(text) && !state_guard(text) : !run_has(RUN_DIR, "journal")) return 0;
        pid_t worker = state_pid(text), guard = state_guard(text);
        int lock = worker || guard ? -1 : lock_root(ROOT_DIR);
        if (lock >= 0) {
            int err = mend(RUN_DIR, 0);
            close(lock);
            return err ? complain(EXIT_WRITE, dir, strerror(err)) : 0;
        }
        // 12 s: the grace, and an undo command at its limit. The guard then mends, still while a caller of 20 s waits.
        if (worker && i % 80 == 0) kill(worker, i >= 240 ? SIGKILL : steal ? STEAL_SIGNAL : SIGUSR2);
        usleep(50000);
    }
    return complain(EXIT_BUSY, dir, "the job does not end");
}

int cmd_stop(int argc, char **argv) {
    int64_t token;
    if (argc < 3 || !token_word(argc, argv, 3, &token)) return complain(EXIT_USAGE, "usage", "meltprobe stop DIR [--token N]");
    if (token > 0 && !resolve_dir(argv[2])) return complain(EXIT_WRITE, argv[2], strerror(errno));
    int err = token > 0 ? lease_admit("", token, 0) : 0;
    return err ? err : job_stop(argv[2], false);
}
