/**
 * A float graph and a bit-width configuration -> the graph that runs in integers.
 *
 * Where a tensor is read by quantized layers only, and all of them want the same codes, whatever makes it writes codes at
 * once (a norm, an attention, a gated product); elsewhere a `quantize` op stands between, one for all layers that share
 * scale and zero point. Layers that the configuration does not name stay as they are.
 */
import { MixdqError } from "../base/errors.ts";
import type { LayerConfig, MixdqConfig } from "../quant/config.ts";
import type { WeightQuant } from "../quant/formats.ts";
import type { ActivationCodes, Conv2dOp, Graph, LinearOp, LinearPart, Op, Tensor, Weight } from "./ops.ts";

export interface QuantizeOptions {
  /** Where cross-attention finds the text: the first token of it is the BOS token. Default: encoder_hidden_states. */
  readonly text?: string;
  /** Rows of the BOS cache: one for all images, or one for each. Default: 1. */
  readonly bosImages?: number;
}

/** Throws `invalid-input` where the configuration names layers that the graph lacks or gives what a layer cannot use. */
export function quantizeGraph(
  graph: Graph,
  config: MixdqConfig,
  { text = "encoder_hidden_states", bosImages = 1 }: QuantizeOptions = {},
): Graph {
  const layers = new Set(graph.ops.flatMap(layerPaths));
  const unknown = [...config.layers.keys()].filter((path) => !layers.has(path));
  if (unknown.length > 0)
    throw new MixdqError(
      "invalid-input",
      `mixdq.json: ${unknown.length} of ${config.layers.size} layer(s) are not in ${graph.name}: ${unknown.slice(0, 3).join(", ")}` +
        `${unknown.length > 3 ? ", ..." : ""}. The configuration belongs to another model.`,
    );
  return new Pass(graph, config, graph.inputs[text], bosImages).run();
}

/** The paths under which a configuration may name what an op computes. */
export function layerPaths(op: Op): readonly string[] {
  if (op.kind === "linear") return op.parts.map(({ path }) => path);
  return op.kind === "conv2d" ? [op.path] : [];
}

/** Ops whose kernels can write codes: everything that makes a tensor, but a sum that is needed in floats besides. */
const WRITES_CODES = new Set<Op["kind"]>(["group_norm", "layer_norm", "attention", "unary", "linear", "conv2d"]);

class Pass {
  readonly #graph: Graph;
  readonly #config: MixdqConfig;
  readonly #text: Tensor | undefined;
  readonly #bosImages: number;
  readonly #ops: Op[] = [];
  readonly #bos: Weight[] = [];
  /** Tensor id -> codes -> the tensor that holds them. */
  readonly #coded = new Map<number, Map<string, Tensor>>();
  #nextId: number;

  constructor(graph: Graph, config: MixdqConfig, text: Tensor | undefined, bosImages: number) {
    this.#graph = graph;
    this.#config = config;
    this.#text = text;
    this.#bosImages = bosImages;
    this.#nextId = 1 + Math.max(...Object.values(graph.inputs).map(({ id }) => id), ...graph.ops.map(({ y }) => y.id));
  }

