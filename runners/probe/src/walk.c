// Reading a journal: frame by frame, up to the first that does not check.
#include "probe.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static ssize_t pread_full(int fd, void *buf, size_t n, int64_t at) {
    size_t done = 0;
    while (done < n) {
        ssize_t k = pread(fd, (char *)buf + done, n - done, at + (int64_t)done);
        if (k <= 0) break;
        done += (size_t)k;
    }
    return (ssize_t)done;
}

int journal_walk(int fd, int64_t *offset, frame_fn each, void *arg) {
    char magic[8];
    if (*offset == 0) {
        if (pread_full(fd, magic, 8, 0) != 8 || memcmp(magic, "MELTJNL1", 8) != 0) return 0;
        *offset = 8;
    }
    char *payload = NULL;
    int stop = 0;
    while (!stop) {
        uint32_t head[4];
        if (pread_full(fd, head, FRAME_HEAD, *offset) != FRAME_HEAD) break;
        if (head[0] != 0x4A544C4Du || head[2] > FRAME_MAX) break;
        payload = xrealloc(payload, head[2] + 1);
        if (pread_full(fd, payload, head[2], *offset + FRAME_HEAD) != (ssize_t)head[2]) break;
        if (crc32_of(crc32_of(0, &head[1], 8), payload, head[2]) != head[3]) break;
        *offset += FRAME_HEAD + head[2];
        payload[head[2]] = 0;
        stop = each((uint16_t)head[1], payload, head[2], arg);
    }
    free(payload);
    return stop;
}
