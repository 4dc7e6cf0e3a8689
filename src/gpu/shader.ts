/**
 * Shader text: #import, #ifdef, #else and #endif, and nothing else. A directive that makes no sense throws with file
 * and line. Bindings are read from the finished text, so a binding's number and access mode are written once, in WGSL.
 */

export interface ShaderBinding {
  readonly name: string;
  readonly binding: number;
  readonly access: "read" | "read_write";
}

export interface Shader {
  readonly code: string;
  readonly bindings: readonly ShaderBinding[];
}

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
      if (directive === "ifdef") open.push(argument in defines);
      else if (directive === "else" || directive === "endif") {
        if (open.length === 0) throw new Error(`${where}: #${directive} without #ifdef`);
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
    if (open.length > 0) throw new Error(`${file}.wgsl: #ifdef without #endif`);
    return out;
  };

  const body = expand(name, "assembleShader").join("\n");
  const constants = Object.entries(defines).flatMap(([key, value]) =>
    value === true ? [] : [`const ${key} = ${value}u;`],
  );
  const needsF16 = "ACT_F16" in defines || "WGT_F16" in defines;
  const code = [...(needsF16 ? ["enable f16;"] : []), ...constants, body].join("\n");
  const pattern = /@group\(0\)\s*@binding\((\d+)\)\s*var<storage,\s*(read|read_write)>\s*(\w+)/g;
  return {
    code,
    bindings: [...code.matchAll(pattern)].map(([, binding, access, variable]) => ({
      name: variable!,
      binding: Number(binding),
      access: access as "read" | "read_write",
    })),
  };
}
