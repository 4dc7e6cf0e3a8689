import { expect, test } from "vitest";
import { ModelWriter } from "./model.ts";
import { loadNetwork, type FloatTensor } from "./network.ts";

/** y = 2 x + 1. */
function affine(): Uint8Array {
  const model = new ModelWriter(() => expect.unreachable(), { float: "f32" });
  model.inputs.push({ name: "x", type: "f32", shape: [2, 2] });
  const double = model.node("double", "Mul", ["x", model.floats([2], [1])]);
  model.outputs.push({ name: model.node("y", "Add", [double, model.floats([1], [1])]), type: "f32", shape: [2, 2] });
  return model.finish("affine");
}

const x = { shape: [2, 2], data: Float32Array.of(1, 2, 3, 4) };

test("a network runs on named tensors, and again", async () => {
  const network = await loadNetwork(affine(), "affine");
  for (let i = 0; i < 2; i++)
    expect(await network.run({ x })).toEqual({ "y/Add": { shape: [2, 2], data: Float32Array.of(3, 5, 7, 9) } });
  await network.release();
});

test("networks load and run at the same time", async () => {
  const networks = await Promise.all([loadNetwork(affine(), "a"), loadNetwork(affine(), "b")]);
  const results = await Promise.all(networks.map((network) => network.run({ x })));
  for (const { "y/Add": y } of results) expect([...y.data]).toEqual([3, 5, 7, 9]);
});

test("what cannot be loaded or run is refused in one line", async () => {
  await expect(loadNetwork(new Uint8Array(100).fill(7), "judge.onnx")).rejects.toMatchObject({
    code: "invalid-model",
    message: expect.stringMatching(
      /^judge\.onnx is not a network that onnxruntime-web can load: [^\n]+ Export it again\.$/,
    ),
  });
  const network = await loadNetwork(affine(), "affine");
  const message = /^affine could not be run \(its inputs are x\): [^\n]+ Check them\.$/;
  const wrong: Record<string, FloatTensor>[] = [{}, { x: { shape: [2, 3], data: new Float32Array(6) } }];
  for (const inputs of wrong)
    await expect(network.run(inputs)).rejects.toMatchObject({
      code: "invalid-input",
      message: expect.stringMatching(message),
    });
});
