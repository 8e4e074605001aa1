// What a process may use: processors by its affinity, memory by a cgroup of its own, else by a limit of the process.
#include "probe.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#define LEAST_MEMORY 1048576

bool cpus_of(const char *list, cpu_set_t *out) {
    CPU_ZERO(out);
    for (const char *at = list;; at++) {
        char *end;
        if (*at < '0' || *at > '9') return false;
        unsigned long from = strtoul(at, &end, 10), to = from;
        if (*end == '-') {
            if (end[1] < '0' || end[1] > '9') return false;
            to = strtoul(end + 1, &end, 10);
        }
        if (to < from || to >= CPU_SETSIZE) return false;
        for (; from <= to; from++) CPU_SET(from, out);
        at = end;
        if (!*at) return true;
        if (*at != ',') return false;
    }
}

void cpus_text(const cpu_set_t *set, struct sb *out) {
    size_t before = out->n;
    for (int from = 0, to; from < CPU_SETSIZE; from = to + 1) {
        to = from;
        if (!CPU_ISSET(from, set)) continue;
        while (to + 1 < CPU_SETSIZE && CPU_ISSET(to + 1, set)) to++;
        if (out->n > before) sb_text(out, ",");
        sb_int(out, from);
        if (to > from) sb_text(out, "-"), sb_int(out, to);
    }
}

bool caps_word(const char *word, struct caps *caps, bool *good) {
    bool cpus = strncmp(word, "cpus=", 5) == 0, memory = strncmp(word, "memory=", 7) == 0;
    if (cpus) *good = !caps->pinned && cpus_of(word + 5, &caps->cpus);
    if (memory) *good = !caps->memory && (caps->memory = word_int(word + 7)) >= LEAST_MEMORY;
    caps->pinned |= cpus;
    return cpus || memory;
}

static int write_to(const char *dir, const char *name, const char *text) {
    char path[PATH_BYTES + 192];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    int err = fd < 0 ? errno : write_all(fd, text, strlen(text));
    if (fd >= 0) close(fd);
    return err;
}

static bool read_from(const char *dir, const char *name, char *text, size_t cap) {
    char path[PATH_BYTES + 192];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return read_text(path, text, cap) > 0;
}

// Does a list of words, split by spaces or commas, hold this one?
static bool lists(const char *text, const char *word) {
    size_t n = strlen(word);
    for (;; text++) {
        if (strncmp(text, word, n) == 0 && strchr(" ,\n:", text[n])) return true;   // also its end
        text += strcspn(text, " ,\n:");
        if (!*text || *text == ':') return false;
    }
}

// The folder in which a group of our own could be made (cgroups(7)): of version 1 our own group's; of version 2, where a
// group with processes has no groups with controllers, our own's or that beside it, if it gives memory to its children.
static bool find_base(char base[PATH_BYTES], bool *v2) {
    char text[4096], controllers[1024];
    *v2 = false;
    if (read_text("/proc/self/cgroup", text, sizeof text) <= 0) return false;
    char *own = NULL;
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        char *names = strchr(line, ':'), *path = names ? strchr(names + 1, ':') : NULL;
        if (!path) continue;
        bool memory = lists(names + 1, "memory");
        if (!memory && strncmp(line, "0::", 3) != 0) continue;
        own = path + 1;
        *v2 = !memory;
        if (memory) break;
    }
    if (!own) return false;
    snprintf(base, PATH_BYTES, "/sys/fs/cgroup%s%s", *v2 ? "" : "/memory", strcmp(own, "/") == 0 ? "" : own);
    for (int up = 0; *v2 && up < 2; up++) {
        if (read_from(base, "cgroup.subtree_control", controllers, sizeof controllers) && lists(controllers, "memory") && access(base, W_OK) == 0) return true;
        char *slash = strrchr(base, '/');
        if (strlen(base) <= strlen("/sys/fs/cgroup")) return false;
        *slash = 0;
    }
    return !*v2 && access(base, W_OK) == 0;
}

