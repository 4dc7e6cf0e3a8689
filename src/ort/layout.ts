/**
 * The same value in the layouts that ONNX's operators want: convolutions channels-first, matrix products rows of
 * channels. A value is converted where a reader needs it otherwise, once, and stays where it is when nobody does.
 */
import type { ChannelSlice, Shape, Tensor } from "../graph/ops.ts";
import type { ModelWriter } from "./model.ts";

/** nhwc [B, H, W, C], rows [B*H*W, C] (the same bytes), nchw [B, C, H, W]. */
export type Layout = "nhwc" | "rows" | "nchw";

interface Part {
  readonly name: string;
  readonly offset: number;
  readonly channels: number;
}

export class Layouts {
  readonly #model: ModelWriter;
  readonly #names = new Map<number, Partial<Record<Layout, string>>>();
  readonly #parts = new Map<number, readonly Part[]>();
  readonly #slices = new Map<string, string>();
  readonly #joined = new Map<string, string>();

  constructor(model: ModelWriter) {
    this.#model = model;
  }

  set(tensor: Tensor, layout: Layout, name: string): void {
    this.#of(tensor)[layout] = name;
  }

  /** A tensor that was computed in pieces, rows of consecutive channels; joined only if someone wants it whole. */
  setParts(tensor: Tensor, parts: readonly Part[]): void {
    this.#parts.set(tensor.id, parts);
  }

  /** The layout in which an elementwise function costs nothing extra. */
  native(tensor: Tensor): "rows" | "nchw" {
    const { nhwc, rows, nchw } = this.#of(tensor);
    return nchw !== undefined && nhwc === undefined && rows === undefined ? "nchw" : "rows";
  }

  get(tensor: Tensor, layout: Layout): string {
    const names = this.#of(tensor);
    return (names[layout] ??= this.#convert(tensor, names, layout));
  }

  /** x and then x2 along the channels, channels-first; a norm and a shortcut over the same two share it. */
  concat(path: string, x: Tensor, x2: Tensor): string {
    const key = `${x.id} ${x2.id}`;
    let name = this.#joined.get(key);
    if (name === undefined) {
      name = this.#model.node(path, "Concat", [this.get(x, "nchw"), this.get(x2, "nchw")], { axis: 1 });
      this.#joined.set(key, name);
    }
    return name;
  }

  /** Rows [B*H*W, C] (or nhwc) under `name` as [B, C, H, W]. */
  channelsFirst(path: string, name: string, [batch, height, width, channels]: Shape): string {
    const model = this.#model;
    if (alike([batch, height, width, channels]))
      return model.node(path, "Reshape", [name, model.i64([batch, channels, height, width])]);
    const nhwc = model.node(path, "Reshape", [name, model.i64([batch, height, width, channels])]);
    return model.node(path, "Transpose", [nhwc], { perm: [0, 3, 1, 2] });
  }

  /** Consecutive channels as rows [B*H*W, channels]. */
  slice({ tensor, offset, channels }: ChannelSlice): string {
    if (offset === 0 && channels === tensor.shape[3]) return this.get(tensor, "rows");
    const part = this.#parts.get(tensor.id)?.find((p) => p.offset === offset && p.channels === channels);
    if (part) return part.name;
    const key = `${tensor.id} ${offset} ${channels}`;
    let name = this.#slices.get(key);
    if (name === undefined) {
      const { i64 } = this.#model;
      const bounds = [[offset], [offset + channels], [1]].map((bound) => i64.call(this.#model, bound));
      name = this.#model.node(tensor.name, "Slice", [this.get(tensor, "rows"), ...bounds]);
      this.#slices.set(key, name);
    }
    return name;
  }

  #of(tensor: Tensor): Partial<Record<Layout, string>> {
    let names = this.#names.get(tensor.id);
    if (!names) this.#names.set(tensor.id, (names = {}));
    return names;
  }

  #convert(tensor: Tensor, names: Partial<Record<Layout, string>>, layout: Layout): string {
    const model = this.#model;
    const [batch, height, width, channels] = tensor.shape;
    const parts = this.#parts.get(tensor.id);
    if (parts && names.rows === undefined) {
      const pieces = parts.map((part) => part.name);
      names.rows = model.node(tensor.name, "Concat", pieces, { axis: 1 });
      if (layout === "rows") return names.rows;
    }
    const same = alike(tensor.shape);
    if (layout === "nchw") {
      if (names.nhwc === undefined || same)
        return this.channelsFirst(tensor.name, (names.rows ?? names.nhwc)!, tensor.shape);
      return model.node(tensor.name, "Transpose", [names.nhwc], { perm: [0, 3, 1, 2] });
    }
    if (layout === "nhwc" && names.rows === undefined && !same)
      return model.node(tensor.name, "Transpose", [names.nchw!], { perm: [0, 2, 3, 1] });
    const source =
      layout === "nhwc" ? (names.rows ?? names.nchw!) : same && names.nchw ? names.nchw : this.get(tensor, "nhwc");
    const shape = layout === "nhwc" ? [batch, height, width, channels] : [batch * height * width, channels];
    return model.node(tensor.name, "Reshape", [source, model.i64(shape)]);
  }
}

/** With one channel or one pixel, all layouts are the same bytes. */
function alike([, height, width, channels]: Shape): boolean {
  return channels === 1 || height * width === 1;
}
