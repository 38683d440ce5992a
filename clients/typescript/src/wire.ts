/** What all parts speak with: WebSockets to the relay, errors that say what to do, words fit for a terminal. */
import type net from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import WebSocket from "ws";

export const SUBPROTOCOL = "adit.1";
/** Relays send 64 KiB at most unless their operator has raised that (protocol.md 7); each is held in memory. */
export const MAX_MESSAGE = 1024 * 1024;
/** For a REST call, the handshake of a control socket, and what else the relay answers at once. */
export const CALL_MS = 15_000;

/** What went wrong, and what to do about it. */
export class AditError extends Error {
  override name = "AditError";
  /** The relay's word for it (protocol.md 2.3), a `reason` of 8.1, or `unreachable`, `lost`, `bad_answer`, `usage`. */
  readonly code: string;
  /** Trying again does not help. */
  readonly final: boolean;
  /** The relay asks for this much patience. */
  readonly retryAfterMs: number;

  constructor(
    code: string,
    message: string,
    more: { final?: boolean; retryAfterMs?: number; cause?: unknown } = {},
  ) {
    super(message, more.cause === undefined ? {} : { cause: more.cause });
    this.code = code;
    this.final = more.final ?? false;
    this.retryAfterMs = more.retryAfterMs ?? 0;
  }
}

/** A WebSocket to the relay; its errors are told by `opened`, and later by its close. */
export function dial(
  relay: string,
  path: string,
  key: string | undefined,
  withinMs: number,
  offer?: string,
): WebSocket {
  const ws = new WebSocket(relay.replace(/^http/, "ws") + path, offer ? [offer] : [], {
    ...(key !== undefined && { headers: { authorization: `Bearer ${key}` } }),
    perMessageDeflate: false,
    maxPayload: MAX_MESSAGE,
    handshakeTimeout: withinMs,
  });
  ws.on("error", () => undefined);
  const boundary = new Boundary();
  boundaries.set(ws, boundary);
  // A relay that vanished without a word is noticed on streams, too. (Bun does not give the socket.)
  ws.once("upgrade", (response) => {
    const socket = response.socket as net.Socket | undefined;
    socket?.setKeepAlive(true, 30_000);
    // Not before `ws` listens itself, or what came with the handshake would be lost to it.
    ws.once("open", () =>
      socket?.on("data", (chunk) => boundary.pass(chunk)).on("error", () => (boundary.inside = true)),
    );
  });
  return ws;
}

/** Follows the frames of a socket: `ws` does not tell whether its end has cut a message (protocol.md 4). */
class Boundary {
  /** An end now is none between two messages. */
  inside = false;
  #header: Buffer = Buffer.alloc(0);
  #payload = 0;
  #message = false;

  pass(chunk: Buffer): void {
    while (chunk.length > 0) {
      if (this.#payload > 0) {
        const taken = Math.min(this.#payload, chunk.length);
        this.#payload -= taken;
        chunk = chunk.subarray(taken);
        continue;
      }
      this.#header = Buffer.concat([this.#header, chunk.subarray(0, 1)]);
      chunk = chunk.subarray(1);
      const short = (this.#header[1] ?? 0) & 0x7f;
      const size = this.#header.length < 2 ? 2 : short === 127 ? 10 : short === 126 ? 4 : 2;
      if (this.#header.length < size) continue;
      if (size === 2) this.#payload = short;
      else
        this.#payload = size === 4 ? this.#header.readUInt16BE(2) : Number(this.#header.readBigUInt64BE(2));
      const first = this.#header[0] ?? 0;
      if ((first & 0x08) === 0) this.#message = first < 0x80; // others may stand between fragments
      this.#header = Buffer.alloc(0);
    }
    this.inside = this.#payload > 0 || this.#message || this.#header.length > 0;
  }
}

const boundaries = new WeakMap<WebSocket, Boundary>();

/** Whether the end of `ws` has cut a message, or was a reset. (In Bun nobody knows.) */
export function wasCut(ws: WebSocket): boolean {
  return boundaries.get(ws)?.inside ?? false;
}

/** Resolves when the handshake is done; rejects with what the relay answered instead. */
export function opened(ws: WebSocket, relay: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const failed = (cause: unknown): void => {
      reject(new AditError("unreachable", `cannot open a WebSocket to ${relay}: ${words(cause)}`, { cause }));
    };
    ws.once("open", resolve);
    ws.once("error", failed);
    ws.once("close", failed);
    ws.once("unexpected-response", (_request, response) => {
      let text = "";
      const answered = (): void => {
        reject(refusal(response.statusCode ?? 0, text, response.headers["retry-after"], relay));
        ws.terminate();
      };
      response.on("data", (chunk: Buffer) => {
        text += chunk.toString();
        if (text.length > MAX_MESSAGE) answered();
      });
      response.once("end", answered).once("error", answered);
    });
  });
}

/** An answer that is no success, as an error that says what to do (protocol.md 2.3). */
export function refusal(
  status: number,
  text: string,
  retryAfter: string | null | undefined,
  relay: string,
): AditError {
  const body = parse(text);
  const code = clean(body?.code) || (status === 401 ? "unauthorized" : `http_${status}`);
  const said = clean(body?.error) || `it answered ${status}`;
  const todo =
    status === 401 && !body
      ? ". Check ADIT_KEY or the option `key`"
      : status === 308
        ? ". Give the relay's URL with https://"
        : body
          ? ""
          : ". Is this the relay's URL, and does what stands before it let WebSockets pass?";
  // These may pass; so may 5xx. All others would be answered the same again.
  const final = status === 308 || (status >= 400 && status < 500 && ![404, 408, 425, 429].includes(status));
  const retryAfterMs = Math.min(Number(retryAfter) * 1000 || 0, 300_000);
  return new AditError(code, `the relay at ${relay} refuses: ${said}${todo}`, { final, retryAfterMs });
}

/** A JSON object, or nothing. */
export function parse(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}

/** What a stranger said, fit for a terminal. */
export function clean(text: unknown): string {
  return typeof text === "string" ? text.replace(/[\p{C}\p{Zl}\p{Zp}]+/gu, " ").slice(0, 500) : "";
}

/** Why something failed. The cause of `fetch failed` says more than itself; so does the code of an empty message. */
export function words(error: unknown): string {
  if (!(error instanceof Error)) return "the connection was lost";
  if (error.cause instanceof Error) return words(error.cause);
  return clean(error.message) || clean((error as NodeJS.ErrnoException).code) || error.name;
}

export function deferred<T>(): { promise: Promise<T>; resolve: (value: T) => void } {
  let resolve!: (value: T) => void;
  const promise = new Promise<T>((it) => (resolve = it));
  return { promise, resolve };
}

/** Random, the first under a second, growing to at most 30 seconds (protocol.md 5). */
export function backoff(failures: number): number {
  return Math.random() * Math.min(30_000, 1000 * 2 ** failures);
}

export async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await sleep(Math.min(ms, 2 ** 31 - 1), undefined, { signal }).catch(() => undefined);
}
