/* A stand-in for NVIDIA's driver library, libcuda.so.1, on host memory: what the real pycuda, our
 * CUDA graphs and the fake TensorRT need, with no GPU. tests/fakes/libcuda.py builds and loads it.
 *
 * It is strict where a GPU is forgiving or answers with undefined behaviour:
 *   - Streams are lazy. Work is only done when somebody synchronises, so an output that is read too
 *     early is old, and an input that is overwritten too early is wrong: always, not by chance.
 *   - Work on memory that was freed, or outside an allocation, answers 700 from then on, as does a
 *     GPU whose context is lost. Bytes written behind an allocation, or by a kernel into one that
 *     was freed, are counted as damage.
 *   - The default stream and blocking streams are refused (801): both make workers wait.
 *   - The stack of contexts is each thread's own; a thread without one gets 201.
 *   - Allocating or waiting while a stream captures is refused (900) and spoils the capture.
 * Everything that can run out of memory counts against `fake_cuda_budget`; everything that must be
 * given back is counted by kind.
 *
 * Kernels run if their "machine code" is what tests/fakes/libcuda.py makes: a marker and the path of a
 * shared library, compiled from the kernel's own source. Other machine code is refused (209).
 * Names and numbers are those of cuda.h, CUDA 11.4 to 13.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
  OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, INVALID_DEVICE = 101,
  INVALID_CONTEXT = 201, NO_BINARY = 209, INVALID_HANDLE = 400, NOT_FOUND = 500, NOT_READY = 600,
  ILLEGAL_ADDRESS = 700, NOT_SUPPORTED = 801, CAPTURE_UNSUPPORTED = 900, CAPTURE_INVALIDATED = 901,
  CAPTURE_NOT_ACTIVE = 902, CAPTURE_WRONG_THREAD = 908
};

enum { DEVICE_MEMORY, HOST_MEMORY, STREAMS, EVENTS, MODULES, GRAPHS, GRAPH_EXECS, PRIMARY, KINDS };

#define API __attribute__((visibility("default")))
#define GUARD_BYTES 64
#define GUARD_VALUE 0xA5
#define FREED_VALUE 0xDD
#define KEPT 64
#define MAX_DEPTH 64
#define MAX_ARGUMENTS 256
#define KERNEL_MARK "vigia host kernel\n"

typedef uint64_t address;
typedef void (*host_function)(void *);
typedef void (*kernel_function)(const void *arguments, const unsigned *grid, const unsigned *block);
typedef struct stream stream;
typedef struct event event;
typedef struct graph graph;

typedef struct operation {
  enum { COPY, SET, CALL, RECORD, WAIT, KERNEL, GRAPH } kind;
  struct operation *next;
  void *to;
  const void *from;
  size_t size;
  int to_device, from_device, value;
  host_function call;
  event *event;
  long ticket;
  kernel_function kernel;
  unsigned grid[3], block[3];
  unsigned char arguments[MAX_ARGUMENTS];
  graph *graph;
} operation;

struct graph { operation *first, *last; };

struct stream {
  operation *first, *last;
  int busy;
  pthread_mutex_t lock;
  pthread_cond_t idle;
  graph *capture;
  int capture_mode, spoiled;
  stream *next;
};

struct event { stream *stream; long asked, done; double at; };

typedef struct block_ {
  unsigned char *start;
  size_t size;
  int kind, mapped;
  struct block_ *next;
} block;

static long live[KINDS];
static long budget = -1;
static int sticky, integrated, refuse_captures, global_captures, damaged;
static char primary_context;
static pthread_mutex_t table = PTHREAD_MUTEX_INITIALIZER;
static block *blocks;
static block *freed[KEPT];
static int next_freed;
static stream *streams;
static __thread void *contexts[MAX_DEPTH];
static __thread int depth;
static __thread stream *captures;

/* -- for the tests ------------------------------------------------------------------------------*/

