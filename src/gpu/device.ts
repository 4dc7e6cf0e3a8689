/** Adapter and device: what is asked for, and what is needed at least. */
import { adapterName } from "../base/adapter.ts";
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

/**
 * Chromium gives a page no adapter for about two minutes once its GPU process has crashed twice under it, whatever the
 * page does; a reload ends that.
 */
export const NO_ADAPTER =
  "WebGPU found no adapter. If pictures were made on this page before, the browser's GPU process has crashed: reload the " +
  "page. Else check that hardware acceleration is on in the browser's settings and that the GPU driver is current; chrome://gpu " +
  "says what is blocked.";

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
    throw new MixdqError("unsupported", `${NO_ADAPTER} Or choose the backend "ort-wasm", which needs no GPU.`);
  return { adapter, name: adapterName(adapter.info) };
}

/**
 * `shaderF16: false` and `packedDot: false` leave a feature unused (the same results come another way). Throws what `requestAdapter`
 * throws, `unsupported` where a limit is too small, and `device-lost` where the adapter has died meanwhile.
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
  const descriptor = {
    requiredFeatures: [...features],
    requiredLimits: Object.fromEntries(RAISED.map((limit) => [limit, adapter.limits[limit]])),
  };
  // It was asked for no more than it has: what fails now is the adapter's process or driver.
  const device = await adapter.requestDevice(descriptor).catch((cause: Error) => {
    throw new MixdqError(
      "device-lost",
      `The adapter "${name}" gave no device (${cause.message}). Try again; if it happens again, reload the page.`,
      { cause },
    );
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
