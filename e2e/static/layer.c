/*
 * A Vulkan layer that shows what a GPU's own compiler makes of compute shaders, where that GPU is missing.
 *
 * Mesa's drivers compile without their GPU: RADV when RADV_FORCE_FAMILY names one, ANV over the kernel driver that
 * intelKernel.c plays. What such a driver cannot make (fences, semaphores, anything that records or submits) this layer
 * answers with success: nothing is ever executed. Of every compute pipeline it writes into the folder $MIXDQ_STATIC_OUT
 *
 *   pipelines.jsonl  a line each: its number, $MIXDQ_STATIC_LABEL at that time, subgroup size, the driver's statistics
 *   NUMBER.asm       with $MIXDQ_STATIC_CODE: the machine code as the driver prints it, which takes it a while
 */
#define VK_NO_PROTOTYPES
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vulkan/vulkan.h>
#include <vulkan/vk_layer.h>

#define COUNT(array) (sizeof(array) / sizeof(*(array)))

/* A process that compiles has one instance and one device at a time: the newest. */
static VkInstance instance;
static VkDevice device;
static PFN_vkGetInstanceProcAddr instance_proc;
static PFN_vkGetDeviceProcAddr device_proc;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

#define DRIVER(name) ((PFN_##name)device_proc(device, #name))

/* The link to the next layer, or to the driver. `type` says in which of the two chains it is. */
static VkLayerInstanceCreateInfo *link_of(const void *chain, VkStructureType type) {
  VkLayerInstanceCreateInfo *info = (void *)chain; /* VkLayerDeviceCreateInfo begins alike */
  while (info && !(info->sType == type && info->function == VK_LAYER_LINK_INFO)) info = (void *)info->pNext;
  return info;
}

static VKAPI_ATTR VkResult VKAPI_CALL create_instance(const VkInstanceCreateInfo *info,
                                                      const VkAllocationCallbacks *allocator, VkInstance *out) {
  VkLayerInstanceCreateInfo *link = link_of(info->pNext, VK_STRUCTURE_TYPE_LOADER_INSTANCE_CREATE_INFO);
  if (!link) return VK_ERROR_INITIALIZATION_FAILED;
  instance_proc = link->u.pLayerInfo->pfnNextGetInstanceProcAddr;
  link->u.pLayerInfo = link->u.pLayerInfo->pNext;
  VkResult result = ((PFN_vkCreateInstance)instance_proc(NULL, "vkCreateInstance"))(info, allocator, out);
  if (result == VK_SUCCESS) instance = *out;
  return result;
}

/* Asks for VK_KHR_pipeline_executable_properties besides what the application asks for. */
static VKAPI_ATTR VkResult VKAPI_CALL create_device(VkPhysicalDevice gpu, const VkDeviceCreateInfo *info,
                                                    const VkAllocationCallbacks *allocator, VkDevice *out) {
  VkLayerDeviceCreateInfo *link = (void *)link_of(info->pNext, VK_STRUCTURE_TYPE_LOADER_DEVICE_CREATE_INFO);
  if (!link) return VK_ERROR_INITIALIZATION_FAILED;
  PFN_vkGetInstanceProcAddr next = link->u.pLayerInfo->pfnNextGetInstanceProcAddr;
  device_proc = link->u.pLayerInfo->pfnNextGetDeviceProcAddr;
  link->u.pLayerInfo = link->u.pLayerInfo->pNext;

  uint32_t count = info->enabledExtensionCount;
  const char **names = calloc(count + 1, sizeof *names);
  if (!names) return VK_ERROR_OUT_OF_HOST_MEMORY;
  memcpy(names, info->ppEnabledExtensionNames, count * sizeof *names);
  names[count] = VK_KHR_PIPELINE_EXECUTABLE_PROPERTIES_EXTENSION_NAME;
  VkPhysicalDevicePipelineExecutablePropertiesFeaturesKHR feature = {
      .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PIPELINE_EXECUTABLE_PROPERTIES_FEATURES_KHR,
      .pNext = (void *)info->pNext,
      .pipelineExecutableInfo = VK_TRUE,
  };
  VkDeviceCreateInfo asked = *info;
  asked.pNext = &feature;
  asked.ppEnabledExtensionNames = names;
  asked.enabledExtensionCount = count + 1;
  VkResult result = ((PFN_vkCreateDevice)next(instance, "vkCreateDevice"))(gpu, &asked, allocator, out);
  if (result == VK_SUCCESS) device = *out;
  free(names);
  return result;
}