API long fake_cuda_live(int kind) { return live[kind]; }
API int fake_cuda_damaged(void);
API void fake_cuda_budget(long allocations) { budget = allocations; }
API long fake_cuda_budget_left(void) { return budget; }
API void fake_cuda_integrated(int yes) { integrated = yes; }
API void fake_cuda_refuse_captures(int yes) { refuse_captures = yes; }
API int fake_cuda_depth(void) { return depth; }

/* -- small parts --------------------------------------------------------------------------------*/

#define COUNT(kind, n) __sync_fetch_and_add(&live[kind], n)
#define NEED_CONTEXT                     \
  do {                                   \
    if (!depth) return INVALID_CONTEXT;  \
    if (sticky) return sticky;           \
  } while (0)

static double now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

static int take_budget(void) {
  long left;
  do {
    left = budget;
    if (left == 0) return 0;
    if (left < 0) return 1;
  } while (!__sync_bool_compare_and_swap(&budget, left, left - 1));
  return 1;
}

/* What must not be done while a stream of this thread captures, or any in global mode. */
static int unsafe_in_capture(void) {
  if (captures && captures->capture_mode != 2) {
    captures->spoiled = 1;
    return 1;
  }
  return global_captures > 0;
}

static int allocate(int kind, size_t size, int mapped, void **result) {
  NEED_CONTEXT;
  if (!size) return INVALID_VALUE;
  if (unsafe_in_capture()) return CAPTURE_UNSUPPORTED;
  if (!take_budget()) return OUT_OF_MEMORY;
  block *b = malloc(sizeof *b);
  void *start = NULL;
  if (!b || posix_memalign(&start, 512, size + GUARD_BYTES)) { free(b); return OUT_OF_MEMORY; }
  /* Fresh device memory holds anything but zeros. */
  memset(start, 0xCD, size);
  memset((char *)start + size, GUARD_VALUE, GUARD_BYTES);
  *b = (block){start, size, kind, mapped, NULL};
  pthread_mutex_lock(&table);
  b->next = blocks;
  blocks = b;
  pthread_mutex_unlock(&table);
  COUNT(kind, 1);
  *result = start;
  return OK;
}

static int written_after_free(const block *b) {
  for (size_t i = 0; i < b->size; i++)
    if (b->start[i] != FREED_VALUE) return 1;
  return 0;
}

static int forget(block *b) {
  if (!b) return 0;
  int found = written_after_free(b);
  free(b->start);
  free(b);
  return found;
}

API int fake_cuda_damaged(void) {
  int found = damaged;
  pthread_mutex_lock(&table);
  for (int i = 0; i < KEPT; i++) found += freed[i] && written_after_free(freed[i]);
  pthread_mutex_unlock(&table);
  return found;
}

API void fake_cuda_recover(void) {
  sticky = damaged = 0;
  for (int i = 0; i < KEPT; i++) {
    forget(freed[i]);
    freed[i] = NULL;
  }
}

static int release(int kind, void *start) {
  NEED_CONTEXT;
  if (unsafe_in_capture()) return CAPTURE_UNSUPPORTED;
  pthread_mutex_lock(&table);
  block **place = &blocks, *b;
  while (*place && ((*place)->start != start || (*place)->kind != kind)) place = &(*place)->next;
  b = *place;
  if (b) *place = b->next;
  pthread_mutex_unlock(&table);
  if (!b) return INVALID_VALUE;
  for (int i = 0; i < GUARD_BYTES; i++)
    if (b->start[b->size + i] != GUARD_VALUE) { damaged++; break; }
  /* Whoever still reads it gets no old values, and whoever writes it is found. */
  memset(b->start, FREED_VALUE, b->size);
  pthread_mutex_lock(&table);
  block *oldest = freed[next_freed];
  freed[next_freed] = b;
  next_freed = (next_freed + 1) % KEPT;
  pthread_mutex_unlock(&table);
  damaged += forget(oldest);
  COUNT(kind, -1);
  return OK;
}

