/** The tensors of one adapted layer become what is added to its weight and its bias. */
import { geometryOf, transposedFactor, type Delta, type Factor, type LowRank } from "./delta.ts";
import type { LayerTensors } from "./layerTensors.ts";
import type { Part } from "./parts.ts";
import type { Scaling } from "./settings.ts";

/** Of a weight or a bias, by its name. */
export type NamedDelta = readonly [name: string, delta: Delta];

interface Scaled {
  /** PEFT's settings, where the file has any. */
  readonly scaling: Scaling | undefined;
  /** What the user asked for. */
  readonly strength: number;
}

interface Kind {
  /** Which parts belong together: all of these, any of those. */
  readonly needs: readonly Part[];
  readonly takes: readonly Part[];
  make(tensors: LayerTensors, scaled: Scaled): readonly NamedDelta[];
}

const KINDS: readonly Kind[] = [
  { needs: ["up", "down"], takes: ["core", "alpha", "magnitude", "doraScale", "biasUp"], make: lora },
  {
    needs: ["hadaUp1", "hadaDown1", "hadaUp2", "hadaDown2"],
    takes: ["hadaCore1", "hadaCore2", "alpha", "doraScale"],
    make: loha,
  },
  ...kroneckerKinds(),
  { needs: ["whole"], takes: ["wholeBias"], make: whole },
  { needs: ["wholeBias"], takes: [], make: whole },
];

/** Each of LoKr's two factors is whole or a product, the second of which may have a core. */
function kroneckerKinds(): Kind[] {
  const firsts: Part[][] = [["krFirst"], ["krUp1", "krDown1"]];
  const seconds: Part[][] = [["krSecond"], ["krUp2", "krDown2"], ["krUp2", "krDown2", "krCore2"]];
  return firsts.flatMap((first) =>
    seconds.map((second): Kind => ({ needs: [...first, ...second], takes: ["alpha", "doraScale"], make: lokr })),
  );
}

/** Throws `invalid-model`. */
export function assemble(tensors: LayerTensors, scaled: Scaled): readonly NamedDelta[] {
  const { parts } = tensors;
  const kind = KINDS.find(
    ({ needs, takes }) =>
      needs.every((part) => parts.has(part)) &&
      [...parts.keys()].every((part) => needs.includes(part) || takes.includes(part)),
  );
  if (kind) return kind.make(tensors, scaled);
  const got = [...parts.values()].map(({ key }) => key.slice(tensors.name.length + 1)).join(", ");
  throw tensors.error(`${got} of one layer`, "the tensors of one LoRA (down and up), LoHa, LoKr or whole difference");
}

function lora(tensors: LayerTensors, scaled: Scaled): NamedDelta[] {
  const { name, shape } = tensors.target("weight");
  const [outputs, inputs = 1, ...taps] = shape;
  const rank = tensors.rank("down");
  const outer = tensors.has("core") ? tensors.rank("core") : rank;
  const product: LowRank = {
    kind: "low-rank",
    up: tensors.factor("up", [outputs, outer]),
    ...(tensors.has("core")
      ? {
          core: tensors.factor("core", [outer, rank, ...taps]),
          down: tensors.factor("down", [rank, inputs]),
        }
      : { down: tensors.factor("down", [rank, inputs, ...taps]) }),
  };
  const scale = scaleOf(tensors, rank, scaled);
  const deltas: NamedDelta[] = [[name, deltaOf(tensors, product, scale)]];
  if (tensors.has("biasUp")) {
    const bias = tensors.target("bias");
    const values = tensors.factor("biasUp", bias.shape);
    deltas.push([bias.name, { where: tensors.file, product: { kind: "whole", values }, scale }]);
  }
  return deltas;
}

function loha(tensors: LayerTensors, scaled: Scaled): NamedDelta[] {
  const { name, shape } = tensors.target("weight");
  const [outputs, inputs = 1, ...taps] = shape;
  const { taps: count } = geometryOf(shape);
  const side = (up: Part, down: Part, core: Part): LowRank => {
    const rank = tensors.rank(down);
    if (!tensors.has(core))
      return {
        kind: "low-rank",
        up: tensors.factor(up, [outputs, rank]),
        // A convolution's inputs and taps are one axis.
        down: tensors.factor(down, [rank, inputs * count]),
      };
    return {
      kind: "low-rank",
      up: transposedFactor(tensors.factor(up, [rank, outputs]), rank, outputs),
      core: tensors.factor(core, [rank, rank, ...taps]),
      down: tensors.factor(down, [rank, inputs]),
    };
  };
  const sides = [side("hadaUp1", "hadaDown1", "hadaCore1"), side("hadaUp2", "hadaDown2", "hadaCore2")] as const;
  const scale = scaleOf(tensors, tensors.rank("hadaDown1"), scaled);
  return [[name, deltaOf(tensors, { kind: "hadamard", sides }, scale)]];
}

