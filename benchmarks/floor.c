// The kernel's floor: the reads a sampler must make, at the deadlines it must make them, and nothing else.
// floor PERIOD_NS TICKS FILE...   PERIOD_NS 0: no pauses; TICKS 0: until killed. Prints "READS CPU_NS".
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define FILES 256
#define NS_S 1000000000L

static char text[65537];   // the probe's own buffer is as long

int main(int argc, char **argv) {
    int fd[FILES], n = argc - 3;
    if (n < 1 || n > FILES) return 64;
    long period = atol(argv[1]), ticks = atol(argv[2]), reads = 0;
    for (int i = 0; i < n; i++)
        if ((fd[i] = open(argv[3 + i], O_RDONLY | O_CLOEXEC | O_NONBLOCK)) < 0) return 66;
    struct timespec next, used;
    clock_gettime(CLOCK_BOOTTIME, &next);
    for (long k = 0; !ticks || k < ticks; k++) {
        if (period) {
            next.tv_sec += (next.tv_nsec + period) / NS_S;
            next.tv_nsec = (next.tv_nsec + period) % NS_S;
            clock_nanosleep(CLOCK_BOOTTIME, TIMER_ABSTIME, &next, NULL);
        }
        for (int i = 0; i < n; i++) reads += pread(fd[i], text, sizeof text, 0) >= 0;
    }
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    printf("%ld %ld\n", reads, used.tv_sec * NS_S + used.tv_nsec);
    return reads == ticks * n ? 0 : 74;
}