/* Whether the device may touch these bytes. */
static int reachable(const void *start, size_t size) {
  const unsigned char *from = start;
  int found = 0;
  pthread_mutex_lock(&table);
  for (block *b = blocks; b && !found; b = b->next)
    found = (b->kind == DEVICE_MEMORY || b->mapped) && from >= b->start &&
            from + size <= b->start + b->size;
  pthread_mutex_unlock(&table);
  return found;
}

/* -- streams ------------------------------------------------------------------------------------*/

static void drain_until(stream *s, event *e, long ticket);

static void perform(operation *o) {
  if (sticky) return;
  switch (o->kind) {
    case COPY:
      if ((o->to_device && !reachable(o->to, o->size)) ||
          (o->from_device && !reachable(o->from, o->size))) { sticky = ILLEGAL_ADDRESS; return; }
      memmove(o->to, o->from, o->size);
      return;
    case SET:
      if (!reachable(o->to, o->size)) { sticky = ILLEGAL_ADDRESS; return; }
      memset(o->to, o->value, o->size);
      return;
    case CALL: o->call(o->to); return;
    case RECORD: o->event->at = now_ms(); o->event->done = o->ticket; return;
    case WAIT: if (o->event->stream) drain_until(o->event->stream, o->event, o->ticket); return;
    case KERNEL: o->kernel(o->arguments, o->grid, o->block); return;
    case GRAPH: for (operation *n = o->graph->first; n; n = n->next) perform(n); return;
  }
}

/* Does the oldest work of a stream; 0 if there is none. */
static int step(stream *s) {
  pthread_mutex_lock(&s->lock);
  while (s->busy) pthread_cond_wait(&s->idle, &s->lock);
  operation *o = s->first;
  if (o) {
    s->first = o->next;
    if (!s->first) s->last = NULL;
    s->busy = 1;
  }
  pthread_mutex_unlock(&s->lock);
  if (!o) return 0;
  perform(o);
  free(o);
  pthread_mutex_lock(&s->lock);
  s->busy = 0;
  pthread_cond_broadcast(&s->idle);
  pthread_mutex_unlock(&s->lock);
  return 1;
}

static void drain(stream *s) { while (step(s)) {} }

static void drain_until(stream *s, event *e, long ticket) {
  while (e->done < ticket && step(s)) {}
}

static void append(operation **first, operation **last, operation *o) {
  if (*last) (*last)->next = o; else *first = o;
  *last = o;
}

static int enqueue(stream *s, operation what) {
  NEED_CONTEXT;
  if (!s) return NOT_SUPPORTED;
  operation *o = malloc(sizeof *o);
  if (!o) return OUT_OF_MEMORY;
  *o = what;
  o->next = NULL;
  if (s->capture) {
    append(&s->capture->first, &s->capture->last, o);
    return OK;
  }
  pthread_mutex_lock(&s->lock);
  append(&s->first, &s->last, o);
  pthread_mutex_unlock(&s->lock);
  return OK;
}

static void free_operations(operation *o) {
  while (o) { operation *next = o->next; free(o); o = next; }
}

API int cuStreamCreate(void **result, unsigned flags) {
  NEED_CONTEXT;
  if (flags != 1) return NOT_SUPPORTED;
  if (!take_budget()) return OUT_OF_MEMORY;
  stream *s = calloc(1, sizeof *s);
  pthread_mutex_init(&s->lock, NULL);
  pthread_cond_init(&s->idle, NULL);
  pthread_mutex_lock(&table);
  s->next = streams;
  streams = s;
  pthread_mutex_unlock(&table);
  COUNT(STREAMS, 1);
  *result = s;
  return OK;
}

API int cuStreamDestroy_v2(stream *s) {
  NEED_CONTEXT;
  drain(s);
  pthread_mutex_lock(&table);
  stream **place = &streams;
  while (*place && *place != s) place = &(*place)->next;
  if (*place) *place = s->next;
  pthread_mutex_unlock(&table);
  free(s);
  COUNT(STREAMS, -1);
  return OK;
}

API int cuStreamSynchronize(stream *s) {
  NEED_CONTEXT;
  if (!s) return NOT_SUPPORTED;
  if (s->capture) { s->spoiled = 1; return CAPTURE_UNSUPPORTED; }
  drain(s);
  return sticky;
}

