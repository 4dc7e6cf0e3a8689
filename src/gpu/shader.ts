/**
 * Shader text: #import, #ifdef, #ifndef, #else and #endif, and nothing else. A directive that makes no sense throws with
 * file and line. Bindings are read from the finished text, so a binding's number and access mode are written once, in
 * WGSL. A file says itself which extensions it enables; WGSL wants those lines first, and so they are moved there.
 */

export interface ShaderBinding {
  readonly name: string;
  readonly binding: number;
  readonly access: "read" | "read_write";
}

/** An `override` in the text: a value that differs from dispatch to dispatch. */
export interface ShaderOverride {
  readonly name: string;
  readonly type: "u32" | "f32";
  /** What the text says; undefined where every dispatch must give it. */
  readonly fallback: number | undefined;
}

export interface Shader {
  readonly code: string;
  readonly bindings: readonly ShaderBinding[];
  readonly overrides: readonly ShaderOverride[];
}

/** Where overrides are bound that come from a uniform. */
export const UNIFORMS_BINDING = 15;

/** `defines`: true makes `#ifdef NAME` hold; a number makes `const NAME = <n>u;` besides. */
export function assembleShader(
  sources: ReadonlyMap<string, string>,
  name: string,
  defines: Readonly<Record<string, number | true>>,
): Shader {
  const imported = new Set<string>();
  const expand = (file: string, from: string): string[] => {
    const text = sources.get(file);
    if (text === undefined) throw new Error(`${from}: no shader named "${file}"`);
    const out: string[] = [];
    const open: boolean[] = [];
    text.split("\n").forEach((line, index) => {
      const where = `${file}.wgsl:${index + 1}`;
      const [, directive, argument = ""] = /^\s*#(\w+)\s*(\w*)\s*$/.exec(line) ?? [];
      const active = open.every(Boolean);
      if (directive === "ifdef" || directive === "ifndef") open.push(argument in defines === (directive === "ifdef"));
      else if (directive === "else" || directive === "endif") {
        if (open.length === 0) throw new Error(`${where}: #${directive} without #ifdef or #ifndef`);
        const held = open.pop()!;
        if (directive === "else") open.push(!held);
      } else if (directive === "import") {
        if (active && !imported.has(argument)) {
          imported.add(argument);
          out.push(...expand(argument, where));
        }
      } else if (directive !== undefined) throw new Error(`${where}: unknown directive #${directive}`);
      else if (active) out.push(line);
    });
    if (open.length > 0) throw new Error(`${file}.wgsl: #ifdef or #ifndef without #endif`);
    return out;
  };

  const lines = expand(name, "assembleShader");
  const enables = [...new Set(lines.filter((line) => ENABLE.test(line)))];
  const body = lines.filter((line) => !ENABLE.test(line)).join("\n");
  const constants = Object.entries(defines).flatMap(([key, value]) =>
    value === true ? [] : [`const ${key} = ${value}u;`],
  );
  const code = [...enables, ...constants, body].join("\n");
  const overrides = [...code.matchAll(OVERRIDE)].map(([, override, type, fallback]) => ({
    name: override!,
    type: type as "u32" | "f32",
    fallback: fallback === undefined ? undefined : Number.parseFloat(fallback),
  }));
  const pattern = /@group\(0\)\s*@binding\((\d+)\)\s*var<storage,\s*(read|read_write)>\s*(\w+)/g;
  return {
    code,
    bindings: [...code.matchAll(pattern)].map(([, binding, access, variable]) => ({
      name: variable!,
      binding: Number(binding),
      access: access as "read" | "read_write",
    })),
    overrides,
  };
}

/** A directive of WGSL. */
const ENABLE = /^(?:enable|requires)\s[^;]*;/;

const OVERRIDE = /^override (\w+): (u32|f32)(?: = ([\d.]+)u?)?;.*$/gm;

/**
 * The same shader with some of its overrides (default: all) in a uniform instead of in pipeline constants; `overrides` of
 * the result are those. Constants let a GPU's compiler unroll loops and prove them finite; a uniform lets one pipeline serve
 * every shape, which is worth more where compiling a pipeline takes longer than running it a hundred times (software
 * adapters), and for values that no compiler could make use of.
 */
export function withUniforms(
  { code, bindings, overrides }: Shader,
  isUniform: (name: string) => boolean = () => true,
): Shader {
  const moved = overrides.filter(({ name }) => isUniform(name));
  if (moved.length === 0) return { code, bindings, overrides: [] };
  const fields = moved.map(({ name, type }) => `  ${name}: ${type},`);
  const declaration = [
    "struct Uniforms {",
    ...fields,
    "}",
    `@group(0) @binding(${UNIFORMS_BINDING}) var<uniform> uniforms: Uniforms;`,
  ].join("\n");
  const names = new RegExp(`\\b(${moved.map(({ name }) => name).join("|")})\\b`, "g");
  const body = code
    .replace(OVERRIDE, (line, name: string) => (isUniform(name) ? "" : line))
    .replace(names, "uniforms.$1");
  const lines = body.split("\n");
  const first = lines.findIndex((line) => !ENABLE.test(line));
  return { code: lines.toSpliced(first, 0, declaration).join("\n"), bindings, overrides: moved };
}

/** The values of overrides as the uniform's bytes, in the order of the declarations; a struct of scalars has no gaps. */
export function encodeUniforms(
  overrides: readonly ShaderOverride[],
  values: Readonly<Record<string, number>>,
): ArrayBuffer {
  const view = new DataView(new ArrayBuffer(Math.ceil(overrides.length / 4) * 16));
  overrides.forEach(({ name, type, fallback }, i) => {
    const value = values[name] ?? fallback;
    if (value === undefined) throw new Error(`a dispatch gives no value for the override ${name}`);
    if (type === "u32") view.setUint32(4 * i, value, true);
    else view.setFloat32(4 * i, value, true);
  });
  return view.buffer;
}
