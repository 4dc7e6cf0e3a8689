/**
 * Things that go wrong, made on purpose: copies of the reference models in a temporary folder with ways to damage them,
 * the command line as a process of its own, and what an error must look like.
 */
import { spawn } from "node:child_process";
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterAll, expect, vi } from "vitest";
import { MixdqError, type ErrorCode } from "../src/base/errors.ts";
import { toFloat32 } from "../src/weights/convert.ts";
import { parseSafetensors, writeSafetensors, type TensorToWrite } from "../src/weights/safetensors.ts";

const REPOSITORY = path.join(import.meta.dirname, "..");

const folders: string[] = [];
afterAll(() => {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true });
});

/** An empty folder that is gone after the tests of the file. */
export function emptyFolder(): string {
  const folder = mkdtempSync(path.join(os.tmpdir(), "mixdq-broken-"));
  folders.push(folder);
  return folder;
}

export const TEXT = "text_encoder/model.safetensors";
export const UNET = "unet/diffusion_pytorch_model.safetensors";
export const UNET_CONFIG = "unet/config.json";
const SHARDED = "unet/diffusion_pytorch_model.safetensors.index.json";

interface HeaderEntry {
  dtype: string;
  data_offsets: [number, number];
}

/** A model that may be damaged: paths are relative to its folder. */
export class BrokenModel {
  readonly folder: string;

  /** A copy of one of e2e/golden; the smallest whole pipeline by default. */
  constructor(name = "sd21-turbo") {
    this.folder = path.join(emptyFolder(), name);
    cpSync(path.join(import.meta.dirname, "golden", name), this.folder, { recursive: true });
  }

  path(file: string): string {
    return path.join(this.folder, file);
  }

  read(file: string): Uint8Array<ArrayBuffer> {
    return new Uint8Array(readFileSync(this.path(file)));
  }

  write(file: string, content: string | Uint8Array): void {
    writeFileSync(this.path(file), content);
  }

  remove(file: string): void {
    rmSync(this.path(file), { recursive: true });
  }

  /** Sets keys of a JSON file; undefined removes one. */
  set(file: string, values: Record<string, unknown>): void {
    const json = JSON.parse(readFileSync(this.path(file), "utf8")) as object;
    this.write(file, JSON.stringify({ ...json, ...values }));
  }

  /** Replaces a tensor of a safetensors file; undefined takes it out. */
  tensor(file: string, name: string, tensor: TensorToWrite | undefined): void {
    const tensors: Record<string, TensorToWrite> = {};
    for (const [key, { dtype, shape, bytes }] of parseSafetensors(this.read(file), file))
      tensors[key] = { dtype, shape, data: bytes };
    expect(Object.keys(tensors)).toContain(name);
    if (tensor) tensors[name] = tensor;
    else delete tensors[name];
    this.write(file, writeSafetensors(tensors));
  }

  /** Overwrites four bytes with a little-endian number. */
  poke(file: string, offset: number, value: number): void {
    const bytes = this.read(file);
    new DataView(bytes.buffer).setUint32(offset, value, true);
    this.write(file, bytes);
  }

  /** Rewrites the JSON header of a safetensors file; the tensors' bytes stay as they are. */
  header(file: string, edit: (header: Record<string, HeaderEntry>) => void): void {
    const bytes = this.read(file);
    const length = new DataView(bytes.buffer).getUint32(0, true);
    const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length)));
    edit(header);
    const json = new TextEncoder().encode(JSON.stringify(header));
    const head = new Uint8Array(8);
    new DataView(head.buffer).setUint32(0, json.length, true);
    this.write(file, Buffer.concat([head, json, bytes.subarray(8 + length)]));
  }

  /** Changes where the index of a model in shards says that tensors are. */
  shards(edit: (owners: Record<string, string>) => unknown): void {
    const index = JSON.parse(readFileSync(this.path(SHARDED), "utf8")) as { weight_map: Record<string, string> };
    edit(index.weight_map);
    this.write(SHARDED, JSON.stringify(index));
  }
}

/** A 16-bit tensor of a safetensors file as floats. */
export function halves(file: Uint8Array, name: string): Float32Array {
  const { dtype, bytes } = parseSafetensors(file).get(name)!;
  expect(dtype).toBe("F16");
  return toFloat32(bytes, "F16");
}

/** What the promise rejects with, which must be an error of ours. */
export async function refusal(promise: Promise<unknown>): Promise<MixdqError> {
  const error = await promise.then(
    (value) => new Error(`nothing was refused; the result is ${String(value).slice(0, 200)}`),
    (error: unknown) => error,
  );
  if (!(error instanceof MixdqError)) throw error;
  return error;
}

/** The code, every part of the message, and the form of it: one line of sentences. */
export function expectError(error: MixdqError, code: ErrorCode, ...parts: readonly string[]): void {
  if (process.env["MIXDQ_SHOW_ERRORS"]) console.log(`${error.code}: ${error.message}`);
  for (const part of parts) expect(error.message).toContain(part);
  expect(error.code).toBe(code);
  expect(error.message).toMatch(/^[^\n]+[.)"]$/);
}

export interface Ended {
  readonly exitCode: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs `mixdq` as a person does. */
export function mixdq(args: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<Ended> {
  const child = spawn(process.execPath, [path.join(REPOSITORY, "bin/mixdq.mjs"), ...args], {
    // A driver that this process has chosen for itself is not the child's.
    env: { ...process.env, VK_ICD_FILENAMES: undefined, ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const [stdout, stderr] = [child.stdout, child.stderr].map((stream) => {
    const chunks: Buffer[] = [];
    stream.on("data", (chunk: Buffer) => chunks.push(chunk));
    return () => Buffer.concat(chunks).toString();
  }) as [() => string, () => string];
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (exitCode) => resolve({ exitCode, stdout: stdout(), stderr: stderr() }));
  });
}

/** What Dawn says on stderr by itself, from native code that cannot be told to be quiet. */
const CHATTER = /^Warning: (max|Vulkan|vk|Couldn.t load)|^ - While |^ +at (\w+Impl|operator\(\)) \(|^$/;

/** The lines on stderr that are ours. */
export function ownLines(stderr: string): readonly string[] {
  return stderr.split("\n").filter((line) => !CHATTER.test(line));
}

/** Exit code, one line with the code and these parts, and nothing left in the folder of the output. */
export function expectFailedRun({ exitCode, stderr }: Ended, out: string, code: ErrorCode, ...parts: string[]): void {
  const lines = ownLines(stderr);
  expect(lines, stderr).toHaveLength(1);
  expect(lines[0]).toMatch(new RegExp(`^mixdq \\w+: ${code}: `));
  for (const part of parts) expect(lines[0]).toContain(part);
  expect(exitCode).toBe(1);
  if (existsSync(path.dirname(out))) expect(readdirSync(path.dirname(out))).toEqual([]);
}

/** What `run`, a command in this process, prints; none of it among the tests' own lines. */
export async function printed(run: () => Promise<void>): Promise<string> {
  const log = vi.spyOn(console, "log").mockImplementation(() => {});
  try {
    await run();
    return log.mock.calls.map(([line]) => String(line)).join("\n");
  } finally {
    log.mockRestore();
  }
}
