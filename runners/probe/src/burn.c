// A load step of known start and end: threads that compute, without memory traffic and without a call of the system.
#include "probe.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define BURN_THREADS 1024
#define BURN_MS 3600000LL

static atomic_bool burnt;
static atomic_llong loops;

// Four chains of whole numbers and four of fractions, none of which waits for another: all of a core's units are busy.
static void *spin(void *arg) {
    uint64_t i[4], more = (uintptr_t)arg;
    double f[4];
    long long done = 0;
    for (int k = 0; k < 4; k++) {
        i[k] = more + (uint64_t)k * 0x9E3779B97F4A7C15u + 1;
        f[k] = 1.0 + k;
    }
    for (; !atomic_load_explicit(&burnt, memory_order_relaxed); done++)
        for (int n = 0; n < 4096; n++)
            for (int k = 0; k < 4; k++) {
                i[k] = (i[k] ^ (i[k] >> 27)) * 0x94D049BB133111EBu + 1;
                f[k] = f[k] * 0.999999 + 0.5;
            }
    volatile double sink = f[0] + f[1] + f[2] + f[3] + (double)(i[0] ^ i[1] ^ i[2] ^ i[3]);
    (void)sink;
    atomic_fetch_add(&loops, done);
    return NULL;
}

// Ends by itself, whoever started it: no device is left burning. A signal ends it at once.
int cmd_burn(const char *threads, const char *ms) {
    int64_t n = word_int(threads), length = word_int(ms);
    if (n < 0 || n > BURN_THREADS || length < 1 || length > BURN_MS) {
        dprintf(2, "meltprobe: burn wants 0 to %d threads (0: one each processor) and 1 to %lld ms\n", BURN_THREADS, BURN_MS);
        return EXIT_USAGE;
    }
    if (n == 0) n = sysconf(_SC_NPROCESSORS_ONLN);
    if (n < 1 || n > BURN_THREADS) n = n < 1 ? 1 : BURN_THREADS;
    static pthread_t thread[BURN_THREADS];
    int started = 0, err = 0;
    int64_t begin = clock_ns(CLOCK_MONOTONIC);
    while (started < n && (err = pthread_create(&thread[started], NULL, spin, (void *)(uintptr_t)started)) == 0) started++;
    struct timespec end = to_timespec(begin + length * NS_MS);
    if (!err)
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &end, NULL) == EINTR) continue;
    atomic_store(&burnt, true);
    for (int k = 0; k < started; k++) pthread_join(thread[k], NULL);
    if (err) {
        dprintf(2, "meltprobe: burn: thread %d of %d: %s\n", started + 1, (int)n, strerror(err));
        return EXIT_WRITE;
    }
    int said = dprintf(1, "%lld loops %d threads %lld ns\n", (long long)loops, (int)n, (long long)(clock_ns(CLOCK_MONOTONIC) - begin));
    return said < 0 ? EXIT_WRITE : 0;
}
