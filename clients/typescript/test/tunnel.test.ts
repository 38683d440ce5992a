/** A tunnel through the real relay, as viewers and targets see it. */
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import http from "node:http";
import net from "node:net";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { test, type TestContext } from "node:test";
import { expose, type ExposeOptions, type Tunnel } from "adit-client";
import WebSocket, { WebSocketServer } from "ws";
import {
  DEADLINE,
  KEY,
  adit,
  freePort,
  httpTarget,
  settled,
  startRelay,
  tcpTarget,
  until,
  type Relay,
} from "./rig.js";

const sha = (data: Uint8Array): string => createHash("sha256").update(data).digest("hex");

async function open(t: TestContext, relay: Relay, options: ExposeOptions): Promise<Tunnel> {
  const tunnel = await expose({ relay: relay.url, key: KEY, host: "127.0.0.1", finishMs: 2_000, ...options });
  t.after(() => tunnel.close());
  return tunnel;
}

test("a GET is served", DEADLINE, async (t) => {
  const relay = await startRelay(t);
  const { port } = await httpTarget(t, (request, response) =>
    response.end(`you asked for ${request.url ?? ""}`),
  );
  const tunnel = await open(t, relay, { port, name: "web" });
  const response = await fetch(`${tunnel.url}/a?b=c`);
  assert.equal(await response.text(), "you asked for /a?b=c");
  assert.match(tunnel.url, /web/);
});

test("a Unix socket is served", DEADLINE, async (t) => {
  const relay = await startRelay(t);
  const path = join(relay.dataDir, "target.sock");
  const server = http.createServer((_, response) => response.end("from a socket")).listen(path);
  await once(server, "listening");
  t.after(() => server.close());
  const tunnel = await open(t, relay, { path });
  assert.equal(await (await fetch(tunnel.url)).text(), "from a socket");
});

test("20 MB go up and down unharmed", DEADLINE, async (t) => {
  const relay = await startRelay(t);
  const { port } = await httpTarget(t, (request, response) => void pipeline(request, response));
  const tunnel = await open(t, relay, { port });
  const body = randomBytes(20 * 1024 * 1024);
  const response = await fetch(tunnel.url, { method: "POST", body });
  assert.equal(sha(new Uint8Array(await response.arrayBuffer())), sha(body));
});

test("chunks come while the request is still being sent", DEADLINE, async (t) => {
  const relay = await startRelay(t);
  const { port } = await httpTarget(t, (request, response) => {
    assert.equal(request.headers["transfer-encoding"], "chunked");
    void pipeline(request, response);
  });
  const tunnel = await open(t, relay, { port });
  const request = http.request(tunnel.url, { method: "POST" });
  request.write("one");
  const [response] = (await once(request, "response")) as [http.IncomingMessage];
  assert.equal(String((await once(response, "data"))[0]), "one");
  request.write("two");
  assert.equal(String((await once(response, "data"))[0]), "two");
  request.end();
  await once(response.resume(), "end");
});

test("a WebSocket passes", DEADLINE, async (t) => {
  const relay = await startRelay(t);
  const { port, server } = await httpTarget(t, (_, response) => response.end());
  new WebSocketServer({ server }).on("connection", (ws) =>
    ws.on("message", (data: Buffer, binary) => ws.send(data, { binary })),
  );
  const tunnel = await open(t, relay, { port });
  const viewer = new WebSocket(tunnel.url.replace(/^http/, "ws"));
  await once(viewer, "open");
  for (const text of ["hello", "x".repeat(200_000)]) {
    viewer.send(text);
    assert.equal(String((await once(viewer, "message"))[0]), text);
  }
  viewer.close(4000, "enough");
  assert.equal((await once(viewer, "close"))[0], 4000);
});

test("50 viewers are served at the same time", DEADLINE, async (t) => {
  const relay = await startRelay(t);
  const waiting: http.ServerResponse[] = [];
  const { port } = await httpTarget(t, (_, response) => {
    waiting.push(response);
    if (waiting.length === 50) waiting.forEach((it, i) => it.end(String(i)));
  });
  const tunnel = await open(t, relay, { port });
  const answers = await Promise.all(Array.from({ length: 50 }, async () => (await fetch(tunnel.url)).text()));
  assert.deepEqual(new Set(answers), new Set(Array.from({ length: 50 }, (_, i) => String(i))));
});

