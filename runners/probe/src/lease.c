// The lease of a root: which controller may measure here. Its token only grows; its times are CLOCK_BOOTTIME with the boot id.
#include "probe.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define WORD_MAX 200                 // of a holder and of a reason
#define TTL_MAX_MS 86400000
#define SLACK_MS 60000               // beyond a job's duration: its undo list, a slow disk; and while a thief ends a job
#define TEXT_MAX 4096

// Dropped: until is 0. run: the job that runs under it. from, reason: of a lease that was stolen.
struct lease { int64_t token, until, since, ttl_ms; char boot[64], run[256], holder[256], from[256], reason[256]; };

static int refuse(int code, const char *why) {
    dprintf(2, "meltprobe: %s: %s\n", ROOT_DIR, why);
    return code;
}

static char *const names[] = {"lease", "lease.copy"};

// One of the two copies; false where it is absent or does not check.
static bool parse(char *text, struct lease *l) {
    char *words[11], *crc = strrchr(text, ' ');
    if (!crc || strtoul(crc + 1, NULL, 16) != crc32_of(0, text, (size_t)(crc - text))) return false;
    *crc = 0;
    int n = 0;
    for (char *w = strtok(text, " "); w && n < 11; w = strtok(NULL, " ")) words[n++] = w;
    if (n != 11 || strcmp(words[0], "meltlease") != 0 || strcmp(words[1], "1") != 0) return false;
    *l = (struct lease){.token = word_int(words[2]), .until = strtoll(words[3], NULL, 10), .since = strtoll(words[4], NULL, 10), .ttl_ms = word_int(words[5])};
    char *to[] = {l->boot, l->run, l->holder, l->from, l->reason};
    for (int i = 0; i < 5; i++) {
        struct sb why = {0};
        char *word = word_expand(words[6 + i], &why);
        if (word) snprintf(to[i], i ? 256 : 64, "%s", word);
        free(word);
        sb_free(&why);
    }
    return l->token > 0;
}

// The copy of the highest token; with none, an empty lease of token 0. Returns 0, or an errno where none can be read.
static int load(struct lease *best) {
    int err = 0;
    *best = (struct lease){0};
    for (int i = 0; i < 2; i++) {
        char path[PATH_BYTES], text[TEXT_MAX];
        struct lease l;
        snprintf(path, sizeof path, "%s/%s", ROOT_DIR, names[i]);
        ssize_t n = read_text(path, text, sizeof text);
        if (n < 0 && n != -ENOENT) err = (int)-n;
        if (n > 0 && parse(text, &l) && l.token > best->token) *best = l;
    }
    return best->token ? 0 : err;
}

static int write_synced(const char *name, const struct sb *text) {
    char path[PATH_BYTES], tmp[PATH_BYTES];
    snprintf(path, sizeof path, "%s/%s", ROOT_DIR, name);
    snprintf(tmp, sizeof tmp, "%s/%s.tmp", ROOT_DIR, name);
    int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    int err = fd < 0 ? errno : write_all(fd, text->p, text->n);
    if (!err && fsync(fd) != 0) err = errno;
    if (fd >= 0 && close(fd) != 0 && !err) err = errno;
    if (!err && rename(tmp, path) != 0) err = errno;
    if (err) unlink(tmp);
    return err;
}

// Both copies are on the disk before a token is handed out: one that is damaged later takes no token back.
static int save(const struct lease *l) {
    struct sb b = {0};
    const int64_t numbers[] = {l->token, l->until, l->since, l->ttl_ms};
    const char *words[] = {l->boot, l->run, l->holder, l->from, l->reason};
    char crc[16];
    sb_text(&b, "meltlease 1");
    for (int i = 0; i < 4; i++) sb_text(&b, " "), sb_int(&b, numbers[i]);
    for (int i = 0; i < 5; i++) sb_text(&b, " "), sb_word(&b, words[i]);
    snprintf(crc, sizeof crc, " %08x\n", (unsigned)crc32_of(0, b.p, b.n));
    sb_text(&b, crc);
    int err = write_synced(names[1], &b);
    if (!err) err = write_synced(names[0], &b);
    if (!err) err = sync_path(ROOT_DIR);
    sb_free(&b);
    return err;
}

// Held for milliseconds by whoever changes the lease; -1 with errno where it cannot be had.
static int lock(void) {
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s/lease.lock", ROOT_DIR);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    for (int i = 0; fd >= 0 && i < 2500; i++) {
        if (flock(fd, LOCK_EX | LOCK_NB) == 0) return fd;
        usleep(2000);
    }
    int err = fd < 0 ? errno : ETIMEDOUT;
    if (fd >= 0) close(fd);
    errno = err;
    return -1;
}

