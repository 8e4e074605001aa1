// meltprobe: what every file shares. The formats are in docs/probe.md.
#ifndef PROBE_H
#define PROBE_H

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>

// text.c's, which know %s %c %d %u %x and %%; nothing else of stdio is used.
#define snprintf probe_snprintf
#define dprintf probe_dprintf

#define PROBE_VERSION "1"
#ifndef PROBE_TARGET
#define PROBE_TARGET "unknown"
#endif
#ifndef PROBE_SOURCE
#define PROBE_SOURCE "unknown"
#endif

#define PATH_BYTES 4200
#define NS_MS 1000000LL
#define NS_S 1000000000LL
#define RAW_MAX 65536u         // longest raw text of a reading
#define LINE_BYTES 4096u       // longest line kept
#define TAIL_BYTES 8192u       // last bytes kept of an output stream past its bound
#define RESERVE_BYTES 65536    // given back when the disk is full
#define CLOSING_BYTES 65536    // of the journal's bound, kept for the events that close it
#define FRAME_MAX (1u << 20)   // no frame is longer
#define FRAME_HEAD 16u
#define END_GRACE_MS 1000      // from SIGTERM to SIGKILL once the job ends
#define STREAMS_MAX 2048       // file streams open at one time
#define EXIT_USAGE 64
#define EXIT_WRITE 73
#define EXIT_BUSY 75
#define EXIT_FENCED 77

// The journal is little-endian and is written straight from memory.
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "little-endian targets only");

// ---- util.c: clocks, strings, small files
int64_t clock_ns(clockid_t clock);
int64_t boot_ns(void);
struct timespec to_timespec(int64_t ns);
struct timespec wait_slice(int64_t ns);    // at most 1 s: the kernel's timeouts stand still while the machine sleeps
void *xrealloc(void *old, size_t bytes);   // never returns NULL: out of memory aborts, and the guard mends
char *xstrdup(const char *text);
uint32_t crc32_of(uint32_t crc, const void *data, size_t n);
int write_all(int fd, const void *data, size_t n);                  // 0 or an errno
ssize_t read_text(const char *path, char *buf, size_t cap);         // bytes (a NUL follows) or -errno
int sync_path(const char *path);                                    // 0 or an errno
int write_atomic(const char *path, const void *data, size_t n);     // 0 or an errno
void boot_id(char out[64]);
int64_t time_namespace(void);              // its number, -1 where the kernel does not tell
void trim_end(char *text);
const char *status_of(int err);            // ok denied absent again error

struct sb { char *p; size_t n, cap; };     // a string that grows
void sb_add(struct sb *b, const void *data, size_t n);
void sb_text(struct sb *b, const char *text);
void sb_int(struct sb *b, int64_t value);
void sb_json(struct sb *b, const void *data, size_t n);   // quoted, printable ASCII
void sb_word(struct sb *b, const char *text);             // a word of a job file, %XX where needed
void sb_free(struct sb *b);

// ---- journal.c, event.c, walk.c
int journal_create(const char *path, const char *reserve, int64_t limit);   // 0 or an errno
struct seen { bool ended; char boot_id[64]; };   // of a journal: its end event, and the boot it began in
int journal_reopen(const char *path, const char *reserve, struct seen *seen);   // cuts a torn frame; 0 or an errno
int journal_start_writer(void);
// What a full journal keeps, and whether the bound holds for it.
enum keep { KEEP_IF_ROOM, KEEP_WHEN_FULL, KEEP_ALWAYS };   // the second obeys the bound, but is not lost to it
bool journal_frame(uint16_t kind, const struct iovec *part, int parts, enum keep keep);
int64_t journal_next_seq(void);
void journal_lock(enum keep keep);         // waits while the disk is far behind
void journal_unlock(void);
void journal_sync(void);                   // everything so far is on the disk
int journal_close(void);                   // 0, or the errno that kept the end event from the disk

typedef int (*frame_fn)(uint16_t kind, const char *payload, size_t n, void *arg);   // nonzero: stop
int journal_walk(int fd, int64_t *offset, frame_fn each, void *arg);   // offset: after the last whole frame

