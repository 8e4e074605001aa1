// A run's files from stdin, in one go: a link that takes its time is asked once and not for each.
#include "probe.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_FILES 100000
#define MAX_FILE_BYTES (1ll << 30)

static int bad(const char *what) {
    dprintf(2, "meltprobe: unpack: %s\n", what);
    return EXIT_USAGE;
}

static bool is_request(const char *name) { return strncmp(name, "req/", 4) == 0; }

// NAME or req/NAME, of letters that mean nothing to a file system.
static bool is_file_name(const char *name) {
    if (is_request(name)) name += 4;
    size_t n = strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-");
    return n && n <= 64 && !name[n] && name[0] != '.';
}

// The folder and those above it, as mkdir -p makes them.
static int make_folders(const char *dir) {
    char path[PATH_BYTES];
    if (snprintf(path, sizeof path, "%s/req/", dir) >= (int)sizeof path) return ENAMETOOLONG;
    for (char *at = strchr(path + 1, '/'); at; at = strchr(at + 1, '/')) {
        *at = 0;
        if (mkdir(path, 0755) != 0 && errno != EEXIST) return errno;
        *at = '/';
    }
    return 0;
}

// What stdin holds up to a newline, which is taken off; false at its end, or for a line that is too long.
static bool read_line(char *line, size_t cap) {
    for (size_t n = 0; n + 1 < cap; n++) {
        ssize_t k;
        while ((k = read(0, line + n, 1)) < 0 && errno == EINTR) {}
        if (k <= 0) return false;
        if (line[n] == '\n') {
            line[n] = 0;
            return true;
        }
    }
    return false;
}

static int copy(int fd, int64_t left) {
    char block[1 << 16];
    while (left > 0) {
        ssize_t k = read(0, block, left < (int64_t)sizeof block ? (size_t)left : sizeof block);
        if (k < 0 && errno == EINTR) continue;
        if (k <= 0) return EPIPE;
        int error = write_all(fd, block, (size_t)k);
        if (error) return error;
        left -= k;
    }
    return 0;
}

static int one_file(const char *dir, const char *name, int64_t bytes) {
    char path[PATH_BYTES];
    if (snprintf(path, sizeof path, "%s/%s", dir, name) >= (int)sizeof path) return ENAMETOOLONG;
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0) return errno;
    int error = copy(fd, bytes);
    // By job and ticket a run is brought in after a power cut; its requests are of no use then, and may be many.
    if (!error && !is_request(name) && fsync(fd) != 0) error = errno;
    return close(fd) != 0 && !error ? errno : error;
}

int cmd_unpack(const char *dir) {
    char line[256];
    int error = make_folders(dir);
    if (!error && run_has(dir, "journal")) error = EEXIST;   // a folder is run once
    for (int files = 0; !error && read_line(line, sizeof line); files++) {
        if (strcmp(line, "end") == 0) return 0;
        char *size = strrchr(line, ' '), *rest = size;
        if (files == MAX_FILES || strncmp(line, "file ", 5) != 0 || size < line + 5) return bad("not a list of files");
        int64_t bytes = strtoll(size + 1, &rest, 10);
        *size = 0;
        if (!is_file_name(line + 5) || rest == size + 1 || *rest || bytes < 0 || bytes > MAX_FILE_BYTES) return bad("a file of another name or size");
        error = one_file(dir, line + 5, bytes);
    }
    if (!error) error = EPIPE;
    dprintf(2, "meltprobe: %s: %s\n", dir, error == EPIPE ? "its files did not all arrive" : strerror(error));
    return EXIT_WRITE;
}
