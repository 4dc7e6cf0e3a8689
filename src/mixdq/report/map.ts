/**
 * The UNet as a map, one cell a layer, coloured by its bits: the way down on the left, the way up on the right, what they
 * exchange over the skips side by side.
 */
import { escape } from "./html.ts";
import { groupBy, inNetworkOrder, placeOf } from "./place.ts";

export interface MapLayer {
  readonly weightBits: number;
  readonly actBits: number;
  /** What a pointer on the cell shows, below the path. */
  readonly note: string;
}

const CELL = 12;
const GAP = 2;
const STEP = CELL + GAP;
/** Between resnets, transformers and samplers. */
const UNIT_GAP = 6;
const LABEL = 18;
const CAPTION = 13;
const BLOCK_GAP = 20;
const SIDE_GAP = 44;
/** How wide letters of block titles and of captions are on average, at most. */
const TITLE_LETTER = 7.4;
const LETTER = 5;

interface Block {
  readonly svg: string;
  readonly width: number;
  readonly height: number;
}

export function unetMap(layers: ReadonlyMap<string, MapLayer>): string {
  const byBlock = groupBy(inNetworkOrder(layers.keys()), (path) => placeOf(path).block);
  const draw = (name: string): Block => drawBlock(name, byBlock.get(name) ?? [], layers);
  const names = [...byBlock.keys()];
  const down = names.filter((name) => name.startsWith("down_blocks."));
  const up = names.filter((name) => name.startsWith("up_blocks."));
  const middle = names.filter((name) => name === "mid_block");
  const isEnd = (name: string): boolean => ["conv_out"].includes(name);
  const others = names.filter((name) => ![...down, ...up, ...middle].includes(name));
  const left = others.filter((name) => !isEnd(name));
  const right = others.filter(isEnd);

  // The last way up lies beside the first way down.
  const rows = Array.from({ length: Math.max(down.length, up.length) }, (_, i) => [
    down[i] === undefined ? undefined : draw(down[i]),
    up[up.length - 1 - i] === undefined ? undefined : draw(up[up.length - 1 - i]),
  ]);
  const ends = [left.map(draw), right.map(draw)];
  const rowWidth = (blocks: readonly Block[]): number =>
    blocks.reduce((sum, { width }) => sum + width + BLOCK_GAP, -BLOCK_GAP);
  const leftWidth = Math.max(0, rowWidth(ends[0]), ...rows.map(([block]) => block?.width ?? 0));
  const rightWidth = Math.max(0, rowWidth(ends[1]), ...rows.map(([, block]) => block?.width ?? 0));
  const width = leftWidth + SIDE_GAP + rightWidth;

  const parts: string[] = [];
  let y = 0;
  const put = (block: Block, x: number): void => {
    parts.push(`<g transform="translate(${x} ${y})">${block.svg}</g>`);
  };
  const advance = (blocks: readonly (Block | undefined)[]): void => {
    y += Math.max(0, ...blocks.map((block) => block?.height ?? 0)) + BLOCK_GAP;
  };
  for (const [side, blocks] of ends.entries()) {
    let x = side === 0 ? leftWidth - rowWidth(blocks) : leftWidth + SIDE_GAP;
    for (const block of blocks) {
      put(block, x);
      x += block.width + BLOCK_GAP;
    }
  }
  if (others.length > 0) advance(ends.flat());
  for (const [first, second] of rows) {
    if (first) put(first, leftWidth - first.width);
    if (second) put(second, leftWidth + SIDE_GAP);
    if (first && second) {
      const at = y + LABEL + (Math.min(first.height, second.height) - LABEL) / 2;
      parts.push(`<path class="skip" d="M${leftWidth + 6} ${at}h${SIDE_GAP - 12}m-5 -4l5 4l-5 4"/>`);
    }
    advance([first, second]);
  }
  for (const name of middle) {
    const block = draw(name);
    put(block, Math.max(0, leftWidth + SIDE_GAP / 2 - block.width / 2));
    advance([block]);
  }
  // Neither unreadable on a phone nor giant for a small model.
  const size = `min-width:${Math.round(0.75 * width)}px;max-width:${Math.round(1.25 * width)}px`;
  return (
    `<svg class="map" viewBox="-2 0 ${Math.ceil(width) + 4} ${Math.ceil(y - BLOCK_GAP) + 2}" style="${size}" role="img" ` +
    `aria-label="Bits of every layer of the UNet">${parts.join("\n")}</svg>`
  );
}

function drawBlock(name: string, paths: readonly string[], layers: ReadonlyMap<string, MapLayer>): Block {
  const parts = [`<text class="block" x="0" y="11">${escape(name)}</text>`];
  const units = groupBy(groupBy(paths, columnOf), ([column]) => column.split(".").slice(0, 2).join("."));
  const top = LABEL + (units.has("") ? 0 : CAPTION);
  let [x, width, tallest] = [0, name.length * TITLE_LETTER, 0];
  for (const [unit, columns] of units) {
    const room = columns.length * STEP + UNIT_GAP;
    const caption = captionOf(unit, room);
    if (caption !== "") parts.push(`<text class="unit" x="${x}" y="${LABEL + 9}">${escape(caption)}</text>`);
    for (const [column, [, own]] of columns.entries()) {
      for (const [row, path] of own.entries())
        parts.push(drawCell(path, x + column * STEP, top + row * STEP, layers.get(path)!));
      tallest = Math.max(tallest, own.length);
    }
    width = Math.max(width, x + room - UNIT_GAP - GAP, x + widthOf(caption));
    x += Math.max(room, widthOf(caption));
  }
  return { svg: parts.join(""), width, height: top + tallest * STEP - GAP };
}

/** What stands above a unit's columns, as long as there is room for it: "attention 0", "attn 0", "a0". */
function captionOf(unit: string, room: number): string {
  const [kind = "", index = ""] = unit.split(".");
  const words = { resnets: ["r"], attentions: ["attention ", "attn ", "a"] }[kind];
  if (!words) return kind.replace("samplers", "");
  const captions = words.map((word) => `${word}${index}`);
  return captions.find((caption) => widthOf(caption) <= room) ?? captions.at(-1)!;
}

function widthOf(caption: string): number {
  return caption === "" ? 0 : caption.length * LETTER + GAP;
}

/** Layers of one column: a resnet, a transformer block, or what a transformer has around its blocks. */
function columnOf(path: string): string {
  const { unit, type } = placeOf(path);
  return type === "proj_out" ? `${unit}.out` : unit;
}

function drawCell(path: string, x: number, y: number, { weightBits, actBits, note }: MapLayer): string {
  const dot = actBits === 16 && weightBits !== 16 ? `<circle cx="${x + CELL / 2}" cy="${y + CELL / 2}" r="2.2"/>` : "";
  const title = `<title>${escape(`${path}\n${note}`)}</title>`;
  return `<g class="cell b${weightBits}">${title}<rect x="${x}" y="${y}" width="${CELL}" height="${CELL}" rx="2"/>${dot}</g>`;
}