struct ev { struct sb b; const char *name; int64_t t; };
void ev_new(struct ev *e, const char *name);
void ev_str(struct ev *e, const char *key, const char *value);
void ev_int(struct ev *e, const char *key, int64_t value);
void ev_raw(struct ev *e, const char *key, const char *json);
void ev_null(struct ev *e, const char *key);
void ev_bool(struct ev *e, const char *key, bool value);
void ev_millionths(struct ev *e, const char *key, int64_t value);   // a number with its fraction
void ev_clocks(struct ev *e);
void ev_put(struct ev *e);

// ---- stream.c: numbered rows of readings, buffered by column
struct buffer;
struct stream {
    uint32_t number;
    struct buffer *buf;
    uint64_t readings, late, overruns, dropped;
    int64_t max_late;
};
struct buffer *buffer_new(uint32_t rows, uint32_t raw_bytes);
void buffer_free(struct buffer *b);
void stream_open(struct stream *s, struct buffer *buf, const char *channel, const char *kind, const char *path, int err);
void stream_put(struct stream *s, int64_t t0, int64_t t1, int err, const void *raw, size_t n);
void stream_flush(struct stream *s);
void stream_end(struct stream *s);         // the buffer stays with its owner
// Books a reading taken at t0..t1 for deadline *next; moves *next to the first multiple after t1.
void stream_deadline(struct stream *s, int64_t *next, int64_t period, int64_t t0, int64_t t1);

// ---- job.c, words.c: the job file
enum kind { CH_FILE, CH_POLL, CH_LINES };
struct channel {
    enum kind kind;
    char *name;
    char *path;                // CH_FILE: as written, not yet expanded
    char **argv;               // CH_POLL, CH_LINES: as written, NULL at the end
    int64_t period, offset, deadline_ms;
};
struct step { const struct op *op; char *name; char **w; int n, line; };
struct job {
    char *run_id;
    int64_t journal_bytes, duration_ms, log_bytes;
    struct channel *channels;
    struct step *steps;
    int n_channels, n_steps;
};
struct op { const char *word, *form, *usage; int (*fn)(struct step *s, struct sb *why); };
extern const struct op OPS[];
int job_load(const char *path, struct job *job, struct sb *why);   // 0, or EXIT_USAGE with one line in why
int64_t word_int(const char *word);        // -1 when it is not a plain number
char *word_expand(const char *word, struct sb *why);               // malloc'd; NULL with a reason
char *word_pattern(const char *word, struct sb *why);              // the same, as a pattern for glob
bool word_names(const char *word, const char *what, const char *name);   // does it hold {what:name}
char **words_expand(char **words, struct sb *why);
void words_free(char **words);
bool word_plain(const char *word);         // holds no {pid:} or {port:}
bool port_set(const char *name, int port);                         // false: too many ports
int port_get(const char *name);            // 0 when there is none

// ---- sampler.c: file channels
void sampler_start(const struct job *job);
void sampler_open(const char *process);    // channels that name this process; NULL: those that name none
void sampler_close(const char *process);
void sampler_transition(void);
void sampler_stop(void);

// ---- caps.c: on which processors a process may run, and how much memory it may have
struct caps {
    bool pinned;
    cpu_set_t cpus, got;       // as asked and as read back
    int64_t memory;            // 0: not asked; then as in force
    const char *by, *failed;   // cgroup or rlimit; what could not be had
    char *group;               // of memory, NULL without
    int join;                  // its cgroup.procs, -1 without
};
// A list of processors as the kernel writes it, 0-3,6, and back: one spelling for each set.
bool cpus_of(const char *list, cpu_set_t *out);
void cpus_text(const cpu_set_t *set, struct sb *out);
bool caps_word(const char *word, struct caps *caps, bool *good);    // is it one
void caps_prepare(struct caps *caps, const char *run_id);           // makes the group; without one it will be a limit of the process
int caps_apply(struct caps *caps);         // in the child: system calls only; 0 or an errno
void caps_started(struct caps *caps);
void caps_complain(const struct caps *caps, int error, struct sb *why);
int64_t caps_oom_kills(const struct caps *caps);                    // of its group; the machine's without one

