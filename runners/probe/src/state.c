// The state file: for people, progress bars, and to find a run's processes again.
#include "probe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void field(struct sb *b, const char *key, const char *text) {
    sb_text(b, b->n ? ",\"" : "{\"");
    sb_text(b, key);
    sb_text(b, "\":");
    if (text) sb_json(b, text, strlen(text));
}

static void number(struct sb *b, const char *key, int64_t value) {
    field(b, key, NULL);
    sb_int(b, value);
}

static int64_t ticks_of(pid_t pid) {
    struct pstat st;
    return pid > 0 && pstat_read(pid, &st) ? (int64_t)st.start_ticks : 0;
}

// Kept from failing a run: on a full disk the last state stays.
void state_write(const char *dir, const struct state *s) {
    static pid_t pid, guard;
    static int64_t ticks, guard_ticks;
    static char id[64], path[PATH_BYTES];
    if (s->pid) {
        pid = s->pid;
        guard = s->guard;
        ticks = ticks_of(pid);
        guard_ticks = ticks_of(guard);
    }
    if (!id[0]) boot_id(id);
    struct sb b = {0};
    field(&b, "state", s->state);
    number(&b, "step", s->step);
    number(&b, "steps", s->steps);
    field(&b, "op", s->op);
    field(&b, "name", s->name);
    number(&b, "done", s->done);
    number(&b, "of", s->of);
    if (s->limit_ms) {
        number(&b, "elapsed_ms", s->elapsed_ms);
        number(&b, "limit_ms", s->limit_ms);
    }
    number(&b, "pid", pid);
    number(&b, "guard_pid", guard);
    number(&b, "start_ticks", ticks);
    number(&b, "guard_start_ticks", guard_ticks);
    field(&b, "boot_id", id);
    field(&b, "result", s->result);
    field(&b, "reason", s->reason ? s->reason : "");
    sb_text(&b, "}\n");
    snprintf(path, sizeof path, "%s/state", dir);
    write_atomic(path, b.p, b.n);
    sb_free(&b);
}

bool run_has(const char *dir, const char *name) {
    char path[PATH_BYTES];
    return snprintf(path, sizeof path, "%s/%s", dir, name) < (int)sizeof path && access(path, F_OK) == 0;
}

// It is replaced within a run, and so not synced: a power cut may leave it empty, or as long as it was and all zeros.
bool state_text(const char *dir, char *buf, size_t cap) {
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s/state", dir);
    bool told = read_text(path, buf, cap) > 0 && buf[0] == '{';
    if (!told) buf[0] = 0;
    return told;
}

bool state_ended(const char *text) { return strstr(text, "\"state\":\"ended\"") != NULL; }

bool state_boot(const char *text, char out[64]) {
    const char *at = strstr(text, "\"boot_id\":\"");
    size_t n = at ? strcspn(at + 11, "\"") : 64;
    if (n >= 64) return false;
    memcpy(out, at + 11, n);
    out[n] = 0;
    return true;
}

bool other_boot(const char *id) {
    char now[64];
    boot_id(now);
    return *id && *now && strcmp(id, now) != 0;
}

static pid_t alive(const char *text, const char *pid_key, const char *ticks_key) {
    char id[64];
    const char *pid = strstr(text, pid_key), *ticks = strstr(text, ticks_key);
    if (!pid || !ticks || !state_boot(text, id) || other_boot(id)) return 0;
    pid_t p = (pid_t)strtol(pid + strlen(pid_key), NULL, 10);
    return is_same(p, strtoull(ticks + strlen(ticks_key), NULL, 10)) ? p : 0;
}

pid_t state_pid(const char *text) { return alive(text, "\"pid\":", "\"start_ticks\":"); }
pid_t state_guard(const char *text) { return alive(text, "\"guard_pid\":", "\"guard_start_ticks\":"); }

int cmd_status(const char *dir) {
    char text[4096 + 64];
    if (!state_text(dir, text, 4096)) snprintf(text, sizeof text, "{\"state\":\"%s\"}", run_has(dir, "journal") ? "lost" : "none");
    trim_end(text);
    size_t n = strlen(text);
    if (n && text[n - 1] == '}') text[n - 1] = 0;
    char id[64], *result = strstr(text, ",\"result\":");
    bool open = !state_ended(text), lives = open && (state_pid(text) || state_guard(text));
    // What recover will write: nothing of an earlier boot can go on.
    if (open && result && state_boot(text, id) && other_boot(id)) strcpy(result, ",\"result\":\"failed\",\"reason\":\"device_rebooted\"");
    return dprintf(1, "%s,\"alive\":%s}\n", text, lives ? "true" : "false") < 0 ? EXIT_WRITE : 0;
}
