/**
 * Somebody who installs the package: a folder outside this repository, so that nothing of it is found by accident, with
 * the packed tarball and the tools of an example.
 */
import { execFile, type ExecFileException, spawn } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";

export const ROOT = path.resolve(import.meta.dirname, "../..");

export interface Ran {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** A command's end, whatever it is. */
export function run(command: string, args: readonly string[], cwd: string, env: NodeJS.ProcessEnv = {}): Promise<Ran> {
  return new Promise((resolve) => {
    const options = { cwd, env: { ...process.env, ...env }, maxBuffer: 2 ** 26 };
    execFile(command, args, options, (error: ExecFileException | null, stdout, stderr) =>
      resolve({ code: error ? Number(error.code ?? 1) || 1 : 0, stdout, stderr }),
    );
  });
}

async function mustRun(command: string, args: readonly string[], cwd: string, env?: NodeJS.ProcessEnv): Promise<Ran> {
  const ran = await run(command, args, cwd, env);
  if (ran.code !== 0) throw new Error(`${command} ${args.join(" ")} in ${cwd}:\n${ran.stdout}\n${ran.stderr}`);
  return ran;
}

export interface Packed {
  readonly file: string;
  readonly bytes: number;
  readonly unpackedBytes: number;
  /** Paths within the package. */
  readonly files: readonly string[];
}

const folders: string[] = [];

export function newFolder(): string {
  const folder = mkdtempSync(path.join(os.tmpdir(), "mixdq-consumer-"));
  folders.push(folder);
  return folder;
}

export function removeFolders(): void {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true });
}

/** `npm pack` of a package of this repository, which builds it. */
export async function pack(folder: string): Promise<Packed> {
  const target = newFolder();
  const args = ["pack", "--json", "--silent", "--pack-destination", target];
  const { stdout } = await mustRun("npm", args, folder);
  const listed = JSON.parse(stdout.slice(stdout.search(/^[[{]/m)));
  // A list, or since npm 12 an object by name.
  const [{ filename, size, unpackedSize, files }] = (Array.isArray(listed) ? listed : Object.values(listed)) as {
    filename: string;
    size: number;
    unpackedSize: number;
    files: { path: string }[];
  }[];
  return {
    file: path.join(target, filename),
    bytes: size,
    unpackedBytes: unpackedSize,
    files: files.map((file) => file.path).sort(),
  };
}

/** Somebody's folder with the package in it, which has no dependencies and so needs no registry. */
export async function consumer(packed: Packed, example?: string): Promise<string> {
  const folder = newFolder();
  if (example !== undefined) cpSync(path.join(ROOT, "examples", example), folder, { recursive: true });
  writeFileSync(path.join(folder, "package.json"), JSON.stringify({ name: "consumer", private: true, type: "module" }));
  await install(folder, ["--offline", packed.file]);
  return folder;
}

/** Packages that this repository has, as if they were installed there. */
export function link(folder: string, ...packages: readonly string[]): void {
  for (const name of packages) {
    const target = path.join(folder, "node_modules", name);
    mkdirSync(path.dirname(target), { recursive: true });
    symlinkSync(path.join(ROOT, "node_modules", name), target);
  }
}

async function install(folder: string, args: readonly string[]): Promise<void> {
  const flags = ["--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts", "--loglevel=error"];
  await mustRun("npm", ["install", ...flags, ...args], folder);
}

/** What npm says where a registry is out of reach, or does not have a package. */
const OUT_OF_REACH =
  /ENOTCACHED|ENOTFOUND|EAI_AGAIN|ETIMEDOUT|ECONNREFUSED|ECONNRESET|E404|E403|ENETUNREACH|ERR_SOCKET/;

/**
 * The example with the package and its own dependencies, `versions` instead of those that it names; from npm's cache where
 * they are there. Or why they cannot be had.
 */
export async function exampleConsumer(
  packed: Packed,
  example: string,
  versions: Readonly<Record<string, string>> = {},
): Promise<{ folder: string } | { missing: string }> {
  const folder = newFolder();
  cpSync(path.join(ROOT, "examples", example), folder, { recursive: true });
  const file = path.join(folder, "package.json");
  const manifest = JSON.parse(readFileSync(file, "utf8")) as Record<string, Record<string, string>>;
  for (const kind of ["dependencies", "devDependencies"])
    for (const name of Object.keys(manifest[kind] ?? {})) manifest[kind][name] = versions[name] ?? manifest[kind][name];
  manifest["dependencies"]["mixdq-web"] = `file:${packed.file}`;
  writeFileSync(file, JSON.stringify(manifest));
  try {
    await install(folder, ["--prefer-offline"]);
    return { folder };
  } catch (error) {
    const reason = OUT_OF_REACH.exec((error as Error).message)?.[0];
    if (reason === undefined) throw error;
    return { missing: `npm cannot get its packages here (${reason})` };
  }
}

/** The example's own build script. */
export async function buildExample(folder: string): Promise<void> {
  await mustRun("npm", ["run", "build", "--silent"], folder, { NEXT_TELEMETRY_DISABLED: "1", NODE_ENV: "production" });
}

/** Vite's development server in that folder. */
export async function startVite(folder: string): Promise<{ url: string; close(): Promise<void> }> {
  const vite = path.join(folder, "node_modules/vite/bin/vite.js");
  const child = spawn(process.execPath, [vite, "--host", "127.0.0.1", "--port", "5400"], {
    cwd: folder,
    env: { ...process.env, NODE_ENV: "development", NO_COLOR: "1", FORCE_COLOR: "0" },
  });
  let said = "";
  const url = await new Promise<string>((resolve, reject) => {
    const onText = (text: Buffer): void => {
      said += text.toString();
      const found = /http:\/\/127\.0\.0\.1:\d+\//.exec(said)?.[0];
      if (found) resolve(found);
    };
    child.stdout.on("data", onText);
    child.stderr.on("data", onText);
    child.on("exit", () => reject(new Error(`vite ended: ${said}`)));
  });
  const ended = new Promise<void>((done) => child.on("exit", () => done()));
  return {
    url,
    close: async () => {
      child.kill();
      await ended;
    },
  };
}
