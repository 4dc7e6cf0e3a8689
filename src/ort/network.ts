/**
 * Any ONNX network on onnxruntime-web's WebAssembly provider: small ones that do not come from a Graph, such as the judge
 * of quality/.
 */
import type * as Ort from "onnxruntime-web";
import { MixdqError } from "../base/errors.ts";
import { inTurn, loadOrt } from "./session.ts";

export interface FloatTensor {
  readonly shape: readonly number[];
  readonly data: Float32Array;
}

export interface Network {
  /** All inputs and outputs are float32. Throws `invalid-input` where ONNX Runtime refuses the inputs. */
  run(inputs: Readonly<Record<string, FloatTensor>>): Promise<Record<string, FloatTensor>>;
  release(): Promise<void>;
}

/** A file with weights inside; protobuf itself ends at 2 GiB. */
const MAX_MODEL_BYTES = 256 * 2 ** 20;

/** `model`: the bytes of an .onnx file; `where` names it in messages. Throws `invalid-model`, `network`. */
export async function loadNetwork(model: Uint8Array, where: string): Promise<Network> {
  if (model.length > MAX_MODEL_BYTES)
    throw new MixdqError(
      "invalid-model",
      `${where}: got ${model.length} bytes, expected at most ${MAX_MODEL_BYTES}. Use a smaller network.`,
    );
  const ort = await loadOrt("wasm", 4);
  const create = () =>
    ort.InferenceSession.create(model, {
      executionProviders: ["wasm"],
      graphOptimizationLevel: "all",
      logSeverityLevel: 4,
    });
  const session = await inTurn(create).catch((error: unknown) => {
    throw translated("invalid-model", `${where} is not a network that onnxruntime-web can load`, error);
  });
  return {
    async run(inputs) {
      const feeds = Object.fromEntries(
        Object.entries(inputs).map(([name, { shape, data }]) => [name, new ort.Tensor("float32", data, shape)]),
      );
      const results = await inTurn(() => session.run(feeds)).catch((error: unknown) => {
        const has = `its inputs are ${session.inputNames.join(", ")}`;
        throw translated("invalid-input", `${where} could not be run (${has})`, error);
      });
      return Object.fromEntries(
        Object.entries(results).map(([name, tensor]) => [name, floats(tensor, `${where}: ${name}`)]),
      );
    },
    async release() {
      await inTurn(() => session.release());
    },
  };
}

function floats(tensor: Ort.Tensor, where: string): FloatTensor {
  if (tensor.data instanceof Float32Array) return { shape: tensor.dims, data: tensor.data };
  throw new MixdqError(
    "invalid-model",
    `${where}: got ${tensor.type}, expected float32. Export the network in float32.`,
  );
}

/** ONNX Runtime throws Errors with long texts, and bare numbers for C++ exceptions without one. */
function translated(code: "invalid-model" | "invalid-input", what: string, error: unknown): MixdqError {
  const text = (error instanceof Error ? error.message : String(error)).replaceAll("\n", " ").replace(/\.$/, "");
  const advice = { "invalid-model": "Export it again", "invalid-input": "Check them" }[code];
  return new MixdqError(code, `${what}: ${text}. ${advice}.`, { cause: error });
}
