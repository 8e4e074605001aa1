// What the target is: identity, clocks, disk, and the texts of files; nothing of it is interpreted.
#include "probe.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <unistd.h>

#define TOTAL_MAX (1u << 20)
#define FILES_MAX 2000

static struct { struct sb b; size_t total; int files; } out;

static void key(const char *name) {
    sb_text(&out.b, out.b.n > 1 ? ",\"" : "\"");
    sb_text(&out.b, name);
    sb_text(&out.b, "\":");
}

static void text(const char *name, const char *value) {
    key(name);
    sb_json(&out.b, value, strlen(value));
}

static void number(const char *name, int64_t value) {
    key(name);
    if (value < 0) sb_text(&out.b, "null");
    else sb_int(&out.b, value);
}

static void open_object(const char *name) {
    key(name);
    sb_text(&out.b, "{");
}

static void member(const char *name, const char *value, bool first) {
    if (!first) sb_text(&out.b, ",");
    sb_json(&out.b, name, strlen(name));
    sb_text(&out.b, ":");
    if (value) sb_json(&out.b, value, strlen(value));
}

static void put_uname(void) {
    struct utsname u;
    if (uname(&u) != 0) return;
    open_object("uname");
    member("sysname", u.sysname, true);
    member("nodename", u.nodename, false);
    member("release", u.release, false);
    member("version", u.version, false);
    member("machine", u.machine, false);
    sb_text(&out.b, "}");
}

static void put_allowed(void) {
    cpu_set_t set;
    struct sb list = {0};
    CPU_ZERO(&set);
    bool ok = sched_getaffinity(0, sizeof set, &set) == 0;
    cpus_text(&set, &list);
    key("cpus_allowed");
    if (ok) sb_json(&out.b, list.p, list.n);
    else sb_text(&out.b, "null");
    sb_free(&list);
}

static int64_t meminfo(const char *name) {
    char t[8192];
    if (read_text("/proc/meminfo", t, sizeof t) <= 0) return -1;
    char *at = strstr(t, name);
    return at ? strtoll(at + strlen(name), NULL, 10) * 1024 : -1;
}

static void put_disk(const char *dir) {
    struct statvfs v;
    bool ok = statvfs(dir, &v) == 0;
    open_object("disk");
    member("path", dir, true);
    member("free_bytes", NULL, false);
    if (ok) sb_int(&out.b, (int64_t)v.f_bavail * (int64_t)v.f_frsize);
    else sb_text(&out.b, "null");
    member("total_bytes", NULL, false);
    if (ok) sb_int(&out.b, (int64_t)v.f_blocks * (int64_t)v.f_frsize);
    else sb_text(&out.b, "null");
    sb_text(&out.b, "}");
}

static int put_file(const char *path, void *arg) {
    (void)arg;
    static char t[RAW_MAX + 1];
    if (out.files >= FILES_MAX) return 1;
    size_t room = TOTAL_MAX - out.total, cap = room < RAW_MAX ? room : RAW_MAX;
    ssize_t n = read_text(path, t, cap + 1);
    member(path, NULL, out.files++ == 0);
    sb_text(&out.b, "{");
    member("status", status_of(n < 0 ? (int)-n : 0), true);
    member("errno", NULL, false);
    sb_int(&out.b, n < 0 ? -n : 0);
    member("cut", NULL, false);
    sb_text(&out.b, n >= (ssize_t)cap ? "true" : "false");
    if (n >= 0) {
        member("text", NULL, false);
        sb_json(&out.b, t, (size_t)n);
        out.total += (size_t)n;
    }
    sb_text(&out.b, "}");
    return 0;
}

int cmd_facts(int argc, char **argv) {
    char id[64];
    boot_id(id);
    sb_text(&out.b, "{");
    text("probe", PROBE_VERSION "+" PROBE_SOURCE);
    text("target", PROBE_TARGET);
    put_uname();
    number("uid", geteuid());
    number("cpus_online", sysconf(_SC_NPROCESSORS_ONLN));
    put_allowed();
    number("page_bytes", sysconf(_SC_PAGESIZE));
    text("boot_id", id);
    number("time_namespace", time_namespace());
    number("mem_total_bytes", meminfo("MemTotal:"));
    number("mem_available_bytes", meminfo("MemAvailable:"));
    put_disk(argv[2]);
    number("boot_ns", boot_ns());
    number("mono_ns", clock_ns(CLOCK_MONOTONIC));
    number("wall_ns", clock_ns(CLOCK_REALTIME));
    open_object("files");
    for (int i = 3; i < argc; i++)
        if (glob_each(argv[i], put_file, NULL) == 0) put_file(argv[i], NULL);
    sb_text(&out.b, "}}\n");
    return write_all(1, out.b.p, out.b.n) ? EXIT_WRITE : 0;
}
