import { expect, test } from "vitest";
import { assembleShader, encodeUniforms, withUniforms } from "./shader.ts";
import { SHADERS } from "./sources.ts";

const sources = (files: Record<string, string>): Map<string, string> => new Map(Object.entries(files));

test("#ifdef, #ifndef, #else and #import choose lines; an import comes once", () => {
  const files = sources({
    main: "#import part\n#ifdef A\na\n#ifdef B\nab\n#else\na only\n#endif\n#else\nno a\n#endif\n#import part",
    part: "part",
  });
  expect(assembleShader(files, "main", { A: true }).code).toBe("part\na\na only");
  expect(assembleShader(files, "main", { A: true, B: true }).code).toBe("part\na\nab");
  expect(assembleShader(files, "main", {}).code).toBe("part\nno a");
  expect(assembleShader(sources({ a: "#ifndef A\nno a\n#else\na\n#endif" }), "a", {}).code).toBe("no a");
  expect(assembleShader(sources({ a: "#ifndef A\nno a\n#else\na\n#endif" }), "a", { A: true }).code).toBe("a");
  expect(assembleShader(files, "main", { N: 4 }).code).toBe("const N = 4u;\npart\nno a");
});

test("directives that make no sense are errors with file and line", () => {
  expect(() => assembleShader(sources({ a: "x\n#import b" }), "a", {})).toThrow('a.wgsl:2: no shader named "b"');
  expect(() => assembleShader(sources({ a: "#endif" }), "a", {})).toThrow("a.wgsl:1: #endif without #ifdef");
  expect(() => assembleShader(sources({ a: "#ifdef A" }), "a", {})).toThrow("a.wgsl: #ifdef or #ifndef without #endif");
  expect(() => assembleShader(sources({ a: "#if A" }), "a", {})).toThrow("a.wgsl:1: unknown directive #if");
});

test("what a file enables comes first, once, and only where the file is not left out", () => {
  const files = sources({
    a: "#import b\nenable subgroups;\na",
    b: "#ifdef HALF\nenable f16;\n#endif\nenable subgroups;\nb",
  });
  expect(assembleShader(files, "a", { HALF: true, N: 1 }).code).toBe(
    "enable f16;\nenable subgroups;\nconst N = 1u;\nb\na",
  );
  expect(assembleShader(files, "a", {}).code).toBe("enable subgroups;\nb\na");
});

test("overrides move from constants into a uniform, in the order of their declarations", () => {
  const shader = assembleShader(
    sources({
      a: "enable f16;\noverride ROWS: u32; // rows\noverride EPS: f32 = 0.5;\nlet i = ROWS + ROWS4;\nlet e = EPS;",
    }),
    "a",
    {},
  );
  const { code } = withUniforms(shader);
  expect(code).toMatch(/^enable f16;\nstruct Uniforms \{\n {2}ROWS: u32,\n {2}EPS: f32,\n\}/);
  expect(code).toContain("let i = uniforms.ROWS + ROWS4;\nlet e = uniforms.EPS;");
  const view = new DataView(encodeUniforms(shader.overrides, { ROWS: 7 }));
  expect([view.getUint32(0, true), view.getFloat32(4, true)]).toEqual([7, 0.5]);
  expect(() => encodeUniforms(shader.overrides, {})).toThrow("no value for the override ROWS");
});

test("every shader file is reachable from a kernel", () => {
  const entries = [...SHADERS.keys()].filter((name) => SHADERS.get(name)!.includes("fn main("));
  const reached = new Set(entries);
  const visit = (name: string): void => {
    for (const [, imported] of SHADERS.get(name)!.matchAll(/^#import (\w+)$/gm)) {
      reached.add(imported!);
      visit(imported!);
    }
  };
  entries.forEach(visit);
  expect([...SHADERS.keys()].filter((name) => !reached.has(name))).toEqual([]);
  expect(entries.length).toBeGreaterThanOrEqual(10);
});