// ---- proc.c, pump.c, polls.c: processes and what they print
enum owner { OWN_STEP, OWN_LINES, OWN_POLL };
struct proc {
    char *name;
    enum owner owner;
    pid_t pid;
    uint64_t start_ticks;
    atomic_bool running, by_us;
    bool gone;                 // the group has been seen empty: its number may be another's now
    int status;
    int64_t t_spawn, t_exit, oom_before, maxrss_floor;
    struct caps *caps;         // NULL: none
    struct stream *out, *err;
    struct proc *next;
};
struct proc *proc_find(const char *name);                          // the newest of that name, or NULL
int proc_exec(char **argv, char **env, struct caps *caps, int in, int out, int err, pid_t *pid);   // 0 or an errno
struct proc *proc_start(const char *name, enum owner owner, char **argv, char **env, struct caps *caps, int *error);
void proc_stop(struct proc *p, int64_t grace_ms);
void proc_stop_all(int64_t grace_ms);
void proc_reap(void);
bool procs_watch(void);                    // is there a group that outlived its leader
bool proc_ended(void *p);
void proc_reason(const struct proc *p, struct sb *why);
void proc_init(const char *run_id);

void pump_lock(void);
void pump_unlock(void);
void pump_start(const struct job *job);
void pump_wake(void);
void pump_add(int fd, const char *channel, const char *kind, bool bounded, struct stream **out);
void pump_stop(void);
void polls_start(const struct job *job, int64_t base);
void polls_kick(bool wait);                // a reading of each from now on; waited for until a stop is wanted
int64_t polls_run(int64_t now);            // starts what is due; returns the next deadline
int polls_fds(int *fds, int max);
void polls_ready(void);
void polls_reaped(pid_t pid, int status);
void polls_end(void);                      // none starts from here; one under way is killed and gives no reading
void polls_stop(void);

// ---- leftover.c: what is still alive
struct pstat { pid_t pid, ppid, pgid; char state; uint64_t start_ticks; };
bool pstat_read(pid_t pid, struct pstat *out);
bool is_same(pid_t pid, uint64_t start_ticks);
int descendants(pid_t root, uint64_t since, struct pstat *out, int max);
void kill_descendants(pid_t root, uint64_t since);
bool group_is_ours(pid_t pgid, const char *mark);   // a living member descends from us or carries the mark
void kill_marked(const char *run_id, pid_t spare);
int64_t number_after(const char *path, const char *key);   // in a file; -1 where it is not there
int64_t oom_kills(void);                   // -1 when the kernel does not say

// ---- http.c, request.c, until.c
struct request { const char *file; char *bytes; size_t n; int index, status; bool played; struct stream s; };
const char *http_play(struct request *r, int port, int64_t deadline_ms, int64_t max_bytes, struct buffer *buf, int step);
void http_skip(struct request *r, int step, const char *why);       // one that was never sent
int http_get_status(int port, const char *path, int64_t deadline);  // 0 while nothing answers
bool http_prepare(struct step *s, struct sb *why);
int http_files(const struct step *s);      // which word is the first FILE
int http_count(const struct step *s);      // requests it makes; 0: nobody knows
int64_t http_pause_ms(const struct step *s);   // before each of them
bool pause_word(const char *word);         // pause=MS
int64_t pause_ms(const char *word);        // -1 when MS is no number
// Of a step that asks its files in a circle; ms 0: it asks each once. limits: n words, three to a limit.
struct until { int64_t start, ms, next_look; char **limits; int n; bool over; pthread_mutex_t lock; };
bool until_word(const char *word);         // until=MS
int64_t until_ms(const char *word);        // -1 when MS is no number
void until_start(struct until *u, const struct step *s);
bool until_over(struct until *u);          // no request may start any more; the event says what ended it, once
struct answer { int phase, status; int64_t left; char line[256]; uint32_t n; bool chunked, sized; };
bool answer_feed(struct answer *a, const char *p, size_t n);        // true when the answer is complete
const char *answer_eof(const struct answer *a);                     // "" when the end of file ends it

