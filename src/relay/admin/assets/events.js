// What happened.

import { h, setAttribute, setText } from './dom.js';
import { date, NONE, time } from './format.js';
import { ListView } from './listview.js';
import { filter, KindMark } from './marks.js';
import { marked, text } from './table.js';

/** Columns of events, here and in a detail. */
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
  marked('kind', 'What', () => new KindMark(), (event) => event.kind),
  text('tunnel', 'Tunnel', (event) => event.tunnel ?? NONE),
  text('owner', 'Owner', (event) => event.owner ?? NONE),
  text('address', 'Address', (event) => event.address ?? NONE),
  text('reason', 'Why', (event) => event.reason ?? ''),
];

const SPEC = {
  view: 'events', path: '/api/events', rows: 'events', noun: 'event', label: 'Events',
  key: (event) => event.number,
  columns: ROWS,
  filter: filter('kind', 'Kinds', KindMark),
  hint: 'Nothing has happened yet.',
};

export class Events extends ListView {
  constructor(page) {
    super(SPEC, page);
    this.node.prepend(h('h1', null, this.title));
  }
}
