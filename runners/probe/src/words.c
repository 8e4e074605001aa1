// Words of a job: %XX, {pid:NAME}, {port:NAME}.
#include "probe.h"

#include <stdlib.h>
#include <string.h>

#define PORTS_MAX 64

static struct { const char *name; int port; } ports[PORTS_MAX];
static int n_ports;

bool port_set(const char *name, int port) {
    pump_lock();
    int i = 0;
    while (i < n_ports && strcmp(ports[i].name, name) != 0) i++;
    bool room = i < PORTS_MAX;
    if (room) ports[i].name = name, ports[i].port = port;
    if (i == n_ports && room) n_ports++;
    pump_unlock();
    return room;
}

int port_get(const char *name) {
    pump_lock();
    int port = 0;
    for (int i = 0; i < n_ports; i++)
        if (strcmp(ports[i].name, name) == 0) port = ports[i].port;
    pump_unlock();
    return port;
}

int64_t word_int(const char *word) {
    int64_t v = 0;
    if (!*word || strlen(word) > 15) return -1;
    for (; *word; word++) {
        if (*word < '0' || *word > '9') return -1;
        v = v * 10 + (*word - '0');
    }
    return v;
}

static int hex_of(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return -1;
}

// A placeholder at p: its name in out, its length as the result; else 0.
static size_t placeholder(const char *p, const char *what, char out[80]) {
    size_t k = strlen(what);
    if (p[0] != '{' || strncmp(p + 1, what, k) != 0 || p[k + 1] != ':') return 0;
    const char *end = strchr(p, '}');
    size_t n = end ? (size_t)(end - p) - k - 2 : 0;
    if (!n || n >= 80) return 0;
    memcpy(out, p + k + 2, n);
    out[n] = 0;
    return n + k + 3;
}

bool word_names(const char *word, const char *what, const char *name) {
    char found[80];
    for (; *word; word++)
        if (placeholder(word, what, found) && (!name || strcmp(found, name) == 0)) return true;
    return false;
}

bool word_plain(const char *word) { return !word_names(word, "pid", NULL) && !word_names(word, "port", NULL); }

// Puts the number for a placeholder at p; returns its length, 0 when there is none, or -1 with a reason.
static int expand_one(const char *p, struct sb *out, struct sb *why) {
    char name[80];
    size_t n = placeholder(p, "pid", name);
    if (n) {
        struct proc *proc = proc_find(name);
        if (proc && !proc->running) proc = NULL;
        if (proc) sb_int(out, proc->pid);
        else sb_text(why, "no process "), sb_text(why, name);
        return proc ? (int)n : -1;
    }
    n = placeholder(p, "port", name);
    if (!n) return 0;
    if (port_get(name)) sb_int(out, port_get(name));
    else sb_text(why, "no port "), sb_text(why, name);
    return port_get(name) ? (int)n : -1;
}

static char *expand(const char *word, bool pattern, struct sb *why) {
    struct sb out = {0};
    sb_add(&out, "", 0);
    if (strcmp(word, "%") == 0) return out.p;
    while (*word) {
        int n = expand_one(word, &out, why);
        if (n < 0) {
            sb_free(&out);
            return NULL;
        }
        if (n == 0 && *word == '%') {
            char c = (char)(hex_of(word[1]) * 16 + hex_of(word[2]));
            // A byte written %XX stands for itself, also where glob would read it otherwise.
            if (pattern && strchr("*?[]\\", c)) sb_add(&out, "\\", 1);
            sb_add(&out, &c, 1);
            n = 3;
        } else if (n == 0) {
            sb_add(&out, word, 1);
            n = 1;
        }
        word += n;
    }
    return out.p;
}

char *word_expand(const char *word, struct sb *why) { return expand(word, false, why); }
char *word_pattern(const char *word, struct sb *why) { return expand(word, true, why); }

void words_free(char **words) {
    for (char **w = words; w && *w; w++) free(*w);
    free(words);
}

char **words_expand(char **words, struct sb *why) {
    int n = 0;
    while (words[n]) n++;
    char **out = memset(xrealloc(NULL, ((size_t)n + 1) * sizeof *out), 0, ((size_t)n + 1) * sizeof *out);
    for (int i = 0; i < n; i++) {
        out[i] = word_expand(words[i], why);
        if (!out[i]) {
            words_free(out);
            return NULL;
        }
    }
    return out;
}
