// Stands for NVIDIA's driver at the edge of the world: a libnvidia-ml.so.1 of GPUs that draw a known power, so that
// the real nvidia-ml-py and the real helper can be tried where there is no GPU. The environment says how it behaves:
//   MADE_NVML_GPUS    how many (1)              MADE_NVML_INIT   what nvmlInit answers (0)
//   MADE_NVML_MW      power in mW (60000)       MADE_NVML_FAIL   "energy=3,power=4,...": what a call answers
//   MADE_NVML_LOST_MS, MADE_NVML_RESET_MS: after so long since the start the GPU is lost, or its counter starts anew
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SUCCESS = 0, NOT_SUPPORTED = 3, INSUFFICIENT_SIZE = 7, GPU_IS_LOST = 15 };
static int64_t started;

static int64_t now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_BOOTTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static long setting(const char *name, long otherwise) {
    const char *text = getenv(name);
    return text ? atol(text) : otherwise;
}

// What the call `what` answers: as told, or that the GPU is gone.
static int answer(const char *what) {
    long lost = setting("MADE_NVML_LOST_MS", -1);
    if (lost >= 0 && now_ms() - started >= lost) return GPU_IS_LOST;
    const char *fail = getenv("MADE_NVML_FAIL");
    const char *at = fail ? strstr(fail, what) : NULL;
    return at && at[strlen(what)] == '=' ? atoi(at + strlen(what) + 1) : SUCCESS;
}

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    started = now_ms();
    return (int)setting("MADE_NVML_INIT", 0);
}

const char *nvmlErrorString(int code) { return code == 4 ? "Insufficient Permissions" : code == 9 ? "Driver Not Loaded" : "Made Error"; }

int nvmlDeviceGetCount_v2(unsigned *n) {
    *n = (unsigned)setting("MADE_NVML_GPUS", 1);
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **h) {
    *h = (void *)(uintptr_t)(i + 1);
    return i ? answer("second") : SUCCESS;
}

int nvmlDeviceGetUUID(void *h, char *text, unsigned n) {
    snprintf(text, n, "GPU-00000000-0000-0000-0000-00000000000%u", (unsigned)(uintptr_t)h - 1);
    return SUCCESS;
}

// Millijoules since the driver was loaded (here: since boot), in steps of 20 ms like a real register's.
int nvmlDeviceGetTotalEnergyConsumption(void *h, unsigned long long *mj) {
    (void)h;
    int64_t ms = now_ms(), reset = setting("MADE_NVML_RESET_MS", -1);
    if (reset >= 0 && ms - started >= reset) ms -= started + reset;
    *mj = (unsigned long long)(ms / 20 * 20 * setting("MADE_NVML_MW", 60000) / 1000);
    return answer("energy");
}

struct field { uint32_t id, scope; int64_t timestamp, latency; int type, ret; union { double d; unsigned u; unsigned long long ull; } value; };

int nvmlDeviceGetFieldValues(void *h, int n, struct field *f) {
    (void)h;
    int whole = answer("fields");
    for (int i = 0; i < n; i++) {
        f[i].ret = answer(f[i].id == 186 ? "instant" : f[i].id == 185 ? "average" : "other");
        f[i].type = (int)setting("MADE_NVML_TYPE", 1);
        unsigned mw = (unsigned)setting("MADE_NVML_MW", 60000);
        if (f[i].type == 0) f[i].value.d = mw;
        else if (f[i].type == 3) f[i].value.ull = mw;
        else f[i].value.u = mw;
    }
    return whole;
}

int nvmlDeviceGetPowerUsage(void *h, unsigned *mw) {
    (void)h;
    *mw = (unsigned)setting("MADE_NVML_MW", 60000);
    return answer("usage");
}

int nvmlDeviceGetCudaComputeCapability(void *h, int *major, int *minor) {
    (void)h;
    *major = 8, *minor = 6;
    return answer("compute");
}

int nvmlDeviceGetTemperature(void *h, int sensor, unsigned *c) {
    (void)h, (void)sensor;
    *c = 54;
    return answer("temp");
}

int nvmlDeviceGetMemoryInfo(void *h, unsigned long long m[3]) {
    (void)h;
    m[0] = 8ull << 30, m[1] = 7ull << 30, m[2] = 1ull << 30;
    return answer("memory");
}

int nvmlDeviceGetClockInfo(void *h, int clock, unsigned *mhz) {
    (void)h;
    *mhz = clock == 1 ? 1410 : 0;
    return answer("clock");
}

// The name that drivers before 535 know; the newer one is not exported, as by such a driver.
int nvmlDeviceGetCurrentClocksThrottleReasons(void *h, unsigned long long *bits) {
    (void)h;
    *bits = 4;
    return answer("throttle");
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *h, unsigned *n, void *list) {
    (void)h, (void)list;
    *n = 0;
    return answer("processes");
}
