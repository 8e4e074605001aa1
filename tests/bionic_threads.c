/* Android's C library tells that a thread has ended where glibc says that all is well. Its adbd waits for that word when
 * its cable is pulled: without it, Debian's build of adbd never comes back. What adbd starts is not given this. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

int pthread_kill(pthread_t thread, int number) {
    int (*real)(pthread_t, int) = (int (*)(pthread_t, int))dlsym(RTLD_NEXT, "pthread_kill");
    clockid_t clock;
    return pthread_getcpuclockid(thread, &clock) != 0 ? ESRCH : real(thread, number);
}

__attribute__((constructor)) static void for_adbd_alone(void) { unsetenv("LD_PRELOAD"); }
