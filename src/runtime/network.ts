/**
 * What runs a model, whichever way: a runtime loads a component's weights as a network, a network runs any of the
 * component's graphs over them.
 */
import type { Inputs, OnPipeline, RunOptions } from "../gpu/executor.ts";
import type { ChoiceStore } from "../gpu/choiceStore.ts";
import type { KernelChoice } from "../kernels/kernel.ts";
import type { Graph } from "../graph/ops.ts";
import type { Backend, Precision } from "../base/types.ts";
import type { ComponentWeights } from "../weights/folder.ts";
import type { PackedComponent } from "../weights/pack.ts";

export type { Inputs, RunOptions } from "../gpu/executor.ts";

/** A graph over a network's weights, for one shape. Equal keys, equal graphs. */
export interface KeyedGraph {
  readonly key: string;
  build(): Graph;
}

/** The weights of a component (`unet`, `vae`, a text encoder), once, and whatever graphs run over them. */
export interface Network {
  /** Of the weights, in GPU memory (in main memory where onnxruntime-web runs). */
  readonly weightBytes: number;
  /** Activation memory that outlives a run: keys and values of the text. */
  readonly cachedBytes: number;
  /**
   * Plans and compiles what `run` will need. Throws what cannot run on the device, before anything is compiled, and
   * `aborted`.
   */
  prepare(graph: KeyedGraph, options?: PrepareOptions): Promise<void>;
  /**
   * Inputs and outputs by the graph's names, channels-last, f32 (ids u32). Throws `aborted`, `out-of-memory`,
   * `device-lost`.
   */
  run(graph: KeyedGraph, inputs: Inputs, options?: RunOptions): Promise<Record<string, Float32Array>>;
  dispose(): Promise<void>;
}

export interface PrepareOptions {
  readonly signal?: AbortSignal | undefined;
  readonly onPipeline?: OnPipeline | undefined;
}

export interface LoadOptions {
  /** Folder of the component within the model. */
  readonly component: string;
  readonly weights: ComponentWeights | PackedComponent;
  /**
   * f16: 16-bit weights, rounded where the checkpoint has more. exact: 16 bits only where the checkpoint itself has
   * them, else 32.
   */
  readonly storage: "f16" | "exact";
  /** Their weights together are loaded; the first is compiled meanwhile. */
  readonly graphs: readonly KeyedGraph[];
  /** What weights derived for the BOS token are computed from: the text state of the first token of each image. */
  readonly bos?: readonly Float32Array[] | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Bytes read so far, over the component's files. */
  readonly onBytes?: ((loaded: number, file: string) => void) | undefined;
  /** What is left to compile once all bytes have been read. */
  readonly onPipeline?: OnPipeline | undefined;
}

export interface Runtime {
  readonly backend: Backend;
  readonly adapter: string;
  readonly features: readonly string[];
  /** Bytes of activation memory. */
  readonly activationBytes: number;
  load(options: LoadOptions): Promise<Network>;
  dispose(): Promise<void>;
}

export interface RuntimeOptions {
  readonly backend: Backend;
  /** navigator.gpu, or Dawn's in Node. */
  readonly gpu: GPU | undefined;
  /** false: do not use shader-f16 even where it is there. */
  readonly shaderF16?: boolean;
  /** Which variants of the kernels; default: measured or known for the device. */
  readonly kernels?: KernelChoice;
  /** Where a measured choice is kept. Default: the browser's storage. */
  readonly choices?: ChoiceStore | undefined;
  /** false gives every activation memory of its own. */
  readonly share?: boolean;
  /** Absolute URL of the folder with onnxruntime-web's modules. Default: where the bundler or Node finds the package. */
  readonly ortUrl?: string | undefined;
}

interface Storage {
  readonly weights: LoadOptions["storage"];
  readonly activations: "f32" | "f16";
}

/** How a precision stores a network's weights and activations. */
export const STORAGE = {
  fp32: { weights: "exact", activations: "f32" },
  fp16: { weights: "f16", activations: "f16" },
  w8a8: { weights: "f16", activations: "f16" },
  w4a8: { weights: "f16", activations: "f16" },
} as const satisfies Record<Precision, Storage>;

/**
 * The same for a UNet with layers in integers, which is about what the configuration leaves in floats. Most activations
 * are codes then; the few that are not stay in f32, because rounding them to 11 bits first would push values over the
 * edge between two codes, which the network amplifies more than the rounding itself.
 */
export function quantizedStorage(precision: Precision): Storage {
  return { ...STORAGE[precision], activations: "f32" };
}