  run(): Graph {
    const fused = this.#fusedCodes();
    for (const op of this.#graph.ops) {
      const rewritten = op.kind === "linear" ? this.#linear(op) : op.kind === "conv2d" ? this.#conv2d(op) : op;
      const codes = fused.get(op.y.id);
      if (!codes) this.#ops.push(rewritten);
      else {
        const y: Tensor = { ...op.y, dtype: "i8", codes };
        this.#remember(op.y, codes, y);
        this.#ops.push({ ...rewritten, y } as Op);
      }
    }
    return { ...this.#graph, ops: this.#ops, weights: [...this.#graph.weights, ...this.#bos] };
  }

  /** Tensors that nobody needs as floats, with the codes that all their readers want. */
  #fusedCodes(): Map<number, ActivationCodes> {
    const wanted = new Map<number, ActivationCodes | "floats">();
    const read = (tensor: Tensor, codes: ActivationCodes | undefined): void => {
      const before = wanted.get(tensor.id);
      const same = codes && (before === undefined || (before !== "floats" && keyOf(before) === keyOf(codes)));
      wanted.set(tensor.id, same ? codes : "floats");
    };
    for (const tensor of Object.values(this.#graph.outputs)) read(tensor, undefined);
    for (const op of this.#graph.ops)
      if (op.kind === "linear") {
        for (const { path } of op.parts) read(op.x, this.#inputCodes(path)[0]);
        if (op.residual) read(op.residual, undefined);
      } else if (op.kind === "conv2d") {
        const [first, second] = this.#inputCodes(op.path);
        read(op.x, first);
        if (op.x2) read(op.x2, second ?? first);
        for (const added of [op.rowBias, op.residual]) if (added) read(added, undefined);
      } else for (const tensor of inputsOf(op)) read(tensor, undefined);

    const fused = new Map<number, ActivationCodes>();
    for (const op of this.#graph.ops) {
      const codes = wanted.get(op.y.id);
      const addsUp = (op.kind === "linear" && op.residual) || (op.kind === "conv2d" && (op.residual ?? op.rowBias));
      if (codes && codes !== "floats" && WRITES_CODES.has(op.kind) && !addsUp) fused.set(op.y.id, codes);
    }
    return fused;
  }

  #linear(op: LinearOp): LinearOp {
    const parts = op.parts.map((part): LinearPart => {
      const layer = this.#layer(part.path);
      if (!layer) return part;
      if (layer.act2)
        this.#refuse(part.path, "act2", "none: only a convolution over a concatenation has a second half");
      const [codes] = this.#inputCodes(part.path);
      const x = codes && this.#codesOf(op.x, codes);
      const bos = this.#config.bos && op.x === this.#text ? this.#bosOf(part) : undefined;
      return { ...part, quant: this.#weightQuant(layer), ...(x && { x }), ...(bos && { bos }) };
    });
    // Where all parts read one tensor, it is the op's.
    const [first] = parts;
    if (parts.every(({ x }) => x === first!.x)) {
      const plain = parts.map(({ x: _, ...part }) => part);
      return { ...op, x: first!.x ?? op.x, parts: plain };
    }
    return { ...op, parts };
  }

  #conv2d(op: Conv2dOp): Conv2dOp {
    const layer = this.#layer(op.path);
    if (!layer) return op;
    if (layer.act2 && !op.x2) this.#refuse(op.path, "act2", "none: this convolution reads no concatenation");
    if (op.x.shape[3] % 4 !== 0) this.#refuse(op.path, `${op.x.shape[3]} input channels`, "a multiple of 4");
    const [first, second] = this.#inputCodes(op.path);
    return {
      ...op,
      quant: this.#weightQuant(layer),
      ...(first && { x: this.#codesOf(op.x, first) }),
      ...(first && op.x2 && { x2: this.#codesOf(op.x2, second ?? first) }),
      // Without codes there is nothing that says otherwise, and MixDQ's shortcuts are split.
      ...(op.x2 && (second || !first) && { split: true }),
    };
  }

  /** What the configuration says of a layer that does not stay in floats. */
  #layer(path: string): LayerConfig | undefined {
    const layer = this.#config.layers.get(path);
    return layer?.weightBits === 16 ? undefined : layer;
  }

  /** The codes in which a layer wants its input, and the second half of it; none for floats. */
  #inputCodes(path: string): readonly [ActivationCodes?, ActivationCodes?] {
    const layer = this.#layer(path);
    if (!layer || layer.actBits === 16) return [];
    const bits = layer.actBits;
    if (!layer.act)
      this.#refuse(path, "no activation scale", `"act" for actBits ${bits}; calibrate, then allocate again`);
    return layer.act2
      ? [
          { ...layer.act, bits },
          { ...layer.act2, bits },
        ]
      : [{ ...layer.act, bits }];
  }

  #weightQuant({ weightBits: bits }: LayerConfig): WeightQuant {
    return { ...this.#config.weights, bits } as WeightQuant;
  }

  #codesOf(tensor: Tensor, codes: ActivationCodes): Tensor {
    const known = this.#coded.get(tensor.id)?.get(keyOf(codes));
    if (known) return known;
    const y: Tensor = { id: this.#nextId++, name: `${tensor.name}.codes`, shape: tensor.shape, dtype: "i8", codes };
    this.#ops.push({ kind: "quantize", path: y.name, x: tensor, y });
    this.#remember(tensor, codes, y);
    return y;
  }

  #remember(tensor: Tensor, codes: ActivationCodes, y: Tensor): void {
    const known = this.#coded.get(tensor.id) ?? new Map<string, Tensor>();
    this.#coded.set(tensor.id, known.set(keyOf(codes), y));
  }

  #bosOf({ path, weight }: LinearPart): Weight {
    const bos = { name: `${path}.bos`, shape: [this.#bosImages, weight.shape[0]], derivedFrom: weight.name };
    this.#bos.push(bos);
    return bos;
  }

  #refuse(path: string, got: string, expected: string): never {
    throw new MixdqError("invalid-input", `mixdq.json, layer ${path}: got ${got}, expected ${expected}.`);
  }
}

const keyOf = ({ scale, zeroPoint, bits }: ActivationCodes): string => `${scale} ${zeroPoint} ${bits}`;

/** Every tensor that an op without weights to quantize reads. */
function inputsOf(op: Exclude<Op, LinearOp | Conv2dOp>): readonly Tensor[] {
  switch (op.kind) {
    case "group_norm":
      return op.x2 ? [op.x, op.x2] : [op.x];
    case "attention":
      return [op.q.tensor, op.k.tensor, op.v.tensor];
    case "embedding":
      return [op.ids];
    case "gather":
      return [op.x, op.index];
    case "layer_norm":
    case "unary":
    case "quantize":
      return [op.x];
  }
}
