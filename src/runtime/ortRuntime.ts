/** Components on onnxruntime-web, which is loaded only when one is. */
import { MixdqError, throwIfAborted } from "../base/errors.ts";
import { isSoftware, requestAdapter } from "../gpu/device.ts";
import type { OrtRunner } from "../ort/session.ts";
import type { Backend } from "../base/types.ts";
import type { Component, LoadOptions, Runtime } from "./runtime.ts";
import { streamCheckpoint } from "./weightStream.ts";

const NO_PACKS =
  'onnxruntime-web has no integer kernels. Use the backend "webgpu", or the model that the pack was made of.';

/** onnxruntime-web keeps a component's weights in JavaScript memory, and one session per shape. */
export class OrtRuntime implements Runtime {
  readonly backend: Exclude<Backend, "webgpu">;
  readonly adapter: string;
  readonly features: readonly string[];
  readonly activationBytes = 0;
  readonly #fusedAttention: boolean | undefined;

  static async create(backend: Exclude<Backend, "webgpu">, gpu: GPU | undefined): Promise<OrtRuntime> {
    if (backend === "ort-wasm") return new OrtRuntime(backend, "onnxruntime-web, WebAssembly", [], undefined);
    // Only to look at: onnxruntime-web makes its device itself, with the same preference.
    const { adapter, name } = await requestAdapter(gpu);
    const features = (["shader-f16"] as const).filter((feature) => adapter.features.has(feature));
    // On software adapters the fused operator is known to be wrong, and they need minutes to find that out (ort/probe.ts).
    return new OrtRuntime(backend, `onnxruntime-web on ${name}`, features, isSoftware(name) ? false : undefined);
  }

  /** `fusedAttention` undefined: the runner asks the device whether it is right. */
  private constructor(
    backend: Exclude<Backend, "webgpu">,
    adapter: string,
    features: readonly string[],
    fusedAttention: boolean | undefined,
  ) {
    this.backend = backend;
    this.adapter = adapter;
    this.features = features;
    this.#fusedAttention = fusedAttention;
  }

  async load(options: LoadOptions): Promise<Component> {
    const { createOrtRunner } = await import("../ort/session.ts");
    const provider = this.backend === "ort-webgpu" ? "webgpu" : "wasm";
    const fusedAttention = this.#fusedAttention;
    // Where there is no 16-bit arithmetic (WebAssembly never has it) every weight would be widened again.
    const float = options.storage === "f16" && this.features.includes("shader-f16") ? "f16" : "f32";
    const weights = new Map<string, { shape: readonly number[]; data: Float32Array | Uint16Array }>();
    const graph = options.build();
    const names = new Map(
      graph.weights.flatMap(({ name, aliases = [] }) => [name, ...aliases].map((n) => [n, name] as const)),
    );
    if ("parts" in options.weights) throw new MixdqError("unsupported", NO_PACKS);
    for await (const { name, shape, values } of streamCheckpoint({ ...options, weights: options.weights }, graph))
      weights.set(names.get(name)!, { shape, data: values(float) });
    const source = (name: string): { shape: readonly number[]; data: Float32Array | Uint16Array } => {
      const weight = weights.get(name);
      if (!weight)
        throw new MixdqError(
          "invalid-model",
          `${options.component}: config.json asks for ${name}, the weights have no such tensor. They do not belong together: take both from one model.`,
        );
      return weight;
    };
    const runners = new Map<string, OrtRunner>();
    return {
      keptBytes: 0,
      weightBytes: [...weights.values()].reduce((sum, { data }) => sum + data.byteLength, 0),
      prepare() {}, // sessions hold all their weights: one at a time, when it is needed
      async run(key, build, inputs, { signal } = {}) {
        // WebAssembly occupies the thread: without a pause, the message that cancels a run would never be read.
        await new Promise((resolve) => setTimeout(resolve));
        throwIfAborted(signal);
        let runner = runners.get(key);
        if (!runner) {
          runner = await createOrtRunner(build(), source, {
            provider,
            float,
            ...(fusedAttention !== undefined && { fusedAttention }),
          });
          runners.set(key, runner);
          throwIfAborted(signal);
        }
        const outputs = await runner.run(inputs);
        throwIfAborted(signal);
        return outputs;
      },
      async dispose() {
        for (const runner of runners.values()) await runner.release();
      },
    };
  }

  async dispose(): Promise<void> {}
}
