// The journal: frames appended in memory, written by one thread, bounded, and closed well on a full disk.
#include "probe.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SYNC 0x4A544C4Du
#define BACKLOG (8u << 20)   // a disk that stalls longer than this many bytes holds the writers up

static struct {
    pthread_mutex_t lock;          // everything here but the file, which belongs to whoever set busy
    pthread_cond_t more, changed;
    pthread_t writer;
    bool threaded, quit, full, busy;
    struct sb pending;
    int fd, error;
    int64_t offset, size, limit, closing, rescued, seq;
    char reserve[4200];
} J = {.lock = PTHREAD_MUTEX_INITIALIZER, .more = PTHREAD_COND_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER, .fd = -1};

// What must be told never waits: the writer itself tells that the disk is full, and the pump that a process ended.
void journal_lock(enum keep keep) {
    pthread_mutex_lock(&J.lock);
    while (J.threaded && keep != KEEP_ALWAYS && !J.full && J.pending.n > BACKLOG) pthread_cond_wait(&J.changed, &J.lock);
}
void journal_unlock(void) { pthread_mutex_unlock(&J.lock); }
int64_t journal_next_seq(void) { return J.seq++; }

static int make_reserve(void) {
    int fd = open(J.reserve, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0) return errno;
    // Written, not only allocated, where the file system cannot allocate.
    int err = posix_fallocate(fd, 0, RESERVE_BYTES);
    if (err < 0) err = errno;   // some libcs answer so, against POSIX
    if (err == EOPNOTSUPP || err == EINVAL || err == ENOSYS) {
        static char zero[4096];
        err = 0;
        for (int i = 0; i < RESERVE_BYTES && !err; i += 4096) err = write_all(fd, zero, sizeof zero);
    }
    close(fd);
    return err;
}

int journal_create(const char *path, const char *reserve, int64_t limit) {
    J.fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (J.fd < 0) return errno;
    strncpy(J.reserve, reserve, sizeof J.reserve - 1);
    J.limit = limit;
    J.seq = 0;
    int err = make_reserve();
    if (!err) err = write_all(J.fd, "MELTJNL1", 8);
    J.offset = J.size = 8;
    if (err) {
        close(J.fd);
        unlink(path);
        unlink(reserve);
    }
    return err;
}

static int see_frame(uint16_t kind, const char *payload, size_t n, void *arg) {
    if (kind != 1) return 0;
    const char *seq = memmem(payload, n, "\"seq\":", 6);
    if (seq) J.seq = strtoll(seq + 6, NULL, 10) + 1;
    struct seen *seen = arg;
    if (n > 14 && memcmp(payload, "{\"event\":\"end\"", 14) == 0) seen->ended = true;
    const char *id = n > 16 && memcmp(payload, "{\"event\":\"begin\"", 16) == 0 ? memmem(payload, n, "\"boot_id\":\"", 11) : NULL;
    for (size_t i = 0; id && i < sizeof seen->boot_id - 1 && id + 11 + i < payload + n && id[11 + i] != '"'; i++) seen->boot_id[i] = id[11 + i];
    return 0;
}

int journal_reopen(const char *path, const char *reserve, struct seen *seen) {
    *seen = (struct seen){0};
    J.fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (J.fd < 0) return errno;
    strncpy(J.reserve, reserve, sizeof J.reserve - 1);
    J.limit = INT64_MAX;
    J.seq = J.error = 0;
    J.full = false;
    int64_t offset = 0;
    journal_walk(J.fd, &offset, see_frame, seen);
    unlink(J.reserve);   // what follows must find room
    if (ftruncate(J.fd, offset) != 0 || lseek(J.fd, offset, SEEK_SET) < 0) return errno;
    int err = offset ? 0 : write_all(J.fd, "MELTJNL1", 8);
    J.offset = J.size = offset ? offset : 8;
    return err;
}

static size_t frame_bytes(const char *frame) {
    uint32_t n;
    memcpy(&n, frame + 8, 4);
    return FRAME_HEAD + n;
}

// Writes whole frames or none: what is torn is cut off again.
static int put_bytes(const char *p, size_t n) {
    size_t done = 0;
    int err = 0;
    while (done < n && !err) {
        ssize_t k = pwrite(J.fd, p + done, n - done, J.offset + (int64_t)done);
        if (k > 0) done += (size_t)k;
        else if (k == 0 || errno != EINTR) err = k == 0 ? ENOSPC : errno;
    }
    size_t whole = 0;
    while (whole < done && whole + frame_bytes(p + whole) <= done) whole += frame_bytes(p + whole);
    J.offset += (int64_t)whole;
    if (err && ftruncate(J.fd, J.offset) != 0) return errno;
    return err;
}

static void say_full(const char *reason, int64_t lost) {
    struct ev e;
    ev_new(&e, "full");
    ev_str(&e, "reason", reason);
    ev_int(&e, "dropped_frames", lost);
    ev_put(&e);
    stop_request(STOP_FULL);
}

