/** What the client does at the wire, seen by a relay that plays a part. */
import assert from "node:assert/strict";
import { once } from "node:events";
import http from "node:http";
import net from "node:net";
import { test, type TestContext } from "node:test";
import { expose, type ExposeOptions, type Tunnel } from "adit-client";
import WebSocket, { WebSocketServer } from "ws";
import { DEADLINE, KEY, freePort, tcpTarget } from "./rig.js";

interface Seen {
  ws: WebSocket;
  query: URLSearchParams;
  path: string;
  key: string | undefined;
}

/** A queue of what came, to be waited for. */
class Queue<T> {
  readonly #items: T[] = [];
  readonly #waiting: ((item: T) => void)[] = [];
  put(item: T): void {
    const taker = this.#waiting.shift();
    if (taker) taker(item);
    else this.#items.push(item);
  }
  async take(): Promise<T> {
    return this.#items.shift() ?? new Promise((resolve) => this.#waiting.push(resolve));
  }
}

/** Speaks as much of protocol.md as a test says. */
class Script {
  readonly calls = new Queue<{ method: string; path: string; body: Record<string, unknown> }>();
  readonly controls = new Queue<Seen>();
  readonly datas = new Queue<Seen>();
  /** Answers creations. */
  answer = (): [number, object] => [
    201,
    { id: "an id/é", slug: "made-up", public_url: "http://viewers.example" },
  ];
  url = "";

  constructor(
    t: TestContext,
    readonly level: 1 | 2,
    readonly welcome: object = {},
    autoPong = true,
  ) {
    const server = http.createServer((request, response) => {
      let text = "";
      request.on("data", (chunk: Buffer) => (text += chunk.toString()));
      request.on("end", () => {
        const body = JSON.parse(text || "{}") as Record<string, unknown>;
        this.calls.put({ method: request.method ?? "", path: request.url ?? "", body });
        const [status, answer] = request.method === "POST" ? this.answer() : [204, {}];
        response.writeHead(status, { "content-type": "application/json" });
        response.end(status === 204 ? "" : JSON.stringify(answer));
      });
    });
    const wss = new WebSocketServer({
      noServer: true,
      autoPong,
      handleProtocols: (offered) => (level === 2 && offered.has("adit.1") ? "adit.1" : false),
    });
    server.on("upgrade", (request, socket, head) =>
      wss.handleUpgrade(request, socket, head, (ws) => {
        const { pathname: path, searchParams: query } = new URL(request.url ?? "", "http://relay");
        const seen = { ws, query, path, key: request.headers.authorization };
        assert.equal(request.headers["sec-websocket-extensions"], undefined);
        if (path === "/ws/data") this.datas.put(seen);
        else if (level === 1 && "bun" in process.versions && request.headers["sec-websocket-protocol"]) {
          ws.terminate(); // it drops this one and comes again, see Tunnel
        } else {
          if (level === 2) say(ws, { type: "welcome", session: "one session", ...welcome });
          this.controls.put(seen);
        }
      }),
    );
    t.after(() => {
      server.close();
      for (const ws of wss.clients) ws.terminate();
      server.closeAllConnections();
    });
    this.#listening = once(server.listen(0, "127.0.0.1"), "listening").then(() => {
      this.url = `http://127.0.0.1:${(server.address() as net.AddressInfo).port}`;
    });
  }
  readonly #listening: Promise<void>;

  async expose(t: TestContext, options: ExposeOptions): Promise<Tunnel> {
    await this.#listening;
    const tunnel = await expose({ relay: this.url, key: KEY, host: "127.0.0.1", finishMs: 100, ...options });
    tunnel.closed.catch(() => undefined);
    t.after(() => tunnel.close());
    return tunnel;
  }
}

const say = (ws: WebSocket, message: object): void => ws.send(JSON.stringify(message));
const heard = async (ws: WebSocket): Promise<Buffer> => ((await once(ws, "message")) as [Buffer])[0];
/** A target that says what it was sent, and that it was ended. */
const echo = (t: TestContext): Promise<number> => tcpTarget(t, (socket) => socket.pipe(socket));

test("at base level an id is escaped, and no key goes with it", DEADLINE, async (t) => {
  const script = new Script(t, 1);
  await script.expose(t, { port: await echo(t) });
  const control = await script.controls.take();
  assert.deepEqual([control.query.get("tunnel_id"), control.key], ["an id/é", `Bearer ${KEY}`]);
  control.ws.send("{no json");
  control.ws.send(Buffer.from([0xff]));
  control.ws.send("null");
  say(control.ws, { type: "of-tomorrow", id: 7 });
  say(control.ws, { type: "drain", reconnect_ms: 0 }); // means nothing here
  say(control.ws, { type: "connection", id: "a b&c=d/é#?", and: "more" });
  const data = await script.datas.take();
  assert.deepEqual([data.query.get("id"), data.key], ["a b&c=d/é#?", undefined]);
  data.ws.send(Buffer.alloc(0)); // means nothing here
  data.ws.send("text, too");
  assert.equal(String(await heard(data.ws)), "text, too");
});

