/** The command: what it prints where, and its exit codes. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { DEADLINE, KEY, freePort, httpTarget, startRelay } from "./rig.js";

const CLI = fileURLToPath(new URL("../dist/cli.js", import.meta.url));

async function run(
  env: NodeJS.ProcessEnv,
  ...args: string[]
): Promise<{ code: number; out: string; err: string }> {
  const child = spawn(process.execPath, [CLI, ...args], { env: { ...process.env, ...env } });
  let [out, err] = ["", ""];
  child.stdout.on("data", (chunk: Buffer) => (out += chunk.toString()));
  child.stderr.on("data", (chunk: Buffer) => (err += chunk.toString()));
  const [code] = (await once(child, "close")) as [number];
  return { code, out, err };
}

test("the URL is the first line, and a signal ends it in order", DEADLINE, async (t) => {
  const relay = await startRelay(t);
  const { port } = await httpTarget(t, (_, response) => response.end("here"));
  const env = { ...process.env, ADIT_RELAY: relay.url, ADIT_KEY: KEY, ADIT_TARGET: `127.0.0.1:${port}` };
  const child = spawn(process.execPath, [CLI, "--name", "web"], {
    env,
    stdio: ["ignore", "pipe", "inherit"],
  });
  t.after(() => child.kill("SIGKILL"));
  const [url] = (await once(createInterface({ input: child.stdout }), "line")) as [string];
  assert.equal(await (await fetch(url)).text(), "here");
  child.kill("SIGTERM");
  assert.equal((await once(child, "exit"))[0], 0);
  assert.equal((await fetch(url)).status, 404);
});

test("the example with Express serves, and ends in order", DEADLINE, async (t) => {
  const relay = await startRelay(t);
  const example = fileURLToPath(new URL("../examples/express.js", import.meta.url));
  const env = { ...process.env, ADIT_RELAY: relay.url, ADIT_KEY: KEY };
  const child = spawn(process.execPath, [example], { env, stdio: ["ignore", "pipe", "inherit"] });
  t.after(() => child.kill("SIGKILL"));
  const [url] = (await once(createInterface({ input: child.stdout }), "line")) as [string];
  assert.equal(await (await fetch(url)).text(), "Hello 127.0.0.1, you came by http.\n");
  child.kill("SIGINT");
  assert.equal((await once(child, "exit"))[0], 0);
});

test("exit codes tell what went wrong, and nothing of it is on stdout", DEADLINE, async (t) => {
  const relay = await startRelay(t);
  const env = { ADIT_RELAY: relay.url, ADIT_KEY: "of-nobody-012345678901234567890" };
  const refused = await run(env, "--port", "3000");
  assert.deepEqual([refused.code, refused.out], [77, ""]);
  assert.match(refused.err, /key/);
  assert.equal((await run(env, "--port", "nonsense")).code, 2);
  assert.equal((await run(env, "--nonsense")).code, 2);
  const away = await run({ ...env, ADIT_RELAY: `http://127.0.0.1:${await freePort()}` }, "--port", "3000");
  assert.equal(away.code, 69);
  assert.match(away.err, /cannot reach the relay/);
});