// Locks and loads: 0 with *fd, or the exit status, complained of.
static int begin(int *fd, struct lease *l) {
    *fd = lock();
    if (*fd < 0) return errno == ETIMEDOUT ? refuse(EXIT_BUSY, "the lease is being changed by another") : refuse(EXIT_WRITE, strerror(errno));
    int err = load(l);
    if (!err) return 0;
    close(*fd);
    return refuse(EXIT_WRITE, strerror(err));
}

static bool valid(const struct lease *l) {
    char id[64];
    boot_id(id);
    return strcmp(l->boot, id) == 0 && boot_ns() < l->until;
}

static bool stale(const struct lease *l, int64_t token) { return token != l->token || !valid(l); }

// While a job runs the lease is never shortened: it lasts until the job must have ended.
static void extend(struct lease *l, int64_t ms) {
    int64_t until = boot_ns() + ms * NS_MS;
    if (!l->run[0] || until > l->until) l->until = until;
}

// Above every token that was ever given. Where both copies are lost only the wall clock can tell: its 16 us pass faster
// than leases are taken.
static int64_t next_token(const struct lease *l) { return l->token ? l->token + 1 : clock_ns(CLOCK_REALTIME) >> 14; }

static void key_text(struct sb *b, const char *key, const char *text) {
    sb_text(b, key);
    if (*text) sb_json(b, text, strlen(text));
    else sb_text(b, "null");
}

static int answer(const struct lease *l, int code) {
    struct lease none = {.token = l->token};
    struct sb b = {0};
    int64_t now = boot_ns();
    if (!valid(l)) l = &none;
    sb_text(&b, "{\"token\":");
    sb_int(&b, l->token);
    key_text(&b, ",\"holder\":", l->holder);
    sb_text(&b, ",\"left_ms\":");
    sb_int(&b, l == &none ? 0 : (l->until - now) / NS_MS);
    sb_text(&b, ",\"held_ms\":");
    sb_int(&b, l == &none ? 0 : (now - l->since) / NS_MS);
    sb_text(&b, ",\"stolen\":");
    if (*l->from) {
        key_text(&b, "{\"holder\":", l->from);
        key_text(&b, ",\"reason\":", l->reason);
        sb_text(&b, "}");
    } else {
        sb_text(&b, "null");
    }
    key_text(&b, ",\"running\":", l->run);
    sb_text(&b, "}\n");
    int err = write_all(1, b.p, b.n);
    sb_free(&b);
    return err ? EXIT_WRITE : code;
}

// Who asks while a job runs leaves a byte beside it, so that its end can tell how often it was disturbed.
static void visit(const struct lease *l) {
    char path[PATH_BYTES + 256];
    if (!l->run[0] || !valid(l)) return;
    snprintf(path, sizeof path, "%s/%s/visits", ROOT_DIR, l->run);
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (fd < 0) return;
    write_all(fd, "+", 1);
    close(fd);
}

void lease_visit(void) {
    struct lease l;
    if (load(&l) == 0) visit(&l);
}

int64_t lease_visits(const char *dir) {
    char path[PATH_BYTES + 16];
    struct stat found;
    snprintf(path, sizeof path, "%s/visits", dir);
    return stat(path, &found) == 0 ? found.st_size : 0;
}

// Saves, unlocks, answers.
static int commit(int fd, const struct lease *l) {
    int err = save(l);
    close(fd);
    return err ? refuse(EXIT_WRITE, strerror(err)) : answer(l, 0);
}

// The job that ran under a lease that was stolen is ended as `stop` ends it.
static void end_job(struct lease *l, const char *run, int64_t ttl_ms) {
    char dir[PATH_BYTES + 256];
    struct lease now;
    int fd;
    snprintf(dir, sizeof dir, "%s/%s", ROOT_DIR, run);
    snprintf(l->run, sizeof l->run, "%s", job_stop(dir, true) ? run : "");   // shown when it does not end
    if (begin(&fd, &now)) return;
    if (now.token == l->token && !now.run[0]) {
        extend(&now, ttl_ms);
        if (save(&now) == 0) l->until = now.until;
    }
    close(fd);
}

// With a reason it is taken from whoever holds it; with a token as well, only from the lease of that token.
static int take(const char *holder, int64_t ttl_ms, const char *reason, int64_t from) {
    struct lease l, n;
    int fd, err = begin(&fd, &l);
    if (err) return err;
    bool held = valid(&l), same = held && strcmp(l.holder, holder) == 0;
    if (held && !same && (!reason || (from && from != l.token))) {
        close(fd);
        visit(&l);
        return answer(&l, EXIT_BUSY);
    }
    n = (struct lease){.token = next_token(&l), .since = boot_ns(), .ttl_ms = ttl_ms};
    boot_id(n.boot);
    snprintf(n.holder, sizeof n.holder, "%s", holder);
    if (same) {
        n.until = l.until;
        memcpy(n.run, l.run, sizeof n.run);
    }
    const char *victim = held && !same ? l.run : "";
    if (held && !same) {
        memcpy(n.from, l.holder, sizeof n.from);
        snprintf(n.reason, sizeof n.reason, "%s", reason);
    }
    extend(&n, ttl_ms + (*victim ? SLACK_MS : 0));
    err = save(&n);
    close(fd);
    if (err) return refuse(EXIT_WRITE, strerror(err));
    if (*victim) end_job(&n, victim, ttl_ms);
    return answer(&n, 0);
}

