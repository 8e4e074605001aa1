// Waiting for a job's end without waking the processor: whoever runs it holds DIR/job locked, and the kernel tells.
#include "probe.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

void wait_lock(void) {
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s/job", RUN_DIR);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) fd = open(path, O_RDONLY | O_CLOEXEC);
    // One who waits has it for an instant, should he ask before the job begins. Without it a wait is answered early.
    for (int i = 0; fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) != 0 && i < 200; i++) usleep(5000);
}

static bool is_over(const char *dir) {
    char text[4096];
    return !state_text(dir, text, sizeof text) || state_ended(text) || (!state_pid(text) && !state_guard(text));
}

static void until_ended(const char *dir, int fd) {
    while (flock(fd, LOCK_SH) != 0 && errno == EINTR) {}
    flock(fd, LOCK_UN);
    // A process that was killed lets go of its files a moment before it is gone.
    for (int i = 0; i < 100 && !is_over(dir); i++) usleep(10000);
}

int cmd_wait(const char *dir) {
    char path[PATH_BYTES], line[256];
    ssize_t n;
    snprintf(path, sizeof path, "%s/job", dir);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        dprintf(2, "meltprobe: %s: %s\n", path, strerror(errno));
        return EXIT_WRITE;
    }
    while ((n = read(0, line, sizeof line)) > 0) {
        for (ssize_t i = 0; i < n; i++) {
            if (line[i] != '\n') continue;
            until_ended(dir, fd);
            int err = cmd_status(dir);
            if (err) return err;
        }
    }
    return 0;
}