API int cuStreamQuery(stream *s) {
  NEED_CONTEXT;
  return s && s->first ? NOT_READY : OK;
}

API int cuCtxSynchronize(void) {
  NEED_CONTEXT;
  if (unsafe_in_capture()) return CAPTURE_UNSUPPORTED;
  for (stream *s = streams; s; s = s->next) drain(s);
  return sticky;
}

API int cuLaunchHostFunc(stream *s, host_function call, void *data) {
  return enqueue(s, (operation){.kind = CALL, .call = call, .to = data});
}

/* -- events -------------------------------------------------------------------------------------*/

API int cuEventCreate(void **result, unsigned flags) {
  NEED_CONTEXT;
  if (!take_budget()) return OUT_OF_MEMORY;
  *result = calloc(1, sizeof(event));
  COUNT(EVENTS, 1);
  return OK;
}

API int cuEventDestroy_v2(event *e) {
  NEED_CONTEXT;
  if (e->stream && e->done < e->asked) drain_until(e->stream, e, e->asked);
  free(e);
  COUNT(EVENTS, -1);
  return OK;
}

API int cuEventRecord(event *e, stream *s) {
  NEED_CONTEXT;
  if (!s) return NOT_SUPPORTED;
  e->stream = s;
  return enqueue(s, (operation){.kind = RECORD, .event = e, .ticket = ++e->asked});
}

API int cuStreamWaitEvent(stream *s, event *e, unsigned flags) {
  return enqueue(s, (operation){.kind = WAIT, .event = e, .ticket = e->asked});
}

API int cuEventSynchronize(event *e) {
  NEED_CONTEXT;
  if (e->stream && e->stream->capture) { e->stream->spoiled = 1; return CAPTURE_UNSUPPORTED; }
  if (e->stream) drain_until(e->stream, e, e->asked);
  return sticky;
}

API int cuEventQuery(event *e) { return e->done < e->asked ? NOT_READY : OK; }

API int cuEventElapsedTime(float *ms, event *from, event *to) {
  if (!from->asked || !to->asked) return INVALID_HANDLE;
  if (from->done < from->asked || to->done < to->asked) return NOT_READY;
  *ms = (float)(to->at - from->at);
  return OK;
}

API int cuEventElapsedTime_v2(float *ms, event *from, event *to) {
  return cuEventElapsedTime(ms, from, to);
}

/* -- graphs -------------------------------------------------------------------------------------*/

API int cuStreamBeginCapture_v2(stream *s, int mode) {
  NEED_CONTEXT;
  if (!s) return CAPTURE_UNSUPPORTED;
  if (s->capture || captures) return INVALID_VALUE;
  s->capture = calloc(1, sizeof(graph));
  s->capture_mode = mode;
  s->spoiled = 0;
  captures = s;
  if (mode == 0) __sync_fetch_and_add(&global_captures, 1);
  return OK;
}

API int cuStreamEndCapture(stream *s, graph **result) {
  NEED_CONTEXT;
  *result = NULL;
  if (!s->capture) return CAPTURE_NOT_ACTIVE;
  if (captures != s) return CAPTURE_WRONG_THREAD;
  graph *made = s->capture;
  s->capture = NULL;
  captures = NULL;
  if (s->capture_mode == 0) __sync_fetch_and_sub(&global_captures, 1);
  if (s->spoiled || refuse_captures) {
    free_operations(made->first);
    free(made);
    return CAPTURE_INVALIDATED;
  }
  COUNT(GRAPHS, 1);
  *result = made;
  return OK;
}

API int cuGraphInstantiateWithFlags(graph **result, graph *from, unsigned long long flags) {
  NEED_CONTEXT;
  if (!take_budget()) return OUT_OF_MEMORY;
  graph *made = calloc(1, sizeof *made);
  for (operation *o = from->first; o; o = o->next) {
    operation *copy = malloc(sizeof *copy);
    *copy = *o;
    copy->next = NULL;
    append(&made->first, &made->last, copy);
  }
  COUNT(GRAPH_EXECS, 1);
  *result = made;
  return OK;
}