static bool make_group(struct caps *caps, const char *base, const char *run_id, bool v2) {
    static int made;
    char bytes[32], group[PATH_BYTES + 128], path[PATH_BYTES + 192], *words[] = {group};
    snprintf(group, sizeof group, "%s/meltbench-%s-%d", base, run_id, ++made);
    // The way back first: whoever ends the job removes it.
    if (undo_remember("rmdir", words, 1) != 0 || (mkdir(group, 0755) != 0 && errno != EEXIST)) return false;
    snprintf(bytes, sizeof bytes, "%lld", (long long)caps->memory);
    // What would be swapped out instead of refused is another experiment; where there is no such file there is no swap to count.
    bool ok = write_to(group, v2 ? "memory.max" : "memory.limit_in_bytes", bytes) == 0;
    write_to(group, v2 ? "memory.swap.max" : "memory.memsw.limit_in_bytes", v2 ? "0" : bytes);
    ok = ok && read_from(group, v2 ? "memory.max" : "memory.limit_in_bytes", bytes, sizeof bytes);
    trim_end(bytes);
    int64_t in_force = ok ? word_int(bytes) : -1;
    snprintf(path, sizeof path, "%s/cgroup.procs", group);
    caps->join = in_force > 0 ? open(path, O_WRONLY | O_CLOEXEC) : -1;
    if (caps->join < 0) {
        rmdir(group);
        return false;
    }
    caps->memory = in_force;
    caps->group = xstrdup(group);
    return true;
}

// Since Linux 4.7 RLIMIT_DATA counts all memory of a process's own, and no file that it maps; before, only its heap
// (setrlimit(2)): then its whole address space is bounded.
static int rlimit_of(void) {
    struct utsname u;
    char *at = uname(&u) == 0 ? strchr(u.release, '.') : NULL;
    long major = at ? strtol(u.release, NULL, 10) : 0, minor = at ? strtol(at + 1, NULL, 10) : 0;
    return major > 4 || (major == 4 && minor >= 7) ? RLIMIT_DATA : RLIMIT_AS;
}

static int resource;

void caps_prepare(struct caps *caps, const char *run_id) {
    char base[PATH_BYTES];
    bool v2;
    caps->join = -1;
    if (!caps->memory) return;
    resource = rlimit_of();
    bool grouped = find_base(base, &v2) && make_group(caps, base, run_id, v2);
    caps->by = grouped ? "cgroup" : "rlimit";
}

static int limit_memory(struct caps *caps) {
    struct rlimit limit;
    if (getrlimit(resource, &limit) != 0) return errno;
    if ((rlim_t)caps->memory < limit.rlim_max) limit.rlim_max = (rlim_t)caps->memory;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(resource, &limit) != 0 || getrlimit(resource, &limit) != 0) return errno;
    caps->memory = (int64_t)limit.rlim_cur;
    return 0;
}

int caps_apply(struct caps *caps) {
    caps->failed = "memory";
    if (caps->join >= 0 && write(caps->join, "0", 1) != 1) return errno;
    int err = caps->memory && caps->join < 0 ? limit_memory(caps) : 0;
    if (err) return err;
    caps->failed = "cpus";
    if (!caps->pinned) return 0;
    if (sched_setaffinity(0, sizeof caps->cpus, &caps->cpus) != 0 || sched_getaffinity(0, sizeof caps->got, &caps->got) != 0) return errno;
    // The kernel takes a list of which only some are there.
    return CPU_EQUAL(&caps->cpus, &caps->got) ? 0 : EINVAL;
}

void caps_started(struct caps *caps) {
    if (caps->join >= 0) close(caps->join);
    caps->join = -1;
}

void caps_complain(const struct caps *caps, int error, struct sb *why) {
    const char *failed = caps && caps->failed ? caps->failed : "";
    char online[256];
    cpu_set_t allowed;
    sb_text(why, "cannot start: ");
    if (strcmp(failed, "cpus") != 0 || error != EINVAL) {
        sb_text(why, *failed ? "its cap: " : "");
        sb_text(why, strerror(error));
        return;
    }
    sb_text(why, "cpus=");
    cpus_text(&caps->cpus, why);
    sb_text(why, " are not all there; online: ");
    bool known = read_text("/sys/devices/system/cpu/online", online, sizeof online) > 0;
    trim_end(online);
    sb_text(why, known ? online : "unknown");
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
    sb_text(why, "; allowed: ");
    cpus_text(&allowed, why);
}

int64_t caps_oom_kills(const struct caps *caps) {
    char path[PATH_BYTES + 192];
    if (!caps || !caps->group) return oom_kills();
    snprintf(path, sizeof path, "%s/memory.events", caps->group);
    int64_t v = number_after(path, "\noom_kill ");
    if (v >= 0) return v;
    snprintf(path, sizeof path, "%s/memory.oom_control", caps->group);
    return number_after(path, "\noom_kill ");
}