/* --- What the compiler made of a pipeline. --- */

static FILE *open_file(const char *name, const char *mode) {
  char path[4096];
  snprintf(path, sizeof path, "%s/%s", getenv("MIXDQ_STATIC_OUT"), name);
  return fopen(path, mode);
}

static void write_text(FILE *file, const char *text) {
  fputc('"', file);
  for (; text && *text; text++)
    if (*text == '"' || *text == '\\') fprintf(file, "\\%c", *text);
    else if ((unsigned char)*text >= ' ') fputc(*text, file);
  fputc('"', file);
}

static void write_statistics(FILE *file, const VkPipelineExecutableInfoKHR *part) {
  VkPipelineExecutableStatisticKHR all[64] = {0};
  uint32_t count = COUNT(all);
  for (unsigned i = 0; i < count; i++) all[i].sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_STATISTIC_KHR;
  DRIVER(vkGetPipelineExecutableStatisticsKHR)(device, part, &count, all);
  for (unsigned i = 0; i < count; i++) {
    VkPipelineExecutableStatisticValueKHR value = all[i].value;
    fputs(i ? "," : "", file);
    write_text(file, all[i].name);
    switch (all[i].format) {
      case VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_BOOL32_KHR: fprintf(file, ":%u", value.b32); break;
      case VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_INT64_KHR: fprintf(file, ":%lld", (long long)value.i64); break;
      case VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_UINT64_KHR: fprintf(file, ":%llu", (unsigned long long)value.u64); break;
      default: fprintf(file, ":%.17g", value.f64);
    }
  }
}

static void write_code(const VkPipelineExecutableInfoKHR *part, unsigned number) {
  PFN_vkGetPipelineExecutableInternalRepresentationsKHR get = DRIVER(vkGetPipelineExecutableInternalRepresentationsKHR);
  VkPipelineExecutableInternalRepresentationKHR texts[32] = {0};
  uint32_t count = COUNT(texts);
  for (unsigned i = 0; i < count; i++) texts[i].sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_INTERNAL_REPRESENTATION_KHR;
  get(device, part, &count, texts); /* without room for a text: how long it is */
  for (unsigned i = 0; i < count; i++) texts[i].pData = calloc(1, texts[i].dataSize + 1);
  get(device, part, &count, texts);
  for (unsigned i = 0; i < count; i++) {
    if (texts[i].pData && strstr(texts[i].name, "ssembly")) {
      char name[32];
      snprintf(name, sizeof name, "%u.asm", number);
      FILE *file = open_file(name, "w");
      if (file) {
        fputs(texts[i].pData, file);
        fclose(file);
      }
    }
    free(texts[i].pData);
  }
}

static void report(VkPipeline pipeline) {
  static unsigned number;
  VkPipelineInfoKHR which = {.sType = VK_STRUCTURE_TYPE_PIPELINE_INFO_KHR, .pipeline = pipeline};
  VkPipelineExecutablePropertiesKHR properties = {.sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_PROPERTIES_KHR};
  uint32_t count = 1; /* a compute pipeline is one program; where Intel's is compiled for several widths, the first */
  DRIVER(vkGetPipelineExecutablePropertiesKHR)(device, &which, &count, &properties);
  VkPipelineExecutableInfoKHR part = {.sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_INFO_KHR, .pipeline = pipeline};
  FILE *file = open_file("pipelines.jsonl", "a");
  if (!file) return;
  fprintf(file, "{\"number\":%u,\"label\":", number);
  write_text(file, getenv("MIXDQ_STATIC_LABEL"));
  fprintf(file, ",\"subgroup\":%u,\"statistics\":{", properties.subgroupSize);
  write_statistics(file, &part);
  fputs("}}\n", file);
  fclose(file);
  if (getenv("MIXDQ_STATIC_CODE")) write_code(&part, number);
  number++;
}

