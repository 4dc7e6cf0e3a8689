/** What a caller hears while pipelines compile, with pipelines that are done when the test says so. */
import { expect, test } from "vitest";
import type { Dispatch } from "../kernels/kernel.ts";
import type { Plan } from "../plan/plan.ts";
import type { GpuContext, Pipeline } from "./context.ts";
import { Executor } from "./executor.ts";
import type { WeightStore } from "./store.ts";

/** An executor of three dispatches, two of which share a pipeline. */
function executor() {
  const finish = new Map<string, { resolve: () => void; reject: (error: Error) => void }>();
  const pipelines = new Map<string, Promise<Pipeline>>();
  const pipeline = ({ shader }: Dispatch): Promise<Pipeline> => {
    const known = pipelines.get(shader);
    if (known) return known;
    const made = new Promise<Pipeline>((resolve, reject) =>
      finish.set(shader, { resolve: () => resolve({} as Pipeline), reject }),
    );
    pipelines.set(shader, made);
    return made;
  };
  const dispatches = ["linear", "softmax", "linear"].map((shader) => ({ shader }) as unknown as Dispatch);
  const plan = { name: "test", dispatches, inputs: {}, outputs: {} } as unknown as Plan;
  return { executor: new Executor({ pipeline } as unknown as GpuContext, plan, {} as WeightStore), finish };
}

const settled = (): Promise<void> => new Promise((resolve) => setTimeout(resolve));

test("pipelines are counted once each, as they are done, and no more when all are there", async () => {
  const { executor: one, finish } = executor();
  const heard: string[] = [];
  const onPipeline = (compiled: number, pipelines: number): void => void heard.push(`${compiled}/${pipelines}`);
  const compiled = one.compile(onPipeline);
  await settled();
  expect(heard).toEqual(["0/2"]);
  finish.get("softmax")!.resolve();
  await settled();
  expect(heard).toEqual(["0/2", "1/2"]);
  finish.get("linear")!.resolve();
  await compiled;
  expect(heard).toEqual(["0/2", "1/2", "2/2"]);
  await one.compile(onPipeline);
  await settled();
  expect(heard).toHaveLength(3);
});

test("a caller that comes while others wait hears how far it is; a failure is everybody's", async () => {
  const { executor: one, finish } = executor();
  const first = one.compile();
  finish.get("linear")!.resolve();
  await settled();
  const heard: string[] = [];
  const second = one.compile((compiled, pipelines) => heard.push(`${compiled}/${pipelines}`));
  await settled();
  expect(heard).toEqual(["1/2"]);
  finish.get("softmax")!.reject(new Error("no memory"));
  await expect(first).rejects.toThrow("no memory");
  await expect(second).rejects.toThrow("no memory");
});
