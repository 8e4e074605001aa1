// Settings: changed only after the way back is on the disk, and put back in reverse.
#include "probe.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define VALUE_MAX 4096
#define COMMAND_MS 10000
#define UNDO_MAX (256u << 20)

int undo_remember(const char *kind, char **words, int n) {
    char path[PATH_BYTES];
    struct sb line = {0};
    snprintf(path, sizeof path, "%s/undo", RUN_DIR);
    sb_text(&line, kind);
    for (int i = 0; i < n; i++) {
        sb_text(&line, " ");
        sb_word(&line, words[i]);
    }
    sb_text(&line, "\n");
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    off_t before = fd < 0 ? 0 : lseek(fd, 0, SEEK_END);
    int err = fd < 0 ? errno : write_all(fd, line.p, line.n);
    if (!err && fsync(fd) != 0) err = errno;
    if (!err && before == 0) err = sync_path(RUN_DIR);
    // A torn line would swallow the next one.
    if (err && fd >= 0 && ftruncate(fd, before) != 0) err = errno;
    if (fd >= 0) close(fd);
    sb_free(&line);
    return err;
}

// The value in force; a file that lists its choices as "a [b] c" has b.
static int get_value(const char *path, char out[VALUE_MAX]) {
    ssize_t n = read_text(path, out, VALUE_MAX);
    if (n < 0) return (int)-n;
    trim_end(out);
    char *open = strchr(out, '['), *close = open ? strchr(open, ']') : NULL;
    if (close && strcspn(open, " \n") >= (size_t)(close - open)) {
        memmove(out, open + 1, (size_t)(close - open) - 1);
        out[close - open - 1] = 0;
    }
    return 0;
}

static int put_value(const char *path, const char *value) {
    int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC | O_NONBLOCK);
    int err = fd < 0 ? errno : write_all(fd, value, strlen(value));
    if (fd >= 0 && close(fd) != 0 && !err) err = errno;
    return err;
}

static const char *put_and_check(const char *path, const char *value) {
    static char seen[VALUE_MAX];
    int err = put_value(path, value);
    if (!err) err = get_value(path, seen);
    if (err) return status_of(err);
    return strcmp(seen, value) == 0 ? "ok" : "mismatch";
}

static int set_one(const char *path, void *arg) {
    const char *value = arg, *result = "ok";
    char old[VALUE_MAX];
    int err = get_value(path, old);
    if (err) result = status_of(err);
    else if (strcmp(old, value) != 0) {
        char *words[2] = {(char *)path, old};
        result = undo_remember("set", words, 2) ? "no_undo" : put_and_check(path, value);
    }
    struct ev e;
    ev_new(&e, "set");
    ev_str(&e, "path", path);
    err ? ev_null(&e, "old") : ev_str(&e, "old", old);
    ev_str(&e, "new", value);
    ev_str(&e, "result", result);
    ev_put(&e);
    return 0;
}

// A setting that cannot be made is told, and the job goes on: what it means is not the probe's to say.
int step_set(struct step *s, struct sb *why) {
    char *pattern = word_pattern(s->w[0], why), *value = word_expand(s->w[1], why);
    bool ok = pattern && value;
    if (ok && glob_each(pattern, set_one, value) == 0) set_one(pattern, value);
    free(pattern);
    free(value);
    return !ok;
}

int step_undo(struct step *s, struct sb *why) {
    char **argv = words_expand(s->w + 1, why);
    int err = argv ? undo_remember("run", argv, s->n - 1) : 0;
    if (err) sb_text(why, strerror(err));
    bool ok = argv && !err;
    words_free(argv);
    return !ok;
}

static const char *run_command(char **argv, char note[32]) {
    pid_t pid;
    int status = 0, null = open("/dev/null", O_RDWR | O_CLOEXEC), err = null < 0 ? errno : proc_exec(argv, NULL, NULL, null, null, null, &pid);
    if (null >= 0) close(null);
    if (err) return status_of(err);
    int64_t until = boot_ns() + COMMAND_MS * NS_MS;
    for (pid_t k; (k = waitpid(pid, &status, WNOHANG)) <= 0;) {
        if (k < 0 && errno != EINTR) return "error";
        if (boot_ns() > until) {
            struct pstat kin[256];   // also what left its group
            int n = descendants(pid, 0, kin, 256);
            kill(-pid, SIGKILL);
            for (int i = 0; i < n; i++)
                if (is_same(kin[i].pid, kin[i].start_ticks)) kill(kin[i].pid, SIGKILL);
            waitpid(pid, &status, 0);
            return "timeout";
        }
        usleep(2000);
    }
    if (status == 0) return "ok";
    snprintf(note, 32, WIFSIGNALED(status) ? "signal %d" : "exit %d", WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    return note;
}

static void undo_line(char *line) {
    char *words[4097], note[32];
    int n = 0;
    struct sb why = {0}, what = {0};
    for (char *w = strtok(line, " "); w && n < 4096; w = strtok(NULL, " ")) words[n++] = w;
    words[n] = NULL;
    char **argv = n > 1 ? words_expand(words + 1, &why) : NULL;
    const char *result = "error";
    if (argv && strcmp(words[0], "set") == 0 && n == 3) {
        // A busy device may need a moment.
        for (int i = 0; i < 3 && strcmp(result = put_and_check(argv[0], argv[1]), "ok") != 0; i++) usleep(100000);
    } else if (argv && strcmp(words[0], "rmdir") == 0) {
        // A group of processes is empty a moment after the last of them; after a reboot it is gone.
        int err = EBUSY;
        for (int i = 0; i < 20 && err == EBUSY; i++) {
            if (i) usleep(25000);
            err = rmdir(argv[0]) == 0 || errno == ENOENT ? 0 : errno;
        }
        result = err ? "error" : "ok";
    } else if (argv && strcmp(words[0], "run") == 0) {
        result = run_command(argv, note);
    }
    for (int i = 0; argv && argv[i] && (i == 0 || strcmp(words[0], "run") == 0); i++) {
        if (i) sb_text(&what, " ");
        sb_text(&what, argv[i]);
    }
    struct ev e;
    ev_new(&e, "undo");
    ev_str(&e, "what", what.p ? what.p : "");
    ev_str(&e, "result", result);
    ev_put(&e);
    words_free(argv);
    sb_free(&what);
    sb_free(&why);
}

void undo_restore(const char *dir) {
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s/undo", dir);
    size_t cap = 1u << 16;
    char *text = NULL;
    ssize_t n;
    do {   // to its end, where the newest is
        cap *= 4;
        text = xrealloc(text, cap);
        n = read_text(path, text, cap);
    } while (n + 1 >= (ssize_t)cap && cap < UNDO_MAX);
    bool readable = n >= 0 || n == -ENOENT;
    // A last line without its end was being written when the power went: its change was not made.
    while (n > 0 && text[n - 1] != '\n') n--;
    while (n > 0) {
        text[n - 1] = 0;
        while (n > 0 && text[n - 1] != '\n') n--;
        undo_line(text + n);
    }
    free(text);
    if (readable) unlink(path);
}
