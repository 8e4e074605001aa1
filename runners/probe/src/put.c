// The push cache: receiving a file, and making room for it.
#include "cache.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define CHUNK (1 << 18)
#define FLUSH_BYTES (16 << 20) // handed to the disk at a time, so that little is left to do at the end
#define SILENCE_MS 10000       // a sender that says nothing for so long is gone; its link may not tell for minutes

struct put { const char *sha; char part[SHA_TEXT + 8]; int64_t bytes, offset, cap, reserve; int fd; };

static const char *mb(char out[32], int64_t bytes) {
    snprintf(out, 32, "%lld.%lld MB", (long long)(bytes / 1000000), (long long)(bytes / 100000 % 10));
    return out;
}

// held: in use in the cache. gain: what dropping the rest of it gives.
static int refuse(const struct put *p, int64_t free, int64_t held, int64_t gain) {
    char a[32], b[32], c[32], d[32];
    if (p->bytes > p->cap - held)
        dprintf(2, "meltprobe: %s: no room: a file of %s does not fit a cache of at most %s, of which %s are in use\n", CACHE.dir, mb(a, p->bytes), mb(b, p->cap), mb(c, held));
    else
        dprintf(2, "meltprobe: %s: no room: %s are to come and %s to stay free, but %s are free, and all that could be dropped gives %s\n",
                CACHE.dir, mb(a, p->bytes - p->offset), mb(b, p->reserve), mb(c, free), mb(d, gain));
    return EXIT_WRITE;
}

// Least recently used first, and nothing at all where that would not do.
static int make_room(const struct put *p) {
    struct statvfs v;
    int err = cache_scan();
    if (!err && fstatvfs(CACHE.blobs, &v) != 0) err = errno;
    if (err) return cache_fail(EXIT_WRITE, CACHE.dir, strerror(err));
    int64_t free = (int64_t)v.f_bavail * (int64_t)v.f_frsize, gain = 0, held = 0, others = ENTRIES.bytes;
    for (int i = 0; i < ENTRIES.n; i++)
        if (strcmp(ENTRIES.at[i].sha, p->sha) == 0) others -= ENTRIES.at[i].bytes + ENTRIES.at[i].copies;
    int64_t over = others + p->bytes - p->cap, lacking = p->bytes - p->offset + p->reserve - free;
    for (int i = 0; i < ENTRIES.n; i++) {
        struct entry *e = &ENTRIES.at[i];
        int64_t bytes = e->bytes + e->copies;
        if (strcmp(e->sha, p->sha) == 0) continue;
        if (in_use(e)) {
            held += bytes;
            continue;
        }
        e->go = over > gain || lacking > gain;
        gain += bytes;
    }
    if (over > gain || lacking > gain) return refuse(p, free, held, gain);
    for (int i = 0; i < ENTRIES.n && !err; i++) {
        const struct entry *e = &ENTRIES.at[i];
        char name[SHA_TEXT + 8];
        snprintf(name, sizeof name, "%s.part", e->sha);
        if (e->go) err = e->part ? (unlinkat(CACHE.blobs, name, 0) != 0 ? errno : 0) : blob_remove(e->sha);
    }
    return err ? cache_fail(EXIT_WRITE, CACHE.dir, strerror(err)) : 0;
}

static bool silent(void) {
    struct pollfd in = {.fd = 0, .events = POLLIN};
    int n = poll(&in, 1, SILENCE_MS);
    return n == 0 || (n < 0 && errno != EINTR);
}

