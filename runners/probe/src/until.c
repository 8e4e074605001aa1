// What stands between the numbers and the files of a step http: the pause before each request, and what ends a circle of
// them: time, or a value of the machine that went too far.
#include "probe.h"

#include <stdlib.h>
#include <string.h>

#define LOOK_NS (250 * NS_MS)   // reading sensors costs the target something, so not before every short request

bool until_word(const char *word) { return strncmp(word, "until=", 6) == 0; }
int64_t until_ms(const char *word) { return word_int(word + 6); }

bool pause_word(const char *word) { return strncmp(word, "pause=", 6) == 0; }
int64_t pause_ms(const char *word) { return word_int(word + 6); }

static bool pauses(const struct step *s) { return s->n > 4 && pause_word(s->w[4]); }
static int until_at(const struct step *s) { return pauses(s) ? 5 : 4; }
static bool circles(const struct step *s) { return until_at(s) < s->n && until_word(s->w[until_at(s)]); }

int64_t http_pause_ms(const struct step *s) { return pauses(s) ? pause_ms(s->w[4]) : 0; }

int http_files(const struct step *s) {
    int at = until_at(s);
    if (circles(s))
        while (strcmp(s->w[at++], "--") != 0) {}
    return at;
}

int http_count(const struct step *s) { return circles(s) ? 0 : s->n - http_files(s); }

struct past { bool below; int64_t limit, value; char *path; };

static int look(const char *path, void *arg) {
    struct past *p = arg;
    int64_t v;
    if (!value_of(path, &v) || (p->below ? v >= p->limit : v <= p->limit)) return 0;
    p->value = v;
    p->path = xstrdup(path);
    return 1;
}

static void say(struct until *u, const struct past *p) {
    struct ev e;
    ev_new(&e, "until");
    ev_str(&e, "by", p ? "path" : "time");
    p ? ev_str(&e, "path", p->path) : ev_null(&e, "path");
    p ? ev_millionths(&e, "value", p->value) : ev_null(&e, "value");
    ev_put(&e);
    u->over = true;
}

// Each limit is PATH below|above LIMIT; of a glob any match is enough, for a machine is as hot as its hottest zone.
static void look_round(struct until *u) {
    for (int i = 0; i < u->n && !u->over; i += 3) {
        struct past p = {.below = strcmp(u->limits[i + 1], "below") == 0};
        struct sb why = {0};
        char *pattern = word_pattern(u->limits[i], &why);
        decimal(u->limits[i + 2], &p.limit);
        if (pattern) glob_each(pattern, look, &p);
        if (p.path) say(u, &p);
        free(p.path);
        free(pattern);
        sb_free(&why);
    }
}

void until_start(struct until *u, const struct step *s) {
    int at = until_at(s);
    *u = (struct until){.start = boot_ns(), .limits = s->w + at + 1};
    pthread_mutex_init(&u->lock, NULL);
    if (!circles(s)) return;
    u->ms = until_ms(s->w[at]);
    u->n = http_files(s) - at - 2;
}

bool until_over(struct until *u) {
    if (!u->ms) return false;
    pthread_mutex_lock(&u->lock);   // another worker that comes by waits: none is to start while the limits are read
    int64_t now = boot_ns();
    if (!u->over && now - u->start >= u->ms * NS_MS) say(u, NULL);
    if (!u->over && now >= u->next_look) {
        look_round(u);
        u->next_look = boot_ns() + LOOK_NS;
    }
    bool over = u->over;
    pthread_mutex_unlock(&u->lock);
    return over;
}