test("a target that refuses is a 502 that names it", DEADLINE, async (t) => {
  const relay = await startRelay(t);
  const port = await freePort();
  const tunnel = await open(t, relay, { port });
  const response = await fetch(tunnel.url);
  assert.equal(response.status, 502);
  assert.match(await response.text(), new RegExp(`cannot reach the target at 127.0.0.1:${port}: .*REFUSED`));
});

test("a viewer that leaves is told to the target", DEADLINE, async (t) => {
  const relay = await startRelay(t);
  let gone = false;
  const { port } = await httpTarget(t, (_, response) => {
    response.write("and so on");
    response.once("close", () => (gone = true));
  });
  const tunnel = await open(t, relay, { port });
  const viewer = new AbortController();
  const response = await fetch(tunnel.url, { signal: viewer.signal });
  await response.body?.getReader().read();
  viewer.abort();
  await until(() => gone);
});

test("each direction ends by itself", DEADLINE, async (t) => {
  const ports = await freePort();
  const relay = await startRelay(t, ["--tcp-ports", `${ports}-${ports}`]);
  const port = await tcpTarget(t, (socket) => {
    let length = 0;
    socket.on("data", (chunk) => (length += chunk.length));
    socket.on("end", () => socket.end(`got ${length}`));
  });
  const tunnel = await open(t, relay, { port, create: { proto: "tcp" } });
  assert.equal(tunnel.url, `tcp://127.0.0.1:${ports}`);
  const viewer = net.connect({ port: ports, host: "127.0.0.1", allowHalfOpen: true });
  viewer.end(Buffer.alloc(3_000_000));
  let text = "";
  for await (const chunk of viewer) text += String(chunk);
  assert.equal(text, "got 3000000");
});

test("an early answer reaches a viewer that still sends", DEADLINE, async (t) => {
  const relay = await startRelay(t);
  const { port } = await httpTarget(t, (_, response) => {
    response.writeHead(413, { connection: "close" }).end("too much");
  });
  const tunnel = await open(t, relay, { port });
  const request = http.request(tunnel.url, { method: "POST", headers: { "content-length": 5_000_000 } });
  request.on("error", () => undefined);
  request.write(Buffer.alloc(1_000_000));
  const [response] = (await once(request, "response")) as [http.IncomingMessage];
  assert.equal(response.statusCode, 413);
  request.destroy();
});

for (const signal of ["SIGKILL", "SIGTERM"] as const)
  test(`the URL outlives a relay that ends by ${signal}`, DEADLINE, async (t) => {
    const relay = await startRelay(t);
    const { port } = await httpTarget(t, (_, response) => response.end("here"));
    const tunnel = await open(t, relay, { port }); // the name is made up by the relay
    const url = tunnel.url;
    const back = once(tunnel, "offline").then(() => once(tunnel, "online"));
    await relay.stop(signal);
    await startRelay(t, [], relay);
    await back;
    assert.equal(tunnel.url, url);
    assert.equal(await (await fetch(url)).text(), "here");
  });

test("a relay that stops lets a running answer finish", DEADLINE, async (t) => {
  const relay = await startRelay(t);
  const answers: http.ServerResponse[] = [];
  const { port } = await httpTarget(t, (_, response) => {
    response.write("begun, ");
    answers.push(response);
  });
  const lines: string[] = [];
  const tunnel = await open(t, relay, { port, log: (line) => lines.push(line) });
  const response = await fetch(tunnel.url);
  const stopped = relay.stop("SIGTERM");
  await until(() => lines.some((line) => line.includes("about to stop")));
  answers[0]?.end("done");
  assert.equal(await response.text(), "begun, done");
  await stopped;
});

test("close() lets a running answer finish, and then ends the tunnel", DEADLINE, async (t) => {
  const relay = await startRelay(t);
  const answers: http.ServerResponse[] = [];
  const { port } = await httpTarget(t, (_, response) => {
    response.write("begun, ");
    answers.push(response);
  });
  const tunnel = await open(t, relay, { port, finishMs: 30_000 });
  const response = await fetch(tunnel.url);
  const closed = tunnel.close();
  answers[0]?.end("done");
  assert.equal(await response.text(), "begun, done");
  await closed;
  await tunnel.closed;
  assert.equal((await fetch(tunnel.url)).status, 404);
});

