import { expect, test } from "vitest";
import { placeLabels } from "./marks.ts";

const label = { x: 0, y: 0, width: 40, height: 15 };
const mark = (x: number, y: number) => ({ rect: { x: x - 4, y: y - 4, width: 8, height: 8 }, labelRect: label });

test("a label stands on the first side that is free: on the chart, off the axis, off labels and marks", () => {
  const beside = placeLabels({ width: 400, height: 300 }, { left: 60, bottom: 0 }).beside([
    "right",
    "left",
    "above",
    "below",
  ]);
  expect(beside(mark(200, 100))).toEqual({ x: 209, y: 100, align: "left", verticalAlign: "middle" });
  // The first one's label is in the way.
  expect(beside(mark(205, 110))).toMatchObject({ x: 196, y: 110, align: "right" });
  expect(beside(mark(385, 200))).toMatchObject({ x: 376, align: "right" });
  expect(beside(mark(70, 250))).toMatchObject({ x: 79, align: "left" });
});

test("where all sides are taken, a label moves on by lines, and stays in sight", () => {
  const place = placeLabels({ width: 400, height: 300 }, { left: 0, bottom: 10 });
  place.avoid({ x: 205, y: 80, width: 60, height: 40 });
  const beside = place.beside(["right"]);
  expect(beside(mark(200, 100))).toMatchObject({ x: 209, y: 130 });
  expect(beside(mark(200, 100))).toMatchObject({ x: 209, y: 70 });
  // A label may lie across the lower axis, not on its numbers.
  expect(beside(mark(200, 290))).toMatchObject({ y: 290 });
  expect(beside(mark(300, 291))).toMatchObject({ y: 276 });
  place.avoid({ x: 0, y: 0, width: 400, height: 300 });
  expect(beside(mark(200, 200))).toMatchObject({ x: 209, y: 200 });
});
