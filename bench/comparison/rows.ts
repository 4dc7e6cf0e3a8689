/** What is compared: every run of the tables, with its configuration or what is simulated. */
import { allocate, withWidths, type AllocateOptions } from "../../src/mixdq/allocation/allocate.ts";
import { baselines } from "../../src/mixdq/allocation/baselines.ts";
import type { Sensitivity } from "../../src/mixdq/allocation/sensitivity.ts";
import type { Calibration } from "../../src/mixdq/calibration/file.ts";
import { rangesOf } from "../../src/mixdq/calibration/preset.ts";
import { attachRanges, averageWeightBits, type LayerBits, type MixdqConfig } from "../../src/quant/config.ts";
import { E2M1, E4M3 } from "../minifloat/minifloat.ts";
import type { Simulation } from "../minifloatRun.ts";

export interface Row {
  /** Also the name of its data. */
  readonly id: string;
  readonly name: string;
  readonly run: { readonly config: MixdqConfig } | { readonly simulation: Simulation; readonly weightBits: number };
}

/** A table of row ids, some of them under another name. */
export interface Table {
  readonly title: string;
  readonly rows: readonly string[];
  readonly names?: Readonly<Record<string, string>>;
}

export interface Sources {
  readonly sensitivity: Sensitivity;
  /** Recorded without and with the text's first token. */
  readonly aware: Calibration;
  readonly naive: Calibration;
  /** Written by `mixdq allocate --prompts`: by name, such as w4a8. */
  readonly chosen: ReadonlyMap<string, MixdqConfig>;
}

const MINMAX: MixdqConfig["weights"] = { symmetric: false, range: "minmax", group: null };
const LEAST_SQUARES: MixdqConfig["weights"] = { symmetric: false, range: "mse", group: null };

/** Wider than the paper's choice of 2, 4 and 8 bits, and 4 and 8 for quality layers. */
const ALL_WIDTHS = { candidates: { content: [2, 3, 4, 8], quality: [2, 3, 4, 8] } };

export async function rowsOf({ sensitivity, aware, naive, chosen }: Sources): Promise<Row[]> {
  const counts = new Map(Array.from(sensitivity.layers, ([path, { weights }]) => [path, weights]));
  const configOf = (
    layers: ReadonlyMap<string, LayerBits>,
    { bos = true, split = true, weights = LEAST_SQUARES } = {},
  ): MixdqConfig => {
    const ranges = rangesOf(bos ? aware : naive, "minmax", split);
    const config = { model: sensitivity.model, weights, bos, layers: attachRanges(layers, ranges), provenance: {} };
    return { ...config, averageWeightBits: averageWeightBits(config, counts).all };
  };
  const uniform = (weightBits: LayerBits["weightBits"]): Map<string, LayerBits> =>
    new Map(Array.from(counts.keys(), (path) => [path, { weightBits, actBits: 8 }]));

  const at = async (weightBits: number, options: Partial<AllocateOptions> = {}) => {
    const allocation = await allocate(sensitivity, { weightBits, ...options });
    const { programs, chosen } = allocation.weights;
    const bits = new Map(chosen.groups.flatMap((group) => [...group.bits]));
    const others = await baselines(programs, sensitivity.layers, bits, weightBits, 0);
    const other = (name: string): ReadonlyMap<string, LayerBits> =>
      withWidths(allocation.layers, others.find((baseline) => baseline.name.startsWith(name))!.bits);
    return { allocation, other };
  };
  const four = await at(4);
  const wide = await at(4, ALL_WIDTHS);
  const three = await at(3, ALL_WIDTHS);
  const joint = await allocate(asOneGroup(sensitivity), { weightBits: 4, sum: "noise", ...ALL_WIDTHS, certify: false });
  const unprotected = await at(4, { protect: 0 });
  const naively = { bos: false, split: false, weights: MINMAX };
  const row = (id: string, name: string, config: MixdqConfig): Row => ({ id, name, run: { config } });
  const own = (id: string, name: string): Row[] => [row(id, name, chosen.get(id)!)];
  return [
    row("naive-w8a8", "naive PTQ, W8A8", configOf(uniform(8), naively)),
    row("naive-w4a8", "naive PTQ, W4A8", configOf(uniform(4), naively)),
    row("bos-w4a8", "+ BOS-aware", configOf(uniform(4), { ...naively, bos: true })),
    row("split-w4a8", "+ split shortcuts", configOf(uniform(4), { weights: MINMAX })),
    row("protected-w4a8", "+ 1 % of inputs in floats", configOf(four.other("uniform"), { weights: MINMAX })),
    row("uniform-w4a8", "+ least-squares ranges", configOf(four.other("uniform"))),
    row("sqnr-w4a8", "+ mixed precision by SQNR alone", configOf(four.other("SQNR only"))),
    row("balanced-w4a8", "+ metric-decoupled, groups balanced", configOf(four.allocation.layers)),
    ...own("paper-w4a8", "+ pictures choose the groups' budgets"),
    ...own("noise-w4a8", "+ noise instead of decibels"),
    ...own("w4a8", "ours, W4A8"),
    row("joint-w4a8", "the same, not decoupled", configOf(joint.layers)),
    row("naive-sorting-w4a8", "naive sorting, W4A8", configOf(wide.other("naive sorting"))),
    row("random-w4a8", "random bits, W4A8", configOf(wide.other("random"))),
    row("mp-only-w4a8", "mixed precision alone, W4A8", configOf(unprotected.other("SQNR only"), naively)),
    {
      id: "fp8",
      name: "FP8 (E4M3), simulated",
      run: { weightBits: 8, simulation: { weights: E4M3, inputs: E4M3, calibration: naive } },
    },
    {
      id: "fp4",
      name: "FP4 (E2M1) weights, FP8 inputs, simulated",
      run: { weightBits: 4, simulation: { weights: E2M1, inputs: E4M3, calibration: naive } },
    },
    ...own("w8a8", "ours, W8A8"),
    ...own("w5a8", "ours, W5A8"),
    ...own("w4a16", "ours, W4A16"),
    ...own("w3.66a16", "ours, W3.66A16"),
    ...own("w3a8", "ours, W3A8"),
    row("uniform-w3a8", "uniform, W3A8", configOf(withUniform(four.allocation.layers, 3))),
    row("naive-sorting-w3a8", "naive sorting, W3A8", configOf(three.other("naive sorting"))),
    row("sqnr-w3a8", "mixed precision by SQNR alone, W3A8", configOf(three.other("SQNR only"))),
  ];
}

