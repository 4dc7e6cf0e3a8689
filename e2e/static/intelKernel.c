/*
 * For LD_PRELOAD: the kernel driver of an Intel GPU that is missing, as far as Mesa's ANV needs it to make a Vulkan device
 * and compile for it. $MIXDQ_STATIC_GPU names the GPU (GPUS below). It is the interface of Linux' xe driver (xe_drm.h),
 * which ANV takes for all of them. Nothing is executed, every wait is over.
 *
 * The device file opens to a sparse memory file, and a buffer is a range of it: mmap and dup then work by themselves.
 */
#define _GNU_SOURCE
#define EXPORT __attribute__((visibility("default")))
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

typedef struct {
  const char *name;
  int pci_id, revision;
  int major, minor, step; /* of the graphics architecture */
  int cores, engines;     /* Xe cores, and vector engines in each */
  int l3_banks;
  uint64_t vram; /* bytes; 0: shares the host's memory */
} Gpu;

static const Gpu GPUS[] = {
    {"dg2", 0x56a0, 8, 12, 55, 8, 32, 16, 32, 16ull << 30}, /* Arc A770 */
    {"lnl", 0x64a0, 4, 20, 4, 4, 8, 8, 16, 0},              /* Arc 140V in Lunar Lake */
    {"bmg", 0xe20b, 0, 20, 1, 0, 20, 8, 32, 12ull << 30},   /* Arc B580 */
};
static const Gpu *gpu = GPUS;

#define CLOCK 19200000 /* Hz, of the timestamps */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int memory_file = -1;
static int (*next_open)(const char *, int, ...);
static int (*next_ioctl)(int, unsigned long, ...);
static uint32_t ids; /* of address spaces, queues and sync objects */

__attribute__((constructor)) static void start(void) {
  const char *name = getenv("MIXDQ_STATIC_GPU");
  for (size_t i = 0; name && i < sizeof GPUS / sizeof *GPUS; i++)
    if (!strcmp(name, GPUS[i].name)) gpu = GPUS + i;
  next_open = dlsym(RTLD_NEXT, "open64");
  next_ioctl = dlsym(RTLD_NEXT, "ioctl");
}

/* --- Finding the device: what libdrm reads from /sys otherwise. --- */

static struct { uint16_t domain; uint8_t bus, dev, func; } place = {.dev = 2};
static struct { uint16_t vendor, device, subvendor, subdevice; uint8_t revision; } identity;
static char *nodes[] = {"/dev/dri/card0", NULL, "/dev/dri/renderD128"};
static struct { char **nodes; int available, bus; void *place, *identity; } found = {nodes, 1 | 4, 0, &place, &identity};

EXPORT int drmGetDevice2(int fd, uint32_t flags, void **out) {
  (void)fd, (void)flags;
  identity.vendor = identity.subvendor = 0x8086;
  identity.device = identity.subdevice = gpu->pci_id;
  identity.revision = gpu->revision;
  *out = &found;
  return 0;
}
EXPORT int drmGetDevices2(uint32_t flags, void **out, int room) {
  if (out && room > 0) drmGetDevice2(0, flags, out);
  return 1;
}
EXPORT void drmFreeDevice(void **one) { *one = NULL; }
EXPORT void drmFreeDevices(void **all, int count) { (void)all, (void)count; }

typedef struct { int major, minor, patch, name_length; char *name; int date_length; char *date; int text_length; char *text; } Version;
EXPORT Version *drmGetVersion(int fd) {
  (void)fd;
  Version *version = calloc(1, sizeof *version);
  if (version) *version = (Version){1, 1, 0, 2, strdup("xe"), 1, strdup("0"), 1, strdup("0")};
  return version;
}

static int is_node(const char *path) { return path && !strncmp(path, "/dev/dri/", 9); }

