/**
 * What every kernel hands to its shader is what the assembled shader declares: WebGPU refuses a pipeline constant that is
 * not declared, and a size or a binding that is missing. For every case of the kernel tests and every plan of the default
 * model and of SDXL-Turbo, in every variant.
 */
import { expect, test } from "vitest";
import { CASES } from "../../e2e/cases.ts";
import { OTHERS, PRODUCTS, WRITERS } from "../../e2e/integerCases.ts";
import type { Graph } from "../graph/ops.ts";
import type { DeviceCaps, Dispatch } from "../kernels/kernel.ts";
import { makePlan } from "../plan/plan.ts";
import {
  DIRECT_CAPS,
  GPU_CAPS,
  graphsOfModel,
  quantizedSdxlUnet,
  sdxlTextEncoders,
  sdxlUnet,
  sdxlVae,
} from "../plan/plans.testing.ts";
import { assembleShader } from "./shader.ts";
import { SHADERS } from "./sources.ts";

const SETUPS: readonly (readonly [string, DeviceCaps])[] = [GPU_CAPS, DIRECT_CAPS].flatMap((caps) =>
  [true, false].map(
    (has) =>
      [`${caps.int8}, ${has ? "with" : "without"} features`, { ...caps, shaderF16: has, packedDot: has }] as const,
  ),
);

/** WebGPU's own default, which every conforming adapter has (gpu/device.ts asks for it). */
const STORAGE_BUFFERS = 8;

function faultsOf({ path, shader, defines, constants, uniforms = {}, bindings, writes }: Dispatch): string[] {
  const { overrides, bindings: declared } = assembleShader(SHADERS, shader, defines);
  const given = { ...constants, ...uniforms };
  const known = new Map(overrides.map((override) => [override.name, override]));
  const names = new Set(declared.map(({ name }) => name));
  const faults = [
    ...Object.keys(given).flatMap((name) => (known.has(name) ? [] : `gives ${name}, which is not declared`)),
    ...overrides.flatMap(({ name, fallback }) => (name in given || fallback !== undefined ? [] : `misses ${name}`)),
    ...Object.keys(constants).flatMap((name) => (name in uniforms ? `gives ${name} twice` : [])),
    ...Object.entries(given).flatMap(([name, value]) =>
      known.get(name)?.type === "u32" && !(Number.isInteger(value) && value >= 0) ? `${name} is ${value}, a u32` : [],
    ),
    ...Object.keys(bindings).flatMap((name) => (names.has(name) ? [] : `binds ${name}, which is not declared`)),
    ...declared.flatMap(({ name, access }) => [
      ...(name in bindings ? [] : [`does not bind ${name}`]),
      ...((access === "read_write") === writes.includes(name) ? [] : [`${name} is ${access}`]),
    ]),
    ...(declared.length > STORAGE_BUFFERS ? [`${declared.length} storage buffers`] : []),
    ...(new Set(declared.map(({ binding }) => binding)).size < declared.length ? ["one binding number twice"] : []),
  ];
  return faults.map((fault) => `${path}: ${shader} ${Object.keys(defines).join(" ")}: ${fault}`);
}

/** One dispatch of each kind that these graphs need: equal shaders, specialised alike, over the same names. */
function kindsOf(graphs: readonly Graph[], caps: DeviceCaps): Dispatch[] {
  const kinds = new Map<string, Dispatch>();
  for (const graph of graphs) {
    const limits = { maxBindingBytes: 2 ** 32 - 4, maxBufferBytes: 2 ** 32 };
    for (const dispatch of makePlan(graph, { caps, limits, weightType: "f16" }).dispatches) {
      const { shader, defines, constants, uniforms = {}, bindings } = dispatch;
      const names = [constants, uniforms, bindings].map((of) => Object.keys(of).sort());
      kinds.set(JSON.stringify([shader, defines, names]), dispatch);
    }
  }
  return [...kinds.values()];
}

const faults = (graphs: readonly Graph[], caps: DeviceCaps): string[] => kindsOf(graphs, caps).flatMap(faultsOf);

const cases = [
  ...(["f32", "f16"] as const).flatMap((dtype) => CASES.map(({ build }) => build(dtype))),
  ...[...PRODUCTS, ...OTHERS, ...WRITERS].map(({ graph }) => graph),
];

test.each(SETUPS)("of the kernel tests' cases, %s", (_, caps) => {
  expect(faults(cases, caps)).toEqual([]);
});

test("no shader is without a case", () => {
  const reached = new Set(SETUPS.flatMap(([, caps]) => kindsOf(cases, caps).map(({ shader }) => shader)));
  const entries = [...SHADERS].filter(([, text]) => text.includes("fn main(")).map(([name]) => name);
  expect([...reached].sort()).toEqual(entries.sort());
});

test.each(SETUPS)("of the default model in every precision, %s", async (_, caps) => {
  const kept = ["quantization/w3a8.json", "quantization/w4a16.json", "quantization/w3.66a16.json"];
  for (const precision of ["fp32", "fp16", "w8a8", "w4a8"] as const)
    expect(faults(await graphsOfModel("models/postcard", precision), caps)).toEqual([]);
  for (const config of kept) expect(faults(await graphsOfModel("models/postcard", "w4a8", config), caps)).toEqual([]);
});

test.each(SETUPS)("of SDXL-Turbo, %s", (_, caps) => {
  const graphs = [
    ...sdxlTextEncoders(),
    ...(["f32", "f16"] as const).flatMap((dtype) => [
      sdxlUnet({ size: 512, batch: 2, dtype }),
      sdxlVae({ size: 512, dtype }),
    ]),
    ...([8, 4, 2] as const).map((bits) => quantizedSdxlUnet({ size: 512 }, bits, 8)),
    quantizedSdxlUnet({ size: 512 }, 4, 16),
  ];
  expect(faults(graphs, caps)).toEqual([]);
});
