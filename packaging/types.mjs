/** Declarations of the public faces. */
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";

/**
 * Writes the declarations of `faces` (files of src/) and of what they import, and of nothing else: most of src/ names types
 * that a consumer has not installed.
 */
export function writeTypes({ root, outDir, faces }) {
  const cache = path.join(root, "node_modules/.cache/mixdq-web");
  mkdirSync(cache, { recursive: true });
  const all = mkdtempSync(path.join(cache, "types-"));
  try {
    const tsc = path.join(root, "node_modules/typescript/bin/tsc");
    const options = ["--noEmit", "false", "--emitDeclarationOnly", "--declaration", "--stripInternal"];
    execFileSync(process.execPath, [tsc, "-p", root, ...options, "--rootDir", root, "--outDir", all], {
      stdio: "inherit",
    });
    const from = path.join(all, "src");
    const todo = faces.map((face) => `${face}.d.ts`);
    const done = new Set();
    for (let file = todo.pop(); file !== undefined; file = todo.pop()) {
      if (done.has(file)) continue;
      done.add(file);
      const text = readFileSync(path.join(from, file), "utf8");
      const target = path.join(outDir, file);
      mkdirSync(path.dirname(target), { recursive: true });
      writeFileSync(
        target,
        text.replace(/(["'])(\.{1,2}\/[^"']+)\.tsx?\1/g, (_, quote, name) => {
          todo.push(path.posix.normalize(path.posix.join(path.posix.dirname(file), `${name}.d.ts`)));
          return `${quote}${name}.js${quote}`;
        }),
      );
    }
  } finally {
    rmSync(all, { recursive: true, force: true });
  }
}
