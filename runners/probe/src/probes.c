// Small steps that look at the machine: a free port, the page cache, a gate.
#include "probe.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define WINDOW (64LL << 20)   // of a file looked at in one go: a 32-bit target cannot map a model

int glob_each(const char *pattern, int (*each)(const char *path, void *arg), void *arg) {
    glob_t g;
    int n = 0;
    if (glob(pattern, 0, NULL, &g) == 0)
        for (n = 0; n < (int)g.gl_pathc && each(g.gl_pathv[n], arg) == 0;) n++;
    globfree(&g);
    return n;
}

// A loopback port that is free now, 0 with a reason when there is none.
static int free_port(struct sb *why) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof at;
    bool ok = fd >= 0 && bind(fd, (struct sockaddr *)&at, n) == 0 && getsockname(fd, (struct sockaddr *)&at, &n) == 0;
    if (!ok) sb_text(why, strerror(errno));
    if (fd >= 0) close(fd);
    return ok ? ntohs(at.sin_port) : 0;
}

int step_port(struct step *s, struct sb *why) {
    int port = s->n ? (int)word_int(s->w[0]) : free_port(why);
    if (!port) return 1;
    if (!port_set(s->name, port)) {
        sb_text(why, "too many ports");
        return 1;
    }
    struct ev e;
    ev_new(&e, "port");
    ev_str(&e, "name", s->name);
    ev_int(&e, "port", port);
    ev_put(&e);
    return 0;
}

// Since Linux 5.2 the kernel tells the truth only to the owner and to who may write the file.
static bool may_ask(const char *path, const struct stat *st) {
    return geteuid() == 0 || geteuid() == st->st_uid || access(path, W_OK) == 0;
}

static int64_t resident(int fd, int64_t size) {
    int64_t page = sysconf(_SC_PAGESIZE), pages = 0;
    unsigned char *seen = xrealloc(NULL, (size_t)(WINDOW / page) + 1);
    for (int64_t at = 0; at < size && pages >= 0; at += WINDOW) {
        size_t n = (size_t)(size - at < WINDOW ? size - at : WINDOW);
        void *map = mmap(NULL, n, PROT_READ, MAP_SHARED, fd, (off_t)at);
        if (map == MAP_FAILED || mincore(map, n, seen) != 0) pages = -1;
        for (size_t i = 0; pages >= 0 && i < (n + (size_t)page - 1) / (size_t)page; i++) pages += seen[i] & 1;
        if (map != MAP_FAILED) munmap(map, n);
    }
    free(seen);
    return pages < 0 ? -1 : pages * page < size ? pages * page : size;
}

static int say_pages(const char *path, void *arg) {
    bool drop = *(bool *)arg, dropped = false;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st = {0};
    bool file = fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
    if (file && drop) dropped = posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) == 0;
    int64_t bytes = file && may_ask(path, &st) ? resident(fd, st.st_size) : -1;
    struct ev e;
    ev_new(&e, "pages");
    ev_str(&e, "path", path);
    bytes < 0 ? ev_null(&e, "resident_bytes") : ev_int(&e, "resident_bytes", bytes);
    file ? ev_int(&e, "total_bytes", st.st_size) : ev_null(&e, "total_bytes");
    ev_str(&e, "status", bytes < 0 ? "unknown" : "ok");
    ev_int(&e, "dropped", dropped);
    ev_put(&e);
    if (fd >= 0) close(fd);
    return 0;
}

int step_pages(struct step *s, struct sb *why) {
    bool drop = strcmp(s->w[1], "drop") == 0;
    char *pattern = word_pattern(s->w[0], why);
    if (!pattern) return 1;
    if (glob_each(pattern, say_pages, &drop) == 0) say_pages(pattern, &drop);
    free(pattern);
    return 0;
}

struct gate { bool below, all_pass, any; int64_t limit, worst; };   // in millionths

bool decimal(const char *text, int64_t *out) {
    while (*text == ' ') text++;
    int64_t sign = *text == '-' ? -1 : 1, v = 0;
    if (*text == '-' || *text == '+') text++;
    if (*text < '0' || *text > '9') return false;
    while (*text >= '0' && *text <= '9' && v < INT64_MAX / 100000000) v = v * 10 + (*text++ - '0');
    if (*text >= '0' && *text <= '9') return false;
    v *= 1000000;
    if (*text == '.')
        for (int64_t unit = 100000; unit && *++text >= '0' && *text <= '9'; unit /= 10) v += (*text - '0') * unit;
    *out = sign * v;
    return true;
}

bool value_of(const char *path, int64_t *millionths) {
    char text[64];
    return read_text(path, text, sizeof text) > 0 && decimal(text, millionths);
}

static int gate_look(const char *path, void *arg) {
    struct gate *g = arg;
    int64_t v;
    if (!value_of(path, &v)) {
        g->all_pass = false;
        return 0;
    }
    if (!g->any || (g->below ? v > g->worst : v < g->worst)) g->worst = v;
    g->any = true;
    if (g->below ? v >= g->limit : v <= g->limit) g->all_pass = false;
    return 0;
}

// All matches must hold for HOLD_MS together; past TIMEOUT_MS the job goes on and the event says so.
int step_gate(struct step *s, struct sb *why) {
    char *pattern = word_pattern(s->w[0], why);
    if (!pattern) return 1;
    int64_t hold = word_int(s->w[3]) * NS_MS, now = boot_ns(), until = now + word_int(s->w[4]) * NS_MS, since = -1;
    struct gate g;
    bool held = false;
    enum waited w = WAIT_LATE;
    for (; !held; now = boot_ns()) {
        g = (struct gate){.below = strcmp(s->w[1], "below") == 0, .all_pass = true};
        decimal(s->w[2], &g.limit);
        if (glob_each(pattern, gate_look, &g) == 0) g.all_pass = false;
        if (!g.all_pass || !g.any) since = -1;
        else if (since < 0) since = now;
        held = since >= 0 && now - since >= hold;
        if (held || now >= until || w == WAIT_STOP) break;
        w = main_wait(now + 200 * NS_MS < until ? now + 200 * NS_MS : until, NULL, NULL);
    }
    free(pattern);
    struct ev e;
    ev_new(&e, "gate");
    ev_str(&e, "name", s->name);
    ev_bool(&e, "held", held);
    g.any ? ev_millionths(&e, "value", g.worst) : ev_null(&e, "value");
    ev_put(&e);
    return w == WAIT_STOP;
}
