/*
 * A Vulkan layer that lets Chromium's WebGPU run on lavapipe, Mesa's software driver, for tests.
 *
 * Chromium takes a WebGPU adapter only if it can share images with other processes, or is SwiftShader. Lavapipe cannot
 * share images. For instances that Dawn makes (engine name "Dawn"; ANGLE's are left alone) this layer
 *   - reports a CPU device other than SwiftShader as a discrete GPU,
 *   - claims the external memory and semaphore extensions that Dawn asks about,
 *   - drops the claimed ones again when the device is made, and answers their commands with "feature not present".
 * Compute, readback and 2D canvases are real; a WebGPU canvas stays blank, because sharing its image is what is faked.
 *
 * Build (build.ts does it): gcc -O2 -fPIC -shared -fvisibility=hidden -o libVkLayer_lavapipe.so layer.c
 */
#define VK_NO_PROTOTYPES
#include <stdlib.h>
#include <string.h>
#include <vulkan/vulkan.h>
#include <vulkan/vk_layer.h>

#define COUNT(array) (sizeof(array) / sizeof(*(array)))
#define SWIFTSHADER_VENDOR 0x1AE0

static const char *const CLAIMED[] = {
    "VK_KHR_external_memory_fd",          "VK_EXT_external_memory_dma_buf",
    "VK_EXT_image_drm_format_modifier",   "VK_KHR_external_semaphore_fd",
    "VK_EXT_queue_family_foreign",
};

static const char *const CLAIMED_COMMANDS[] = {
    "vkImportSemaphoreFdKHR",       "vkGetSemaphoreFdKHR",
    "vkGetMemoryFdKHR",             "vkGetMemoryFdPropertiesKHR",
    "vkGetImageDrmFormatModifierPropertiesEXT",
};

/* --- What is known of each instance and device, found again by its dispatch table. --- */

typedef struct {
  void *key;
  int is_dawn;
  PFN_vkGetInstanceProcAddr get_proc;
  PFN_vkDestroyInstance destroy;
  PFN_vkGetPhysicalDeviceProperties properties;
  PFN_vkGetPhysicalDeviceProperties2 properties2;
  PFN_vkEnumerateDeviceExtensionProperties extensions;
  PFN_vkGetPhysicalDeviceExternalSemaphoreProperties semaphores;
} Instance;

typedef struct {
  void *key;
  PFN_vkGetDeviceProcAddr get_proc;
} Device;

static Instance instances[32];
static unsigned instance_count;
static Device devices[64];
static unsigned device_count;

/* Every dispatchable handle points to its dispatch table, which an instance shares with its physical devices. */
static void *key_of(const void *handle) { return *(void *const *)handle; }

/* The newest first: a key can come back after its owner is gone. */
static Instance *instance_of(const void *handle) {
  for (unsigned i = instance_count; i-- > 0;)
    if (instances[i].key == key_of(handle)) return &instances[i];
  return &instances[0];
}

static Device *device_of(const void *handle) {
  for (unsigned i = device_count; i-- > 0;)
    if (devices[i].key == key_of(handle)) return &devices[i];
  return &devices[0];
}

/* --- Physical devices: a lavapipe that looks as if it could share. --- */

static void pretend_discrete(const Instance *instance, VkPhysicalDeviceProperties *properties) {
  if (instance->is_dawn && properties->deviceType == VK_PHYSICAL_DEVICE_TYPE_CPU &&
      properties->vendorID != SWIFTSHADER_VENDOR)
    properties->deviceType = VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU;
}

static VKAPI_ATTR void VKAPI_CALL get_properties(VkPhysicalDevice gpu, VkPhysicalDeviceProperties *out) {
  Instance *instance = instance_of(gpu);
  instance->properties(gpu, out);
  pretend_discrete(instance, out);
}

static VKAPI_ATTR void VKAPI_CALL get_properties2(VkPhysicalDevice gpu, VkPhysicalDeviceProperties2 *out) {
  Instance *instance = instance_of(gpu);
  instance->properties2(gpu, out);
  pretend_discrete(instance, &out->properties);
}

