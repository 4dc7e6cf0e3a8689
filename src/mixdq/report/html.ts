/** Text that becomes HTML or SVG: names come from files, and may hold anything. */
export function escape(text: string): string {
  return text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}

/** What a cell says, perhaps with something smaller beside it. */
export type Cell = string | { readonly text: string; readonly note: string };

/** A table; the first column is text, the others are numbers. */
export function table(head: readonly string[], rows: readonly (readonly Cell[])[], className = ""): string {
  const content = (cell: Cell): string =>
    typeof cell === "string" ? escape(cell) : `${escape(cell.text)} <small>${escape(cell.note)}</small>`;
  const cells = (tag: "th" | "td", row: readonly Cell[]): string =>
    `<tr>${row.map((cell) => `<${tag}>${content(cell)}</${tag}>`).join("")}</tr>`;
  const body = rows.map((row) => cells("td", row)).join("\n");
  return `<div class="scroll"><table class="${className}"><thead>${cells("th", head)}</thead><tbody>\n${body}\n</tbody></table></div>`;
}

/** 1234567 as "1.2 M". */
export function short(count: number): string {
  for (const [unit, size] of [
    ["G", 1e9],
    ["M", 1e6],
    ["k", 1e3],
  ] as const)
    if (count >= size) return `${(count / size).toFixed(count < 10 * size ? 2 : 1)} ${unit}`;
  return `${count}`;
}
