// The push cache: its files, the records of what was verified, and what is in use.
#include "cache.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOCK_TRIES 600         // of 25 ms
#define OLD_NS (3600 * NS_S)   // a partial of that age goes first
#define JOB_BYTES (4u << 20)   // of a job that are looked at

struct cache CACHE = {NULL, -1, -1, -1};
struct entries ENTRIES;

int cache_fail(int code, const char *what, const char *why) {
    dprintf(2, "meltprobe: %s: %s\n", what, why);
    return code;
}

bool is_sha(const char *text) {
    return strlen(text) == 64 && strspn(text, "0123456789abcdef") == 64;
}

static int open_folder(int at, const char *name) {
    if (mkdirat(at, name, 0755) != 0 && errno != EEXIST) return -1;
    return openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

int cache_open(const char *dir) {
    // The folder itself may be a link, to a larger disk; nothing in it may.
    if (mkdir(dir, 0755) != 0 && errno != EEXIST) return cache_fail(EXIT_WRITE, dir, strerror(errno));
    int at = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (at >= 0) {
        CACHE.dir = dir;
        CACHE.blobs = open_folder(at, "blobs");
        CACHE.trees = CACHE.blobs < 0 ? -1 : open_folder(at, "trees");
        struct stat st;
        CACHE.lock = CACHE.trees < 0 ? -1 : open_plain(at, "lock", O_RDWR | O_CREAT, &st);
    }
    return CACHE.lock < 0 ? cache_fail(EXIT_WRITE, dir, strerror(errno)) : 0;
}

int cache_lock(void) {
    for (int i = 0; flock(CACHE.lock, LOCK_EX | LOCK_NB) != 0; i++) {
        if (errno != EWOULDBLOCK) return cache_fail(EXIT_WRITE, CACHE.dir, strerror(errno));
        if (i == LOCK_TRIES) return cache_fail(EXIT_BUSY, CACHE.dir, "another meltprobe holds this cache");
        usleep(25000);
    }
    trees_sweep();
    return 0;
}

void cache_unlock(void) { flock(CACHE.lock, LOCK_UN); }

int open_plain(int at, const char *name, int flags, struct stat *st) {
    int fd = openat(at, name, flags | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0644);
    if (fd < 0) return -1;
    int err = fstat(fd, st) != 0 ? errno : !S_ISREG(st->st_mode) ? EINVAL : 0;
    if (!err) return fd;
    close(fd);
    errno = err;
    return -1;
}

// ---- records: what a file was when its hash was right. Any other text, a torn one too, means: hash it again.

static int record_open(const char *sha, int flags, struct stat *st) {
    char name[SHA_TEXT + 8];
    snprintf(name, sizeof name, "%s.ok", sha);
    return open_plain(CACHE.blobs, name, flags, st);
}

static int record_text(char out[256], const char *sha, const struct stat *st) {
    return snprintf(out, 256, "meltblob 1 %s %lld %lld %lld %llu\n", sha, (long long)st->st_size, (long long)ns_of(st->st_mtim),
                    (long long)ns_of(st->st_ctim), (unsigned long long)st->st_ino);
}

static bool record_fits(const char *sha, const struct stat *st) {
    char have[257], want[256];
    struct stat record;
    int fd = record_open(sha, O_RDONLY, &record);
    if (fd < 0) return false;
    ssize_t n = read(fd, have, sizeof have);
    close(fd);
    return n == record_text(want, sha, st) && memcmp(have, want, (size_t)n) == 0;
}

// Where it cannot be written (a full disk) the file is hashed again the next time: that costs time, not truth.
void blob_record(const char *sha, const struct stat *of, int64_t used) {
    char text[256];
    struct stat record, now;
    if (!of && fstatat(CACHE.blobs, sha, &now, AT_SYMLINK_NOFOLLOW) != 0) return;
    int fd = record_open(sha, O_WRONLY | O_CREAT | O_TRUNC, &record);
    if (fd < 0) return;
    write_all(fd, text, (size_t)record_text(text, sha, of ? of : &now));
    futimens(fd, (struct timespec[]){{0, UTIME_OMIT}, to_timespec(used)});
    close(fd);
}

// The record's time says when the blob was used: of the blob itself it would change what the record says.
int64_t blob_used(const char *sha) {
    struct stat st;
    int fd = record_open(sha, O_RDONLY, &st);
    if (fd < 0) return 0;
    close(fd);
    return ns_of(st.st_mtim);
}

enum blob blob_known(const char *sha, struct stat *st) {
    int fd = open_plain(CACHE.blobs, sha, O_RDONLY, st);
    if (fd < 0) return errno == ENOENT ? BLOB_ABSENT : BLOB_UNCHECKED;
    close(fd);
    return record_fits(sha, st) ? BLOB_WHOLE : BLOB_UNCHECKED;
}

enum blob blob_check(const char *sha, bool full, struct stat *st) {
    char hex[SHA_TEXT];
    struct sha256 s;
    *st = (struct stat){0};
    int fd = open_plain(CACHE.blobs, sha, O_RDONLY, st);
    if (fd < 0) return errno == ENOENT ? BLOB_ABSENT : BLOB_DAMAGED;
    bool whole = !full && record_fits(sha, st);
    if (!whole) {
        sha256_start(&s);
        whole = sha256_fd(&s, fd, INT64_MAX) == 0;
        sha256_end(&s, hex);
        whole = whole && strcmp(hex, sha) == 0;
    }
    close(fd);
    return whole ? BLOB_WHOLE : BLOB_DAMAGED;
}

int blob_remove(const char *sha) {
    char name[SHA_TEXT + 8];
    for (int i = 0; i < LEAVES.n; i++)
        if (strcmp(LEAVES.at[i].sha, sha) == 0) {
            int err = tree_remove(LEAVES.at[i].digest);
            if (err) return err;
        }
    if (unlinkat(CACHE.blobs, sha, 0) != 0 && errno != ENOENT) return errno;
    snprintf(name, sizeof name, "%s.ok", sha);
    return unlinkat(CACHE.blobs, name, 0) != 0 && errno != ENOENT ? errno : 0;
}

// ---- what there is

static void entry_add(const char *name, const struct stat *st) {
    struct entry e = {.part = name[64] != 0, .bytes = st->st_size, .used = ns_of(st->st_mtim)};
    memcpy(e.sha, name, 64);
    int64_t now = clock_ns(CLOCK_REALTIME);
    if (!e.part) e.used = blob_used(e.sha);
    if (e.used > ENTRIES.newest) ENTRIES.newest = e.used;
    if (e.part && now - e.used > OLD_NS) e.used = -1;
    ENTRIES.at = xrealloc(ENTRIES.at, (size_t)(ENTRIES.n + 1) * sizeof e);
    int i = ENTRIES.n++;
    for (; i && ENTRIES.at[i - 1].used > e.used; i--) ENTRIES.at[i] = ENTRIES.at[i - 1];
    ENTRIES.at[i] = e;
    ENTRIES.bytes += e.bytes;
}

int cache_scan(void) {
    ENTRIES.n = 0;
    ENTRIES.bytes = ENTRIES.newest = 0;
    int err = trees_scan(), fd = openat(CACHE.blobs, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    if (!dir) return errno;
    for (struct dirent *d; (d = readdir(dir));) {
        char sha[SHA_TEXT] = "";
        struct stat st;
        if (strlen(d->d_name) >= 64) memcpy(sha, d->d_name, 64);
        const char *rest = d->d_name + strlen(sha);
        if (!is_sha(sha) || fstatat(CACHE.blobs, d->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0) continue;
        if (!*rest || strcmp(rest, ".part") == 0) entry_add(d->d_name, &st);
        else if (strcmp(rest, ".ok") == 0 && fstatat(CACHE.blobs, sha, &st, AT_SYMLINK_NOFOLLOW) != 0) unlinkat(CACHE.blobs, d->d_name, 0);
    }
    closedir(dir);
    for (int i = 0; i < LEAVES.n; i++)
        for (int j = 0; j < ENTRIES.n; j++)
            if (!ENTRIES.at[j].part && strcmp(ENTRIES.at[j].sha, LEAVES.at[i].sha) == 0) {
                ENTRIES.at[j].copies += LEAVES.at[i].copied;
                ENTRIES.bytes += LEAVES.at[i].copied;
            }
    return err;
}

int64_t cache_now(void) {
    int64_t now = clock_ns(CLOCK_REALTIME);
    return now > ENTRIES.newest ? now : ENTRIES.newest + 1;
}

// ---- what is in use

// The text of the jobs that run in the folder beside; NULL when one is too long to be known.
static const char *jobs(void) {
    static struct sb text;
    static bool known, too_long;
    char runs[PATH_BYTES], path[PATH_BYTES + 300], state[4096];
    if (known) return too_long ? NULL : text.p;
    known = true;
    sb_text(&text, "");
    const char *slash = strrchr(CACHE.dir, '/');
    snprintf(runs, sizeof runs, "%.*s/runs", slash ? (int)(slash - CACHE.dir) : 1, slash ? CACHE.dir : ".");
    DIR *dir = opendir(runs);
    for (struct dirent *d; dir && (d = readdir(dir));) {
        if (d->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "%s/%s", runs, d->d_name);
        if (!state_text(path, state, sizeof state) || state_ended(state) || !(state_pid(state) || state_guard(state))) continue;
        char *job = xrealloc(NULL, JOB_BYTES);
        strcat(path, "/job");
        ssize_t n = read_text(path, job, JOB_BYTES);
        if (n >= (ssize_t)JOB_BYTES - 1) too_long = true;
        if (n > 0) sb_text(&text, job);
        free(job);
    }
    if (dir) closedir(dir);
    return too_long ? NULL : text.p;
}

bool in_use(const struct entry *e) {
    if (e->part) {
        char name[SHA_TEXT + 8];
        struct stat st;
        snprintf(name, sizeof name, "%s.part", e->sha);
        int fd = open_plain(CACHE.blobs, name, O_RDWR, &st);
        bool put = fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) != 0;
        if (fd >= 0) close(fd);
        return put;
    }
    const char *text = jobs();
    if (!text || strstr(text, e->sha)) return true;
    for (int i = 0; i < LEAVES.n; i++)
        if (strcmp(LEAVES.at[i].sha, e->sha) == 0 && strstr(text, LEAVES.at[i].digest)) return true;
    return false;
}