// The disk is full: give the reserve back, keep the events of what was to be written, drop its readings. What
// they take is bounded, so that the events that close the run find room.
static int64_t rescue(const char *p, size_t n) {
    int64_t lost = 0;
    unlink(J.reserve);
    for (size_t at = 0, bytes; at < n; at += bytes) {
        const char *text = p + at + FRAME_HEAD;
        bytes = frame_bytes(p + at);
        bool event = p[at + 4] == 1, end = event && strncmp(text, "{\"event\":\"end\"", 14) == 0;
        bool room = event && (end || (J.rescued += (int64_t)bytes) <= RESERVE_BYTES / 4);
        int err = room ? put_bytes(p + at, bytes) : ENOSPC;
        // Others may have taken the reserve: the last event waits a little for room.
        for (int i = 0; err && end && i < 40; i++) {
            usleep(50000);
            err = put_bytes(p + at, bytes);
        }
        if (err) lost++;
        if (err && end) J.error = err;
    }
    return lost;
}

// With J.lock held. Readings that still wait for a full disk would take the room that was given back.
static int64_t drop_readings(void) {
    int64_t lost = 0;
    size_t kept = 0;
    for (size_t at = 0, bytes; at < J.pending.n; at += bytes) {
        bytes = frame_bytes(J.pending.p + at);
        if (J.pending.p[at + 4] != 1) {
            lost++;
            continue;
        }
        memmove(J.pending.p + kept, J.pending.p + at, bytes);
        kept += bytes;
    }
    J.pending.n = kept;
    return lost;
}

// With J.lock held, released meanwhile. One thread writes at a time, so frames keep their order.
static void drain(void) {
    while (J.busy) pthread_cond_wait(&J.changed, &J.lock);
    struct sb batch = J.pending;
    J.pending = (struct sb){0};
    J.busy = true;
    pthread_mutex_unlock(&J.lock);
    int64_t before = J.offset, lost = 0;
    int err = put_bytes(batch.p, batch.n);
    size_t done = (size_t)(J.offset - before);
    if (err) lost = rescue(batch.p + done, batch.n - done);
    pthread_mutex_lock(&J.lock);
    J.busy = false;
    if (J.pending.p) sb_free(&batch);
    else J.pending = (struct sb){batch.p, 0, batch.cap};   // one buffer goes round
    if (err) lost += drop_readings();
    pthread_cond_broadcast(&J.changed);
    if (err && !J.full) {
        J.full = true;
        pthread_mutex_unlock(&J.lock);
        say_full(err == ENOSPC || err == EDQUOT ? "enospc" : "error", lost);
        pthread_mutex_lock(&J.lock);
    }
}

static void *writer_main(void *arg) {
    pthread_mutex_lock(&J.lock);
    while (!J.quit || J.pending.n) {
        if (J.pending.n) drain();
        else pthread_cond_wait(&J.more, &J.lock);
    }
    pthread_mutex_unlock(&J.lock);
    return arg;
}

int journal_start_writer(void) {
    J.threaded = true;
    return pthread_create(&J.writer, NULL, writer_main, NULL);
}

static void reach_limit(int64_t lost) {
    pthread_mutex_unlock(&J.lock);
    say_full("limit", lost);
    pthread_mutex_lock(&J.lock);
}

// Called with J.lock held. False: the frame was dropped.
bool journal_frame(uint16_t kind, const struct iovec *part, int parts, enum keep keep) {
    uint32_t head[4] = {SYNC, kind, 0, 0};
    for (int i = 0; i < parts; i++) head[2] += (uint32_t)part[i].iov_len;
    int64_t n = FRAME_HEAD + head[2];
    if (J.full && keep == KEEP_IF_ROOM && (kind == 2 || (J.closing += n) > CLOSING_BYTES / 2)) return false;
    if (!J.full && keep != KEEP_ALWAYS && J.size + n > J.limit - (kind == 2 ? CLOSING_BYTES : CLOSING_BYTES / 2)) {
        J.full = true;
        if (keep == KEEP_IF_ROOM) {
            reach_limit(1);
            return false;
        }
        bool kept = journal_frame(kind, part, parts, keep);
        reach_limit(0);
        return kept;
    }
    J.size += n;
    uint32_t crc = crc32_of(0, &head[1], 8);
    for (int i = 0; i < parts; i++) crc = crc32_of(crc, part[i].iov_base, part[i].iov_len);
    head[3] = crc;
    sb_add(&J.pending, head, sizeof head);
    for (int i = 0; i < parts; i++) sb_add(&J.pending, part[i].iov_base, part[i].iov_len);
    if (J.threaded) pthread_cond_signal(&J.more);
    else drain();
    return true;
}

void journal_sync(void) {
    pthread_mutex_lock(&J.lock);
    while (J.pending.n || J.busy) {
        if (J.pending.n) drain();
        else pthread_cond_wait(&J.changed, &J.lock);
    }
    pthread_mutex_unlock(&J.lock);
    fdatasync(J.fd);
}

int journal_close(void) {
    if (J.threaded) {
        pthread_mutex_lock(&J.lock);
        J.quit = true;
        pthread_cond_signal(&J.more);
        pthread_mutex_unlock(&J.lock);
        pthread_join(J.writer, NULL);
        J.threaded = false;
    }
    journal_sync();
    close(J.fd);
    sb_free(&J.pending);
    return J.error;
}
