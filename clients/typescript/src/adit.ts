/**
 * Exposes a service of this machine at a public URL, through an Adit relay.
 *
 * Written from `protocol.md`, whose sections are named where they are followed. From the outside in: `expose` makes
 * a `Tunnel`, which keeps one `Session` (`session.ts`, a control socket) and makes another when that is lost; a
 * session makes a `Stream` (`stream.ts`, a data socket and a connection to the target) for each viewer.
 *
 * @packageDocumentation
 */
import { EventEmitter } from "node:events";
import type net from "node:net";
import { Session } from "./session.js";
import type { Stream } from "./stream.js";
import {
  AditError,
  CALL_MS,
  MAX_MESSAGE,
  SUBPROTOCOL,
  backoff,
  clean,
  parse,
  pause,
  refusal,
  words,
} from "./wire.js";

export { AditError };
export type { Tunnel };

/** What a tunnel is created with beside its name, as protocol.md 2.1 names and explains it. */
export interface CreateFields {
  ttl?: string;
  device_name?: string;
  source?: string;
  auth_user?: string;
  auth_pass?: string;
  host_header?: string;
  reuse?: boolean;
  domains?: string[];
  /** Rules for viewers, protocol.md 2.4. */
  policy?: Record<string, unknown>;
  proto?: "http" | "tcp" | "tls";
  remote_port?: number;
  proxy_protocol?: "v1" | "v2";
  target_proto?: "http1" | "h2";
  replica?: boolean;
  balance?: "least-busy" | "sticky";
}

/** The target is `port` on `host`, or the Unix socket at `path`. */
export interface ExposeOptions {
  port?: number;
  /** Default: `localhost`. */
  host?: string;
  path?: string;
  /** URL of the relay. Default: the environment's `ADIT_RELAY`. */
  relay?: string;
  /**
   * A key or token of the relay; a function is asked again at each connection and before a token ends.
   * Default: the environment's `ADIT_KEY`.
   */
  key?: string | (() => string | Promise<string>);
  /** The wanted name, which stays yours. Default: the relay makes one up, and it is kept while this runs. */
  name?: string;
  create?: CreateFields;
  /** Ends the start, and later the tunnel as `close()` does. */
  signal?: AbortSignal;
  /** How long `expose` tries to reach the relay, in milliseconds. Default: 10,000. Afterwards it never gives up. */
  startMs?: number;
  /** How long `close()` lets requests under way finish, in milliseconds. Default: 30,000. */
  finishMs?: number;
  /** Gets a line for people when something happens. Default: nobody is told. */
  log?: (line: string) => void;
}

export interface TunnelEvents {
  online: [url: string];
  /** Nobody serves the tunnel; it comes back by itself. */
  offline: [reason: AditError];
  /** A viewer came, as the relay saw it (`203.0.113.7:51234`; absent at base level). */
  connection: [remoteAddr: string | undefined];
  /** The tunnel's lifetime ends within a minute, see `extend`. */
  expiring: [at: Date];
}

/** Exposes a service; resolves when viewers can come. */
export async function expose(options: ExposeOptions): Promise<Tunnel> {
  const tunnel = new Tunnel(options);
  await tunnel.start();
  return tunnel;
}

/** One tunnel, kept open over drops and restarts until `close()` or until the relay says that it is over. */
class Tunnel extends EventEmitter<TunnelEvents> {
  /** Where viewers go. The same as long as the tunnel lives. */
  url = "";
  name = "";
  id = "";
  /** Resolves after `close()`; rejects when the relay ended the tunnel (expired, deleted, replaced, key refused). */
  readonly closed: Promise<void>;
  /** @internal */ readonly relay: string;
  /** @internal */ readonly target: net.NetConnectOpts;
  /** @internal */ readonly streams = new Set<Stream>();
  /** @internal The key in force. */ key = "";
  readonly #options: ExposeOptions;
  readonly #sessions = new Set<Session>();
  readonly #stop = new AbortController();
  #running: Promise<void> = Promise.resolve();
  #online = false;
  #remotePort: number | undefined;
  #closing: Promise<void> | undefined;
  #settle!: { resolve: () => void; reject: (error: AditError) => void };

