/** Adapter and device: what is asked for, what is needed at least, and what went wrong in words. */
import { MixdqError } from "../base/errors.ts";

/** The smallest limits the engine runs in: WebGPU's own defaults, which every conforming adapter has. */
const NEEDED = {
  maxStorageBuffersPerShaderStage: 8,
  maxComputeInvocationsPerWorkgroup: 256,
  maxComputeWorkgroupStorageSize: 16_384,
  maxStorageBufferBindingSize: 128 * 2 ** 20,
  maxBufferSize: 256 * 2 ** 20,
} as const;

/** Raised to what the adapter has, because large pictures have large activations. */
const RAISED = ["maxStorageBufferBindingSize", "maxBufferSize"] as const;

export interface GpuDevice {
  readonly device: GPUDevice;
  /** vendor, architecture and description, as far as the browser tells. */
  readonly adapter: string;
  readonly features: readonly string[];
  readonly shaderF16: boolean;
  /** WGSL has dot4I8Packed (which the driver may still have to emulate). */
  readonly packedDot: boolean;
  readonly timestamps: boolean;
}

export interface NamedAdapter {
  readonly adapter: GPUAdapter;
  /** vendor, architecture and description, as far as the browser tells. */
  readonly name: string;
}

/** `gpu`: navigator.gpu, or Dawn's in Node. Throws `unsupported` without WebGPU or without an adapter. */
export async function requestAdapter(gpu: GPU | undefined, fallback = false): Promise<NamedAdapter> {
  if (!gpu)
    throw new MixdqError(
      "unsupported",
      "WebGPU is missing here: navigator.gpu is undefined. Use a current Chrome, Edge, Safari or Firefox, over https " +
        'or on localhost; or choose the backend "ort-wasm", which needs no GPU.',
    );
  const adapter = await gpu.requestAdapter({ powerPreference: "high-performance", forceFallbackAdapter: fallback });
  if (!adapter)
    throw new MixdqError(
      "unsupported",
      "WebGPU found no adapter. Check that hardware acceleration is on in the browser's settings and that the GPU driver " +
        'is current; or choose the backend "ort-wasm", which needs no GPU.',
    );
  const { vendor, architecture, device: model, description } = adapter.info;
  const name = [...new Set([vendor, architecture, model, description].filter(Boolean))].join(" ") || "unnamed adapter";
  return { adapter, name };
}

/**
 * Software adapters are known by name: CPUs that act as a GPU, slow at what GPUs are fast at (workgroup memory,
 * barriers) and slow to compile it.
 */
export function isSoftware(adapter: string): boolean {
  return /swiftshader|llvmpipe|lavapipe|software|microsoft basic render|warp/i.test(adapter);
}

/**
 * `shaderF16: false` and `packedDot: false` leave a feature unused (the same results come another way). Throws what `requestAdapter` throws, and
 * `unsupported` where a limit is too small.
 */
export async function requestDevice(
  gpu: GPU | undefined,
  {
    shaderF16 = true,
    packedDot = true,
    fallback = false,
  }: { shaderF16?: boolean; packedDot?: boolean; fallback?: boolean } = {},
): Promise<GpuDevice> {
  const { adapter, name } = await requestAdapter(gpu, fallback);
  checkLimits(adapter.limits, name);
  const features = (["shader-f16", "timestamp-query"] as const).filter(
    (feature) => adapter.features.has(feature) && (feature !== "shader-f16" || shaderF16),
  );
  const device = await adapter.requestDevice({
    requiredFeatures: [...features],
    requiredLimits: Object.fromEntries(RAISED.map((limit) => [limit, adapter.limits[limit]])),
  });
  return {
    device,
    adapter: name,
    features: [...features],
    shaderF16: device.features.has("shader-f16"),
    // A browser that does not tell has none: the scalar form is right everywhere.
    packedDot: packedDot && (gpu?.wgslLanguageFeatures?.has("packed_4x8_integer_dot_product") ?? false),
    timestamps: device.features.has("timestamp-query"),
  };
}

/** Throws `unsupported` for the first limit under what the engine needs. */
export function checkLimits(limits: Readonly<Record<keyof typeof NEEDED, number>>, adapter: string): void {
  for (const [limit, needed] of Object.entries(NEEDED)) {
    const has = limits[limit as keyof typeof NEEDED];
    if (has < needed)
      throw new MixdqError(
        "unsupported",
        `The adapter "${adapter}" has ${limit} = ${has}, the engine needs ${needed}. Use another adapter or browser, ` +
          'or the backend "ort-wasm".',
      );
  }
}

/**
 * Turns what a failed GPU call left behind into one error: a lost device, memory that ran out, or a fault of ours.
 * Runs `work` inside error scopes; validation errors must never pass silently, they make black pictures.
 */
export async function guarded<T>(device: GPUDevice, what: string, work: () => T | Promise<T>): Promise<T> {
  device.pushErrorScope("validation");
  device.pushErrorScope("out-of-memory");
  let result: T | undefined;
  let thrown: unknown;
  try {
    result = await work();
  } catch (error) {
    thrown = error;
  }
  const memory = await device.popErrorScope();
  const validation = await device.popErrorScope();
  if (memory)
    throw new MixdqError(
      "out-of-memory",
      `${what}: the GPU has not enough memory (${memory.message}). Close other tabs, or use a smaller size or precision.`,
    );
  if (validation) throw new MixdqError("unsupported", `${what}: the GPU refused the work: ${validation.message}`);
  if (thrown !== undefined) throw thrown;
  return result as T;
}