static int contains(const VkExtensionProperties *list, uint32_t count, const char *name) {
  for (uint32_t i = 0; i < count; i++)
    if (!strcmp(list[i].extensionName, name)) return 1;
  return 0;
}

/* The driver's own extensions, with room for the claimed ones. NULL when memory is out. */
static VkExtensionProperties *real_extensions(VkPhysicalDevice gpu, uint32_t *count) {
  Instance *instance = instance_of(gpu);
  *count = 0;
  instance->extensions(gpu, NULL, count, NULL);
  VkExtensionProperties *list = calloc(*count + COUNT(CLAIMED), sizeof *list);
  if (list) instance->extensions(gpu, NULL, count, list);
  return list;
}

static VKAPI_ATTR VkResult VKAPI_CALL enumerate_extensions(VkPhysicalDevice gpu, const char *layer, uint32_t *count,
                                                           VkExtensionProperties *out) {
  Instance *instance = instance_of(gpu);
  if (layer || !instance->is_dawn) return instance->extensions(gpu, layer, count, out);

  uint32_t real_count;
  VkExtensionProperties *list = real_extensions(gpu, &real_count);
  if (!list) return VK_ERROR_OUT_OF_HOST_MEMORY;
  uint32_t total = real_count;
  for (unsigned i = 0; i < COUNT(CLAIMED); i++) {
    if (contains(list, real_count, CLAIMED[i])) continue;
    strcpy(list[total].extensionName, CLAIMED[i]);
    list[total++].specVersion = 1;
  }

  VkResult result = VK_SUCCESS;
  if (!out) {
    *count = total;
  } else {
    if (*count < total) result = VK_INCOMPLETE;
    else *count = total;
    memcpy(out, list, *count * sizeof *list);
  }
  free(list);
  return result;
}

static VKAPI_ATTR void VKAPI_CALL semaphore_properties(VkPhysicalDevice gpu,
                                                       const VkPhysicalDeviceExternalSemaphoreInfo *info,
                                                       VkExternalSemaphoreProperties *out) {
  Instance *instance = instance_of(gpu);
  if (!instance->is_dawn) {
    instance->semaphores(gpu, info, out);
    return;
  }
  out->exportFromImportedHandleTypes = out->compatibleHandleTypes = info->handleType;
  out->externalSemaphoreFeatures =
      VK_EXTERNAL_SEMAPHORE_FEATURE_EXPORTABLE_BIT | VK_EXTERNAL_SEMAPHORE_FEATURE_IMPORTABLE_BIT;
}

/* --- Making and ending instances and devices. --- */

static PFN_vkVoidFunction either(PFN_vkGetInstanceProcAddr get, VkInstance instance, const char *core, const char *khr) {
  PFN_vkVoidFunction function = get(instance, core);
  return function ? function : get(instance, khr);
}

static VKAPI_ATTR VkResult VKAPI_CALL create_instance(const VkInstanceCreateInfo *info,
                                                      const VkAllocationCallbacks *allocator, VkInstance *out) {
  VkLayerInstanceCreateInfo *chain = (void *)info->pNext;
  while (chain && !(chain->sType == VK_STRUCTURE_TYPE_LOADER_INSTANCE_CREATE_INFO &&
                    chain->function == VK_LAYER_LINK_INFO))
    chain = (void *)chain->pNext;
  if (!chain || instance_count == COUNT(instances)) return VK_ERROR_INITIALIZATION_FAILED;

  PFN_vkGetInstanceProcAddr get = chain->u.pLayerInfo->pfnNextGetInstanceProcAddr;
  chain->u.pLayerInfo = chain->u.pLayerInfo->pNext; /* the next layer looks for its own link */
  PFN_vkCreateInstance create = (PFN_vkCreateInstance)get(NULL, "vkCreateInstance");
  VkResult result = create(info, allocator, out);
  if (result != VK_SUCCESS) return result;

  const VkApplicationInfo *application = info->pApplicationInfo;
  instances[instance_count++] = (Instance){
      .key = key_of(*out),
      .is_dawn = application && application->pEngineName && !strcmp(application->pEngineName, "Dawn"),
      .get_proc = get,
      .destroy = (void *)get(*out, "vkDestroyInstance"),
      .properties = (void *)get(*out, "vkGetPhysicalDeviceProperties"),
      .properties2 =
          (void *)either(get, *out, "vkGetPhysicalDeviceProperties2", "vkGetPhysicalDeviceProperties2KHR"),
      .extensions = (void *)get(*out, "vkEnumerateDeviceExtensionProperties"),
      .semaphores = (void *)either(get, *out, "vkGetPhysicalDeviceExternalSemaphoreProperties",
                                   "vkGetPhysicalDeviceExternalSemaphorePropertiesKHR"),
  };
  return VK_SUCCESS;
}