EXPORT int open64(const char *path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  int mode = va_arg(rest, int);
  va_end(rest);
  if (!is_node(path)) return next_open(path, flags, mode);
  pthread_mutex_lock(&lock);
  if (memory_file < 0) {
    memory_file = memfd_create("intel", MFD_CLOEXEC);
    if (ftruncate(memory_file, 1ull << 40)) memory_file = -1;
  }
  pthread_mutex_unlock(&lock);
  return fcntl(memory_file, F_DUPFD_CLOEXEC, 100);
}

EXPORT int stat64(const char *path, struct stat64 *out) {
  if (!is_node(path)) return fstatat64(AT_FDCWD, path, out, 0);
  memset(out, 0, sizeof *out);
  out->st_mode = S_IFCHR | 0666;
  out->st_rdev = makedev(226, strstr(path, "render") ? 128 : 0);
  return 0;
}

/* --- Buffers. --- */

#define MOST_BUFFERS 65536
static uint64_t offsets[MOST_BUFFERS], used;
static uint32_t buffers;

static uint32_t new_buffer(uint64_t size) {
  pthread_mutex_lock(&lock);
  uint32_t handle = ++buffers;
  offsets[handle % MOST_BUFFERS] = used;
  used += (size + 65535) / 65536 * 65536;
  pthread_mutex_unlock(&lock);
  return handle;
}

/* --- The answers to DRM_IOCTL_XE_DEVICE_QUERY. --- */

typedef struct { uint16_t class, instance, gt, pad; uint64_t reserved[3]; } Engine;
typedef struct { uint16_t class, instance; uint32_t page; uint64_t size, used, visible, visible_used, reserved[6]; } Region;
typedef struct { uint16_t type, tile, id, pad[3]; uint32_t clock; uint64_t near, far; uint16_t major, minor, step, pad2; uint64_t reserved[7]; } Gt;

static uint8_t *put_mask(uint8_t *to, int type, int bits) {
  ((uint16_t *)to)[1] = type;
  ((uint32_t *)to)[1] = 8;
  for (int i = 0; i < bits; i++) to[8 + i / 8] |= 1 << i % 8;
  return to + 16;
}

/* Fills `to`, which is all zeros, and says how long the answer is. */
static int answer(uint32_t query, uint8_t *to) {
  uint32_t *count = (uint32_t *)to;
  uint8_t *rest = to + 8;
  switch (query) {
    case 0: /* engines: render, copy, compute */
      *count = 3;
      ((Engine *)rest)[1].class = 1;
      ((Engine *)rest)[2].class = 4;
      return 8 + 3 * sizeof(Engine);
    case 1: { /* memory: the host's, and the GPU's own */
      Region *regions = (Region *)rest;
      *count = gpu->vram ? 2 : 1;
      regions[0] = (Region){.page = 4096, .size = 32ull << 30};
      if (gpu->vram) regions[1] = (Region){1, 1, 65536, .size = gpu->vram, .visible = gpu->vram};
      return 8 + *count * sizeof(Region);
    }
    case 2: { /* configuration: which GPU, flags, alignment, bits of an address, highest priority */
      uint64_t info[] = {gpu->pci_id | gpu->revision << 16, gpu->vram ? 1 : 0, gpu->vram ? 65536 : 4096, 48, 2};
      *count = 5;
      memcpy(rest, info, sizeof info);
      return 8 + sizeof info;
    }
    case 3: /* the one graphics unit */
      *count = 1;
      *(Gt *)rest = (Gt){.clock = CLOCK, .near = 1, .major = gpu->major, .minor = gpu->minor, .step = gpu->step};
      return 8 + sizeof(Gt);
    case 4: /* the table of facts: (key, words, values); ANV asks for one at least. 1: most slices */
      count[0] = 1, count[1] = 1, count[2] = (gpu->cores + 3) / 4;
      return 12;
    case 5: /* topology: cores for geometry and compute, engines of 16 lanes, banks */
      return put_mask(put_mask(put_mask(put_mask(to, 1, gpu->cores), 2, gpu->cores), 5, gpu->engines), 3, gpu->l3_banks) - to;
    case 6: /* clocks: xe_query() fills them in */
      return 48;
  }
  return -EINVAL;
}

