// Stands for AMD's driver at the edge of the world: a libamd_smi.so of GPUs that draw a known power, so that the real
// package amdsmi and the real helper can be tried where there is no GPU. The rest of its functions, which the package
// looks up when it is loaded, are appended by the test and answer "not supported". The environment says how it behaves:
//   MADE_AMD_GPUS     how many (1), two to a socket      MADE_AMD_INIT   what amdsmi_init answers (0)
//   MADE_AMD_W        power in W (150)                   MADE_AMD_FAIL   "energy=2,power=10,temp=30,vram=2"
//   MADE_AMD_ONE_DIE  the second of two counts nothing, and neither has a power of now
//   MADE_AMD_STUCK    the counter stands still           MADE_AMD_BACK_MS   after so long it is 1 kJ lower
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SUCCESS = 0, NO_POWER = 0xFFFF };
static int64_t started;

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_BOOTTIME, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static long setting(const char *name, long otherwise) {
    const char *text = getenv(name);
    return text ? atol(text) : otherwise;
}

// What the call `what` answers.
static int answer(const char *what) {
    const char *fail = getenv("MADE_AMD_FAIL");
    const char *at = fail ? strstr(fail, what) : NULL;
    return at && at[strlen(what)] == '=' ? atoi(at + strlen(what) + 1) : SUCCESS;
}

static int number(void *gpu) { return (int)(uintptr_t)gpu - 1; }
static int dark(void *gpu) { return setting("MADE_AMD_ONE_DIE", 0) && number(gpu) == 1; }

int amdsmi_init(uint64_t flags) {
    (void)flags;
    started = now_ns();
    return (int)setting("MADE_AMD_INIT", 0);
}

int amdsmi_get_socket_handles(uint32_t *n, void **handles) {
    uint32_t sockets = (uint32_t)(setting("MADE_AMD_GPUS", 1) + 1) / 2;
    for (uint32_t i = 0; handles && i < sockets; i++) handles[i] = (void *)(uintptr_t)(i + 1);
    *n = sockets;
    return SUCCESS;
}

int amdsmi_get_processor_handles(void *socket, uint32_t *n, void **handles) {
    uint32_t first = 2 * ((uint32_t)(uintptr_t)socket - 1), gpus = (uint32_t)setting("MADE_AMD_GPUS", 1);
    uint32_t here = gpus - first < 2 ? gpus - first : 2;
    for (uint32_t i = 0; handles && i < here; i++) handles[i] = (void *)(uintptr_t)(first + i + 1);
    *n = here;
    return SUCCESS;
}

// Counts of 15.3 uJ that begin at 50 kJ, as a counter that ran before.
int amdsmi_get_energy_count(void *gpu, uint64_t *counts, float *resolution, uint64_t *at) {
    double seconds = setting("MADE_AMD_STUCK", 0) ? 0 : (double)(now_ns() - started) / 1e9;
    double joules = 50000 + (double)setting("MADE_AMD_W", 150) * seconds;
    long back_ms = setting("MADE_AMD_BACK_MS", -1);
    if (back_ms >= 0 && seconds * 1e3 >= (double)back_ms) joules -= 1000;
    *counts = dark(gpu) ? 0 : (uint64_t)(joules / 15.3e-6);
    *resolution = 15.3f;
    *at = (uint64_t)now_ns();
    return answer("energy");
}

struct power { uint64_t socket; uint32_t current, average; uint64_t voltages[3]; uint32_t limit, padding; uint64_t rest[18]; };

int amdsmi_get_power_info(void *gpu, struct power *out) {
    memset(out, 0, sizeof *out);
    out->current = setting("MADE_AMD_ONE_DIE", 0) ? NO_POWER : (uint32_t)setting("MADE_AMD_W", 150);
    out->average = dark(gpu) ? 0 : (uint32_t)setting("MADE_AMD_W", 150);
    return answer("power");
}

int amdsmi_get_temp_metric(void *gpu, int sensor, int metric, int64_t *celsius) {
    (void)gpu;
    (void)metric;
    *celsius = 40 + 10 * sensor;
    return answer("temp");
}

int amdsmi_get_gpu_vram_usage(void *gpu, uint32_t *usage) {
    (void)gpu;
    usage[0] = 65536;
    usage[1] = 2048;
    return answer("vram");
}
