/**
 * Compiles the pipelines of some models' plans on the one GPU that this process has, and runs nothing.
 *   node child.mjs '[["models/postcard","fp16"],["models/postcard","w4a8","quantization/w3a8.json"]]' SHARD SHARDS
 * Of all pipelines, each once, every SHARDS-th. Prints one line of JSON: `ChildResult`.
 */
import { requestNodeGpu } from "../../src/node/adapter.ts";
import { GpuContext } from "../../src/gpu/context.ts";
import { requestDevice } from "../../src/gpu/device.ts";
import { TILED } from "../../src/kernels/choices.ts";
import type { Dispatch } from "../../src/kernels/kernel.ts";
import { makePlan, variantKey } from "../../src/plan/plan.ts";
import { graphsOfModel } from "../../src/plan/plans.testing.ts";
import type { ChildResult, ModelChoice, Refusal } from "./compile.ts";

const [models, shard, shards] = process.argv.slice(2) as [string, string, string];
const device = await requestDevice(await requestNodeGpu("auto"));
const context = new GpuContext(device, TILED);
const { caps, limits } = context;
const pipelines = new Map<string, Dispatch>();
for (const choice of JSON.parse(models) as ModelChoice[])
  for (const graph of await graphsOfModel(...choice))
    for (const dispatch of makePlan(graph, { caps, limits, weightType: "f16" }).dispatches)
      pipelines.set(variantKey(dispatch, caps.overrides), dispatch);

const refused: Refusal[] = [];
for (const [i, [key, dispatch]] of [...pipelines].entries()) {
  if (i % Number(shards) !== Number(shard)) continue;
  process.env["MIXDQ_STATIC_LABEL"] = key; // for layer.c: so one after the other
  try {
    await context.compile(dispatch); // these GPUs have no memory to run anything in
  } catch (error) {
    refused.push({ pipeline: key, path: dispatch.path, message: (error as Error).message });
  }
}
const { adapter, shaderF16, packedDot } = device;
const result: ChildResult = { adapter, shaderF16, packedDot, count: pipelines.size, refused };
await new Promise((done) => process.stdout.write(`${JSON.stringify(result)}\n`, done));
process.exit(0); // Dawn keeps a process alive
