/**
 * Bit-widths for a whole model: which activations are protected, the programmes of both groups, and their budgets.
 * MixDQ (arXiv 2405.17873) section 3.3 and algorithm 1, but for the choice by pictures.
 */
import { MixdqError } from "../../base/errors.ts";
import type { ConfigActBits, ConfigWeightBits, LayerBits } from "../../quant/config.ts";
import { makeGroupProgram, type Candidate, type GroupProgram, type Metric } from "./groups.ts";
import {
  byPath,
  GROUPS,
  METRIC_OF,
  valueAt,
  type Group,
  type LayerSensitivity,
  type Sensitivity,
} from "./sensitivity.ts";
import { balancedRatio, rangeOf, solvePoint, type Point } from "./sweep.ts";

export interface AllocateOptions {
  /** Bits per weight on average, at most. */
  readonly weightBits: number;
  /** 4, 8 or 16: every input's width (16: weight-only). Between 4 and 8: bits per input element on average, at most. */
  readonly actBits?: number;
  /** The widths to choose from for weights; default: content 2, 4, 8, quality 4, 8, as the paper has it. */
  readonly candidates?: Readonly<Record<Group, readonly number[]>>;
  /** Of each group's layers, the share whose inputs stay in 16-bit float; default 0.01, and 0 for `actBits` 16. */
  readonly protect?: number;
  /**
   * What a protected layer is. weight-only (default): its input stays in float, its weights take part as all others do,
   * so that the budget means the same with and without protection. float: weights and input stay in float, and the
   * weights count with 16 bits in the budget.
   */
  readonly protectedAs?: ProtectedAs;
  /**
   * What quality layers' SQNR is summed as. decibels (default): as it is, which is the paper's objective. noise: as the
   * noise of each layer over the signal, less of it is better. Rounding errors of different layers are independent, so in
   * the UNet's output it is their powers that add up; a sum of dB lets a gain in a layer that hardly matters make up for
   * a loss in one that does.
   */
  readonly sum?: Sum;
  /** Content's budget over quality's; default: `balancedRatio`. */
  readonly ratio?: number;
  /** Has HiGHS solve the chosen programmes again; default true. */
  readonly certify?: boolean;
}

export type Sum = "decibels" | "noise";
export type ProtectedAs = "weight-only" | "float";

/** What was chosen for the weights, or for the inputs. */
export interface Side {
  readonly programs: readonly GroupProgram[];
  readonly chosen: Point;
  /** Bits per element, float layers counted with 16; and without them. */
  readonly averageBits: number;
  readonly quantizedBits: number;
  /** Who proved the optimum a second time, by group; those that could not are left out. */
  readonly certified: ReadonlyMap<Group, string>;
}

export interface Allocation {
  /** By path, in path order; layers left in float are not in it. */
  readonly layers: ReadonlyMap<string, LayerBits>;
  /** Layers whose inputs stay in float because they are among the worst; by group, the worst first. */
  readonly protectedLayers: readonly string[];
  readonly weights: Side;
  /** undefined where all inputs have one width. */
  readonly activations: Side | undefined;
  /** Bits per input element over all layers, float counted with 16; undefined where the file does not count them. */
  readonly averageActBits: number | undefined;
  /** What a reader should know. */
  readonly notes: readonly string[];
}

/** The paper's widths; quality layers never get 2 bits. */
export const CANDIDATES: Readonly<Record<Group, readonly number[]>> = { content: [2, 4, 8], quality: [4, 8] };
/** What mixdq.json and the kernels know for weights. */
export const WEIGHT_BITS: readonly number[] = [2, 3, 4, 8];
/** Chosen from where inputs have a budget. */
const ACT_CANDIDATES: readonly number[] = [4, 8];
const PROTECT = 0.01;
/** The width that protection is decided at. */
const PROTECT_AT = 8;

