/** What the tests stand on: the real relay (ADIT_BIN), targets, and waits that have an end. */
import assert from "node:assert/strict";
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import http from "node:http";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import type { TestContext } from "node:test";

export const KEY = "012345678901234567890123456789";
export const SECRET = "a secret of the relay that is long enough";
/** For one test. */
export const DEADLINE = { timeout: 60_000 };

const bin = process.env.ADIT_BIN ?? "";
assert(bin, "set ADIT_BIN to the relay's program, such as ../../target/debug/adit");

export interface Relay {
  url: string;
  port: number;
  dataDir: string;
  process: ChildProcess;
  /** Sends a signal and waits for the end. */
  stop: (signal?: NodeJS.Signals) => Promise<void>;
}

/** Starts a relay that ends with the test; `like` is one whose place it takes. */
export async function startRelay(t: TestContext, args: string[] = [], like?: Relay): Promise<Relay> {
  const dataDir = like?.dataDir ?? (await mkdtemp(join(tmpdir(), "adit-ts-")));
  const listen = ["--listen", `127.0.0.1:${like?.port ?? 0}`, "--admin-listen", "127.0.0.1:0"];
  const env = { ...process.env, ADIT_KEYS: `me:${KEY}`, ADIT_JWT_SECRET: SECRET };
  const child = spawn(bin, ["relay", ...listen, "--data-dir", dataDir, ...args], {
    env,
    stdio: ["ignore", "ignore", "pipe"],
  });
  const ended = once(child, "exit");
  const stop = async (signal: NodeJS.Signals = "SIGKILL"): Promise<void> => {
    child.kill(signal);
    await ended;
  };
  t.after(async () => {
    await stop();
    await rm(dataDir, { recursive: true, force: true });
  });
  const said: string[] = [];
  const url = await new Promise<string>((resolve, reject) => {
    createInterface({ input: child.stderr }).on("line", (line) => {
      said.push(line);
      const ready = /relay ready url="([^"]+)"/.exec(line);
      if (ready?.[1]) resolve(ready[1]);
    });
    child.once("exit", () => reject(new Error(`the relay did not start:\n${said.join("\n")}`)));
  });
  return { url, port: Number(new URL(url).port), dataDir, process: child, stop };
}

/** What `adit ARGS` prints. */
export async function adit(...args: string[]): Promise<string> {
  const child = spawn(bin, args, {
    env: { ...process.env, ADIT_JWT_SECRET: SECRET },
    stdio: ["ignore", "pipe", "inherit"],
  });
  let text = "";
  child.stdout.on("data", (chunk: Buffer) => (text += chunk.toString()));
  await once(child, "close");
  return text.trim();
}

async function listening(t: TestContext, server: net.Server): Promise<number> {
  const sockets = new Set<net.Socket>();
  server.on("connection", (socket) => {
    sockets.add(socket);
    socket.on("error", () => undefined);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    server.close();
    for (const socket of sockets) socket.destroy();
  });
  return (server.address() as net.AddressInfo).port;
}

export async function httpTarget(
  t: TestContext,
  listener: http.RequestListener,
): Promise<{ port: number; server: http.Server }> {
  const server = http.createServer(listener);
  return { port: await listening(t, server), server };
}

export async function tcpTarget(t: TestContext, listener: (socket: net.Socket) => void): Promise<number> {
  return listening(t, net.createServer({ allowHalfOpen: true }, listener));
}

/** A port where nobody listens. */
export async function freePort(): Promise<number> {
  const server = net.createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as net.AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}

/** Asks again and again until it holds; the test's own deadline is the end. */
export async function until(holds: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await holds())) await sleep(20);
}

/** What a number comes to when it no longer moves. */
export async function settled(count: () => number): Promise<number> {
  for (let last = -1, calm = 0; ; last = count()) {
    calm = count() === last ? calm + 1 : 0;
    if (calm === 20 && last > 0) return last;
    await sleep(20);
  }
}
