/** One control socket: hears the relay, keeps data sockets in advance, notices silence (protocol.md 3 and 8). */
import { randomUUID } from "node:crypto";
import { clearTimeout, setInterval, setTimeout } from "node:timers";
import WebSocket from "ws";
import type { Tunnel } from "./adit.js";
import { Stream } from "./stream.js";
import {
  AditError,
  CALL_MS,
  MAX_MESSAGE,
  SUBPROTOCOL,
  clean,
  deferred,
  dial,
  opened,
  parse,
  words,
} from "./wire.js";

/** Of one tunnel. A relay lets 256 viewers wait; those that are served come on top. */
const MAX_STREAMS = 4096;
/** Data sockets in advance, whatever the relay wants. */
const MAX_SPARES = 64;

export class Session {
  /** What `successor_of` calls it; empty at base level. */
  id = "";
  level2 = false;
  claimMs = 10_000;
  /** Why it ended. */
  error: AditError | undefined;
  /** Resolves when connections can come. */
  readonly ready = deferred<undefined>();
  /** Resolves when it has ended. */
  readonly done = deferred<AditError>();
  /** Resolves when another session is wanted: with the end's reason, or with nothing because this one drains. */
  readonly replace = deferred<AditError | undefined>();
  readonly #tunnel: Tunnel;
  readonly #ws: WebSocket;
  readonly #announced = new Map<string, Stream>();
  readonly #spare = new Set<WebSocket>();
  #spareWanted = 0;
  /** The most that the relay said it would want. */
  #spareMost = 8;
  #freshKey = "";
  #closed: { reason: string; message: string } | undefined;
  #silence: NodeJS.Timeout;
  #pings: NodeJS.Timeout | undefined;
  #refill: NodeJS.Timeout | undefined;
  #drain: NodeJS.Timeout | undefined;