test("a second client of the key ends the first for good", DEADLINE, async (t) => {
  const relay = await startRelay(t);
  const first = await open(t, relay, { port: 1, name: "web" });
  await open(t, relay, { port: 1, name: "web" });
  await assert.rejects(first.closed, { name: "AditError", code: "replaced", final: true });
});

test("a deleted tunnel is not made again", DEADLINE, async (t) => {
  const relay = await startRelay(t);
  const tunnel = await open(t, relay, { port: 1, name: "web" });
  const headers = { authorization: `Bearer ${KEY}` };
  await fetch(`${relay.url}/v1/tunnels/${tunnel.id}`, { method: "DELETE", headers });
  await assert.rejects(tunnel.closed, { code: "deleted" });
  const left = (await (await fetch(`${relay.url}/v1/tunnels`, { headers })).json()) as unknown[];
  assert.deepEqual(left, []);
});

test("a name of another key is not taken, nor is another one", DEADLINE, async (t) => {
  const relay = await startRelay(t);
  await open(t, relay, { port: 1, name: "web" });
  const key = await adit("token", "mint", "--sub", "other");
  await assert.rejects(open(t, relay, { port: 1, name: "web", key }), { code: "name_taken", final: true });
});

test("a token is replaced before it ends, and no stream is touched", DEADLINE, async (t) => {
  const relay = await startRelay(t);
  let asked = 0;
  const key = async (): Promise<string> => {
    asked += 1;
    return adit("token", "mint", "--sub", "me", "--ttl", asked === 1 ? "4s" : "1h");
  };
  const answers: http.ServerResponse[] = [];
  const { port } = await httpTarget(t, (_, response) => {
    response.write("begun, ");
    answers.push(response);
  });
  const tunnel = await open(t, relay, { port, key });
  tunnel.on("offline", (error) => assert.fail(error));
  const ends = Date.now() + 5_000; // the token's own clock, which is the relay's
  const response = await fetch(tunnel.url);
  await until(() => Date.now() > ends);
  answers[0]?.end("done");
  assert.equal(await response.text(), "begun, done");
  assert.equal(asked, 2);
  tunnel.removeAllListeners("offline");
});

test("a viewer that does not read holds up the target, and no memory", DEADLINE, async (t) => {
  const relay = await startRelay(t, ["--tcp-ports", await freePort().then((it) => `${it}-${it}`)]);
  let written = 0;
  const port = await tcpTarget(t, (socket) => {
    const more = (): void => {
      while (written < 512e6) {
        written += 65_536;
        if (!socket.write(Buffer.alloc(65_536))) return void socket.once("drain", more);
      }
    };
    more();
  });
  const tunnel = await open(t, relay, { port, create: { proto: "tcp" } });
  const viewer = net.connect(Number(new URL(tunnel.url).port), "127.0.0.1").pause();
  viewer.on("error", () => undefined);
  t.after(() => viewer.destroy());
  assert((await settled(() => written)) < 64e6);
});

test("a target that does not read holds up the viewer, and no memory", DEADLINE, async (t) => {
  const relay = await startRelay(t, ["--tcp-ports", await freePort().then((it) => `${it}-${it}`)]);
  const port = await tcpTarget(t, (socket) => socket.pause());
  const tunnel = await open(t, relay, { port, create: { proto: "tcp" } });
  const viewer = net.connect(Number(new URL(tunnel.url).port), "127.0.0.1");
  viewer.on("error", () => undefined);
  t.after(() => viewer.destroy());
  let written = 0;
  const more = (): void => {
    while (written < 512e6) {
      written += 65_536;
      if (!viewer.write(Buffer.alloc(65_536))) return void viewer.once("drain", more);
    }
  };
  more();
  assert((await settled(() => written)) < 64e6);
});

test("what is missing is said before anything is tried", async () => {
  const usage = { name: "AditError", code: "usage" };
  await assert.rejects(expose({ port: 3000, key: KEY, relay: "relay.example" }), usage);
  await assert.rejects(expose({ port: 0, key: KEY, relay: "http://127.0.0.1:1" }), usage);
  await assert.rejects(expose({ port: 1, key: "a\nb", relay: "http://127.0.0.1:1" }), usage);
});

test("a relay that cannot be reached is given up after the start", DEADLINE, async () => {
  const relay = `http://127.0.0.1:${await freePort()}`;
  await assert.rejects(expose({ port: 3000, key: KEY, relay, startMs: 500 }), { code: "unreachable" });
});
