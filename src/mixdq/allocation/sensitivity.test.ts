import { expect, test } from "vitest";
import { MixdqError } from "../../base/errors.ts";
import { mergeSensitivities, readSensitivity, valueAt, writeSensitivity, type Sensitivity } from "./sensitivity.ts";
import { sampleSensitivity } from "./samples.testing.ts";

const FILE = {
  format: "mixdq-sensitivity",
  version: 1,
  model: "m",
  samples: 32,
  layers: {
    conv_in: {
      group: "quality",
      weights: 100,
      activations: 50,
      weight: { sqnr: { "2": 10, "4": 20.5, "8": 40 }, note: { "8": 1 } },
      activation: { sqnr: { "8": 30 } },
    },
    "a.ff.net.2": { group: "content", weights: 7, activations: 3, weight: { ssim: { "4": 0.5 } } },
  },
};

/** The file with one value replaced; a path of "layers/conv_in/weights" and the like. */
function changed(path: string, value: unknown): string {
  const copy = structuredClone(FILE) as unknown as Record<string, unknown>;
  const keys = path.split("/");
  let place = copy;
  for (const key of keys.slice(0, -1)) place = place[key] as Record<string, unknown>;
  place[keys.at(-1)!] = value;
  return JSON.stringify(copy);
}

function failure(run: () => unknown): MixdqError {
  try {
    run();
  } catch (error) {
    if (error instanceof MixdqError) return error;
    throw error;
  }
  throw new Error("nothing was refused");
}

test("a file is read as it is written", () => {
  const read = readSensitivity(JSON.stringify(FILE), "s.json");
  expect(read.model).toBe("m");
  expect(read.samples).toBe(32);
  const layer = read.layers.get("conv_in")!;
  expect(layer).toMatchObject({ group: "quality", weights: 100, activations: 50 });
  expect(valueAt(layer, "weight", 4, "s.json: conv_in")).toBe(20.5);
  expect(valueAt(layer, "activation", 8, "s.json: conv_in")).toBe(30);
  expect(layer.weight.get("note")!.get(8)).toBe(1);
  expect(read.layers.get("a.ff.net.2")!.activation.size).toBe(0);

  const sample = sampleSensitivity(2, 1);
  expect(readSensitivity(writeSensitivity(sample), "s.json")).toEqual(sample);
  const shard = { ...sample, shard: { index: 2, count: 3 }, provenance: { seed: 1 } };
  expect(readSensitivity(writeSensitivity(shard), "s.json")).toEqual(shard);
});

test.each([
  ["format", "mixdq-config", 's.json: got "format" "mixdq-config", expected "mixdq-sensitivity"'],
  ["version", 2, 'got "version" 2, expected 1'],
  ["samples", -1, 'got "samples" -1'],
  ["layers", {}, "got 0 layers"],
  ["layers", [], 'got "layers" []'],
  ["layers/conv_in/group", "other", 's.json: conv_in: got "group" "other", expected "content" or "quality"'],
  ["layers/conv_in/weights", -4, 'conv_in: got "weights" -4, expected a whole number from 1'],
  ["layers/conv_in/weights", 1.5, 'conv_in: got "weights" 1.5'],
  ["layers/conv_in/weights", undefined, 'conv_in: got "weights" nothing'],
  ["layers/conv_in/activations", -1, 'conv_in: got "activations" -1'],
  ["layers/conv_in/weight", { ssim: { "8": 1 } }, "conv_in: got no weight sqnr, expected what quality layers"],
  ["layers/conv_in/weight/sqnr", {}, "conv_in: weight: sqnr: got 0 values"],
  ["layers/conv_in/weight/sqnr", { eight: 1 }, 'got bits "eight", expected whole numbers such as "4", at most "16"'],
  ["layers/conv_in/weight/sqnr", { "32": 1 }, 'got bits "32"'],
  ["layers/conv_in/weight/sqnr/4", null, 'conv_in: weight: sqnr: got "4" null, expected a finite number'],
  ["layers/conv_in/weight/sqnr/4", 1e300, 'got "4" 1e+300'],
  ["layers/conv_in/weight/sqnr/4", "NaN", 'got "4" "NaN"'],
  ["layers/conv_in/activation/sqnr/8", null, 'conv_in: activation: sqnr: got "8" null'],
  ["shard", { index: 0, count: 2 }, 'shard: got "index" 0, expected a whole number from 1 to 2'],
  ["shard", { index: 3, count: 2 }, 'shard: got "index" 3'],
])("%s %j is refused", (path, value, message) => {
  const error = failure(() => readSensitivity(changed(path, value), "s.json"));
  expect(error.code).toBe("invalid-input");
  expect(error.message).toContain(message);
  expect(error.message).not.toContain("\n");
});