static VKAPI_ATTR VkResult VKAPI_CALL create_pipelines(VkDevice owner, VkPipelineCache cache, uint32_t count,
                                                       const VkComputePipelineCreateInfo *infos,
                                                       const VkAllocationCallbacks *allocator, VkPipeline *out) {
  (void)cache; /* what comes out of a cache has no statistics */
  VkComputePipelineCreateInfo *asked = calloc(count, sizeof *asked);
  if (!asked) return VK_ERROR_OUT_OF_HOST_MEMORY;
  for (uint32_t i = 0; i < count; i++) {
    asked[i] = infos[i];
    asked[i].flags |= VK_PIPELINE_CREATE_CAPTURE_STATISTICS_BIT_KHR;
    if (getenv("MIXDQ_STATIC_CODE")) asked[i].flags |= VK_PIPELINE_CREATE_CAPTURE_INTERNAL_REPRESENTATIONS_BIT_KHR;
  }
  pthread_mutex_lock(&lock);
  VkResult result = DRIVER(vkCreateComputePipelines)(owner, VK_NULL_HANDLE, count, asked, allocator, out);
  for (uint32_t i = 0; i < count && result == VK_SUCCESS; i++) report(out[i]);
  pthread_mutex_unlock(&lock);
  free(asked);
  return result;
}

/* --- What would need the GPU. --- */

static VKAPI_ATTR VkResult VKAPI_CALL succeed(void) { return VK_SUCCESS; }

/* Fences and semaphores: numbers, which are always signalled. */
static VKAPI_ATTR VkResult VKAPI_CALL create_signal(VkDevice owner, const void *info,
                                                    const VkAllocationCallbacks *allocator, uint64_t *out) {
  static uint64_t made;
  (void)owner, (void)info, (void)allocator;
  *out = __atomic_add_fetch(&made, 1, __ATOMIC_RELAXED);
  return VK_SUCCESS;
}

static VKAPI_ATTR VkResult VKAPI_CALL semaphore_value(VkDevice owner, VkSemaphore semaphore, uint64_t *value) {
  (void)owner, (void)semaphore;
  *value = INT64_MAX;
  return VK_SUCCESS;
}

/* Beginnings of the names of what does nothing here. */
static const char *const NOTHING[] = {
    "vkCmd",         "vkBegin",        "vkEnd",            "vkReset",        "vkQueue",           "vkWait",
    "vkSignal",      "vkDeviceWait",   "vkTrim",           "vkFreeCommand",  "vkDestroyCommand",  "vkDestroyFence",
    "vkGetFence",    "vkDestroyDevice", "vkDestroySemaphore",
};

/* --- The loader's way in. --- */

typedef struct {
  const char *name;
  void *function;
} Entry;

static PFN_vkVoidFunction find(const Entry *entries, size_t count, const char *name) {
  for (size_t i = 0; i < count; i++)
    if (!strcmp(entries[i].name, name)) return (PFN_vkVoidFunction)entries[i].function;
  return NULL;
}

static VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL get_device_proc_addr(VkDevice owner, const char *name) {
  const Entry own[] = {
      {"vkGetDeviceProcAddr", get_device_proc_addr},
      {"vkCreateComputePipelines", create_pipelines},
      {"vkCreateFence", create_signal},
      {"vkCreateSemaphore", create_signal},
      {"vkGetSemaphoreCounterValue", semaphore_value},
      {"vkGetSemaphoreCounterValueKHR", semaphore_value},
  };
  PFN_vkVoidFunction function = find(own, COUNT(own), name);
  for (size_t i = 0; i < COUNT(NOTHING) && !function; i++)
    if (!strncmp(name, NOTHING[i], strlen(NOTHING[i]))) function = (PFN_vkVoidFunction)succeed;
  return function ? function : device_proc(owner, name);
}

static VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL get_instance_proc_addr(VkInstance owner, const char *name) {
  const Entry own[] = {
      {"vkGetInstanceProcAddr", get_instance_proc_addr},
      {"vkCreateInstance", create_instance},
      {"vkCreateDevice", create_device},
      {"vkGetDeviceProcAddr", get_device_proc_addr},
  };
  PFN_vkVoidFunction function = find(own, COUNT(own), name);
  return function || !owner ? function : instance_proc(owner, name);
}

__attribute__((visibility("default"))) VKAPI_ATTR VkResult VKAPI_CALL
vkNegotiateLoaderLayerInterfaceVersion(VkNegotiateLayerInterface *version) {
  if (version->loaderLayerInterfaceVersion > 2) version->loaderLayerInterfaceVersion = 2;
  version->pfnGetInstanceProcAddr = get_instance_proc_addr;
  version->pfnGetDeviceProcAddr = get_device_proc_addr;
  version->pfnGetPhysicalDeviceProcAddr = NULL;
  return VK_SUCCESS;
}
