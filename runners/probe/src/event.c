// Events: one JSON object a frame, in printable ASCII.
#include "probe.h"

#include <stdio.h>
#include <string.h>

#define STRING_MAX 16384   // an event stays far below the longest frame

void ev_new(struct ev *e, const char *name) { *e = (struct ev){.name = name, .t = boot_ns()}; }

static void key_of(struct ev *e, const char *key) {
    sb_text(&e->b, ",\"");
    sb_text(&e->b, key);
    sb_text(&e->b, "\":");
}

void ev_str(struct ev *e, const char *key, const char *value) {
    key_of(e, key);
    sb_json(&e->b, value, strnlen(value, STRING_MAX));
}

void ev_int(struct ev *e, const char *key, int64_t value) {
    key_of(e, key);
    sb_int(&e->b, value);
}

void ev_raw(struct ev *e, const char *key, const char *json) {
    key_of(e, key);
    sb_text(&e->b, json);
}

void ev_null(struct ev *e, const char *key) { ev_raw(e, key, "null"); }
void ev_bool(struct ev *e, const char *key, bool value) { ev_raw(e, key, value ? "true" : "false"); }

// As a JSON number with its fraction: the same decimal that a file held.
void ev_millionths(struct ev *e, const char *key, int64_t value) {
    char text[32];
    int64_t size = value < 0 ? -value : value;
    snprintf(text, sizeof text, "%s%lld.%06d", value < 0 ? "-" : "", (long long)(size / 1000000), (int)(size % 1000000));
    ev_raw(e, key, text);
}

// The other clocks at the event's time. Of several readings the one that took the least time: where the probe was held up
// between two clocks, they would seem to have parted, as they do in suspend.
void ev_clocks(struct ev *e) {
    int64_t least = INT64_MAX, mono = 0, wall = 0;
    for (int i = 0; i < 8 && least > 20000; i++) {
        int64_t before = boot_ns(), m = clock_ns(CLOCK_MONOTONIC), w = clock_ns(CLOCK_REALTIME), took = boot_ns() - before;
        if (took >= least) continue;
        least = took;
        mono = m - before - took / 2;
        wall = w - before - took / 2;
    }
    ev_int(e, "mono_ns", e->t + mono);
    ev_int(e, "wall_ns", e->t + wall);
}

// Events without which the end of a run cannot be understood: kept when nothing else is.
static enum keep keep_of(const char *name) {
    static const char *const names[] = {"step", "set", "full", "stopping", "exit", "undo", "end", "reboot", NULL};
    for (int i = 0; names[i]; i++)
        if (strcmp(names[i], name) == 0) return i < 2 ? KEEP_WHEN_FULL : KEEP_ALWAYS;
    return KEEP_IF_ROOM;
}

void ev_put(struct ev *e) {
    struct sb head = {0};
    enum keep keep = keep_of(e->name);
    journal_lock(keep);
    sb_text(&head, "{\"event\":\"");
    sb_text(&head, e->name);
    sb_text(&head, "\",\"seq\":");
    sb_int(&head, journal_next_seq());
    sb_text(&head, ",\"boot_ns\":");
    sb_int(&head, e->t);
    sb_text(&e->b, "}");
    struct iovec part[2] = {{head.p, head.n}, {e->b.p, e->b.n}};
    journal_frame(1, part, 2, keep);
    journal_unlock();
    sb_free(&head);
    sb_free(&e->b);
}
