import { expect, test } from "vitest";
import { MixdqError, throwIfAborted } from "./errors.ts";
import { Queue, soonAfterAbort } from "./queue.ts";

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

test("abort and the next job in the same tick: never busy, in whatever state the job is that it replaces", async () => {
  const queue = new Queue();
  const log: string[] = [];
  const job = (name: string, signal?: AbortSignal): Promise<string> =>
    queue.run(async () => {
      log.push(name);
      await new Promise((resolve) => setTimeout(resolve, 30));
      throwIfAborted(signal);
      return name;
    }, signal);
  const cancelled: Promise<string>[] = [];
  for (let i = 0; i < 6; i++) {
    const controller = new AbortController();
    const running = job(`${i}`, controller.signal);
    running.catch(() => {});
    cancelled.push(running);
    if (i % 2 === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    controller.abort();
  }
  await expect(job("last")).resolves.toBe("last");
  for (const each of cancelled) await expect(each).rejects.toMatchObject({ code: "aborted" });
  expect(log).toContain("0");
  expect(log.at(-1)).toBe("last");
});

test("one that is aborted while it waits for its turn settles at once, and never begins", async () => {
  const queue = new Queue();
  const [first, second] = [new AbortController(), new AbortController()];
  let end = (): void => {};
  queue.run(() => new Promise<void>((resolve) => (end = resolve)), first.signal).catch(() => {});
  await Promise.resolve();
  first.abort();
  let hasBegun = false;
  const waiting = queue.run(async () => (hasBegun = true), second.signal);
  second.abort();
  await expect(waiting).rejects.toMatchObject({ code: "aborted" });
  end();
  await queue.run(async () => {});
  expect(hasBegun).toBe(false);
});

test("a result that arrives after the abort is not given out", async () => {
  const controller = new AbortController();
  const late = soonAfterAbort(Promise.resolve("late"), controller.signal);
  controller.abort();
  await expect(late).rejects.toMatchObject({ code: "aborted" });
});
