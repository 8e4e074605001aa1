// The job file: checked whole before anything runs, so that a mistake costs nothing.
#include "probe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define JOB_MAX (4u << 20)
#define WORDS_MAX 4096
#define STEPS_MAX 10000
#define CHANNELS_MAX 512

struct parse { struct job *job; struct sb *why; int line, n; char **w; };

static int bad(struct parse *p, const char *what, const char *word, const char *valid) {
    char t[32];
    snprintf(t, sizeof t, "job line %d: ", p->line);
    sb_text(p->why, t);
    sb_text(p->why, what);
    if (word) {
        sb_text(p->why, " ");
        sb_json(p->why, word, strnlen(word, 80));
    }
    if (valid) {
        sb_text(p->why, "; valid: ");
        sb_text(p->why, valid);
    }
    return EXIT_USAGE;
}

static bool is_hex(char c) { return c && strchr("0123456789ABCDEFabcdef", c); }

static bool word_ok(const char *w) {
    if (!*w) return false;
    if (strcmp(w, "%") == 0) return true;
    for (; *w; w++) {
        char c = *w;
        if (c == '%') {
            if (!is_hex(w[1]) || !is_hex(w[2]) || (w[1] == '0' && w[2] == '0')) return false;
            w += 2;
        } else if (!((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || strchr("_./:=,+@{}*?[]-", c))) {
            return false;
        }
    }
    return true;
}

static bool name_ok(const char *w) {
    size_t n = strlen(w);
    if (!n || n > 64) return false;
    for (; *w; w++)
        if (!((*w >= '0' && *w <= '9') || (*w >= 'A' && *w <= 'Z') || (*w >= 'a' && *w <= 'z') || strchr("_.-", *w))) return false;
    return true;
}

static bool op_is(const struct step *s, const char *word) { return strcmp(s->op->word, word) == 0; }

static bool known(struct parse *p, const char *name, bool port, int steps) {
    for (int i = 0; i < steps; i++) {
        struct step *s = &p->job->steps[i];
        bool makes = port ? op_is(s, "port") : op_is(s, "spawn") || op_is(s, "exec");
        if (makes && strcmp(s->name, name) == 0) return true;
    }
    return false;
}

// Every {pid:} and {port:} of the words must name something the job starts (before this step).
static int check_names(struct parse *p, char **w, int n, int steps) {
    for (int i = 0; i < n; i++) {
        for (const char *c = w[i]; (c = strchr(c, '{')); c++) {
            bool port = strncmp(c, "{port:", 6) == 0;
            if (!port && strncmp(c, "{pid:", 5) != 0) continue;
            char name[80];
            snprintf(name, sizeof name, "%s", c + (port ? 6 : 5));
            if (!strchr(name, '}')) return bad(p, "unclosed name in", w[i], NULL);
            *strchr(name, '}') = 0;
            if (!known(p, name, port, steps)) return bad(p, port ? "no earlier step port" : "no step spawn or exec", name, NULL);
        }
    }
    return 0;
}

static int check_argv(struct parse *p, int at, const char *usage) {
    if (at >= p->n || strcmp(p->w[at], "--") != 0) return bad(p, "expected --", at < p->n ? p->w[at] : NULL, usage);
    return at + 1 < p->n ? 0 : bad(p, "no program after --", NULL, usage);
}

static int parse_limit(struct parse *p) {
    static const struct { const char *word; size_t at; int64_t least; } limits[] = {
        {"journal_bytes", offsetof(struct job, journal_bytes), 4 * CLOSING_BYTES},
        {"duration_ms", offsetof(struct job, duration_ms), 1},
        {"log_bytes", offsetof(struct job, log_bytes), 0}};
    const char *valid = "limit journal_bytes N (262144 or more) | limit duration_ms N (1 or more) | limit log_bytes N";
    if (p->n != 3) return bad(p, "wrong number of words", NULL, valid);
    for (size_t i = 0; i < 3; i++) {
        if (strcmp(p->w[1], limits[i].word) != 0) continue;
        int64_t v = word_int(p->w[2]);
        if (v < limits[i].least || v < 0) return bad(p, "bad value", p->w[2], valid);
        *(int64_t *)((char *)p->job + limits[i].at) = v;
        return 0;
    }
    return bad(p, "unknown limit", p->w[1], "journal_bytes duration_ms log_bytes");
}

static int parse_file_channel(struct parse *p, struct channel *c) {
    const char *usage = "channel NAME file PATH PERIOD_NS [OFFSET_NS], period 0 or 1000000 and more";
    if (p->n < 5 || p->n > 6) return bad(p, "wrong number of words", NULL, usage);
    c->path = p->w[3];
    c->period = word_int(p->w[4]);
    c->offset = p->n == 6 ? word_int(p->w[5]) : 0;
    if (c->period < 0 || (c->period && c->period < NS_MS)) return bad(p, "bad period", p->w[4], usage);
    if (c->offset < 0) return bad(p, "bad offset", p->w[5], usage);
    return word_names(c->path, "port", NULL) ? bad(p, "a port in a path", c->path, usage) : 0;
}

static int parse_channel(struct parse *p) {
    const char *poll = "channel NAME poll PERIOD_NS DEADLINE_MS -- ARGV..., period 0 or 1000000 and more";
    const char *lines = "channel NAME lines -- ARGV... (without {pid:} and {port:})";
    if (p->n < 3 || !name_ok(p->w[1])) return bad(p, "bad channel", p->n > 1 ? p->w[1] : NULL, "channel NAME file|poll|lines ...");
    if (p->job->n_channels == CHANNELS_MAX) return bad(p, "too many channels", NULL, "512");
    struct channel *c = &p->job->channels[p->job->n_channels++];
    *c = (struct channel){.name = p->w[1]};
    if (strcmp(p->w[2], "file") == 0) return parse_file_channel(p, c);
    if (strcmp(p->w[2], "poll") == 0) {
        c->kind = CH_POLL;
        int err = check_argv(p, 5, poll);
        if (err) return err;
        c->argv = p->w + 6;
        c->period = word_int(p->w[3]);
        c->deadline_ms = word_int(p->w[4]);
        if (c->period < 0 || (c->period && c->period < NS_MS)) return bad(p, "bad period", p->w[3], poll);
        return c->deadline_ms < 1 ? bad(p, "bad deadline", p->w[4], poll) : 0;
    }
    if (strcmp(p->w[2], "lines") != 0) return bad(p, "unknown channel kind", p->w[2], "file poll lines");
    c->kind = CH_LINES;
    c->argv = p->w + 4;
    for (int i = 4; i < p->n; i++)
        if (!word_plain(p->w[i])) return bad(p, "not known when it starts:", p->w[i], lines);
    return check_argv(p, 3, lines);
}

static bool is_side(const char *w) { return strcmp(w, "below") == 0 || strcmp(w, "above") == 0; }

// until=MS, any number of PATH below|above LIMIT, then --; moves *at behind them.
static int check_until(struct parse *p, int *at, const char *usage) {
    int64_t number;
    if (until_ms(p->w[*at]) < 1) return bad(p, "bad", p->w[*at], usage);
    for (++*at; *at < p->n && strcmp(p->w[*at], "--") != 0; *at += 3) {
        if (*at + 2 >= p->n) return bad(p, "too few words", NULL, usage);
        if (!is_side(p->w[*at + 1])) return bad(p, "unknown", p->w[*at + 1], "below above");
        if (!decimal(p->w[*at + 2], &number)) return bad(p, "not a number:", p->w[*at + 2], usage);
    }
    if (*at >= p->n) return bad(p, "expected --", NULL, usage);
    ++*at;
    return 0;
}

// cpus=, memory= and any number of env=; moves *at behind them.
static int check_given(struct parse *p, int *at, const char *usage) {
    struct caps caps = {0};
    for (; *at < p->n; ++*at) {
        const char *w = p->w[*at];
        bool good = true, cap = caps_word(w, &caps, &good);
        if (!good) return bad(p, "bad", w, "cpus=0-3,6 | memory=BYTES of at least 1048576, each once");
        if (!cap && strncmp(w, "env=", 4) != 0) return 0;
        if (!cap && !strchr(w + 4, '=')) return bad(p, "no = in", w, usage);
    }
    return 0;
}

// The form of a step's words after its name: i a number, p a path or word, d measure or drop, b below or
// above, r a process, o a port, m a port's number that may be left out, c what a process is given then -- and a program, e a program after --, u a pause before each request and
// what ends a circle of them then --, f one file or more.
static int check_form(struct parse *p, struct step *s) {
    int at = op_is(s, "pages") || op_is(s, "set") || op_is(s, "undo") ? 2 : 3;
    for (const char *f = s->op->form; *f; f++, at++) {
        if (*f == 'c') {
            int err = check_given(p, &at, s->op->usage);
            if (err) return err;
        }
        if (*f == 'c' || *f == 'e') return check_argv(p, at, s->op->usage);
        if (*f == 'u') {
            if (at < p->n && pause_word(p->w[at]) && pause_ms(p->w[at++]) < 1) return bad(p, "bad", p->w[at - 1], s->op->usage);
            int err = at < p->n && until_word(p->w[at]) ? check_until(p, &at, s->op->usage) : 0;
            if (err) return err;
            at--;
            continue;
        }
        if (*f == 'm' && at >= p->n) return 0;
        if (at >= p->n) return bad(p, "too few words", NULL, s->op->usage);
        const char *w = p->w[at];
        int64_t number;
        if (*f == 'm' && (word_int(w) < 1 || word_int(w) > 65535)) return bad(p, "no port:", w, s->op->usage);
        if (*f == 'f') return 0;
        if (*f == 'i' && word_int(w) < 0) return bad(p, "not a number:", w, s->op->usage);
        if (*f == 'd' && strcmp(w, "measure") != 0 && strcmp(w, "drop") != 0) return bad(p, "unknown", w, "measure drop");
        if (*f == 'b' && !is_side(w)) return bad(p, "unknown", w, "below above");
        if (*f == 'n' && !decimal(w, &number)) return bad(p, "not a number:", w, s->op->usage);
        if (*f == 'o' && !known(p, w, true, p->job->n_steps - 1)) return bad(p, "no earlier step port", w, s->op->usage);
        if (*f == 'r' && !known(p, w, false, p->job->n_steps - 1)) return bad(p, "no earlier step spawn", w, s->op->usage);
    }
    return at < p->n ? bad(p, "too many words:", p->w[at], s->op->usage) : 0;
}

static int parse_step(struct parse *p) {
    const struct op *op = OPS;
    while (op->word && (p->n < 2 || strcmp(op->word, p->w[1]) != 0)) op++;
    if (!op->word) return bad(p, "unknown step", p->n > 1 ? p->w[1] : NULL, "idle port pages spawn ready http exec try gate mark set undo stop");
    if (p->job->n_steps == STEPS_MAX) return bad(p, "too many steps", NULL, "10000");
    struct step *s = &p->job->steps[p->job->n_steps++];
    bool named = op->usage[strlen("step ") + strlen(op->word)] == ' ' && strstr(op->usage, " NAME");
    *s = (struct step){.op = op, .line = p->line, .name = "", .w = p->w + 2, .n = p->n - 2};
    if (named) {
        if (p->n < 3 || !name_ok(p->w[2])) return bad(p, "bad name", p->n > 2 ? p->w[2] : NULL, op->usage);
        *s = (struct step){.op = op, .line = p->line, .name = p->w[2], .w = p->w + 3, .n = p->n - 3};
    }
    int err = check_form(p, s);
    if (!err && op_is(s, "stop") && !known(p, s->name, false, p->job->n_steps - 1)) err = bad(p, "no earlier step spawn", s->name, op->usage);
    if (!err && op_is(s, "ready") && !known(p, s->name, false, p->job->n_steps - 1)) err = bad(p, "no earlier step spawn", s->name, op->usage);
    return err ? err : check_names(p, s->w, s->n, p->job->n_steps - 1);
}

static int parse_line(struct parse *p) {
    if (p->line == 1) return p->n == 2 && !strcmp(p->w[0], "meltjob") && !strcmp(p->w[1], "1") ? 0 : bad(p, "the first line must be meltjob 1", NULL, NULL);
    if (strcmp(p->w[0], "limit") == 0) return parse_limit(p);
    if (strcmp(p->w[0], "channel") == 0) return parse_channel(p);
    if (strcmp(p->w[0], "step") == 0) return parse_step(p);
    if (strcmp(p->w[0], "run") != 0) return bad(p, "unknown word", p->w[0], "run limit channel step");
    if (p->job->run_id || p->n != 2 || !name_ok(p->w[1])) return bad(p, "expected one line", NULL, "run RUN_ID");
    p->job->run_id = p->w[1];
    return 0;
}

static int split(struct parse *p, char *text) {
    static char *words[WORDS_MAX];
    p->n = 0;
    for (char *w = text; w;) {
        char *end = strchr(w, ' ');
        if (end) *end++ = 0;
        if (!word_ok(w)) return bad(p, "bad word", w, "words split by one space, other bytes as %XX, an empty word as %");
        if (p->n == WORDS_MAX) return bad(p, "too many words", NULL, "4096");
        words[p->n++] = w;
        w = end;
    }
    p->w = xrealloc(NULL, ((size_t)p->n + 1) * sizeof *p->w);
    memcpy(p->w, words, (size_t)p->n * sizeof *p->w);
    p->w[p->n] = NULL;
    return 0;
}

static int check_all(struct parse *p) {
    struct job *j = p->job;
    if (!j->run_id) return bad(p, "no line run RUN_ID", NULL, NULL);
    for (int i = 0; i < j->n_channels; i++) {
        struct channel *c = &j->channels[i];
        int n = 0;
        while (c->argv && c->argv[n]) n++;
        int err = c->path ? check_names(p, &c->path, 1, j->n_steps) : check_names(p, c->argv, n, j->n_steps);
        if (err) return err;
        if (c->kind == CH_LINES && known(p, c->name, false, j->n_steps)) return bad(p, "a lines channel and a process share the name", c->name, NULL);
    }
    return 0;
}

int job_load(const char *path, struct job *job, struct sb *why) {
    struct parse p = {.job = job, .why = why};
    char *text = xrealloc(NULL, JOB_MAX + 2);
    ssize_t n = read_text(path, text, JOB_MAX + 2);
    *job = (struct job){.journal_bytes = 268435456, .duration_ms = 3600000, .log_bytes = 262144};
    if (n < 0) return bad(&p, strerror((int)-n), path, NULL);
    if (n > (ssize_t)JOB_MAX) return bad(&p, "a job is at most 4 MiB", NULL, NULL);
    if (memchr(text, 0, (size_t)n)) return bad(&p, "a NUL byte", NULL, NULL);
    job->channels = xrealloc(NULL, CHANNELS_MAX * sizeof *job->channels);
    job->steps = xrealloc(NULL, STEPS_MAX * sizeof *job->steps);
    int err = 0;
    for (char *line = text; *line && !err;) {
        char *end = strchr(line, '\n');
        p.line++;
        if (!end) return bad(&p, "no newline at the end", NULL, NULL);
        *end = 0;
        err = split(&p, line);
        if (!err) err = parse_line(&p);
        line = end + 1;
    }
    return err ? err : check_all(&p);
}
