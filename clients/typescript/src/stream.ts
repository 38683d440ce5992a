/** One data socket, and behind it one connection to the target: bytes both ways (protocol.md 4 and 8.3). */
import net from "node:net";
import { clearTimeout, setImmediate, setTimeout } from "node:timers";
import WebSocket from "ws";
import type { Tunnel } from "./adit.js";
import type { Session } from "./session.js";
import { AditError, CALL_MS, deferred, dial, opened, wasCut, words } from "./wire.js";

/** The target is not read while more than this waits for the relay. */
const HIGH_WATER = 256 * 1024;
/** No relay keeps a silent stream for longer than an hour (protocol.md 7); past this the target's side is cut, too. */
const IDLE_MS = 70 * 60_000;
/** How long a target may take for the last bytes that it was sent. */
const FLUSH_MS = 30_000;
const EMPTY = Buffer.alloc(0);

/** Words for `reject` (protocol.md 8.2). */
const TARGET_REASONS: Record<string, string> = {
  ECONNREFUSED: "refused",
  ENOENT: "refused",
  ETIMEDOUT: "timed_out",
  ENOTFOUND: "host_not_found",
  EAI_AGAIN: "host_not_found",
};

export class Stream {
  /** Resolves when both are closed. */
  readonly done = deferred<undefined>();
  readonly #target: net.Socket;
  readonly #tunnel: Tunnel;
  readonly #session: Session;
  readonly #id: string;
  #socket: WebSocket | undefined;
  /** What is to be done to the target, in order. */
  readonly #steps: (() => void)[] = [];
  #connected = false;
  /** Each direction ends by itself, at level two. */
  #targetEnded = false;
  #relayEnded = false;

  /** `socket` was held in advance; without it, it is opened once the target is there. */
  constructor(tunnel: Tunnel, session: Session, id: string, socket: WebSocket | undefined) {
    this.#tunnel = tunnel;
    this.#session = session;
    this.#id = id;
    const target = net.connect({ ...tunnel.target, allowHalfOpen: true });
    this.#target = target;
    target.once("close", () => {
      if (!this.#socket || this.#socket.readyState === WebSocket.CLOSED) this.done.resolve(undefined);
      else this.#socket.once("close", () => this.done.resolve(undefined));
    });
    target.setNoDelay(true);
    // Half the time for a claim: the rest is for the data socket, or for saying no.
    target.setTimeout(session.claimMs / 2, () =>
      target.destroy(Object.assign(new Error("it did not answer in time"), { code: "ETIMEDOUT" })),
    );
    target.once("connect", () => {
      this.#connected = true;
      target.setTimeout(IDLE_MS);
      if (!this.#socket) this.#claim();
    });
    target.on("error", (error) => this.#targetFailed(error));
    if (socket) this.#splice(socket);
  }

  /** Its viewer has left before the data socket was open. */
  cancel(): void {
    if (this.#socket?.readyState !== WebSocket.OPEN) this.abort();
  }

  abort(): void {
    this.#target.destroy();
    this.#socket?.terminate();
  }

  #dial(): WebSocket {
    const { relay, key } = this.#tunnel;
    const { level2, claimMs } = this.#session;
    return dial(relay, `/ws/data?id=${encodeURIComponent(this.#id)}`, level2 ? key : undefined, claimMs);
  }

  #claim(): void {
    this.#target.pause(); // until there is somebody to read for
    const socket = this.#dial();
    this.#splice(socket);
    opened(socket, this.#tunnel.relay).then(
      () => this.#target.resume(),
      (error: unknown) => {
        if (this.#target.destroyed) return; // cancelled
        this.#target.destroy();
        if ((error as AditError).code === "connection_not_found") return; // too late, or its viewer has left
        const message = "the client cannot reach the relay for it";
        this.#session.say({ type: "reject", id: this.#id, reason: "failed", message });
      },
    );
  }

  /** Copies both ways; each side is read only as fast as the other one takes it. */
  #splice(socket: WebSocket): void {
    const target = this.#target;
    const { level2 } = this.#session;
    this.#socket = socket;
    socket.on("message", (data: Buffer) =>
      this.#later(() => {
        if (data.length > 0) {
          if (!target.destroyed && !target.write(data)) socket.pause();
        } else if (level2) {
          this.#relayEnded = true;
          target.end();
          if (this.#targetEnded) socket.close(1000);
        }
      }),
    );
    target.on("drain", () => this.#steps.length > 0 || socket.resume());
    target.on("data", (chunk) => {
      socket.send(chunk, { binary: true }, () => {
        if (socket.bufferedAmount <= HIGH_WATER / 2) target.resume();
      });
      if (socket.bufferedAmount > HIGH_WATER) target.pause();
    });
    target.on("end", () => {
      this.#targetEnded = true;
      if (level2 && !this.#relayEnded) socket.send(EMPTY, { binary: true });
      else socket.close(1000);
    });
    target.on("close", () => {
      socket.resume(); // so that its close frame is seen
      if (this.#connected) socket.close(this.#targetEnded ? 1000 : 1011);
    });
    socket.on("close", (code) => this.#later(() => this.#relayClosed(code)));
  }

  /**
   * What goes to the target goes one step a turn. One that answers early and hangs up makes our next write fail, and
   * Node then throws away what it has sent; in a turn, what has come is read before immediates run.
   */
  #later(step: () => void): void {
    this.#steps.push(step);
    this.#socket?.pause();
    if (this.#steps.length > 1) return;
    const run = (): void => {
      this.#steps[0]?.();
      this.#steps.shift();
      if (this.#steps.length > 0) setImmediate(() => setImmediate(run));
      else if (!this.#target.writableNeedDrain) this.#socket?.resume();
    };
    setImmediate(() => setImmediate(run));
  }

  #relayClosed(code: number): void {
    const target = this.#target;
    // A close frame with 1000 or without a code says that all is said. At base level so does the mere end.
    const complete =
      code === 1000 ||
      code === 1005 ||
      (!this.#session.level2 &&
        (code === 1001 || (code === 1006 && !(this.#socket && wasCut(this.#socket)))));
    if (this.#connected && complete) {
      target.setTimeout(FLUSH_MS);
      target.destroySoon(); // after what it has yet to be given
    } else if (!this.#connected || "path" in this.#tunnel.target) target.destroy();
    else target.resetAndDestroy();
  }

  /** Says no in the target's place, so that nobody waits. */
  #targetFailed(error: Error & { code?: string }): void {
    if (this.#connected) return; // its close says the rest
    const { target } = this.#tunnel;
    const where = "path" in target ? target.path : `${target.host ?? ""}:${target.port}`;
    const message = `cannot reach the target at ${where}: ${words(error)}`;
    this.#tunnel.log(message);
    if (this.#session.level2) {
      const reason = TARGET_REASONS[error.code ?? ""] ?? "failed";
      this.#session.say({ type: "reject", id: this.#id, reason, message });
      const socket = this.#socket; // held in advance: for the relay to close
      if (!socket) return;
      const timer = setTimeout(() => socket.terminate(), CALL_MS);
      socket.once("close", () => clearTimeout(timer));
    } else {
      const socket = (this.#socket = this.#dial());
      socket.once("open", () => {
        if (this.#tunnel.speaksHttp)
          socket.send(
            `HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/plain; charset=utf-8\r\n` +
              `Content-Length: ${Buffer.byteLength(message)}\r\nConnection: close\r\n\r\n${message}`,
            { binary: true },
          );
        socket.close(1000);
      });
    }
  }
}
