// What happened.

import { h, setAttribute, setText } from './dom.js';
import { date, NONE, time, title } from './format.js';
import { List, text } from './list.js';
import { KindMark, KINDS } from './marks.js';

/** Columns of events, here and with a client. */
export const ROWS = [
  {
    id: 'at', label: 'Time',
    make(cell) {
      const node = h('time');
      let shown = null;
      cell.append(node);
      return (event) => {
        setText(node, time(event.at));
        if (event.at === shown) return;
        shown = event.at;
        setAttribute(node, 'datetime', new Date(event.at).toISOString());
        setAttribute(node, 'title', date(event.at));
      };
    },
  },
  {
    id: 'kind', label: 'What',
    make(cell) {
      const mark = new KindMark();
      cell.append(mark.node);
      return (event) => mark.set(event.kind);
    },
  },
  text('tunnel', 'Tunnel', (event) => event.tunnel ?? NONE),
  text('owner', 'Owner', (event) => event.owner ?? NONE),
  text('address', 'Address', (event) => event.address ?? NONE),
  text('reason', 'Why', (event) => event.reason ?? ''),
];

const SPEC = {
  view: 'events', path: '/api/events', rows: 'events', noun: 'event', label: 'Events',
  key: (event) => event.number,
  columns: ROWS,
  filter: { name: 'kind', label: 'Kinds', options: KINDS, look: (kind) => KindMark.look(kind), word: title },
  hint: 'Nothing has happened yet.',
};

export class Events {
  constructor(page) {
    this.title = 'Events';
    this.list = new List(SPEC, page);
    this.node = h('div', { class: 'view' }, h('h1', null, 'Events'), this.list.node);
  }

  update(values) {
    this.list.update(values);
  }

  page(page) {
    this.list.show(page);
  }

  close() {
    this.list.close();
  }
}
