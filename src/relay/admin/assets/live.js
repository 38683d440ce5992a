// The stream of the relay: it comes back by itself, and says when it is gone.

import { get, query, Refused } from './api.js';
import { settled } from './dom.js';

/** The relay sends a summary each second; a stream that is silent for so long is dead, whatever TCP says. */
const SILENCE = 6_000;
/** Waits between two tries; the last one stays. */
const WAITS = [500, 1_000, 2_000, 4_000, 8_000, 15_000];
/** While somebody types, a new stream for each letter would be many. */
const QUIET = 250;

/**
 * Events: `summary`, `page`, `events` with what the relay sent in `detail`; `state` when `state` has changed
 * (`connecting`, `live`, `lost`).
 */
export class Live extends EventTarget {
  state = 'connecting';
  /** When the relay was heard last. */
  heard = Date.now();
  /** When it is tried again. */
  next = null;
  #wanted = '';
  #source = null;
  #opened = null;
  #tries = 0;
  #timer = null;
  #reopen = settled(QUIET, () => this.#open());

  constructor() {
    super();
    setInterval(() => this.#watch(), 1_000);
    addEventListener('online', () => this.retry());
  }

  /** Streams this list from now on. Pages of another one are not passed on. */
  want(view, values) {
    const wanted = `/api/live?${query({ view, ...values })}`;
    if (wanted === this.#wanted) return;
    this.#wanted = wanted;
    if (this.#source) this.#reopen();
    else if (this.state !== 'lost') this.#open();
  }

  /** Tries now. */
  retry() {
    if (this.state !== 'lost') return;
    clearTimeout(this.#timer);
    this.#again();
  }

  #open() {
    this.#reopen.cancel();
    this.#source?.close();
    const [source, address] = [new EventSource(this.#wanted), this.#wanted];
    [this.#source, this.#opened] = [source, Date.now()];
    for (const name of ['summary', 'page', 'events']) {
      source.addEventListener(name, (event) => {
        if (source !== this.#source || (name === 'page' && address !== this.#wanted)) return;
        this.heard = Date.now();
        this.#tries = 0;
        this.#become('live');
        this.dispatchEvent(new CustomEvent(name, { detail: JSON.parse(event.data) }));
      });
    }
    source.addEventListener('error', () => source === this.#source && this.#lose());
  }

  #watch() {
    if (this.#source && Date.now() - Math.max(this.heard, this.#opened) > SILENCE) this.#lose();
  }

  #lose() {
    this.#source?.close();
    this.#source = null;
    const wait = WAITS[Math.min(this.#tries, WAITS.length - 1)] * (0.75 + Math.random() / 2);
    this.#tries += 1;
    this.next = Date.now() + wait;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#again(), wait);
    this.#become('lost');
  }

  /** An EventSource does not say what the status was; a call does, and leads to the login if that is it. */
  async #again() {
    this.next = null;
    this.#become('lost');
    try {
      await get('/api/summary', {}, AbortSignal.timeout(SILENCE));
      this.#open();
    } catch (error) {
      if (!(error instanceof Refused && error.status === 401)) this.#lose();
    }
  }

  #become(state) {
    const changed = state !== this.state || state === 'lost';
    this.state = state;
    if (changed) this.dispatchEvent(new CustomEvent('state'));
  }
}
