/**
 * The few ONNX messages that a model of this family needs, written straight to bytes.
 *
 * Only writing, only the fields used here, proto3 rules: a message is a run of (field number, wire type, value), and
 * a message within a message is its length followed by its bytes. Big tensors do not pass through: they are named in
 * the model (`external_data`) and handed over as they are, so a message never comes near protobuf's limit of 2 GB.
 * Field numbers: onnx.proto of ONNX 1.16 (IR version 10), https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
 */

/** TensorProto.DataType. */
export const ELEMENT_TYPES = { f32: 1, i32: 6, i64: 7, f16: 10 } as const;
export type ElementType = keyof typeof ELEMENT_TYPES;

/** Whole numbers are ONNX ints; a float says so, because 1 and 1.0 are one and the same number here. */
export type Attribute = number | { readonly float: number } | string | readonly number[];

export interface NodeMessage {
  readonly name: string;
  readonly opType: string;
  /** "" for ONNX's own operators. */
  readonly domain: string;
  /** "" leaves an optional input out. */
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly attributes: Readonly<Record<string, Attribute>>;
}

export interface TensorMessage {
  readonly name: string;
  readonly type: ElementType;
  readonly shape: readonly number[];
  /** The bytes themselves (little endian), or where they lie. */
  readonly data: Uint8Array | { readonly path: string; readonly offset: number; readonly length: number };
}

export interface ValueMessage {
  readonly name: string;
  readonly type: ElementType;
  readonly shape: readonly number[];
}

export interface ModelMessage {
  readonly producer: string;
  readonly graphName: string;
  readonly irVersion: number;
  /** Operator set versions by domain. */
  readonly opsets: Readonly<Record<string, number>>;
  readonly nodes: readonly NodeMessage[];
  readonly initializers: readonly TensorMessage[];
  readonly inputs: readonly ValueMessage[];
  readonly outputs: readonly ValueMessage[];
}

const VARINT = 0;
const LENGTH_DELIMITED = 2;
const FIXED32 = 5;
/** AttributeProto.AttributeType. */
const ATTRIBUTE_TYPES = { float: 1, int: 2, string: 3, ints: 7 } as const;
const EXTERNAL = 1; // TensorProto.DataLocation

const utf8 = new TextEncoder();

class Message {
  private buffer = new Uint8Array(64);
  private length = 0;

  int(field: number, value: number): this {
    this.varint(field * 8 + VARINT);
    // protobuf writes a negative int64 as its 64-bit two's complement, ten bytes long.
    this.varint(value < 0 ? BigInt.asUintN(64, BigInt(value)) : value);
    return this;
  }

  float(field: number, value: number): this {
    this.varint(field * 8 + FIXED32);
    this.reserve(4);
    new DataView(this.buffer.buffer).setFloat32(this.length, value, true);
    this.length += 4;
    return this;
  }

  bytes(field: number, value: Uint8Array): this {
    this.varint(field * 8 + LENGTH_DELIMITED);
    this.varint(value.length);
    this.reserve(value.length);
    this.buffer.set(value, this.length);
    this.length += value.length;
    return this;
  }

  text(field: number, value: string): this {
    return this.bytes(field, utf8.encode(value));
  }

  message(field: number, value: Message): this {
    return this.bytes(field, value.finish());
  }

  finish(): Uint8Array<ArrayBuffer> {
    return this.buffer.subarray(0, this.length);
  }

  private varint(value: number | bigint): void {
    this.reserve(10);
    if (typeof value === "bigint") {
      for (; value > 127n; value >>= 7n) this.buffer[this.length++] = Number(value & 127n) | 128;
    } else {
      // Division, not shifts: sizes and offsets may exceed 32 bits.
      for (; value > 127; value = Math.floor(value / 128)) this.buffer[this.length++] = (value % 128) | 128;
    }
    this.buffer[this.length++] = Number(value);
  }

  private reserve(more: number): void {
    if (this.length + more <= this.buffer.length) return;
    const grown = new Uint8Array(Math.max(this.buffer.length * 2, this.length + more));
    grown.set(this.buffer.subarray(0, this.length));
    this.buffer = grown;
  }
}

/** The bytes of an .onnx file. */
export function encodeModel(model: ModelMessage): Uint8Array<ArrayBuffer> {
  const graph = new Message();
  for (const node of model.nodes) graph.message(1, nodeMessage(node));
  graph.text(2, model.graphName);
  for (const tensor of model.initializers) graph.message(5, tensorMessage(tensor));
  for (const value of model.inputs) graph.message(11, valueMessage(value));
  for (const value of model.outputs) graph.message(12, valueMessage(value));
  const message = new Message().int(1, model.irVersion).text(2, model.producer).message(7, graph);
  for (const [domain, version] of Object.entries(model.opsets)) {
    message.message(8, new Message().text(1, domain).int(2, version));
  }
  return message.finish();
}

function nodeMessage(node: NodeMessage): Message {
  const message = new Message();
  for (const input of node.inputs) message.text(1, input);
  for (const output of node.outputs) message.text(2, output);
  message.text(3, node.name).text(4, node.opType);
  for (const [name, value] of Object.entries(node.attributes)) message.message(5, attributeMessage(name, value));
  return message.text(7, node.domain);
}

function attributeMessage(name: string, value: Attribute): Message {
  const message = new Message().text(1, name);
  if (typeof value === "number") return message.int(3, value).int(20, ATTRIBUTE_TYPES.int);
  if (typeof value === "string") return message.text(4, value).int(20, ATTRIBUTE_TYPES.string);
  if ("float" in value) return message.float(2, value.float).int(20, ATTRIBUTE_TYPES.float);
  for (const item of value) message.int(8, item);
  return message.int(20, ATTRIBUTE_TYPES.ints);
}

function tensorMessage(tensor: TensorMessage): Message {
  const message = new Message();
  for (const size of tensor.shape) message.int(1, size);
  message.int(2, ELEMENT_TYPES[tensor.type]).text(8, tensor.name);
  const data = tensor.data;
  if (data instanceof Uint8Array) return message.bytes(9, data);
  const place = { location: data.path, offset: String(data.offset), length: String(data.length) };
  for (const [key, value] of Object.entries(place)) message.message(13, new Message().text(1, key).text(2, value));
  return message.int(14, EXTERNAL);
}

function valueMessage(value: ValueMessage): Message {
  const shape = new Message();
  for (const size of value.shape) shape.message(1, new Message().int(1, size));
  const tensorType = new Message().int(1, ELEMENT_TYPES[value.type]).message(2, shape);
  return new Message().text(1, value.name).message(2, new Message().message(1, tensorType));
}