API int cuGraphLaunch(graph *g, stream *s) {
  return enqueue(s, (operation){.kind = GRAPH, .graph = g});
}

static int destroy_graph(graph *g, int kind) {
  NEED_CONTEXT;
  free_operations(g->first);
  free(g);
  COUNT(kind, -1);
  return OK;
}

API int cuGraphDestroy(graph *g) { return destroy_graph(g, GRAPHS); }
API int cuGraphExecDestroy(graph *g) { return destroy_graph(g, GRAPH_EXECS); }

/* -- driver, device, contexts -------------------------------------------------------------------*/

API int cuInit(unsigned flags) { return OK; }
API int cuDriverGetVersion(int *version) { *version = 13000; return OK; }

API int cuGetErrorString(int code, const char **text) {
  static const struct { int code; const char *text; } texts[] = {
    {INVALID_VALUE, "invalid argument"}, {OUT_OF_MEMORY, "out of memory"},
    {INVALID_DEVICE, "invalid device ordinal"}, {INVALID_CONTEXT, "invalid device context"},
    {NO_BINARY, "no kernel image is available for execution on the device"},
    {INVALID_HANDLE, "invalid resource handle"}, {NOT_FOUND, "named symbol not found"},
    {NOT_READY, "device not ready"}, {ILLEGAL_ADDRESS, "an illegal memory access was encountered"},
    {NOT_SUPPORTED, "operation not supported"},
    {CAPTURE_UNSUPPORTED, "operation not permitted when stream is capturing"},
    {CAPTURE_INVALIDATED, "operation failed due to a previous error during capture"},
  };
  *text = "unknown error";
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
    if (texts[i].code == code) *text = texts[i].text;
  return OK;
}

API int cuDeviceGetCount(int *count) { *count = 1; return OK; }
API int cuDeviceGet(int *device, int ordinal) { *device = 0; return ordinal ? INVALID_DEVICE : OK; }
API int cuDeviceGetName(char *name, int size, int device) {
  snprintf(name, size, "Host memory");
  return OK;
}
API int cuDeviceComputeCapability(int *major, int *minor, int device) {
  *major = 8; *minor = 7;
  return OK;
}
API int cuDeviceTotalMem_v2(size_t *size, int device) { *size = 8ull << 30; return OK; }
API int cuDeviceGetAttribute(int *value, int attribute, int device) {
  switch (attribute) {
    case 16: *value = 8; break;           /* multiprocessors */
    case 18: *value = integrated; break;  /* integrated with host memory */
    case 75: *value = 8; break;           /* compute capability */
    case 76: *value = 7; break;
    default: *value = 1;
  }
  return OK;
}
API int cuMemGetInfo_v2(size_t *left, size_t *total) {
  NEED_CONTEXT;
  *left = 4ull << 30;
  *total = 8ull << 30;
  return OK;
}

API int cuDevicePrimaryCtxRetain(void **context, int device) {
  COUNT(PRIMARY, 1);
  *context = &primary_context;
  return OK;
}
API int cuDevicePrimaryCtxRelease_v2(int device) { COUNT(PRIMARY, -1); return OK; }
API int cuCtxPushCurrent_v2(void *context) {
  if (depth == MAX_DEPTH) return INVALID_VALUE;
  contexts[depth++] = context;
  return OK;
}
API int cuCtxPopCurrent_v2(void **context) {
  if (!depth) return INVALID_CONTEXT;
  *context = contexts[--depth];
  return OK;
}
API int cuCtxGetDevice(int *device) { NEED_CONTEXT; *device = 0; return OK; }
API int cuCtxGetApiVersion(void *context, unsigned *version) { *version = 13000; return OK; }

/* -- memory -------------------------------------------------------------------------------------*/

