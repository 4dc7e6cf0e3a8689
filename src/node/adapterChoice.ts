/**
 * auto: a real GPU, else lavapipe, else SwiftShader. gpu: a real GPU only. Any other text is the name, or a part of
 * it, of an adapter as Dawn lists them.
 */
export type AdapterChoice = "auto" | "gpu" | "swiftshader" | "lavapipe" | (string & {});
