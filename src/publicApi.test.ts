/** Every name of the package's faces says on hover what it is; what TypeScript shows there is what is asked here. */
import path from "node:path";
import { API, SymbolFlags, type Checker, type Type } from "typescript/unstable/sync";
import { expect, test } from "vitest";

const ROOT = path.resolve(import.meta.dirname, "..");

const FACES = ["index", "element", "react", "nodeEngine"];

/** A project of the faces alone is read in a second; one of everything takes three. */
function openFaces(): API {
  const config = path.join(ROOT, "faces.tsconfig.json");
  const files = FACES.map((face) => `src/${face}.ts`);
  const text = JSON.stringify({ extends: "./tsconfig.json", include: [], files });
  const api = new API({
    cwd: ROOT,
    fs: {
      readFile: (file) => (file === config ? text : undefined),
      fileExists: (file) => (file === config ? true : undefined),
    },
  });
  api.updateSnapshot({ openProjects: [config] });
  return api;
}

const isOurs = (file: string): boolean => file.includes("/src/") && !file.includes("/node_modules/");

/** Members of an interface, of a class, or of the objects of a union, as far as they are written in this project. */
function membersOf(type: Type, checker: Checker) {
  const types = type.isUnionType() ? type.getTypes() : [type];
  return types
    .flatMap((one) => checker.getPropertiesOfType(one))
    .filter(({ declarations }) => declarations.some((one) => isOurs(one.path)));
}

test("every public name has a docstring, and so has every member of it", () => {
  const api = openFaces();
  try {
    const [{ checker, program }] = api.updateSnapshot().getProjects();
    const seen: string[] = [];
    const bare = FACES.flatMap((face) => {
      const module = checker.getSymbolAtLocation(program.getSourceFile(path.join(ROOT, `src/${face}.ts`))!)!;
      return checker.getExportsOfModule(module).flatMap((exported) => {
        const symbol = exported.flags & SymbolFlags.Alias ? checker.getAliasedSymbol(exported) : exported;
        const members =
          symbol.flags & SymbolFlags.Type ? membersOf(checker.getDeclaredTypeOfSymbol(symbol), checker) : [];
        const named = [symbol, ...members].map((one) => ({
          name: one === symbol ? `${face}: ${exported.name}` : `${face}: ${exported.name}.${one.name}`,
          text: checker.getDocumentationCommentOfSymbol(one),
        }));
        seen.push(...named.map(({ name }) => name));
        return named.filter(({ text }) => text.trim() === "").map(({ name }) => name);
      });
    });
    expect(bare).toEqual([]);
    expect(seen).toEqual(
      expect.arrayContaining(["index: createEngine", "index: EngineOptions.model", "react: Mixdq.image"]),
    );
  } finally {
    api.close();
  }
});