typedef struct { uint64_t next; uint32_t query, size; uint64_t data, reserved[2]; } Query;

static int xe_query(Query *ask) {
  uint64_t room[512] = {0};
  int length = answer(ask->query, (uint8_t *)room);
  uint8_t *to = (uint8_t *)(uintptr_t)ask->data;
  if (length < 0) return length;
  if (ask->size == 0) ask->size = length;
  else if (ask->query == 6) { /* engine, clock -> width, cycles, nanoseconds, uncertainty */
    struct timespec now;
    clock_gettime(*(int32_t *)(to + 8), &now);
    uint64_t ns = now.tv_sec * 1000000000ull + now.tv_nsec;
    *(uint32_t *)(to + 12) = 36;
    uint64_t times[] = {ns / 1000 * (CLOCK / 1000) / 1000 % (1ull << 36), ns, 100};
    memcpy(to + 16, times, sizeof times);
  } else memcpy(to, room, length);
  return 0;
}

/* --- Calls. --- */

typedef struct { uint64_t next, size; uint32_t placement, flags, space, handle; } Create;
typedef struct { uint64_t next; uint32_t handle, flags; uint64_t offset; } Map;
typedef struct { uint64_t next; uint32_t flags, id; } Space;
typedef struct { uint64_t next; uint16_t width, places; uint32_t space, flags, id; } Queue;
typedef struct { uint64_t next; uint32_t id, property; uint64_t value; } Property;
typedef struct { uint64_t next; uint32_t space, queue, pad, count; uint8_t binds[80]; uint32_t pad2, sync_count; uint64_t syncs; } Bind;
typedef struct { uint64_t next; uint32_t type, flags; uint64_t address, value, reserved[2]; } Sync;

static int xe(unsigned number, void *data) {
  switch (number) {
    case 0x0: return xe_query(data);
    case 0x1: ((Create *)data)->handle = new_buffer(((Create *)data)->size); return 0;
    case 0x2: ((Map *)data)->offset = offsets[((Map *)data)->handle % MOST_BUFFERS]; return 0;
    case 0x3: ((Space *)data)->id = __atomic_add_fetch(&ids, 1, __ATOMIC_RELAXED); return 0;
    case 0x5: { /* binding into an address space: whoever waits for it in memory (type 2, signal) need not wait */
      const Bind *bind = data;
      const Sync *syncs = (const Sync *)(uintptr_t)bind->syncs;
      for (uint32_t i = 0; i < bind->sync_count; i++)
        if (syncs[i].type == 2 && syncs[i].flags & 1) *(uint64_t *)(uintptr_t)syncs[i].address = syncs[i].value;
      return 0;
    }
    case 0x6: ((Queue *)data)->id = __atomic_add_fetch(&ids, 1, __ATOMIC_RELAXED); return 0;
    case 0x8: ((Property *)data)->value = 0; return 0;
    case 0x4: case 0x7: case 0x9: case 0xa: return 0; /* destroy a space, a queue; execute; wait */
  }
  return -ENOTTY;
}

/* What all DRM drivers have. */
static int common(unsigned number, void *data) {
  switch (number) {
    case 0x0c: ((uint64_t *)data)[1] = 1; return 0;                                              /* a capability: yes */
    case 0xbf: *(uint32_t *)data = __atomic_add_fetch(&ids, 1, __ATOMIC_RELAXED); return 0; /* a sync object */
    case 0x09: case 0xc0: case 0xc3: case 0xc4: case 0xc5: return 0; /* close; destroy, wait for, reset, signal one */
  }
  return -ENOTTY;
}

EXPORT int ioctl(int fd, unsigned long request, ...) {
  va_list rest;
  va_start(rest, request);
  void *data = va_arg(rest, void *);
  va_end(rest);
  if ((request >> 8 & 255) != 'd') return next_ioctl(fd, request, data);
  unsigned number = request & 255;
  int result = number >= 0x40 && number < 0xa0 ? xe(number - 0x40, data) : common(number, data);
  if (result >= 0) return result;
  errno = -result;
  return -1;
}
