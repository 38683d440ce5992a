// One thing that is asked for again and again while somebody looks at it.

import { get, Refused, unanswered } from './api.js';

export class Asking {
  #path;
  #show;
  #missing;
  #call = null;
  #byClock = false;

  /** `show` gets what is there; `missing` is called where nothing is (404). Without an answer, what is shown stays. */
  constructor(path, show, missing) {
    this.#path = path;
    this.#show = show;
    this.#missing = missing;
  }

  /** Asks, unless an answer is under way. */
  async ask(byClock = false) {
    if (this.#call) return;
    const call = new AbortController();
    [this.#call, this.#byClock] = [call, byClock];
    try {
      let absent = false;
      const thing = await get(this.#path, {}, call.signal).catch((error) => {
        absent = error instanceof Refused && error.status === 404;
        return unanswered(error);
      });
      if (call.signal.aborted) return;
      if (thing) this.#show(thing);
      else if (absent) await this.#missing(call.signal);
    } finally {
      if (this.#call === call) this.#call = null;
    }
  }

  /** What nobody but the clock has asked for is not shown any more. */
  rest() {
    if (this.#byClock) this.close();
  }

  close() {
    this.#call?.abort();
    this.#call = null;
  }
}
