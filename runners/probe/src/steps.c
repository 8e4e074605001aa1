// The steps of a job, in order, each between two events, with a reading of every channel between steps.
#include "probe.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

static struct state now_at = {.state = "running", .op = "", .name = "", .result = ""};

int step_now(void) { return now_at.step; }

void run_progress(int64_t done, int64_t of) {
    now_at.done = done;
    now_at.of = of;
    state_write(RUN_DIR, &now_at);
}

void run_elapsed(int64_t elapsed_ms, int64_t limit_ms) {
    now_at.elapsed_ms = elapsed_ms;
    now_at.limit_ms = limit_ms;
}

static int step_idle(struct step *s, struct sb *why) {
    (void)why;
    return main_wait(boot_ns() + word_int(s->w[0]) * NS_MS, NULL, NULL) == WAIT_STOP;
}

int step_mark(struct step *s, struct sb *why) {
    (void)why;
    struct ev e;
    ev_new(&e, "mark");
    ev_str(&e, "name", s->name);
    ev_put(&e);
    return 0;
}

// env=K=V words and caps, then --, then the program.
static struct proc *start_words(struct step *s, int at, struct sb *why) {
    char **all = words_expand(s->w + at, why);
    if (!all) return NULL;
    int n = 0, m = 0, error = 0;
    bool good;
    while (strcmp(s->w[at + n], "--") != 0) n++;
    char **env = memset(xrealloc(NULL, ((size_t)n + 1) * sizeof *env), 0, ((size_t)n + 1) * sizeof *env);
    struct caps *caps = memset(xrealloc(NULL, sizeof *caps), 0, sizeof *caps);   // as long as the process's entry
    for (int i = 0; i < n; i++)
        if (!caps_word(all[i], caps, &good)) env[m++] = all[i] + strlen("env=");
    if (!caps->pinned && !caps->memory) free(caps), caps = NULL;
    struct proc *p = proc_start(s->name, OWN_STEP, all + n + 1, env, caps, &error);
    if (p) sampler_open(s->name);
    else caps_complain(caps, error, why);
    free(env);
    words_free(all);
    return p;
}

static int step_spawn(struct step *s, struct sb *why) {
    struct proc *old = proc_find(s->name);
    if (old && old->running) {
        sb_text(why, "still running");
        return 1;
    }
    return start_words(s, 0, why) == NULL;
}

static int step_exec(struct step *s, struct sb *why) {
    int64_t deadline = boot_ns() + word_int(s->w[0]) * NS_MS;
    struct proc *p = start_words(s, 1, why);
    if (!p) return 1;
    enum waited w = main_wait(deadline, proc_ended, p);
    proc_stop(p, w == WAIT_DONE ? 0 : 500);
    if (w == WAIT_LATE) sb_text(why, "timeout");
    else if (p->running || p->status) proc_reason(p, why);
    return w != WAIT_DONE || p->status != 0;
}

static int step_stop(struct step *s, struct sb *why) {
    (void)why;
    struct proc *p = proc_find(s->name);
    if (p) proc_stop(p, word_int(s->w[0]));
    return 0;
}

const struct op OPS[] = {
    {"idle", "i", "step idle NAME MS", step_idle},
    {"port", "m", "step port NAME [PORT]", step_port},
    {"pages", "pd", "step pages PATH measure|drop", step_pages},
    {"spawn", "c", "step spawn NAME [cpus=LIST] [memory=BYTES] [env=K=V ...] -- ARGV...", step_spawn},
    {"ready", "opi", "step ready NAME PORTNAME PATH DEADLINE_MS", step_ready},
    {"http", "oiiiuf", "step http NAME PORTNAME CONCURRENCY DEADLINE_MS MAX_BYTES [pause=MS] [until=MS [PATH below|above LIMIT]... --] FILE...", step_http},
    {"exec", "ic", "step exec NAME DEADLINE_MS [cpus=LIST] [memory=BYTES] [env=K=V ...] -- ARGV...", step_exec},
    {"try", "ic", "step try NAME DEADLINE_MS [cpus=LIST] [memory=BYTES] [env=K=V ...] -- ARGV...", step_exec},
    {"gate", "pbnii", "step gate NAME PATH below|above LIMIT HOLD_MS TIMEOUT_MS", step_gate},
    {"mark", "", "step mark NAME", step_mark},
    {"set", "pp", "step set PATH VALUE", step_set},
    {"undo", "e", "step undo -- ARGV...", step_undo},
    {"stop", "i", "step stop NAME GRACE_MS", step_stop},
    {NULL, NULL, NULL, NULL},
};

static void say_step(struct step *s, int index, const char *state, const char *result) {
    struct ev e;
    ev_new(&e, "step");
    ev_int(&e, "step", index);
    ev_str(&e, "op", s->op->word);
    ev_str(&e, "name", s->name);
    ev_str(&e, "state", state);
    if (result) ev_str(&e, "result", result);
    ev_clocks(&e);
    ev_put(&e);
}

static void transition(bool wait_polls) {
    polls_kick(wait_polls);
    sampler_transition();
}

static bool is(const struct step *s, const char *word) { return strcmp(s->op->word, word) == 0; }

static bool one_step(struct step *s, int index, struct sb *why) {
    bool prepared = !is(s, "http") || http_prepare(s, why);
    say_step(s, index, "start", NULL);
    bool ok = prepared && s->op->fn(s, why) == 0;
    if (!ok && stop_wanted()) {
        why->n = 0;
        sb_text(why, "stopped");
    }
    if (!ok && !why->n) sb_text(why, "failed");
    say_step(s, index, "end", ok ? "ok" : why->p);
    // While an engine loads, nothing keeps the step that waits for it from starting.
    transition(!is(s, "spawn"));
    if (!is(s, "spawn")) journal_sync();
    if (is(s, "try")) why->n = 0;   // what its failure means is not the probe's to say
    return ok || is(s, "try");
}

bool steps_run(struct job *job, struct sb *why) {
    now_at.steps = job->n_steps;
    transition(true);
    for (int i = 0; i < job->n_steps; i++) {
        now_at.step = i;
        now_at.op = job->steps[i].op->word;
        now_at.name = job->steps[i].name;
        run_elapsed(0, 0);
        run_progress(0, is(&job->steps[i], "http") ? http_count(&job->steps[i]) : 1);
        if (!one_step(&job->steps[i], i, why)) return false;
        if (stop_wanted()) return false;
    }
    return true;
}
