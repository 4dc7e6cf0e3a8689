/**
 * What can be known before anything large is downloaded: is there an adapter that the engine can use, is the model
 * there, and how many bytes is it. Reads model_index.json, indexes of shards and file sizes only.
 */
import { adapterName } from "../base/adapter.ts";
import { BACKENDS } from "../base/choices.ts";
import { MixdqError } from "../base/errors.ts";
import { checkLimits, NO_ADAPTER } from "../gpu/device.ts";
import { modelAddress } from "./env.ts";
import { checkOptions, SUPPORT_OPTIONS } from "./options.ts";
import type { Backend, Precision } from "../base/types.ts";
import { keptBytes, keptModel } from "../weights/cache/models.ts";
import { cacheStorage, openAddress } from "../weights/cache/open.ts";
import { UnreachableError } from "../weights/http.ts";
import { findWeights } from "../weights/modelWeights.ts";

/** What `checkSupport` looks at. */
export interface SupportOptions {
  /** URL or hub's id of a diffusers folder or a pack, as for createEngine. Without one, only the machine is looked at. */
  model?: string;
  /** Default: webgpu. */
  backend?: Backend;
  /** Default: fp16. Decides which of a model's files are fetched. */
  precision?: Precision;
  /** As for createEngine; with true, want of room is a reason, too. */
  cache?: boolean;
  stallMs?: number;
  /** Ends the look at the model. */
  signal?: AbortSignal;
}

/** One thing that stands in the way. */
export interface SupportReason {
  /**
   * Of the machine: `no-webgpu` (the browser), `insecure-context`, `no-adapter`, `limits` (of the adapter), `no-wasm`. Of
   * the model: `offline` (this device is, or the model's host cannot be reached), `network` (the host fails or refuses
   * a file), `model` (something else is wrong with it).
   */
  readonly code: MachineReason | ModelReason | "storage";
  /** The same for people, with what to do. */
  readonly message: string;
}

type MachineReason = "no-webgpu" | "insecure-context" | "no-adapter" | "limits" | "no-wasm";
type ModelReason = "offline" | "network" | "model";

/** What `checkSupport` found. */
export interface Support {
  /** Whether `createEngine` with the same options should work. */
  readonly ok: boolean;
  /** Why not; empty when ok. */
  readonly reasons: readonly SupportReason[];
  /** The backends that this browser can run, best first. */
  readonly backends: readonly Backend[];
  /** The adapter's name, or "" without one. */
  readonly adapter: string;
  /** WebGPU features of the adapter, sorted. */
  readonly features: readonly string[];
  /** Bytes of the weights that createEngine would read; 0 where unknown. */
  readonly modelBytes: number;
  /** How many of them are kept on this device, and need not be fetched. */
  readonly cachedBytes: number;
  /** What this site may still store, in bytes, as far as the browser tells. */
  readonly freeBytes: number | undefined;
}

/**
 * Whether createEngine would work here: the reasons why not, and the bytes it would fetch. Throws `invalid-input` for an
 * unknown or unfit option and what an aborted fetch throws; everything else is a reason.
 */
export async function checkSupport(options: SupportOptions = {}): Promise<Support> {
  checkOptions("checkSupport", options, SUPPORT_OPTIONS);
  const { backend = "webgpu", precision = "fp16", stallMs, signal } = options;
  const machine = await lookAtMachine();
  const reasons: SupportReason[] = [];
  if (backend === "ort-wasm") {
    if (!machine.backends.includes("ort-wasm")) {
      reasons.push({ code: "no-wasm", message: "This browser has no WebAssembly. Use a current browser." });
    }
  } else {
    reasons.push(...machine.reasons);
  }

  let [modelBytes, kept] = [0, NOTHING_KEPT];
  if (options.model !== undefined) {
    try {
      const address = modelAddress(options.model);
      const files = await openAddress(address, { cache: options.cache === false ? false : undefined, stallMs });
      modelBytes = (await findWeights(files, precision, signal)).bytes;
      if (options.cache !== false) kept = await lookAtStorage(files.location, modelBytes);
    } catch (error) {
      if (signal?.aborted || !(error instanceof MixdqError)) throw error;
      reasons.push({ code: reasonFor(error), message: error.message });
    }
  }
  const missing = modelBytes - kept.cachedBytes;
  if (options.cache === true && !((kept.freeBytes ?? Infinity) >= missing))
    reasons.push({ code: "storage", message: storageReason(missing, kept.freeBytes!) });
  return { ...machine, ...kept, ok: reasons.length === 0, reasons, modelBytes };
}

const NOTHING_KEPT: Pick<Support, "cachedBytes" | "freeBytes"> = { cachedBytes: 0, freeBytes: undefined };

async function lookAtStorage(location: string, modelBytes: number): Promise<typeof NOTHING_KEPT> {
  const storage = await cacheStorage();
  if (!storage) return NOTHING_KEPT;
  const [bytes, room] = await Promise.all([keptBytes(await keptModel(storage, location, "")), storage.room()]);
  return { cachedBytes: Math.min(bytes, modelBytes), freeBytes: room && Math.max(0, room.quota - room.usage) };
}

function storageReason(missing: number, free: number): string {
  const megabytes = (bytes: number): string => `${Math.ceil(bytes / 1e6).toLocaleString("en")} MB`;
  return (
    `${megabytes(missing)} are to be kept, and the browser lets this site store ${megabytes(free)} more. Free space on the disk, ` +
    "delete other models (deleteModelInCache), or load it without cache: true."
  );
}

function reasonFor(error: MixdqError): ModelReason {
  if (error instanceof UnreachableError) return "offline";
  return error.code === "network" ? "network" : "model";
}

async function lookAtMachine(): Promise<Omit<Support, "ok" | "modelBytes" | "cachedBytes" | "freeBytes">> {
  const backends: Backend[] = typeof WebAssembly === "object" ? ["ort-wasm"] : [];
  const nothing = { backends, adapter: "", features: [] };
  if (typeof isSecureContext !== "undefined" && !isSecureContext) {
    return { ...nothing, reasons: [INSECURE] };
  }
  if (typeof navigator === "undefined" || !navigator.gpu) return { ...nothing, reasons: [NO_WEBGPU] };

  const adapter = await navigator.gpu.requestAdapter({ powerPreference: "high-performance" });
  if (!adapter) return { ...nothing, reasons: [NO_GPU] };

  const name = adapterName(adapter.info);
  const reasons = limitReasons(adapter, name);
  return {
    backends: reasons.length === 0 ? [...BACKENDS] : backends,
    adapter: name,
    features: [...adapter.features].sort(),
    reasons,
  };
}

function limitReasons({ limits }: GPUAdapter, name: string): SupportReason[] {
  try {
    checkLimits(limits, name);
    return [];
  } catch (error) {
    return [{ code: "limits", message: error instanceof Error ? error.message : String(error) }];
  }
}

const INSTEAD = 'The backend "ort-wasm" works without WebGPU in fp16 and fp32, but slowly.';

const INSECURE: SupportReason = {
  code: "insecure-context",
  message: "WebGPU needs a secure page: open it over https:// or on localhost.",
};

const NO_WEBGPU: SupportReason = {
  code: "no-webgpu",
  message:
    "This browser has no WebGPU. Use Chrome or Edge 113, Safari 26 or Firefox 141 or newer (on Linux, Chrome may need " +
    `chrome://flags/#enable-unsafe-webgpu). ${INSTEAD}`,
};

const NO_GPU: SupportReason = { code: "no-adapter", message: `${NO_ADAPTER} ${INSTEAD}` };
