/**
 * What can be known before anything large is downloaded: is there an adapter that the engine can use, is the model
 * there, and how many bytes is it. Reads model_index.json, indexes of shards and file sizes only.
 */
import { adapterName } from "../base/adapter.ts";
import { BACKENDS } from "../base/choices.ts";
import { httpModel } from "../checkpoint/http.ts";
import { MixdqError } from "../base/errors.ts";
import { redactAddress } from "../base/redact.ts";
import { checkLimits, NO_ADAPTER } from "../gpu/device.ts";
import { checkOptions, SUPPORT_OPTIONS } from "./options.ts";
import type { Backend, Precision } from "../base/types.ts";
import type { ModelFiles } from "../weights/files.ts";
import { findComponent, readJson } from "../weights/folder.ts";
import { UnreachableError } from "../weights/http.ts";
import { openModel } from "../weights/pack.ts";

/** What `checkSupport` looks at. */
export interface SupportOptions {
  /** URL of a diffusers folder or a pack. Without one, only the machine is looked at. */
  model?: string;
  /** Default: webgpu. */
  backend?: Backend;
  /** Default: fp16. Decides which of a model's files are fetched. */
  precision?: Precision;
  /** As for createEngine. */
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
  /** Bytes of weights that createEngine would fetch; 0 where unknown. */
  readonly modelBytes: number;
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

  let modelBytes = 0;
  if (options.model !== undefined) {
    try {
      modelBytes = await weightBytes(
        await httpModel(modelUrl(options.model), {}, { stallMs }, signal),
        precision,
        signal,
      );
    } catch (error) {
      if (signal?.aborted || !(error instanceof MixdqError)) throw error;
      reasons.push({ code: reasonFor(error), message: error.message });
    }
  }
  return { ...machine, ok: reasons.length === 0, reasons, modelBytes };
}

function reasonFor(error: MixdqError): ModelReason {
  if (error instanceof UnreachableError) return "offline";
  return error.code === "network" ? "network" : "model";
}

/** The absolute URL of a model's folder: a worker would resolve a relative one against its own script. */
export function modelUrl(model: string): string {
  const base = typeof document === "undefined" ? globalThis.location?.href : document.baseURI;
  const text = typeof model === "string" ? model.trim() : "";
  if (text === "" || !URL.canParse(text, base)) {
    throw new MixdqError(
      "invalid-input",
      `model is ${JSON.stringify(typeof model === "string" ? redactAddress(model) : model)}, expected the URL of a diffusers folder, for example "models/postcard" or ` +
        `"https://host/name/resolve/main".`,
    );
  }
  return new URL(text, base).href;
}

/** The components whose weights make a picture; a safety checker or an image encoder is not fetched. */
const COMPONENTS = ["unet", "vae", "text_encoder", "text_encoder_2"];

async function weightBytes(source: ModelFiles, precision: Precision, signal: AbortSignal | undefined): Promise<number> {
  const { files, pack } = await openModel(source, signal);
  if (pack) return pack.manifest.shards.reduce((sum, { bytes }) => sum + bytes, 0);
  const index = await readJson(files, "model_index.json", signal);
  // [library, class]; [null, null] for a part that this model does without.
  const parts = Object.entries(index ?? {}).filter(([, entry]) => Array.isArray(entry) && entry[0] !== null);
  const names = parts.map(([name]) => name).filter((name) => COMPONENTS.includes(name));
  const found = await Promise.all(names.map((name) => findComponent(files, name, { precision, signal })));
  return found.reduce((sum, { bytes }) => sum + bytes, 0);
}

async function lookAtMachine(): Promise<Omit<Support, "ok" | "modelBytes">> {
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