API int cuMemAlloc_v2(address *result, size_t size) {
  return allocate(DEVICE_MEMORY, size, 0, (void **)result);
}
API int cuMemFree_v2(address start) { return release(DEVICE_MEMORY, (void *)start); }
API int cuMemHostAlloc(void **result, size_t size, unsigned flags) {
  return allocate(HOST_MEMORY, size, (flags & 2) != 0, result);
}
API int cuMemFreeHost(void *start) { return release(HOST_MEMORY, start); }
API int cuMemHostGetDevicePointer_v2(address *result, void *start, unsigned flags) {
  NEED_CONTEXT;
  if (!reachable(start, 1)) return INVALID_VALUE;
  *result = (address)start;
  return OK;
}
API int cuMemHostGetFlags(unsigned *flags, void *start) {
  *flags = reachable(start, 1) ? 2 : 0;
  return OK;
}

API int cuMemcpyHtoDAsync_v2(address to, const void *from, size_t size, stream *s) {
  return enqueue(s, (operation){.kind = COPY, .to = (void *)to, .from = from, .size = size,
                                .to_device = 1});
}
API int cuMemcpyDtoHAsync_v2(void *to, address from, size_t size, stream *s) {
  return enqueue(s, (operation){.kind = COPY, .to = to, .from = (void *)from, .size = size,
                                .from_device = 1});
}
API int cuMemsetD8Async(address to, unsigned char value, size_t size, stream *s) {
  return enqueue(s, (operation){.kind = SET, .to = (void *)to, .value = value, .size = size});
}

/* -- kernels ------------------------------------------------------------------------------------*/

API int cuModuleLoadDataEx(void **module, const char *image, unsigned count, void *options,
                           void **values) {
  NEED_CONTEXT;
  if (strncmp(image, KERNEL_MARK, strlen(KERNEL_MARK))) return NO_BINARY;
  if (!take_budget()) return OUT_OF_MEMORY;
  *module = dlopen(image + strlen(KERNEL_MARK), RTLD_NOW | RTLD_LOCAL);
  if (!*module) return NO_BINARY;
  COUNT(MODULES, 1);
  return OK;
}
API int cuModuleLoadData(void **module, const char *image) {
  return cuModuleLoadDataEx(module, image, 0, NULL, NULL);
}
API int cuModuleUnload(void *module) {
  NEED_CONTEXT;
  dlclose(module);
  COUNT(MODULES, -1);
  return OK;
}
API int cuModuleGetFunction(void **function, void *module, const char *name) {
  char host_name[128];
  snprintf(host_name, sizeof host_name, "host_%s", name);
  *function = dlsym(module, host_name);
  return *function ? OK : NOT_FOUND;
}
/* pycuda still says it beforehand; only launches of the old kind would heed it. */
API int cuFuncSetBlockShape(void *function, int x, int y, int z) { return OK; }
API int cuLaunchKernel(kernel_function kernel, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                       unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared,
                       stream *s, void **parameters, void **extra) {
  operation o = {.kind = KERNEL, .kernel = kernel, .grid = {grid_x, grid_y, grid_z},
                 .block = {block_x, block_y, block_z}};
  size_t size = 0;
  const void *buffer = NULL;
  for (; extra && *extra; extra += 2) {
    if ((uintptr_t)extra[0] == 1) buffer = extra[1];
    if ((uintptr_t)extra[0] == 2) size = *(size_t *)extra[1];
  }
  if (!buffer || size > MAX_ARGUMENTS) return INVALID_VALUE;
  if (!grid_x || !grid_y || !grid_z || block_x * block_y * block_z > 1024) return INVALID_VALUE;
  memcpy(o.arguments, buffer, size);
  return enqueue(s, o);
}

/* -- what pycuda links to and nothing here may use ----------------------------------------------*/

#define NO(name) \
  API int name(void) { return NOT_SUPPORTED; }
