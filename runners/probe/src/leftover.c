// What is still alive: by descent and by the mark in the environment. Nothing here trusts a bare pid.
#include "probe.h"

#include <ctype.h>
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define ALIVE_MAX 1024

bool pstat_read(pid_t pid, struct pstat *out) {
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    if (read_text(path, text, sizeof text) <= 0) return false;
    char *end = strrchr(text, ')');   // the name may hold anything, also ')'
    if (!end || strlen(end) < 4) return false;
    *out = (struct pstat){.pid = pid, .state = end[2]};
    char *at = end + 3;
    for (int field = 4; field <= 22 && *at; field++) {   // numbered as in proc(5)
        uint64_t v = strtoull(at, &at, 10);
        if (field == 4) out->ppid = (pid_t)v;
        if (field == 5) out->pgid = (pid_t)v;
        out->start_ticks = v;
    }
    return out->state && out->start_ticks;
}

bool is_same(pid_t pid, uint64_t start_ticks) {
    struct pstat st;
    return pid > 0 && pstat_read(pid, &st) && st.start_ticks == start_ticks && st.state != 'Z' && st.state != 'X';
}

static int all_processes(struct pstat **out) {
    int n = 0, cap = 0;
    DIR *dir = opendir("/proc");
    struct dirent *d;
    *out = NULL;
    while (dir && (d = readdir(dir))) {
        if (!isdigit((unsigned char)d->d_name[0])) continue;
        if (n == cap) *out = xrealloc(*out, (size_t)(cap = cap ? 2 * cap : 256) * sizeof **out);
        if (pstat_read(atoi(d->d_name), &(*out)[n])) n++;
    }
    if (dir) closedir(dir);
    return n;
}

// Children of root that are older than since are not looked at, nor what descends from them.
int descendants(pid_t root, uint64_t since, struct pstat *out, int max) {
    struct pstat *all;
    int total = all_processes(&all), n = 0;
    char *kin = memset(xrealloc(NULL, (size_t)total), 0, (size_t)total);
    // Pids come in any order, so passes repeat until one adds nothing.
    for (bool more = true; more;) {
        more = false;
        for (int i = 0; i < total; i++) {
            if (kin[i] || all[i].pid == root) continue;
            bool child = all[i].ppid == root && all[i].start_ticks >= since;
            for (int j = 0; j < total && !child; j++) child = kin[j] && all[j].pid == all[i].ppid;
            if (!child) continue;
            kin[i] = 1;
            more = true;
        }
    }
    for (int i = 0; i < total && n < max; i++)
        if (kin[i]) out[n++] = all[i];
    free(kin);
    free(all);
    return n;
}

// Killing one can bring its children to us, so this repeats until none is left.
void kill_descendants(pid_t root, uint64_t since) {
    for (int round = 0; round < 100; round++) {
        struct pstat kin[256];
        int n = descendants(root, since, kin, 256), alive = 0;
        for (int i = 0; i < n; i++) {
            if (kin[i].state == 'Z' || kin[i].state == 'X') continue;
            alive++;
            if (is_same(kin[i].pid, kin[i].start_ticks)) kill(kin[i].pid, SIGKILL);
        }
        if (!alive) return;
        usleep(5000);
    }
}

static bool is_marked(pid_t pid, const char *mark) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/environ", (int)pid);
    size_t cap = 1u << 18, k = strlen(mark) + 1;
    char *text = xrealloc(NULL, cap);
    ssize_t n = read_text(path, text, cap);
    bool found = false;
    for (char *p = text; n > 0 && p < text + n && !found; p += strlen(p) + 1)
        found = (size_t)(text + n + 1 - p) >= k && memcmp(p, mark, k) == 0;
    free(text);
    return found;
}

bool group_is_ours(pid_t pgid, const char *mark) {
    struct pstat *all, kin[256];
    int n = all_processes(&all), k = descendants(getpid(), 0, kin, 256);
    bool ours = false;
    for (int i = 0; i < n && !ours; i++) {
        if (all[i].pgid != pgid || all[i].state == 'Z' || all[i].state == 'X') continue;
        for (int j = 0; j < k && !ours; j++) ours = kin[j].pid == all[i].pid && kin[j].start_ticks == all[i].start_ticks;
        if (!ours) ours = is_marked(all[i].pid, mark);
    }
    free(all);
    return ours;
}

void kill_marked(const char *run_id, pid_t spare) {
    char mark[128];
    snprintf(mark, sizeof mark, "MELTBENCH_RUN=%s", run_id);
    for (int round = 0, alive = 1; round < 100 && alive; round++) {
        struct pstat *all;
        int n = all_processes(&all);
        alive = 0;
        for (int i = 0; i < n; i++) {
            if (all[i].pid == getpid() || all[i].pid == spare || all[i].state == 'Z' || !is_marked(all[i].pid, mark)) continue;
            alive++;
            if (is_same(all[i].pid, all[i].start_ticks)) kill(all[i].pid, SIGKILL);
        }
        free(all);
        if (alive) usleep(5000);
    }
}

int64_t number_after(const char *path, const char *key) {
    size_t cap = 1u << 16;
    char *text = xrealloc(NULL, cap), *at = NULL;
    if (read_text(path, text, cap) > 0) at = strstr(text, key);
    int64_t v = at ? strtoll(at + strlen(key), NULL, 10) : -1;
    free(text);
    return v;
}

// The machine's count; where the kernel has none, that of our own cgroup.
int64_t oom_kills(void) {
    int64_t v = number_after("/proc/vmstat", "\noom_kill ");
    if (v >= 0) return v;
    char line[1024], path[1200];
    if (read_text("/proc/self/cgroup", line, sizeof line) <= 0) return -1;
    char *own = strstr(line, "0::/");
    if (!own) return -1;
    own[strcspn(own, "\n")] = 0;
    snprintf(path, sizeof path, "/sys/fs/cgroup%s/memory.events", own + 3);
    return number_after(path, "\noom_kill ");
}