// From where the partial ends to the last byte, hashed on the way.
static int receive(const struct put *p, struct sha256 *s) {
    static char buf[CHUNK];
    int64_t at = p->offset, flushed = at;
    int err = 0;
    fcntl(0, F_SETPIPE_SZ, 1 << 20);
    while (!err && at < p->bytes) {
        int64_t left = p->bytes - at;
        ssize_t k = silent() ? 0 : read(0, buf, left < CHUNK ? (size_t)left : CHUNK);
        if (k < 0 && errno == EINTR) continue;
        if (k <= 0) {
            dprintf(2, "meltprobe: %s: %lld of %lld bytes came\n", p->sha, (long long)at, (long long)p->bytes);
            return EXIT_CUT;
        }
        sha256_add(s, buf, (size_t)k);
        err = write_all(p->fd, buf, (size_t)k);
        at += k;
        if (at - flushed >= FLUSH_BYTES) {
            sync_file_range(p->fd, flushed, at - flushed, SYNC_FILE_RANGE_WRITE);
            flushed = at;
        }
    }
    if (!err && fsync(p->fd) != 0) err = errno;
    if (err) dprintf(2, "meltprobe: %s: %s after %lld of %lld bytes\n", CACHE.dir, strerror(err), (long long)at, (long long)p->bytes);
    return err ? EXIT_WRITE : 0;
}

// The file gets its name: whole, on the disk, and recorded.
static int publish(const struct put *p) {
    int code = cache_lock();
    if (code) return code;
    int err = cache_scan();
    if (!err && (fchmod(p->fd, 0755) != 0 || renameat(CACHE.blobs, p->part, CACHE.blobs, p->sha) != 0 || fsync(CACHE.blobs) != 0)) err = errno;
    if (!err) blob_record(p->sha, NULL, cache_now());
    cache_unlock();
    return err ? cache_fail(EXIT_WRITE, p->sha, strerror(err)) : 0;
}

static int told(const struct put *p) {
    dprintf(1, "{\"state\":\"whole\",\"bytes\":%lld}\n", (long long)p->bytes);
    return 0;
}

static int begin(struct put *p, struct stat *st) {
    p->fd = open_plain(CACHE.blobs, p->part, O_RDWR | O_CREAT, st);
    if (p->fd < 0 && (errno == ELOOP || errno == EINVAL) && unlinkat(CACHE.blobs, p->part, 0) == 0)   // no file of ours
        p->fd = open_plain(CACHE.blobs, p->part, O_RDWR | O_CREAT, st);
    if (p->fd < 0) return cache_fail(EXIT_WRITE, p->part, strerror(errno));
    if (flock(p->fd, LOCK_EX | LOCK_NB) != 0) return cache_fail(EXIT_BUSY, p->sha, "another push of it is under way");
    if (fstat(p->fd, st) != 0) return cache_fail(EXIT_WRITE, p->part, strerror(errno));
    if (st->st_size < p->offset) {
        dprintf(2, "meltprobe: %s: %lld bytes are there, not %lld\n", p->sha, (long long)st->st_size, (long long)p->offset);
        return EXIT_CUT;
    }
    return make_room(p);
}

int cache_put(const char *sha, int64_t bytes, int64_t offset, int64_t cap, int64_t reserve) {
    struct put p = {.sha = sha, .bytes = bytes, .offset = offset, .cap = cap, .reserve = reserve, .fd = -1};
    struct sha256 s;
    struct stat st;
    char hex[SHA_TEXT];
    snprintf(p.part, sizeof p.part, "%s.part", sha);
    if (blob_check(sha, false, &st) == BLOB_WHOLE && st.st_size == bytes) return told(&p);
    int code = cache_lock();
    if (code) return code;
    code = begin(&p, &st);
    // Nothing was kept of it: then nothing stays.
    if (code && code != EXIT_BUSY && p.fd >= 0 && st.st_size == 0) unlinkat(CACHE.blobs, p.part, 0);
    cache_unlock();
    if (code) return code;
    sha256_start(&s);
    int err = ftruncate(p.fd, offset) != 0 ? errno : sha256_fd(&s, p.fd, offset);
    if (!err && ((int64_t)s.bytes != offset || lseek(p.fd, offset, SEEK_SET) != offset)) err = EIO;
    if (err) return cache_fail(EXIT_WRITE, p.part, strerror(err));
    code = receive(&p, &s);
    if (code) return code;
    sha256_end(&s, hex);
    if (strcmp(hex, sha) != 0) {
        if (unlinkat(CACHE.blobs, p.part, 0) != 0) return cache_fail(EXIT_WRITE, p.part, strerror(errno));
        return cache_fail(EXIT_DAMAGED, sha, "what came is another file; it was removed");
    }
    code = publish(&p);
    return code ? code : told(&p);
}