test("Python's NaN and what is no JSON at all are named", () => {
  const nan = JSON.stringify(FILE).replace("20.5", "NaN");
  expect(failure(() => readSensitivity(nan, "s.json")).message).toContain(
    'sqnr: got "4" NaN, expected a finite number',
  );
  const infinite = JSON.stringify(FILE).replace("20.5", "-Infinity");
  expect(failure(() => readSensitivity(infinite, "s.json")).message).toContain('got "4" -Infinity');
  expect(failure(() => readSensitivity("<html>", "s.json")).message).toContain("something that is not JSON");
  expect(failure(() => readSensitivity("3", "s.json")).message).toContain("got 3, expected a JSON object");
  const long = { ...FILE, layers: { ["x".repeat(2000)]: FILE.layers.conv_in } };
  expect(failure(() => readSensitivity(JSON.stringify(long), "s.json")).message).toContain('got the layer "xxx');
});

test("a width that was not measured is named with those that were", () => {
  const { layers } = readSensitivity(JSON.stringify(FILE), "s.json");
  const missing = failure(() => valueAt(layers.get("conv_in")!, "weight", 3, "s.json: conv_in"));
  expect(missing.message).toContain("s.json: conv_in: got weight sqnr at 2, 4, 8 bits, expected its value at 3 bits");
  const none = failure(() => valueAt(layers.get("a.ff.net.2")!, "activation", 8, "s.json: a.ff.net.2"));
  expect(none.message).toContain("got no activation ssim");
});

/** `whole` in parts: layer i goes to shard i modulo `count`. */
function shardsOf(whole: Sensitivity, count: number): { where: string; sensitivity: Sensitivity }[] {
  return Array.from({ length: count }, (_, i) => ({
    where: `shard-${i + 1}.json`,
    sensitivity: {
      ...whole,
      shard: { index: i + 1, count },
      layers: new Map([...whole.layers].filter((_, at) => at % count === i)),
    },
  }));
}

test("shards in any order make the whole", () => {
  const whole = sampleSensitivity(2, 5);
  const shards = shardsOf(whole, 3);
  const merged = mergeSensitivities(shards);
  expect(merged.shard).toBeUndefined();
  expect(new Map(merged.layers)).toEqual(whole.layers);
  expect([...merged.layers.keys()]).toEqual([...whole.layers.keys()].sort());
  expect(writeSensitivity(mergeSensitivities(shards.toReversed()))).toBe(writeSensitivity(merged));
});

test("shards that do not fit together are refused", () => {
  const whole = sampleSensitivity(1, 5);
  const shards = shardsOf(whole, 3);
  const [a, b, c] = shards;
  const replaced = (change: Partial<Sensitivity>) => [a!, { ...b!, sensitivity: { ...b!.sensitivity, ...change } }, c!];
  const refused = (list: typeof shards): string => failure(() => mergeSensitivities(list)).message;
  expect(refused([])).toContain("no shards");
  expect(refused([a!, c!])).toContain("got 2 shards, expected all 3. Add 2.");
  expect(refused([a!, b!, b!])).toContain("got shard 2, expected each once");
  expect(refused(replaced({ model: "other" }))).toContain('shard-2.json: got "model" "other", expected "sample"');
  expect(refused(replaced({ samples: 9 }))).toContain('got "samples" 9, expected 8');
  expect(refused(replaced({ provenance: { seed: 2 } }))).toContain('"provenance"');
  expect(refused(replaced({ shard: { index: 2, count: 4 } }))).toContain('"shard" count 4, expected 3');
  expect(refused(replaced({ shard: undefined }))).toContain('no "shard"');
  const [path, layer] = [...a!.sensitivity.layers][0];
  const same = replaced({ layers: new Map([...b!.sensitivity.layers, [path, layer]]) });
  expect(mergeSensitivities(same).layers.size).toBe(whole.layers.size);
  const other = { ...layer, weights: layer.weights + 1 };
  const differs = replaced({ layers: new Map([...b!.sensitivity.layers, [path, other]]) });
  expect(refused(differs)).toContain(`shard-2.json: ${path}: got other values than in shard-1.json`);
});
