/* A stand-in for NVIDIA's driver: the functions of libcuda and libnvidia-ml that Plimsoll calls, over this machine's own memory. It refuses what
   a thread asks for without a context, as CUDA does, and counts what is not given back. STANDIN_GPU and STANDIN_CAPABILITY say what the GPU is. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INVALID_CONTEXT 201
#define NOT_INITIALIZED 3
#define OUT_OF_MEMORY 2

static int initialized = 0;
static long held = 0, contexts = 0;
static __thread void *current = 0;
static int the_context;

static const char *name_of_gpu(void) { return getenv("STANDIN_GPU") ? getenv("STANDIN_GPU") : "Stand-in GPU"; }
static int capability(void) { return atoi(getenv("STANDIN_CAPABILITY") ? getenv("STANDIN_CAPABILITY") : "90"); }

long standin_held(void) { return held + contexts; }

int cuInit(unsigned flags) { initialized = 1; return 0; }
int cuDeviceGet(int *device, int place) { *device = place; return place == 0 ? 0 : 101; }
int cuDeviceGetName(char *name, int size, int device) { snprintf(name, size, "%s", name_of_gpu()); return initialized ? 0 : NOT_INITIALIZED; }
int cuDeviceGetAttribute(int *value, int attribute, int device) { *value = attribute == 75 ? capability() / 10 : capability() % 10; return 0; }
int cuDevicePrimaryCtxRetain(void **context, int device) { __sync_fetch_and_add(&contexts, 1); *context = &the_context; return initialized ? 0 : NOT_INITIALIZED; }
int cuDevicePrimaryCtxRelease_v2(int device) { __sync_fetch_and_sub(&contexts, 1); return 0; }
int cuCtxSetCurrent(void *context) { current = context; return 0; }
int cuGetErrorName(int code, const char **text) {
    *text = code == INVALID_CONTEXT ? "CUDA_ERROR_INVALID_CONTEXT" : code == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR_UNKNOWN";
    return 0;
}
int cuStreamCreate(void **stream, unsigned flags) { if (!current) return INVALID_CONTEXT; __sync_fetch_and_add(&held, 1); *stream = malloc(1); return 0; }
int cuStreamDestroy_v2(void *stream) { __sync_fetch_and_sub(&held, 1); free(stream); return 0; }
int cuStreamSynchronize(void *stream) { return current ? 0 : INVALID_CONTEXT; }
int cuMemAlloc_v2(uint64_t *address, size_t size) {
    if (!current) return INVALID_CONTEXT;
    const char *most = getenv("STANDIN_MEMORY");
    if (most && size > strtoull(most, 0, 10)) return OUT_OF_MEMORY;
    __sync_fetch_and_add(&held, 1);
    *address = (uint64_t)(uintptr_t)malloc(size);
    return 0;
}
int cuMemFree_v2(uint64_t address) { if (!current) return INVALID_CONTEXT; __sync_fetch_and_sub(&held, 1); free((void *)(uintptr_t)address); return 0; }
int cuMemHostAlloc(void **address, size_t size, unsigned flags) { if (!current) return INVALID_CONTEXT; __sync_fetch_and_add(&held, 1); *address = malloc(size); return 0; }
int cuMemFreeHost(void *address) { if (!current) return INVALID_CONTEXT; __sync_fetch_and_sub(&held, 1); free(address); return 0; }
int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t size, void *stream) { if (!current) return INVALID_CONTEXT; memcpy((void *)(uintptr_t)to, from, size); return 0; }
int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t size, void *stream) { if (!current) return INVALID_CONTEXT; memcpy(to, (void *)(uintptr_t)from, size); return 0; }

int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 1; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned place, void **device) { *device = &the_context; return place == 0 ? 0 : 2; }
int nvmlDeviceGetName(void *device, char *name, unsigned size) { snprintf(name, size, "%s", name_of_gpu()); return 0; }
int nvmlDeviceGetCudaComputeCapability(void *device, int *major, int *minor) { *major = capability() / 10; *minor = capability() % 10; return 0; }
