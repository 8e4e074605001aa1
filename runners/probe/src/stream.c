// Streams: readings kept by column until the buffer is full or a second old.
#include "probe.h"

#include <stdlib.h>
#include <string.h>

struct buffer {
    uint32_t n, rows, raw_n, raw_cap;
    int64_t *t0, *t1;
    int32_t *err;
    uint32_t *len;
    uint8_t *raw;
};

static atomic_uint next_number;

struct buffer *buffer_new(uint32_t rows, uint32_t raw_bytes) {
    struct buffer *b = xrealloc(NULL, sizeof *b);
    char *block = xrealloc(NULL, (size_t)rows * 24 + raw_bytes);
    *b = (struct buffer){.rows = rows, .raw_cap = raw_bytes, .t0 = (void *)block};
    b->t1 = b->t0 + rows;
    b->err = (int32_t *)(b->t1 + rows);
    b->len = (uint32_t *)(b->err + rows);
    b->raw = (uint8_t *)(b->len + rows);
    return b;
}

void buffer_free(struct buffer *b) {
    if (!b) return;
    free(b->t0);
    free(b);
}

void stream_open(struct stream *s, struct buffer *buf, const char *channel, const char *kind, const char *path, int err) {
    *s = (struct stream){.number = atomic_fetch_add(&next_number, 1), .buf = buf};
    struct ev e;
    ev_new(&e, "stream");
    ev_int(&e, "stream", s->number);
    ev_str(&e, "channel", channel);
    ev_str(&e, "kind", kind);
    ev_str(&e, "path", path);
    ev_str(&e, "status", status_of(err));
    ev_int(&e, "errno", err);
    ev_put(&e);
}

static void put_frame(struct stream *s, uint32_t n, struct iovec *column, size_t raw_n) {
    uint32_t head[2] = {s->number, n};
    column[0] = (struct iovec){head, sizeof head};
    journal_lock(KEEP_IF_ROOM);
    bool kept = journal_frame(2, column, 6, KEEP_IF_ROOM);
    journal_unlock();
    if (kept) s->readings += n;
    else s->dropped += raw_n;
}

void stream_flush(struct stream *s) {
    struct buffer *b = s->buf;
    if (!b || !b->n) return;
    struct iovec c[6] = {{NULL, 0}, {b->t0, b->n * 8u}, {b->t1, b->n * 8u}, {b->err, b->n * 4u}, {b->len, b->n * 4u}, {b->raw, b->raw_n}};
    put_frame(s, b->n, c, b->raw_n);
    b->n = b->raw_n = 0;
}

void stream_put(struct stream *s, int64_t t0, int64_t t1, int err, const void *raw, size_t n) {
    struct buffer *b = s->buf;
    if (b->n == b->rows || b->raw_n + n > b->raw_cap) stream_flush(s);
    if (n > b->raw_cap) {
        int32_t e = err;
        uint32_t len = (uint32_t)n;
        struct iovec c[6] = {{NULL, 0}, {&t0, 8}, {&t1, 8}, {&e, 4}, {&len, 4}, {(void *)raw, n}};
        put_frame(s, 1, c, n);
        return;
    }
    b->t0[b->n] = t0;
    b->t1[b->n] = t1;
    b->err[b->n] = err;
    b->len[b->n] = (uint32_t)n;
    if (n) memcpy(b->raw + b->raw_n, raw, n);
    b->raw_n += (uint32_t)n;
    b->n++;
}

void stream_end(struct stream *s) {
    stream_flush(s);
    struct ev e;
    ev_new(&e, "stream_end");
    ev_int(&e, "stream", s->number);
    ev_int(&e, "readings", (int64_t)s->readings);
    ev_int(&e, "late", (int64_t)s->late);
    ev_int(&e, "overruns", (int64_t)s->overruns);
    ev_int(&e, "max_late_ns", s->max_late);
    ev_int(&e, "dropped_bytes", (int64_t)s->dropped);
    ev_put(&e);
}

void stream_deadline(struct stream *s, int64_t *next, int64_t period, int64_t t0, int64_t t1) {
    int64_t late = t0 - *next, allowed = period / 10 > NS_MS ? period / 10 : NS_MS;
    if (late > allowed) s->late++;
    if (late > s->max_late) s->max_late = late;
    *next += period;
    if (*next > t1) return;
    int64_t missed = (t1 - *next) / period + 1;
    s->overruns += (uint64_t)missed;
    *next += missed * period;
}