  /** @internal Use `expose`. */
  constructor(options: ExposeOptions) {
    super();
    this.#options = options;
    const relay = options.relay ?? process.env.ADIT_RELAY;
    if (!relay || !/^https?:\/\/[^/]/.test(relay))
      throw usage("say which relay: the option `relay` or ADIT_RELAY, such as https://relay.example");
    if (!options.key && !process.env.ADIT_KEY) throw usage("say which key: the option `key` or ADIT_KEY");
    if (options.path === undefined && !(Number(options.port) >= 1 && Number(options.port) <= 65535))
      throw usage("say what to expose: `port` (1 to 65535) or `path`");
    this.relay = relay.replace(/\/+$/, "");
    if (/^http:\/\/(?!localhost\b|127\.|\[::1\])/.test(relay))
      this.log("the key and what viewers send cross the network as they are: use https if the relay has it");
    this.target =
      options.path === undefined
        ? { host: options.host ?? "localhost", port: Number(options.port) }
        : { path: options.path };
    this.closed = new Promise((resolve, reject) => (this.#settle = { resolve, reject }));
    this.closed.catch(() => undefined); // who does not ask is not punished
    options.signal?.addEventListener("abort", () => void this.close(), { once: true });
  }

  /** @internal Resolves at the first session. */
  async start(): Promise<void> {
    this.#options.signal?.throwIfAborted();
    const online = new Promise<void>((resolve) => this.once("online", () => resolve()));
    const giveUpAt = performance.now() + (this.#options.startMs ?? 10_000);
    this.#running = this.#run(giveUpAt);
    await Promise.race([online, this.closed]);
    this.#options.signal?.throwIfAborted();
  }

  /** Lets requests under way finish, says goodbye and ends the tunnel; its name stays reserved. */
  close(): Promise<void> {
    this.#closing ??= (async () => {
      this.#stop.abort();
      for (const session of this.#sessions) session.close();
      await this.#running;
      const finished = Promise.all([...this.#sessions, ...this.streams].map((it) => it.done.promise));
      const timer = new AbortController();
      await Promise.race([finished, pause(this.#options.finishMs ?? 30_000, timer.signal)]);
      timer.abort();
      for (const stream of this.streams) stream.abort();
      // Another client of ours may serve it by now; and what cannot be deleted is only shown as offline.
      if (this.id)
        await this.#call("DELETE", `/v1/tunnels/${this.id}?unless_connected=true`).catch(() => undefined);
      this.#settle.resolve();
    })();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** The tunnel ends that long from now (`"30m"`), or `"0"`: never. */
  async extend(ttl: string): Promise<void> {
    await this.#call("POST", `/v1/tunnels/${this.id}/extend`, { ttl });
  }

  #stopped(): boolean {
    return this.#stop.signal.aborted;
  }

  /** @internal */
  log(line: string): void {
    this.#options.log?.(line);
  }

  /** @internal Whether a page can be sent in the target's place. */
  get speaksHttp(): boolean {
    const { proto, target_proto } = this.#options.create ?? {};
    return (proto ?? "http") === "http" && target_proto !== "h2";
  }

  /** @internal A fresh key, if there is a way to get one. */
  async freshKey(): Promise<string> {
    const { key = process.env.ADIT_KEY ?? "" } = this.#options;
    const fresh = (typeof key === "string" ? key : await key()).trim();
    if (!/^[\x21-\x7e]+$/.test(fresh)) throw usage("the key has characters that no key has"); // it is not shown
    return fresh;
  }

  /** Keeps a session until told to stop (protocol.md 5). Never rejects. */
  async #run(giveUpAt: number): Promise<void> {
    let previous: Session | undefined;
    for (let failures = 0; !this.#stopped();) {
      let error: AditError | undefined;
      try {
        const session = await this.#connect(previous);
        const since = performance.now();
        giveUpAt = Infinity;
        error = await session.replace.promise;
        previous = session;
        if (error === undefined) continue; // it drains: its successor is wanted now, and it serves on
        // Nobody of ours has succeeded it: it is as if it were replaced (protocol.md 8.1).
        if (error.code === "succeeded") error = new AditError(error.code, error.message, { final: true });
        if (performance.now() - since > 10_000) failures = 0; // a relay that takes us and drops us is spared
      } catch (cause) {
        error = cause instanceof AditError ? cause : new AditError("lost", String(cause), { cause });
      }
      const wait = Math.max(error.retryAfterMs, backoff(failures++));
      if (error.final || performance.now() + wait > giveUpAt) this.#finish(error);
      if (this.#stopped()) return;
      this.log(`${error.message}; trying again in ${(wait / 1000).toFixed(1)} s`);
      const draining = previous?.error ? undefined : previous;
      await Promise.race([pause(wait, this.#stop.signal), ...(draining ? [draining.done.promise] : [])]);
      // Its successor may not have been there before: from here on it counts as a first failure.
      if (draining?.error) await pause(backoff((failures = 0)), this.#stop.signal);
    }
  }

  /** Creates the tunnel, under the name that it had, and opens its control socket. */
  async #connect(previous: Session | undefined): Promise<Session> {
    const fields = this.#options.create ?? {};
    this.key = await this.freshKey();
    const told = await this.#call("POST", "/v1/tunnels", {
      ...fields,
      local_port: this.#options.port ?? 1, // wanted also where the target has none
      ...((this.name || this.#options.name) && { name: this.name || this.#options.name }),
      ...(this.name && { resume: true }),
      ...(this.#remotePort !== undefined && { remote_port: this.#remotePort }),
    });
    const { id, slug, public_url: url, remote_port: port } = told;
    if (typeof id !== "string" || typeof slug !== "string" || typeof url !== "string")
      throw new AditError("bad_answer", `${this.relay} did not answer as a relay does: is this its URL?`);
    this.id = encodeURIComponent(id);
    if (this.name && slug !== this.name) this.log(`the relay calls the tunnel ${clean(slug)} now`);
    this.name = clean(slug);
    this.url = clean(url);
    if (fields.proto === "tcp" && typeof port === "number") this.#remotePort = port;
    const ignored =
      fields.policy && !Array.isArray(told.policy)
        ? "policies, and would let everybody in"
        : (fields.proto ?? "http") !== "http" && told.proto !== fields.proto
          ? `tunnels for ${String(fields.proto)}`
          : undefined;
    if (ignored) {
      await this.#call("DELETE", `/v1/tunnels/${this.id}`).catch(() => undefined);
      throw new AditError("not_implemented", `the relay knows no ${ignored}: it needs a newer version`, {
        final: true,
      });
    }
    const session = await this.#open(previous?.id ?? "", SUBPROTOCOL);
    this.#online = true;
    this.emit("online", this.url);
    return session;
  }

  async #open(successorOf: string, offer: string | undefined): Promise<Session> {
    const session = new Session(this, successorOf, offer);
    this.#sessions.add(session);
    if (this.#stopped()) session.close();
    void session.done.promise.then((error) => {
      this.#sessions.delete(session);
      if (error.final) this.#finish(error);
      if (this.#sessions.size > 0 || !this.#online) return;
      this.#online = false;
      if (!this.#stopped()) this.emit("offline", error);
    });
    await Promise.race([session.ready.promise, session.done.promise]);
    const error = session.error;
    // Bun, other than Node and Deno, takes a base relay's answer as an error, see Session.
    if (error && offer && /no subprotocol/i.test(error.message)) return this.#open(successorOf, undefined);
    if (error) throw error;
    return session;
  }

  /** The tunnel is over, and not because `close()` was called. */
  #finish(error: AditError): void {
    if (this.#stopped()) return;
    this.#stop.abort();
    for (const session of this.#sessions) session.close();
    this.#settle.reject(error);
  }

  /** A REST call (protocol.md 2). */
  async #call(method: string, path: string, body?: object): Promise<Record<string, unknown>> {
    let response: Response;
    let text = "";
    try {
      response = await fetch(this.relay + path, {
        method,
        redirect: "manual", // the key goes nowhere else
        headers: { authorization: `Bearer ${this.key}`, ...(body && { "content-type": "application/json" }) },
        ...(body && { body: JSON.stringify(body) }),
        signal: AbortSignal.timeout(CALL_MS),
      });
      const decoder = new TextDecoder();
      for await (const chunk of response.body ?? []) {
        text += decoder.decode(chunk as Uint8Array, { stream: true });
        if (text.length > MAX_MESSAGE) throw new Error("its answer has no end");
      }
    } catch (cause) {
      throw new AditError("unreachable", `cannot reach the relay at ${this.relay}: ${words(cause)}`, {
        cause,
      });
    }
    if (!response.ok) throw refusal(response.status, text, response.headers.get("retry-after"), this.relay);
    return parse(text) ?? {};
  }
}

function usage(message: string): AditError {
  return new AditError("usage", message, { final: true });
}