NO(cuArray3DCreate_v2) NO(cuArray3DGetDescriptor_v2) NO(cuArrayCreate_v2) NO(cuArrayDestroy)
NO(cuArrayGetDescriptor_v2) NO(cuCtxAttach) NO(cuCtxCreate_v2) NO(cuCtxCreate_v4) NO(cuCtxDetach)
NO(cuCtxDestroy_v2) NO(cuCtxDisablePeerAccess) NO(cuCtxEnablePeerAccess) NO(cuCtxGetCacheConfig)
NO(cuCtxGetLimit) NO(cuCtxGetSharedMemConfig) NO(cuCtxSetCacheConfig) NO(cuCtxSetLimit)
NO(cuCtxSetSharedMemConfig) NO(cuDeviceCanAccessPeer) NO(cuDeviceGetByPCIBusId)
NO(cuDeviceGetPCIBusId) NO(cuFuncGetAttribute) NO(cuFuncSetAttribute)
NO(cuFuncSetCacheConfig) NO(cuFuncSetSharedMemConfig) NO(cuFuncSetSharedSize)
NO(cuGetExportTable) /* NVRTC asks for it, and does without */
NO(cuIpcCloseMemHandle) NO(cuIpcGetEventHandle) NO(cuIpcGetMemHandle) NO(cuIpcOpenEventHandle)
NO(cuIpcOpenMemHandle_v2) NO(cuLaunch) NO(cuLaunchGrid) NO(cuLaunchGridAsync) NO(cuLinkAddData_v2)
NO(cuLinkAddFile_v2) NO(cuLinkComplete) NO(cuLinkCreate_v2) NO(cuLinkDestroy) NO(cuMemAllocHost_v2)
NO(cuMemAllocManaged) NO(cuMemAllocPitch_v2) NO(cuMemGetAddressRange_v2) NO(cuMemHostRegister_v2)
NO(cuMemHostUnregister) NO(cuMemcpy2DAsync_v2) NO(cuMemcpy2DUnaligned_v2) NO(cuMemcpy2D_v2)
NO(cuMemcpy3DAsync_v2) NO(cuMemcpy3DPeer) NO(cuMemcpy3DPeerAsync) NO(cuMemcpy3D_v2)
NO(cuMemcpyAtoA_v2) NO(cuMemcpyAtoD_v2) NO(cuMemcpyAtoH_v2) NO(cuMemcpyDtoA_v2)
NO(cuMemcpyDtoDAsync_v2) NO(cuMemcpyDtoD_v2) NO(cuMemcpyDtoH_v2) NO(cuMemcpyHtoA_v2)
NO(cuMemcpyHtoD_v2) NO(cuMemcpyPeer) NO(cuMemcpyPeerAsync) NO(cuMemsetD16Async) NO(cuMemsetD16_v2)
NO(cuMemsetD2D16Async) NO(cuMemsetD2D16_v2) NO(cuMemsetD2D32Async) NO(cuMemsetD2D32_v2)
NO(cuMemsetD2D8Async) NO(cuMemsetD2D8_v2) NO(cuMemsetD32Async) NO(cuMemsetD32_v2)
NO(cuMemsetD8_v2) NO(cuModuleGetGlobal_v2) NO(cuModuleGetSurfRef) NO(cuModuleGetTexRef)
NO(cuModuleLoad) NO(cuParamSetSize) NO(cuParamSetTexRef) NO(cuParamSetf) NO(cuParamSeti)
NO(cuParamSetv) NO(cuProfilerInitialize) NO(cuProfilerStart) NO(cuProfilerStop)
NO(cuStreamAttachMemAsync) NO(cuSurfRefGetArray) NO(cuSurfRefSetArray) NO(cuTexRefCreate)
NO(cuTexRefDestroy) NO(cuTexRefGetAddressMode) NO(cuTexRefGetAddress_v2) NO(cuTexRefGetArray)
NO(cuTexRefGetFilterMode) NO(cuTexRefGetFlags) NO(cuTexRefGetFormat) NO(cuTexRefSetAddress2D_v3)
NO(cuTexRefSetAddressMode) NO(cuTexRefSetAddress_v2) NO(cuTexRefSetArray)
NO(cuTexRefSetFilterMode) NO(cuTexRefSetFlags) NO(cuTexRefSetFormat)
