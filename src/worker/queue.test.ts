import { expect, test } from "vitest";
import { MixdqError } from "../base/errors.ts";
import { Queue } from "./queue.ts";

const aborted = () => Promise.reject(new MixdqError("aborted", "The run was cancelled."));

test("a second job while one runs is refused with busy", async () => {
  const queue = new Queue();
  const first = queue.run(() => new Promise((resolve) => setTimeout(resolve, 20, "first")));
  await expect(queue.run(async () => "second")).rejects.toMatchObject({ code: "busy" });
  await expect(first).resolves.toBe("first");
  await expect(queue.run(async () => "third")).resolves.toBe("third");
});

test("a failed job does not block the next", async () => {
  const queue = new Queue();
  await expect(queue.run(() => Promise.reject(new Error("broken")))).rejects.toThrow("broken");
  await expect(queue.run(async () => 1)).resolves.toBe(1);
});

test("an aborted job settles at once when its work does", async () => {
  const controller = new AbortController();
  const work = () =>
    new Promise<never>((_, reject) => controller.signal.addEventListener("abort", () => aborted().catch(reject)));
  const job = new Queue().run(work, controller.signal);
  const start = performance.now();
  controller.abort();
  await expect(job).rejects.toMatchObject({ code: "aborted" });
  expect(performance.now() - start).toBeLessThan(100);
});

test("an aborted job settles within 250 ms even when its work does not, and the next one waits for it", async () => {
  const queue = new Queue();
  const controller = new AbortController();
  const log: string[] = [];
  const slow = () => new Promise<void>((resolve) => setTimeout(() => (log.push("slow ended"), resolve()), 500));
  const job = queue.run(slow, controller.signal);
  await Promise.resolve().then(() => {}); // let it start
  const start = performance.now();
  controller.abort();
  await expect(job).rejects.toMatchObject({ code: "aborted" });
  expect(performance.now() - start).toBeLessThan(250);
  await queue.run(async () => void log.push("next ran"));
  expect(log).toEqual(["slow ended", "next ran"]);
});

test("a signal that has already fired starts nothing", async () => {
  let started = false;
  const job = new Queue().run(async () => (started = true), AbortSignal.abort());
  await expect(job).rejects.toMatchObject({ code: "aborted" });
  expect(started).toBe(false);
});