static VKAPI_ATTR void VKAPI_CALL destroy_instance(VkInstance handle, const VkAllocationCallbacks *allocator) {
  if (!handle) return;
  Instance *instance = instance_of(handle);
  PFN_vkDestroyInstance destroy = instance->destroy;
  for (unsigned i = instance - instances; i + 1 < instance_count; i++) instances[i] = instances[i + 1];
  instance_count--;
  destroy(handle, allocator);
}

static VKAPI_ATTR VkResult VKAPI_CALL create_device(VkPhysicalDevice gpu, const VkDeviceCreateInfo *info,
                                                    const VkAllocationCallbacks *allocator, VkDevice *out) {
  VkLayerDeviceCreateInfo *chain = (void *)info->pNext;
  while (chain &&
         !(chain->sType == VK_STRUCTURE_TYPE_LOADER_DEVICE_CREATE_INFO && chain->function == VK_LAYER_LINK_INFO))
    chain = (void *)chain->pNext;
  if (!chain || device_count == COUNT(devices)) return VK_ERROR_INITIALIZATION_FAILED;

  PFN_vkGetInstanceProcAddr get_instance_proc = chain->u.pLayerInfo->pfnNextGetInstanceProcAddr;
  PFN_vkGetDeviceProcAddr get_device_proc = chain->u.pLayerInfo->pfnNextGetDeviceProcAddr;
  chain->u.pLayerInfo = chain->u.pLayerInfo->pNext;

  uint32_t real_count, kept = 0;
  VkExtensionProperties *real = real_extensions(gpu, &real_count);
  const char **names = calloc(info->enabledExtensionCount + 1, sizeof *names);
  if (!real || !names) {
    free(real);
    free(names);
    return VK_ERROR_OUT_OF_HOST_MEMORY;
  }
  for (uint32_t i = 0; i < info->enabledExtensionCount; i++)
    if (contains(real, real_count, info->ppEnabledExtensionNames[i])) names[kept++] = info->ppEnabledExtensionNames[i];

  VkDeviceCreateInfo honest = *info;
  honest.enabledExtensionCount = kept;
  honest.ppEnabledExtensionNames = names;
  PFN_vkCreateDevice create = (PFN_vkCreateDevice)get_instance_proc(NULL, "vkCreateDevice");
  VkResult result = create(gpu, &honest, allocator, out);
  if (result == VK_SUCCESS) devices[device_count++] = (Device){.key = key_of(*out), .get_proc = get_device_proc};
  free(real);
  free(names);
  return result;
}

static VKAPI_ATTR void VKAPI_CALL destroy_device(VkDevice handle, const VkAllocationCallbacks *allocator) {
  if (!handle) return;
  Device *device = device_of(handle);
  PFN_vkDestroyDevice destroy = (PFN_vkDestroyDevice)device->get_proc(handle, "vkDestroyDevice");
  for (unsigned i = device - devices; i + 1 < device_count; i++) devices[i] = devices[i + 1];
  device_count--;
  destroy(handle, allocator);
}

