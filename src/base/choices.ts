/** The choices of types.ts as values, for whoever checks or lists them at run time. */
import type { Backend, Precision } from "./types.ts";

export const PRECISIONS: readonly Precision[] = ["fp16", "fp32", "w8a8", "w4a8"];
export const BACKENDS: readonly Backend[] = ["webgpu", "ort-webgpu", "ort-wasm"];