/** `where` is the sensitivity file, for messages. Throws `invalid-input` for what cannot be done with it. */
export async function allocate(
  { layers }: Sensitivity,
  options: AllocateOptions,
  where = "sensitivity",
): Promise<Allocation> {
  const { weightBits, actBits = 8, candidates = CANDIDATES, protectedAs = "weight-only", sum = "decibels" } = options;
  checkOptions(options);
  const notes: string[] = [];
  const isMeasured = [...layers.values()].some(({ activation }) => activation.size > 0);
  let protect = options.protect ?? (actBits === 16 ? 0 : PROTECT);
  if (protect > 0 && options.protect === undefined && !isMeasured) {
    notes.push("the file has no sensitivity of activations: none is protected");
    protect = 0;
  }
  const protectedLayers = worstActivations(layers, protect, where);
  const isProtected = new Set(protectedLayers);
  const inFloat = protectedAs === "float" ? isProtected : new Set<string>();

  const values = (path: string, layer: LayerSensitivity, side: "weight" | "activation", widths: readonly number[]) =>
    new Map(widths.map((bits) => [bits, worth(layer.group, valueAt(layer, side, bits, `${where}: ${path}`), sum)]));
  const weightPrograms = await makePrograms(layers, inFloat, true, sum, (path, layer) => ({
    elements: layer.weights,
    values: values(path, layer, "weight", candidates[layer.group]),
  }));
  const weights = await solveSide(weightPrograms, weightBits, options, "--weight-bits");

  const needsProgram = actBits !== 16 && !ACT_CANDIDATES.includes(actBits);
  const actPrograms = needsProgram
    ? await makePrograms(layers, isProtected, false, sum, (path, layer) => ({
        elements: countedActivations(layer, `${where}: ${path}`),
        values: values(path, layer, "activation", ACT_CANDIDATES),
      }))
    : [];
  const activations =
    actPrograms.length > 0
      ? await solveSide(actPrograms, actBits, { certify: options.certify }, "--act-bits")
      : undefined;

  const weightWidths = widthsOf(weights);
  const actWidths = activations ? widthsOf(activations) : undefined;
  const paths = [...layers.keys()].sort(byPath).filter((path) => !inFloat.has(path));
  const chosen = paths.map((path): [string, LayerBits] => [
    path,
    {
      weightBits: weightWidths.get(path)! as ConfigWeightBits,
      actBits: (isProtected.has(path) ? 16 : (actWidths?.get(path) ?? actBits)) as ConfigActBits,
    },
  ]);
  const result = new Map(chosen);
  return { layers: result, protectedLayers, weights, activations, averageActBits: averageActs(layers, result), notes };
}

function checkOptions({
  weightBits,
  actBits = 8,
  candidates = CANDIDATES,
  protect = 0,
  ratio = 1,
}: AllocateOptions): void {
  if (!(weightBits > 0 && weightBits <= 16)) throw refuse(`--weight-bits ${weightBits}`, "bits per weight, up to 16");
  if (!(actBits === 16 || (actBits >= 4 && actBits <= 8)))
    throw refuse(`--act-bits ${actBits}`, "4 to 8, or 16 for weights only");
  if (!(protect >= 0 && protect <= 1)) throw refuse(`--protect ${protect}`, "a share of the layers, from 0 to 1");
  if (!(ratio > 0 && ratio < Infinity)) throw refuse(`--ratio ${ratio}`, "a positive number");
  for (const bits of GROUPS.flatMap((group) => candidates[group]))
    if (!WEIGHT_BITS.includes(bits))
      throw refuse(`--candidates with ${bits} bits`, `some of ${WEIGHT_BITS.join(", ")}`);
  for (const group of GROUPS)
    if (candidates[group].length === 0) throw refuse(`no candidates for ${group} layers`, "at least one width");
}

/** The allocation with its weights as another point of the same programmes has them. */
export async function allocationAt(allocation: Allocation, point: Point): Promise<Allocation> {
  const weights = await sideAt(allocation.weights.programs, point, true);
  return { ...allocation, weights, layers: withWidths(allocation.layers, widthsOf(weights)) };
}

/** The same layers and inputs with other widths of weights. */
export function withWidths(layers: Allocation["layers"], bits: ReadonlyMap<string, number>): Allocation["layers"] {
  return new Map(
    Array.from(layers, ([path, { actBits }]) => [path, { weightBits: bits.get(path)! as ConfigWeightBits, actBits }]),
  );
}

/** The `share` of each group's layers (rounded up) whose inputs suffer most at 8 bits, by the group's own metric. */
function worstActivations(layers: Sensitivity["layers"], share: number, where: string): string[] {
  if (share === 0) return [];
  return GROUPS.flatMap((group) => {
    const ranked = Array.from(layers)
      .filter(([, layer]) => layer.group === group)
      .map(([path, layer]) => ({ path, value: valueAt(layer, "activation", PROTECT_AT, `${where}: ${path}`) }))
      .sort((a, b) => a.value - b.value || byPath(a.path, b.path));
    return ranked.slice(0, Math.ceil(share * ranked.length - 1e-9)).map(({ path }) => path);
  });
}