  constructor(tunnel: Tunnel, successorOf: string, offer: string | undefined) {
    this.#tunnel = tunnel;
    const successor = successorOf && `&successor_of=${encodeURIComponent(successorOf)}`;
    const ws = dial(
      tunnel.relay,
      `/ws/control?tunnel_id=${tunnel.id}${successor}`,
      tunnel.key,
      CALL_MS,
      offer,
    );
    this.#ws = ws;
    this.#silence = setTimeout(() => this.#lost(), CALL_MS);
    ws.once("upgrade", ({ headers }) => {
      this.level2 = headers["sec-websocket-protocol"] === SUBPROTOCOL;
      // A relay of base level answers without the header, which is no error here but would be one to `ws`.
      if (offer) headers["sec-websocket-protocol"] ??= offer;
    });
    opened(ws, tunnel.relay).then(
      () => this.level2 || this.#started(30_000, 60_000), // at level two `welcome` does that
      (error: unknown) => this.#end(error as AditError),
    );
    // Whoever only pings, and never says welcome, is not waited for.
    const heard = (): unknown => this.#pings && this.#silence.refresh();
    ws.on("ping", heard).on("pong", heard);
    ws.on("message", (data: Buffer, binary) => {
      heard();
      const message = binary ? undefined : parse(data.toString());
      if (message && (this.level2 || message.type === "connection")) this.#hear(message);
    });
    ws.once("open", () => {
      ws.once("close", (code, reason) => this.#end(this.#verdict(code, reason.toString())));
    });
  }

  close(): void {
    this.#spareWanted = 0;
    this.#ws.close(1000);
  }

  /** Tells the relay something, which only level two understands. */
  say(message: { type: string; [field: string]: unknown }): void {
    if (!this.level2 || this.#ws.readyState !== WebSocket.OPEN) return;
    if (this.#ws.bufferedAmount > MAX_MESSAGE)
      this.#lost(); // it does not read
    else this.#ws.send(JSON.stringify(message));
  }

  #hear(message: Record<string, unknown>): void {
    const tunnel = this.#tunnel;
    switch (message.type) {
      case "welcome":
        if (typeof message.session === "string") this.id = message.session;
        this.claimMs = millis(message.claim_ms, 10_000);
        this.#spareMost = Math.min(limit(message.limits, "standby") ?? 8, MAX_SPARES);
        this.#started(millis(message.ping_interval_ms, 30_000), millis(message.pong_timeout_ms, 60_000));
        break;
      case "connection":
        this.#serve(message);
        break;
      case "cancel":
        this.#announced.get(String(message.id))?.cancel();
        break;
      case "standby":
        this.#spareWanted = Math.min(Number(message.want) || 0, this.#spareMost);
        this.#openSpares();
        break;
      case "drain":
        tunnel.log("the relay is about to stop or to be replaced");
        this.#drain ??= setTimeout(() => this.replace.resolve(undefined), millis(message.reconnect_ms, 0));
        break;
      case "expiring":
        if (message.what === "tunnel") tunnel.emit("expiring", new Date(String(message.at)));
        else void this.#renew();
        break;
      case "auth":
        if (message.accepted === true) tunnel.key = this.#freshKey || tunnel.key;
        else tunnel.log(`the relay refused the fresh token: ${clean(message.error)}`);
        break;
      case "error":
        tunnel.log(`the relay could not read a message: ${clean(message.message)}`);
        break;
      case "closed":
        this.#closed = { reason: clean(message.reason), message: clean(message.message) };
        break;
    }
  }

  /** Both sides ping; a relay of which nothing comes is dead. */
  #started(pingMs: number, pongMs: number): void {
    clearTimeout(this.#silence);
    clearTimeout(this.#pings);
    this.#silence = setTimeout(() => this.#lost(), Math.max(pongMs, 100));
    this.#pings = setInterval(() => this.#ws.ping(), Math.max(Math.min(25_000, pingMs, pongMs / 2), 50));
    this.ready.resolve(undefined);
  }

  #lost(): void {
    this.#closed ??= { reason: "lost", message: "the relay has fallen silent" };
    this.#ws.terminate();
  }

  #end(error: AditError): void {
    if (this.error) return;
    this.error = error;
    this.#spareWanted = 0;
    for (const timer of [this.#silence, this.#pings, this.#refill, this.#drain]) clearTimeout(timer);
    for (const socket of this.#spare) socket.terminate();
    this.done.resolve(error);
    this.replace.resolve(error);
  }

  /** What an end means: protocol.md 3.1 and the table of 8.1. */
  #verdict(code: number, text: string): AditError {
    const { reason = code === 1006 ? "lost" : "", message = "" } = this.#closed ?? {};
    const final =
      ["expired", "deleted", "replaced"].includes(reason) || (code === 1000 && reason !== "succeeded");
    const why = message || clean(text) || (code === 1006 ? "the connection was lost" : `close code ${code}`);
    return new AditError(reason || `close_${code}`, `the relay ended the session: ${why}`, { final });
  }

  #serve(message: Record<string, unknown>, socket?: WebSocket): void {
    const { id, remote_addr: viewer } = message;
    const { streams } = this.#tunnel;
    if (typeof id !== "string" || this.#announced.has(id)) return;
    if (streams.size >= MAX_STREAMS) {
      this.say({ type: "reject", id, reason: "busy", message: "too many connections at the same time" });
      return;
    }
    const stream = new Stream(this.#tunnel, this, id, socket);
    streams.add(stream);
    this.#announced.set(id, stream);
    void stream.done.promise.then(() => {
      streams.delete(stream);
      this.#announced.delete(id);
    });
    this.#tunnel.emit("connection", typeof viewer === "string" ? viewer : undefined);
  }

  /** Data sockets in advance (protocol.md 8.4). */
  #openSpares(): void {
    while (this.#spare.size < this.#spareWanted) {
      const id = randomUUID();
      const query = `tunnel_id=${this.#tunnel.id}&id=${id}&session=${encodeURIComponent(this.id)}`;
      const socket = dial(this.#tunnel.relay, `/ws/data?${query}`, this.#tunnel.key, this.claimMs);
      this.#spare.add(socket);
      let held = false;
      socket.once("open", () => (held = true));
      socket.once("message", (data: Buffer, binary) => {
        this.#spare.delete(socket);
        const message = binary ? undefined : parse(data.toString());
        if (message?.type === "connection" && message.id === id) this.#serve(message, socket);
        else socket.close(1002);
        this.#openSpares();
      });
      socket.once("close", () => {
        if (!this.#spare.delete(socket) || this.error) return;
        this.#refill ??= setTimeout(
          () => {
            this.#refill = undefined;
            this.#openSpares();
          },
          held ? 1000 : 30_000,
        ); // a refused one is tried again sooner if the relay asks, see `standby`
      });
    }
  }

  /** The token of the session ends within a minute. */
  async #renew(): Promise<void> {
    try {
      this.#freshKey = await this.#tunnel.freshKey();
      if (this.#freshKey === this.#tunnel.key)
        this.#tunnel.log(
          "the token is about to end: let the option `key` be a function that gives a fresh one",
        );
      else this.say({ type: "auth", token: this.#freshKey });
    } catch (cause) {
      this.#tunnel.log(`no fresh token: ${words(cause)}`);
    }
  }
}

/** A number among the `limits` of `welcome`. */
function limit(limits: unknown, name: string): number | undefined {
  const value: unknown = (limits as Record<string, unknown> | null | undefined)?.[name];
  return typeof value === "number" && value >= 0 ? value : undefined;
}

/** Milliseconds that the relay named, or else ours. */
function millis(value: unknown, otherwise: number): number {
  return typeof value === "number" && value >= 0 ? Math.min(value, 3_600_000) : otherwise;
}
