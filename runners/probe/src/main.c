// meltprobe: one program, one job, one journal. See docs/probe.md.
#include "probe.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

static const char USAGE[] =
    "usage: meltprobe unpack DIR | run DIR [--detach] [--token N] | status DIR | attach DIR | wait DIR | stop DIR [--token N] | recover ROOT | lease ROOT VERB ... | facts DIR [GLOB ...] | hash PATH... | cache DIR VERB ... | clock | burn THREADS MS | version\n";

int cmd_clock(void) {
    char line[256];
    ssize_t n;
    while ((n = read(0, line, sizeof line)) > 0) {
        for (ssize_t i = 0; i < n; i++) {
            if (line[i] != '\n') continue;
            // One call of each clock, one write: the answer is as close to the question as it can be.
            char answer[96];
            int k = snprintf(answer, sizeof answer, "%lld %lld %lld\n", (long long)boot_ns(), (long long)clock_ns(CLOCK_MONOTONIC), (long long)clock_ns(CLOCK_REALTIME));
            if (write_all(1, answer, (size_t)k) != 0) return EXIT_WRITE;
        }
    }
    return 0;
}

static int print_event(uint16_t kind, const char *payload, size_t n, void *arg) {
    if (kind != 1) return 0;
    if (write_all(1, payload, n) != 0 || write_all(1, "\n", 1) != 0) {
        *(int *)arg = EXIT_WRITE;
        return 1;
    }
    return n > 14 && memcmp(payload, "{\"event\":\"end\"", 14) == 0;
}

// Follows the journal to the end event, or until nobody writes it any more.
int cmd_attach(const char *dir) {
    char path[PATH_BYTES], text[4096];
    int64_t offset = 0;
    int result = 0;
    snprintf(path, sizeof path, "%s/journal", dir);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        dprintf(2, "meltprobe: %s: no journal\n", dir);
        return EXIT_WRITE;
    }
    for (int dead = 0; dead < 2;) {
        // Looked at before reading: what was written by then is read once more.
        bool lives = state_text(dir, text, sizeof text) && (state_pid(text) || state_guard(text));
        if (journal_walk(fd, &offset, print_event, &result)) break;
        if (lives) usleep(50000);
        else dead++;
    }
    close(fd);
    return result;
}

int main(int argc, char **argv) {
    const char *word = argc > 1 ? argv[1] : "";
    signal(SIGCHLD, SIG_DFL);   // a caller that ignores it would have the kernel reap what we wait for
    if (strcmp(word, "run") == 0) return cmd_run(argc, argv);
    if (strcmp(word, "stop") == 0) return cmd_stop(argc, argv);
    if (strcmp(word, "lease") == 0 && argc > 3) return cmd_lease(argc, argv);
    if (strcmp(word, "facts") == 0 && argc > 2) return cmd_facts(argc, argv);
    if (strcmp(word, "cache") == 0) return cmd_cache(argc, argv);
    if (strcmp(word, "hash") == 0 && argc > 2) return cmd_hash(argc, argv);
    if (strcmp(word, "clock") == 0 && argc == 2) return cmd_clock();
    if (strcmp(word, "burn") == 0 && argc == 4) return cmd_burn(argv[2], argv[3]);
    if (strcmp(word, "version") == 0 && argc == 2) {
        return dprintf(1, "meltprobe %s+%s %s\n", PROBE_VERSION, PROBE_SOURCE, PROBE_TARGET) < 0 ? EXIT_WRITE : 0;
    }
    if (argc == 3) {
        static const struct { const char *word; int (*fn)(const char *); } commands[] = {
            {"status", cmd_status}, {"attach", cmd_attach}, {"wait", cmd_wait}, {"recover", cmd_recover}, {"unpack", cmd_unpack}};
        for (int i = 0; i < 5; i++)
            if (strcmp(word, commands[i].word) == 0) return commands[i].fn(argv[2]);
    }
    dprintf(2, "%s", USAGE);
    return EXIT_USAGE;
}