// ---- steps.c, probes.c, undo.c, run.c
extern char RUN_DIR[4096], ROOT_DIR[4096];
bool steps_run(struct job *job, struct sb *why);                    // false with the reason
void run_progress(int64_t done, int64_t of);
void run_elapsed(int64_t elapsed_ms, int64_t limit_ms);             // shown with the next progress; limit 0: not at all
int step_http(struct step *s, struct sb *why);
int step_ready(struct step *s, struct sb *why);
int step_mark(struct step *s, struct sb *why);
bool decimal(const char *text, int64_t *millionths);                // false when there is no plain number
bool value_of(const char *path, int64_t *millionths);               // of a file that begins with one
int step_gate(struct step *s, struct sb *why);
int step_pages(struct step *s, struct sb *why);
int step_port(struct step *s, struct sb *why);
int step_set(struct step *s, struct sb *why);
int step_undo(struct step *s, struct sb *why);
int undo_remember(const char *kind, char **words, int n);           // set PATH VALUE, run ARGV, rmdir PATH; 0 or an errno
void undo_restore(const char *dir);         // in reverse, verified, told in the journal; a second time does nothing
void close_inherited(void);
int glob_each(const char *pattern, int (*each)(const char *path, void *arg), void *arg);   // matches

#define STEAL_SIGNAL SIGVTALRM             // sent by a thief of the lease alone
enum stop { STOP_NONE, STOP_SIGNAL, STOP_COMMAND, STOP_DURATION, STOP_FULL, STOP_GUARD, STOP_STEAL };
void stop_request(enum stop why);          // async-signal-safe
enum stop stop_wanted(void);
bool stop_due(int64_t now);                // the same, once the job's duration has been looked at
int stop_fd(void);                         // readable once a stop is wanted
void main_wake(void);
enum waited { WAIT_DONE, WAIT_LATE, WAIT_STOP };
enum waited main_wait(int64_t until, bool (*done)(void *), void *arg);
int step_now(void);

// ---- guard.c, state.c, facts.c: the commands
struct state { const char *state, *op, *name, *result; int step, steps; int64_t done, of; pid_t pid, guard; int64_t elapsed_ms, limit_ms; const char *reason; };
void state_write(const char *dir, const struct state *s);
bool run_has(const char *dir, const char *name);                     // a file of a run's folder
bool state_text(const char *dir, char *buf, size_t cap);
bool state_ended(const char *text);
pid_t state_pid(const char *text);         // the worker when it lives, else 0
pid_t state_guard(const char *text);       // the guard when it lives, else 0
bool state_boot(const char *text, char out[64]);   // the boot it was written in; false when it does not say
bool other_boot(const char *id);           // the machine was booted since; false where nobody knows
int worker_main(struct job *job, pid_t guard);
bool resolve_dir(const char *dir);         // RUN_DIR and ROOT_DIR
int lock_root(const char *root);           // a descriptor, or -1 while another holds it
int mend(const char *dir, uint64_t since); // since: children of ours from that start on are the run's; 0: none are
int cmd_run(int argc, char **argv);
int cmd_status(const char *dir);
int cmd_attach(const char *dir);
int cmd_stop(int argc, char **argv);
int job_stop(const char *dir, bool steal);
int cmd_recover(const char *root);
int cmd_unpack(const char *dir);
int cmd_facts(int argc, char **argv);
int cmd_clock(void);

// ---- lease.c, wait.c; ROOT_DIR is set
int cmd_lease(int argc, char **argv);
// 0 where a job of that token (-1: none) may start, or the exit status, complained of; with a duration it starts now.
int lease_admit(const char *run, int64_t token, int64_t duration_ms);
void lease_job_over(const char *run);      // the lease has its own time again; NULL: whatever job it was
void lease_visit(void);                    // somebody looks at the target: the job that runs there will tell
int64_t lease_visits(const char *dir);     // how many did
int cmd_wait(const char *dir);
void wait_lock(void);                      // of RUN_DIR, held until the guard and the worker are gone

// ---- sha256.c, cache.c
int cmd_hash(int argc, char **argv);
int cmd_cache(int argc, char **argv);

// ---- burn.c
int cmd_burn(const char *threads, const char *ms);

#endif