// As begin, for who holds the lease by that token; another is told whose it is.
static int begin_held(int64_t token, int *fd, struct lease *l) {
    int err = begin(fd, l);
    if (err || !stale(l, token)) return err;
    close(*fd);
    return answer(l, EXIT_FENCED);
}

static int renew(int64_t token, int64_t ttl_ms) {
    struct lease l;
    int fd, err = begin_held(token, &fd, &l);
    if (err) return err;
    l.ttl_ms = ttl_ms;
    extend(&l, ttl_ms);
    return commit(fd, &l);
}

// Under a job it ends with the job.
static int drop(int64_t token) {
    struct lease l;
    int fd, err = begin_held(token, &fd, &l);
    if (err) return err;
    l.ttl_ms = 0;
    if (!l.run[0]) l.until = 0;
    return commit(fd, &l);
}

int lease_admit(const char *run, int64_t token, int64_t duration_ms) {
    struct lease l;
    int fd, err = begin(&fd, &l);
    if (err) return err;
    struct sb why = {0};
    if (token < 0 && valid(&l)) {
        sb_text(&why, "leased by ");
        sb_json(&why, l.holder, strlen(l.holder));
        sb_text(&why, " for another ");
        sb_int(&why, (l.until - boot_ns()) / NS_S + 1);
        sb_text(&why, " s");
        err = refuse(EXIT_BUSY, why.p);
    } else if (token >= 0 && stale(&l, token)) {
        err = refuse(EXIT_FENCED, "the lease of that token is over");
    } else if (token >= 0 && duration_ms) {
        snprintf(l.run, sizeof l.run, "%s", run);
        extend(&l, duration_ms + SLACK_MS);
        int bad = save(&l);
        if (bad) err = refuse(EXIT_WRITE, strerror(bad));
    }
    sb_free(&why);
    close(fd);
    return err;
}

void lease_job_over(const char *run) {
    struct lease l;
    int fd = lock();
    if (fd >= 0 && load(&l) == 0 && l.run[0] && (!run || strcmp(l.run, run) == 0)) {
        l.run[0] = 0;
        if (valid(&l)) l.until = l.ttl_ms ? boot_ns() + l.ttl_ms * NS_MS : 0;
        save(&l);   // of a full disk: it runs out by itself
    }
    if (fd >= 0) close(fd);
}

static bool word_good(const char *text) {
    size_t n = strlen(text);
    if (!n || n > WORD_MAX) return false;
    for (; *text; text++)
        if (*text < 0x20 || *text > 0x7e) return false;
    return true;
}

int cmd_lease(int argc, char **argv) {
    const char *verb = argv[3];
    int64_t number = argc > 4 ? word_int(argv[4]) : -1, ttl = argc > 5 ? word_int(argv[5]) : 1;
    bool stealing = (argc == 8 || argc == 9) && strcmp(argv[6], "steal") == 0;
    if (!realpath(argv[2], ROOT_DIR)) {
        dprintf(2, "meltprobe: %s: %s\n", argv[2], strerror(errno));
        return EXIT_WRITE;
    }
    if (ttl < 1 || ttl > TTL_MAX_MS) return refuse(EXIT_USAGE, "TTL_MS is 1 to 86400000");
    if (strcmp(verb, "take") == 0 && (argc == 6 || stealing)) {
        if (!word_good(argv[4]) || (stealing && !word_good(argv[7]))) return refuse(EXIT_USAGE, "HOLDER and REASON are 1 to 200 printable bytes");
        int64_t from = argc == 9 ? word_int(argv[8]) : 0;
        if (from < 0) return refuse(EXIT_USAGE, "TOKEN is a number");
        return take(argv[4], ttl, stealing ? argv[7] : NULL, from);
    }
    if (strcmp(verb, "renew") == 0 && argc == 6 && number > 0) return renew(number, ttl);
    if (strcmp(verb, "drop") == 0 && argc == 5 && number > 0) return drop(number);
    if (strcmp(verb, "show") == 0 && argc == 4) {
        struct lease l;
        int err = load(&l);
        if (!err) visit(&l);
        return err ? refuse(EXIT_WRITE, strerror(err)) : answer(&l, 0);
    }
    return refuse(EXIT_USAGE, "lease ROOT take HOLDER TTL_MS [steal REASON [TOKEN]] | renew TOKEN TTL_MS | drop TOKEN | show");
}