function lokr(tensors: LayerTensors, scaled: Scaled): NamedDelta[] {
  const { name, shape } = tensors.target("weight");
  const [outputs, inputs = 1, ...taps] = shape;
  const { taps: count } = geometryOf(shape);
  const isWhole = tensors.has("krFirst");
  const rows = tensors.rank(isWhole ? "krFirst" : "krUp1");
  const columns = tensors.shape(isWhole ? "krFirst" : "krDown1")[1] ?? 1;
  if (outputs % rows !== 0 || inputs % columns !== 0)
    throw tensors.failure(
      isWhole ? "krFirst" : "krUp1",
      `a factor [${rows}, ${columns}]`,
      `one whose sizes divide [${outputs}, ${inputs}]`,
    );
  const [p, q] = [outputs / rows, inputs / columns];
  const first: Factor | LowRank = isWhole
    ? tensors.factor("krFirst", [rows, columns])
    : lowRank(tensors, "krUp1", "krDown1", [rows, columns]);
  let second: Factor | LowRank;
  if (tensors.has("krSecond")) second = tensors.factor("krSecond", [p, q, ...taps]);
  else if (!tensors.has("krCore2")) second = lowRank(tensors, "krUp2", "krDown2", [p, q * count]);
  else {
    const [outer, rank] = [tensors.rank("krUp2"), tensors.rank("krDown2")];
    second = {
      kind: "low-rank",
      up: transposedFactor(tensors.factor("krUp2", [outer, p]), outer, p),
      core: tensors.factor("krCore2", [outer, rank, ...taps]),
      down: tensors.factor("krDown2", [rank, q]),
    };
  }
  const down = (["krDown2", "krDown1"] as const).find((part) => tensors.has(part));
  // Two whole factors have no rank; LyCORIS does not scale them, PEFT does by its settings.
  const rank = down === undefined ? scaled.scaling?.rank : tensors.rank(down);
  const scale = rank === undefined ? scaled.strength : scaleOf(tensors, rank, scaled);
  return [[name, deltaOf(tensors, { kind: "kronecker", first, second }, scale)]];
}

function whole(tensors: LayerTensors, { strength }: Scaled): NamedDelta[] {
  return (["whole", "wholeBias"] as const).flatMap((part) => {
    if (!tensors.has(part)) return [];
    const { name, shape } = tensors.target(part === "whole" ? "weight" : "bias");
    const product = { kind: "whole", values: tensors.factor(part, shape) } as const;
    return [[name, { where: tensors.file, product, scale: strength }] as const];
  });
}

function lowRank(tensors: LayerTensors, up: Part, down: Part, [outputs, inputs]: readonly [number, number]): LowRank {
  const rank = tensors.rank(down);
  return { kind: "low-rank", up: tensors.factor(up, [outputs, rank]), down: tensors.factor(down, [rank, inputs]) };
}

/** alpha / rank times the strength; without an alpha it is the rank. kohya's trainers write 0 for that. */
function scaleOf(tensors: LayerTensors, rank: number, { scaling, strength }: Scaled): number {
  const alpha = tensors.alpha() || scaling?.alphaOf(tensors.layer.path) || rank;
  return (strength * alpha) / (scaling?.isRankStabilized ? Math.sqrt(rank) : rank);
}

function deltaOf(tensors: LayerTensors, product: Delta["product"], scale: number): Delta {
  const where = tensors.file;
  const [outputs, inputs = 1] = tensors.target("weight").shape;
  // PEFT gives every output channel a length, LyCORIS each output or each input channel.
  if (tensors.has("magnitude")) {
    const values = tensors.factor("magnitude", [outputs], [1, outputs]);
    return { where, product, scale, magnitude: { values, axis: "out" } };
  }
  if (!tensors.has("doraScale")) return { where, product, scale };
  const values = tensors.factor("doraScale", [outputs], [1, inputs]);
  const isInput = values.shape.length === 2;
  return { where, product, scale, magnitude: { values, axis: isInput ? "in" : "out" } };
}
