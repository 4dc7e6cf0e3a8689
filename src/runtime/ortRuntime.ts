/** Networks on onnxruntime-web, which is loaded only when one is. */
import { MixdqError, throwIfAborted } from "../base/errors.ts";
import { isSoftware } from "../base/adapter.ts";
import { importing } from "../base/offline.ts";
import { requestAdapter } from "../gpu/device.ts";
import type { OrtRunner } from "../ort/session.ts";
import type { Backend } from "../base/types.ts";
import type { Inputs, KeyedGraph, LoadOptions, Network, RunOptions, Runtime } from "./network.ts";
import { streamCheckpoint, union } from "./weightStream.ts";

const NO_INTEGERS =
  'onnxruntime-web has no integer kernels. Use the backend "webgpu", or the model that the pack was made of.';

/** The log level of a runner that says nothing else, see OrtOptions. */
const ORT_WARNINGS = 3;

export class OrtRuntime implements Runtime {
  readonly backend: Exclude<Backend, "webgpu">;
  readonly adapter: string;
  readonly features: readonly string[];
  readonly activationBytes = 0;
  readonly #fusedAttention: boolean | undefined;
  readonly #folder: string | undefined;

  static async create(
    backend: Exclude<Backend, "webgpu">,
    gpu: GPU | undefined,
    folder: string | undefined,
  ): Promise<OrtRuntime> {
    // Now, so that where it is missing no weights are fetched first.
    const { loadOrt } = await importSession();
    await loadOrt(backend === "ort-webgpu" ? "webgpu" : "wasm", ORT_WARNINGS, folder);
    if (backend === "ort-wasm") return new OrtRuntime(backend, "onnxruntime-web, WebAssembly", [], undefined, folder);
    // Only to look at: onnxruntime-web makes its device itself, with the same preference.
    const { adapter, name } = await requestAdapter(gpu);
    const features = (["shader-f16"] as const).filter((feature) => adapter.features.has(feature));
    // On software adapters the fused operator is known to be wrong, and they need minutes to find that out (ort/probe.ts).
    return new OrtRuntime(
      backend,
      `onnxruntime-web on ${name}`,
      features,
      isSoftware(name) ? false : undefined,
      folder,
    );
  }

  /** `fusedAttention` undefined: the runner asks the device whether it is right. */
  private constructor(
    backend: Exclude<Backend, "webgpu">,
    adapter: string,
    features: readonly string[],
    fusedAttention: boolean | undefined,
    folder: string | undefined,
  ) {
    this.#folder = folder;
    this.backend = backend;
    this.adapter = adapter;
    this.features = features;
    this.#fusedAttention = fusedAttention;
  }

  async load({ component, weights, storage, graphs, ...options }: LoadOptions): Promise<OrtNetwork> {
    if ("parts" in weights) throw new MixdqError("unsupported", NO_INTEGERS);
    // Where there is no 16-bit arithmetic (WebAssembly never has it) every weight would be widened again.
    const float = storage === "f16" && this.features.includes("shader-f16") ? "f16" : "f32";
    const held = new Map<string, OrtWeight>();
    for await (const loaded of streamCheckpoint({ ...options, component, weights }, union(graphs))) {
      if ("matrix" in loaded) throw new MixdqError("unsupported", NO_INTEGERS);
      held.set(loaded.name, { shape: loaded.shape, data: loaded.values(float) });
    }
    const provider = this.backend === "ort-webgpu" ? "webgpu" : "wasm";
    return new OrtNetwork(component, held, {
      ...{ provider, float, fusedAttention: this.#fusedAttention, folder: this.#folder },
    });
  }

  async dispose(): Promise<void> {}
}

interface OrtWeight {
  readonly shape: readonly number[];
  readonly data: Float32Array | Uint16Array;
}

interface OrtOptions {
  readonly provider: "webgpu" | "wasm";
  readonly float: "f32" | "f16";
  readonly fusedAttention: boolean | undefined;
  readonly folder: string | undefined;
}

/** onnxruntime-web keeps a component's weights in JavaScript memory, and one session per shape. */
class OrtNetwork implements Network {
  readonly weightBytes: number;
  readonly cachedBytes = 0;
  readonly #component: string;
  readonly #weights: ReadonlyMap<string, OrtWeight>;
  readonly #options: OrtOptions;
  readonly #runners = new Map<string, OrtRunner>();

  constructor(component: string, weights: ReadonlyMap<string, OrtWeight>, options: OrtOptions) {
    this.#component = component;
    this.#weights = weights;
    this.#options = options;
    this.weightBytes = [...weights.values()].reduce((sum, { data }) => sum + data.byteLength, 0);
  }

  /** Nothing: sessions hold all their weights, so there is one at a time, when it is needed. */
  async prepare(): Promise<void> {}

  async run(graph: KeyedGraph, inputs: Inputs, { signal }: RunOptions = {}): Promise<Record<string, Float32Array>> {
    // WebAssembly occupies the thread: without a pause, the message that cancels a run would never be read.
    await new Promise((resolve) => setTimeout(resolve));
    throwIfAborted(signal);
    const runner = this.#runners.get(graph.key) ?? (await this.#open(graph));
    throwIfAborted(signal);
    const outputs = await runner.run(inputs);
    throwIfAborted(signal);
    return outputs;
  }

  async #open({ key, build }: KeyedGraph): Promise<OrtRunner> {
    const { createOrtRunner } = await importSession();
    const { provider, float, fusedAttention, folder } = this.#options;
    const runner = await createOrtRunner(build(), (name) => this.#weight(name), {
      provider,
      float,
      folder,
      ...(fusedAttention !== undefined && { fusedAttention }),
    });
    this.#runners.set(key, runner);
    return runner;
  }

  #weight(name: string): OrtWeight {
    const weight = this.#weights.get(name);
    if (weight) return weight;
    throw new MixdqError(
      "invalid-model",
      `${this.#component}: config.json asks for ${name}, the weights have no such tensor. They do not belong together: ` +
        "take both from one model.",
    );
  }

  async dispose(): Promise<void> {
    for (const runner of this.#runners.values()) await runner.release();
  }
}

const importSession = (): Promise<typeof import("../ort/session.ts")> =>
  importing(import("../ort/session.ts"), "The part of the engine that speaks to ONNX Runtime");
