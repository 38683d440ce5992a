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
    const known = new Map([...this.#events, ...events].map((event) => [event.number, event]));
    this.#events = [...known.values()].sort((a, b) => b.number - a.number).slice(0, LINES);
    this.#fill();
  }

  #fill() {
    const newest = this.#events[0]?.number;
    if (this.#list.dataset.newest === String(newest)) return;
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