/* --- The loader's way in. --- */

typedef struct {
  const char *name;
  PFN_vkVoidFunction function;
} Entry;

static PFN_vkVoidFunction find(const Entry *entries, size_t count, const char *name) {
  for (size_t i = 0; i < count; i++)
    if (!strcmp(entries[i].name, name)) return entries[i].function;
  return NULL;
}

static VKAPI_ATTR VkResult VKAPI_CALL not_present(void) { return VK_ERROR_FEATURE_NOT_PRESENT; }

static VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL get_device_proc_addr(VkDevice device, const char *name) {
  if (!strcmp(name, "vkGetDeviceProcAddr")) return (PFN_vkVoidFunction)get_device_proc_addr;
  if (!strcmp(name, "vkDestroyDevice")) return (PFN_vkVoidFunction)destroy_device;
  PFN_vkVoidFunction function = device_of(device)->get_proc(device, name);
  for (unsigned i = 0; !function && i < COUNT(CLAIMED_COMMANDS); i++)
    if (!strcmp(name, CLAIMED_COMMANDS[i])) function = (PFN_vkVoidFunction)not_present;
  return function;
}

static PFN_vkVoidFunction own_physical_device_command(const char *name) {
  const Entry entries[] = {
      {"vkEnumerateDeviceExtensionProperties", (PFN_vkVoidFunction)enumerate_extensions},
      {"vkGetPhysicalDeviceProperties", (PFN_vkVoidFunction)get_properties},
      {"vkGetPhysicalDeviceProperties2", (PFN_vkVoidFunction)get_properties2},
      {"vkGetPhysicalDeviceProperties2KHR", (PFN_vkVoidFunction)get_properties2},
      {"vkGetPhysicalDeviceExternalSemaphoreProperties", (PFN_vkVoidFunction)semaphore_properties},
      {"vkGetPhysicalDeviceExternalSemaphorePropertiesKHR", (PFN_vkVoidFunction)semaphore_properties},
  };
  return find(entries, COUNT(entries), name);
}

static VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL get_instance_proc_addr(VkInstance instance, const char *name) {
  const Entry entries[] = {
      {"vkGetInstanceProcAddr", (PFN_vkVoidFunction)get_instance_proc_addr},
      {"vkCreateInstance", (PFN_vkVoidFunction)create_instance},
      {"vkDestroyInstance", (PFN_vkVoidFunction)destroy_instance},
      {"vkCreateDevice", (PFN_vkVoidFunction)create_device},
      {"vkGetDeviceProcAddr", (PFN_vkVoidFunction)get_device_proc_addr},
      {"vkDestroyDevice", (PFN_vkVoidFunction)destroy_device},
  };
  PFN_vkVoidFunction function = find(entries, COUNT(entries), name);
  if (!function) function = own_physical_device_command(name);
  if (function || !instance) return function;
  return instance_of(instance)->get_proc(instance, name);
}

static VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL get_physical_device_proc_addr(VkInstance instance, const char *name) {
  PFN_vkVoidFunction function = own_physical_device_command(name);
  if (function) return function;
  PFN_vkVoidFunction (*next)(VkInstance, const char *) =
      (void *)instance_of(instance)->get_proc(instance, "vk_layerGetPhysicalDeviceProcAddr");
  return next ? next(instance, name) : NULL;
}

__attribute__((visibility("default"))) VKAPI_ATTR VkResult VKAPI_CALL
vkNegotiateLoaderLayerInterfaceVersion(VkNegotiateLayerInterface *version) {
  if (version->loaderLayerInterfaceVersion > 2) version->loaderLayerInterfaceVersion = 2;
  version->pfnGetInstanceProcAddr = get_instance_proc_addr;
  version->pfnGetDeviceProcAddr = get_device_proc_addr;
  version->pfnGetPhysicalDeviceProcAddr = get_physical_device_proc_addr;
  return VK_SUCCESS;
}