function withUniform(
  layers: ReadonlyMap<string, LayerBits>,
  weightBits: LayerBits["weightBits"],
): Map<string, LayerBits> {
  return new Map(Array.from(layers, ([path, { actBits }]) => [path, { weightBits, actBits }]));
}

/** No decoupling: all layers judged by the SQNR of the UNet's output. */
function asOneGroup(sensitivity: Sensitivity): Sensitivity {
  const layers = Array.from(sensitivity.layers, ([path, layer]) => [path, { ...layer, group: "quality" }] as const);
  return { ...sensitivity, layers: new Map(layers) };
}

export const TABLES: readonly Table[] = [
  {
    title: "What each step adds, at 4 bits a weight and 8 an input",
    names: { w4a8: "+ widths of 2, 3, 4 and 8 bits for all layers (ours)" },
    rows: [
      ...["naive-w4a8", "bos-w4a8", "split-w4a8", "protected-w4a8", "uniform-w4a8", "sqnr-w4a8"],
      ...["balanced-w4a8", "paper-w4a8", "noise-w4a8", "w4a8", "joint-w4a8"],
    ],
  },
  {
    title: "Ours and others",
    rows: [
      ...[
        "fp16",
        "naive-w8a8",
        "fp8",
        "w8a8",
        "w5a8",
        "naive-w4a8",
        "fp4",
        "mp-only-w4a8",
        "w4a8",
        "w4a16",
        "w3.66a16",
      ],
    ],
  },
  {
    title: "At equal bytes",
    rows: [
      ...["w4a8", "uniform-w4a8", "naive-sorting-w4a8", "sqnr-w4a8", "paper-w4a8", "random-w4a8"],
      ...["w3a8", "uniform-w3a8", "naive-sorting-w3a8", "sqnr-w3a8"],
    ],
    names: {
      "uniform-w4a8": "uniform, W4A8",
      "sqnr-w4a8": "mixed precision by SQNR alone, W4A8",
      "paper-w4a8": "the paper's sums, pictures choose, W4A8",
    },
  },
];

/** Which of ours a row of the last table is held against. */
export const against = (id: string): string => (id.endsWith("w3a8") ? "w3a8" : "w4a8");
