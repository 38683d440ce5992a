// The newest events in a few lines.

import { get, unanswered } from './api.js';
import { h, setText } from './dom.js';
import { time } from './format.js';
import { KindMark } from './marks.js';
import { address } from './route.js';

const LINES = 6;

export class Latest {
  #list = h('ol');
  #events = [];

  constructor() {
    this.node = h('section', { class: 'latest', 'aria-label': 'Latest events' }, h('h2', null, h('a', { href: address('events') }, 'Latest events')), this.#list);
  }

  async load() {
    const page = await get('/api/events', { size: LINES }).catch(unanswered);
    // Without an answer the stream brings them.
    if (page) this.add(page.events);
  }

  add(events) {
    // A relay that has started again counts from one.
    const newest = Math.max(...events.map((event) => event.number));
    const anew = events.length && newest < (this.#events[0]?.number ?? 0) && !events.some((event) => this.#events.some((old) => old.number === event.number && old.at === event.at));
    const known = new Map([...(anew ? [] : this.#events), ...events].map((event) => [event.number, event]));
    this.#events = [...known.values()].sort((a, b) => b.number - a.number).slice(0, LINES);
    this.#fill();
  }

  #fill() {
    const [first] = this.#events;
    const newest = first ? `${first.number} ${first.at}` : '';
    if (this.#list.dataset.newest === newest) return;
    this.#list.dataset.newest = newest;
    this.#list.replaceChildren(...this.#events.map(line));
    if (!this.#events.length) setText(this.#list, 'None yet');
  }
}

function line(event) {
  const mark = new KindMark();
  mark.set(event.kind);
  const who = event.tunnel ?? event.owner ?? event.address ?? '';
  return h('li', null, h('time', { datetime: new Date(event.at).toISOString() }, time(event.at)), mark.node, h('span', { class: 'cut', title: event.reason }, who));
}
