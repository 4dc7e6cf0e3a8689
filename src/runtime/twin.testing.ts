/** Networks computed by the kernels' CPU twins: whole models without a GPU, slowly, in doubles. */
import { runReference } from "../kernels/index.ts";
import type { Inputs, KeyedGraph, LoadOptions, Network, Runtime } from "./network.ts";
import { streamCheckpoint, union } from "./weightStream.ts";

export class TwinRuntime implements Runtime {
  readonly backend = "webgpu";
  readonly adapter = "CPU twins";
  readonly features = [];
  readonly activationBytes = 0;
  /** `component key` of every run. */
  readonly runs: string[] = [];

  async load({ component, graphs, weights, ...options }: LoadOptions): Promise<Network> {
    if ("parts" in weights) throw new Error("twins read checkpoints");
    const held = new Map<string, Float32Array>();
    for await (const loaded of streamCheckpoint({ ...options, component, weights }, union(graphs))) {
      if ("matrix" in loaded) throw new Error("twins run float models here");
      held.set(loaded.name, loaded.values("f32") as Float32Array);
    }
    const weight = ({ name }: { readonly name: string }): Float32Array => {
      const values = held.get(name);
      if (!values) throw new Error(`${component} lacks ${name}`);
      return values;
    };
    return {
      weightBytes: [...held.values()].reduce((sum, { byteLength }) => sum + byteLength, 0),
      cachedBytes: 0,
      prepare: async () => {},
      run: async (graph: KeyedGraph, inputs: Inputs) => {
        this.runs.push(`${component} ${graph.key}`);
        return runReference(graph.build(), inputs, weight);
      },
      dispose: async () => {},
    };
  }

  async dispose(): Promise<void> {}
}
