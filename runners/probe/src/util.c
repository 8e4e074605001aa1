// Clocks, growing strings, small files.
#include "probe.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int64_t clock_ns(clockid_t clock) {
    struct timespec t;
    if (clock_gettime(clock, &t) != 0) clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * NS_S + t.tv_nsec;
}

int64_t boot_ns(void) { return clock_ns(CLOCK_BOOTTIME); }

struct timespec to_timespec(int64_t ns) {
    if (ns < 0) ns = 0;
    return (struct timespec){.tv_sec = (time_t)(ns / NS_S), .tv_nsec = (long)(ns % NS_S)};
}

struct timespec wait_slice(int64_t ns) { return to_timespec(ns < NS_S ? ns : NS_S); }

void *xrealloc(void *old, size_t bytes) {
    void *p = realloc(old, bytes ? bytes : 1);
    if (!p) abort();
    return p;
}

char *xstrdup(const char *text) {
    size_t n = strlen(text) + 1;
    return memcpy(xrealloc(NULL, n), text, n);
}

uint32_t crc32_of(uint32_t crc, const void *data, size_t n) {
    // By half bytes: a table of 64 bytes that stays in the cache.
    static const uint32_t table[16] = {
        0x00000000, 0x1DB71064, 0x3B6E20C8, 0x26D930AC, 0x76DC4190, 0x6B6B51F4, 0x4DB26158, 0x5005713C,
        0xEDB88320, 0xF00F9344, 0xD6D6A3E8, 0xCB61B38C, 0x9B64C2B0, 0x86D3D2D4, 0xA00AE278, 0xBDBDF21C};
    crc = ~crc;
    for (const uint8_t *p = data; n; n--, p++) {
        crc = table[(crc ^ *p) & 15] ^ (crc >> 4);
        crc = table[(crc ^ (*p >> 4)) & 15] ^ (crc >> 4);
    }
    return ~crc;
}

int write_all(int fd, const void *data, size_t n) {
    for (const char *p = data; n;) {
        ssize_t k = write(fd, p, n);
        if (k < 0 && errno == EINTR) continue;
        if (k <= 0) return k < 0 ? errno : ENOSPC;
        p += k;
        n -= (size_t)k;
    }
    return 0;
}

ssize_t read_text(const char *path, char *buf, size_t cap) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return -errno;
    size_t n = 0;
    ssize_t k = 0;
    while (n + 1 < cap && (k = read(fd, buf + n, cap - 1 - n)) != 0) {
        if (k < 0 && errno == EINTR) continue;
        if (k < 0) break;
        n += (size_t)k;
    }
    int err = k < 0 ? errno : 0;
    close(fd);
    buf[n] = 0;
    return err ? -err : (ssize_t)n;
}

// What a folder lists, or a file holds, outlives a power cut from here on.
int sync_path(const char *path) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return errno;
    int err = fsync(fd) != 0 ? errno : 0;
    close(fd);
    return err;
}

int write_atomic(const char *path, const void *data, size_t n) {
    char tmp[4200];
    snprintf(tmp, sizeof tmp, "%s.tmp", path);
    int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0) return errno;
    int err = write_all(fd, data, n);
    if (close(fd) != 0 && !err) err = errno;
    if (!err && rename(tmp, path) != 0) err = errno;
    if (err) unlink(tmp);
    return err;
}

void boot_id(char out[64]) {
    if (read_text("/proc/sys/kernel/random/boot_id", out, 64) < 0) out[0] = 0;
    trim_end(out);
}

// Two clocks are one when the kernel is one (boot id) and this is: in a time namespace CLOCK_BOOTTIME is another.
int64_t time_namespace(void) {
    char link[64];
    ssize_t n = readlink("/proc/self/ns/time", link, sizeof link - 1);
    if (n < 0) return -1;
    link[n] = 0;
    char *at = strchr(link, '[');
    return at ? strtoll(at + 1, NULL, 10) : -1;
}

void trim_end(char *text) {
    size_t n = strlen(text);
    while (n && (text[n - 1] == '\n' || text[n - 1] == ' ' || text[n - 1] == '\r' || text[n - 1] == '\t')) text[--n] = 0;
}

const char *status_of(int err) {
    switch (err) {
    case 0: return "ok";
    case EACCES: case EPERM: return "denied";
    case ENOENT: case ENOTDIR: case ENODEV: case ENXIO: return "absent";
    case EAGAIN: return "again";
    default: return "error";
    }
}

void sb_add(struct sb *b, const void *data, size_t n) {
    if (b->n + n + 1 > b->cap) {
        b->cap = (b->n + n + 1) * 2;
        b->p = xrealloc(b->p, b->cap);
    }
    if (n) memcpy(b->p + b->n, data, n);
    b->n += n;
    b->p[b->n] = 0;
}

void sb_text(struct sb *b, const char *text) { sb_add(b, text, strlen(text)); }

void sb_int(struct sb *b, int64_t value) {
    char t[24];
    sb_add(b, t, (size_t)snprintf(t, sizeof t, "%lld", (long long)value));
}

static void sb_hex(struct sb *b, const char *mark, unsigned char c) {
    sb_text(b, mark);
    sb_add(b, &"0123456789ABCDEF"[c >> 4], 1);
    sb_add(b, &"0123456789ABCDEF"[c & 15], 1);
}

void sb_json(struct sb *b, const void *data, size_t n) {
    sb_add(b, "\"", 1);
    for (const unsigned char *p = data; n; n--, p++) {
        if (*p >= 0x20 && *p < 0x7f && *p != '"' && *p != '\\') sb_add(b, p, 1);
        else sb_hex(b, "\\u00", *p);
    }
    sb_add(b, "\"", 1);
}

void sb_word(struct sb *b, const char *text) {
    if (!*text) sb_text(b, "%");
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        bool plain = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || strchr("_./:=,+@-", c);
        if (plain) sb_add(b, &c, 1);
        else sb_hex(b, "%", c);
    }
}

void sb_free(struct sb *b) {
    free(b->p);
    *b = (struct sb){0};
}