/** `countsFloat`: whether elements of layers in float take 16 bits each from the budget, or are outside of it. */
async function makePrograms(
  layers: Sensitivity["layers"],
  inFloat: ReadonlySet<string>,
  countsFloat: boolean,
  sum: Sum,
  read: (path: string, layer: LayerSensitivity) => Pick<Candidate, "elements" | "values">,
): Promise<GroupProgram[]> {
  const programs: GroupProgram[] = [];
  for (const group of GROUPS) {
    const own = [...layers].filter(([, layer]) => layer.group === group);
    const candidates = own
      .filter(([path]) => !inFloat.has(path))
      .map(([path, layer]): Candidate => ({ path, group, ...read(path, layer) }));
    const floats = own.filter(([path]) => countsFloat && inFloat.has(path));
    const floatElements = floats.reduce((sum, [, { weights }]) => sum + weights, 0);
    if (candidates.length + floats.length > 0)
      programs.push(await makeGroupProgram(group, candidates, floatElements, metricOf(group, sum)));
  }
  return programs;
}

/** What a programme adds up for a layer of this group. */
function worth(group: Group, value: number, sum: Sum): number {
  return metricOf(group, sum) === "noise" ? -(10 ** (-value / 10)) : value;
}

const metricOf = (group: Group, sum: Sum): Metric =>
  METRIC_OF[group] === "ssim" ? "ssim" : sum === "noise" ? "noise" : "sqnr";

async function solveSide(
  programs: readonly GroupProgram[],
  budget: number,
  { ratio, certify = true }: { readonly ratio?: number | undefined; readonly certify?: boolean | undefined },
  flag: string,
): Promise<Side> {
  const { lowest } = rangeOf(programs);
  if (budget < lowest * (1 - 1e-12))
    throw refuse(
      `${flag} ${budget}`,
      `at least ${ceilTo4(lowest)}, which all layers at their smallest width take`,
      " Raise it, or allow smaller widths or fewer layers in float.",
    );
  const chosen = await solvePoint(programs, budget, ratio ?? (await balancedRatio(programs, budget))).catch((error) => {
    if (!(error instanceof MixdqError) || ratio === undefined) throw error;
    throw new MixdqError(error.code, `--ratio ${ratio}: ${error.message} Choose another ratio, or leave it out.`);
  });
  return sideAt(programs, chosen, certify);
}

async function sideAt(programs: readonly GroupProgram[], chosen: Point, certify: boolean): Promise<Side> {
  const certified = new Map<Group, string>();
  if (certify)
    for (const [i, solution] of chosen.groups.entries()) {
      if (solution.solver === "HiGHS") continue;
      const by = await programs[i].certify(solution);
      if (by !== undefined) certified.set(solution.group, by);
    }
  const quantized = programs.reduce((sum, { elements, floatElements }) => sum + elements - floatElements, 0);
  const bits = chosen.groups.reduce((sum, { cost }) => sum + cost, 0);
  const quantizedBits = bits / Math.max(1, quantized);
  return { programs, chosen, averageBits: chosen.averageBits, quantizedBits, certified };
}

function widthsOf({ chosen }: Side): ReadonlyMap<string, number> {
  return new Map(chosen.groups.flatMap(({ bits }) => [...bits]));
}

function averageActs(layers: Sensitivity["layers"], chosen: ReadonlyMap<string, LayerBits>): number | undefined {
  let [bits, elements] = [0, 0];
  for (const [path, { activations }] of layers) {
    if (activations === 0) return undefined;
    bits += activations * (chosen.get(path)?.actBits ?? 16);
    elements += activations;
  }
  return bits / elements;
}

function countedActivations({ activations }: { activations: number }, where: string): number {
  if (activations > 0) return activations;
  throw refuse(`${where}: no count of activations`, "the number of input elements");
}

/** Rounded up, so that the number that a message names is enough. */
function ceilTo4(value: number): string {
  return (Math.ceil(value * 1e4 - 1e-6) / 1e4).toString();
}

function refuse(got: string, expected: string, advice = ""): MixdqError {
  return new MixdqError("invalid-input", `got ${got}, expected ${expected}.${advice}`);
}