test("at base level the first end closes, after the last byte", DEADLINE, async (t) => {
  const script = new Script(t, 1);
  const port = await tcpTarget(t, (socket) => socket.end(Buffer.alloc(1_000_000)));
  await script.expose(t, { port });
  say((await script.controls.take()).ws, { type: "connection", id: "1" });
  const data = await script.datas.take();
  let length = 0;
  data.ws.on("message", (chunk: Buffer) => (length += chunk.length));
  assert.equal((await once(data.ws, "close"))[0], 1000);
  assert.equal(length, 1_000_000);
});

test("at base level a refused target is answered by a page", DEADLINE, async (t) => {
  const script = new Script(t, 1);
  const port = await freePort();
  await script.expose(t, { port });
  say((await script.controls.take()).ws, { type: "connection", id: "1" });
  const data = await script.datas.take();
  assert.match(String(await heard(data.ws)), new RegExp(`^HTTP/1.1 502 .*127.0.0.1:${port}`, "s"));
  assert.equal((await once(data.ws, "close"))[0], 1000);
});

for (const level of [1, 2] as const) {
  test(`level ${level}: 1000 ends the tunnel for good`, DEADLINE, async (t) => {
    const script = new Script(t, level);
    const tunnel = await script.expose(t, { port: 1 });
    (await script.controls.take()).ws.close(1000, "taken over by\u001b[31m another");
    await assert.rejects(tunnel.closed, { final: true, message: /taken over by \[31m another/ });
  });

  test(
    `level ${level}: after 1001, 1012 and a drop it comes back with the name it was given`,
    DEADLINE,
    async (t) => {
      const script = new Script(t, level);
      const tunnel = await script.expose(t, { port: 1 });
      assert.equal((await script.calls.take()).body.name, undefined);
      for (const code of [1001, 1012, undefined]) {
        const { ws } = await script.controls.take();
        const online = once(tunnel, "online");
        if (code) ws.close(code);
        else ws.terminate();
        assert.equal((await script.calls.take()).body.name, "made-up");
        await online;
      }
      const { query } = await script.controls.take();
      assert.equal(query.get("successor_of"), level === 2 ? "one session" : null);
    },
  );
}

test("what `closed` says goes before the code", DEADLINE, async (t) => {
  const script = new Script(t, 2);
  const tunnel = await script.expose(t, { port: 1 });
  const { ws } = await script.controls.take();
  say(ws, { type: "closed", reason: "deleted", message: "tunnel deleted" });
  ws.terminate(); // the close frame got lost
  await assert.rejects(tunnel.closed, { code: "deleted", message: /tunnel deleted/ });
});

test("a wrong key is asked about once", DEADLINE, async (t) => {
  const script = new Script(t, 2);
  let asked = 0;
  script.answer = () => [401, { error: "who is that?", code: "unauthorized", asked: (asked += 1) }];
  await assert.rejects(script.expose(t, { port: 1 }), {
    code: "unauthorized",
    final: true,
    message: /who is that/,
  });
  assert.equal(asked, 1);
});

test("a relay that knows no policies lets nobody in", DEADLINE, async (t) => {
  const script = new Script(t, 2);
  const policy = { allow: ["10.0.0.0/8"] };
  await assert.rejects(script.expose(t, { port: 1, create: { policy } }), { code: "not_implemented" });
  assert.deepEqual((await script.calls.take()).body.policy, policy);
  assert.equal((await script.calls.take()).method, "DELETE");
});

test("a silent relay is left for another connection", DEADLINE, async (t) => {
  const script = new Script(t, 2, { ping_interval_ms: 50, pong_timeout_ms: 200 }, false);
  await script.expose(t, { port: 1 });
  await script.controls.take();
  assert.equal((await script.controls.take()).query.get("successor_of"), "one session");
});

test("a message that is too large costs the session and nothing else", DEADLINE, async (t) => {
  const script = new Script(t, 2, { ping_interval_ms: 60_000, pong_timeout_ms: 200 }, false);
  const tunnel = await script.expose(t, { port: 1 });
  const { ws } = await script.controls.take();
  const offline = once(tunnel, "offline");
  ws.send(Buffer.alloc(2 * 1024 * 1024)); // more than it takes
  await offline;
  await script.controls.take();
});

test("a relay that answers pings is kept", DEADLINE, async (t) => {
  const script = new Script(t, 2, { ping_interval_ms: 60_000, pong_timeout_ms: 200 });
  const tunnel = await script.expose(t, { port: 1 });
  tunnel.on("offline", (error) => assert.fail(error));
  const { ws } = await script.controls.take();
  for (let i = 0; i < 5; i++) await once(ws, "ping");
  tunnel.removeAllListeners("offline");
});

test("level two: a data socket carries the key, and `reject` says who refused", DEADLINE, async (t) => {
  const script = new Script(t, 2);
  const port = await freePort();
  await script.expose(t, { port });
  const { ws } = await script.controls.take();
  say(ws, { type: "connection", id: "1", proto: "http", remote_addr: "203.0.113.7:5" });
  const reject = JSON.parse(String(await heard(ws))) as Record<string, string>;
  assert.deepEqual([reject.type, reject.id, reject.reason], ["reject", "1", "refused"]);
  assert.match(reject.message ?? "", new RegExp(`127.0.0.1:${port}`));
});

test("level two: a cancelled connection opens no data socket", DEADLINE, async (t) => {
  const script = new Script(t, 2);
  await script.expose(t, { port: await echo(t) });
  const { ws } = await script.controls.take();
  say(ws, { type: "connection", id: "1" });
  say(ws, { type: "cancel", id: "1" });
  say(ws, { type: "cancel", id: "never heard of" });
  say(ws, { type: "connection", id: "2" });
  const data = await script.datas.take();
  assert.deepEqual([data.query.get("id"), data.key], ["2", `Bearer ${KEY}`]);
});

test("level two: each direction ends by an empty message", DEADLINE, async (t) => {
  const script = new Script(t, 2);
  const port = await tcpTarget(t, (socket) => socket.resume().on("end", () => socket.end("you have ended")));
  await script.expose(t, { port });
  say((await script.controls.take()).ws, { type: "connection", id: "1" });
  const { ws } = await script.datas.take();
  ws.send("begin");
  ws.send("", { fin: false }); // an empty fragment is no end
  ws.send("go on", { fin: true });
  ws.send(Buffer.alloc(0));
  assert.equal(String(await heard(ws)), "you have ended");
  assert.equal((await once(ws, "close"))[0], 1000);
});

test("level two: what broke off does not look complete", DEADLINE, async (t) => {
  const script = new Script(t, 2);
  const targets = new Queue<net.Socket>();
  await script.expose(t, { port: await tcpTarget(t, (socket) => targets.put(socket)) });
  const control = (await script.controls.take()).ws;
  say(control, { type: "connection", id: "1" });
  const [first, firstTarget] = [await script.datas.take(), await targets.take()];
  first.ws.terminate();
  const [error] = (await once(firstTarget, "error")) as [NodeJS.ErrnoException];
  assert.equal(error.code, "ECONNRESET");
  say(control, { type: "connection", id: "2" });
  const [second, secondTarget] = [await script.datas.take(), await targets.take()];
  secondTarget.write("half of");
  assert.equal(String(await heard(second.ws)), "half of");
  secondTarget.resetAndDestroy();
  assert.equal((await once(second.ws, "close"))[0], 1011);
});

test("level two: standby sockets are held, assigned and replaced", DEADLINE, async (t) => {
  const script = new Script(t, 2);
  await script.expose(t, { port: await echo(t) });
  const { ws } = await script.controls.take();
  say(ws, { type: "standby", want: 2 });
  const [one, two] = [await script.datas.take(), await script.datas.take()];
  for (const { query, key } of [one, two]) {
    assert.deepEqual(
      [query.get("tunnel_id"), query.get("session"), key],
      ["an id/é", "one session", `Bearer ${KEY}`],
    );
    assert.match(query.get("id") ?? "", /^[0-9a-f]{8}-[0-9a-f-]{27}$/);
  }
  say(one.ws, { type: "connection", id: one.query.get("id") });
  one.ws.send("with the first message");
  assert.equal(String(await heard(one.ws)), "with the first message");
  const three = await script.datas.take();
  assert.notEqual(three.query.get("id"), one.query.get("id"));
  say(ws, { type: "standby", want: 1 });
  two.ws.close(1000); // too many now
  say(three.ws, { type: "connection", id: three.query.get("id") });
  assert.equal((await script.datas.take()).query.get("session"), "one session");
});

test("level two: a drained session serves on beside its successor", DEADLINE, async (t) => {
  const script = new Script(t, 2);
  const tunnel = await script.expose(t, { port: await echo(t) });
  const old = await script.controls.take();
  say(old.ws, { type: "drain", deadline_ms: 30_000, reconnect_ms: 20 });
  await once(tunnel, "online");
  assert.equal((await script.controls.take()).query.get("successor_of"), "one session");
  say(old.ws, { type: "connection", id: "late" });
  assert.equal((await script.datas.take()).query.get("id"), "late");
  say(old.ws, { type: "closed", reason: "succeeded", message: "" });
  const ended = once(old.ws, "close");
  old.ws.close(1000);
  await ended;
  await tunnel.extend("1h"); // it lives
});
