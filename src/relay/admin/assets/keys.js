// Keys of owners.

import { revoke } from './actions.js';
import { get, unanswered } from './api.js';
import { h, setAttribute, setText } from './dom.js';
import { Rows } from './facts.js';
import { date, number } from './format.js';
import { address, VIEWS } from './route.js';
import { text } from './table.js';

const FROM = { store: 'made with adit key', configuration: 'configuration' };

export class Keys {
  #page;
  #rows;
  #failed = h('p', { class: 'error', role: 'alert' });

  constructor(page) {
    this.#page = page;
    this.title = VIEWS.keys;
    const done = (sentence) => {
      page.toast(sentence);
      this.update();
    };
    this.#rows = new Rows(this.title, [
      text('name', 'Key', (key) => key.name),
      text('from', 'From', (key) => FROM[key.from] ?? key.from),
      text('made', 'Made', (key) => date(key.created_at)),
      {
        id: 'tunnels', label: 'Tunnels', numeric: true,
        make(cell) {
          const link = h('a');
          cell.append(link);
          return (key) => {
            setText(link, number(key.tunnels));
            setAttribute(link, 'href', address('tunnels', null, { search: key.name }));
            setAttribute(link, 'aria-label', `${number(key.tunnels)} tunnels of ${key.name}`);
          };
        },
      },
      {
        id: 'revoke', label: 'Revoke',
        make(cell) {
          let shown = null;
          const button = h('button', { type: 'button', class: 'danger small', on: { click: () => revoke(shown, done) } }, 'Revoke');
          const why = h('span', { class: 'sub' }, 'Take it out of the configuration');
          cell.append(button, why);
          return (key) => {
            shown = key;
            button.hidden = key.from === 'configuration';
            why.hidden = key.from !== 'configuration';
            setAttribute(button, 'aria-label', `Revoke ${key.name}`);
          };
        },
      },
    ], 'keys', 'There is no key. Make one with: adit key create NAME');
    this.node = h('div', { class: 'view narrow' }, h('h1', null, this.title), this.#failed, this.#rows.node);
  }

  async update() {
    this.#page.live.want('events', { kind: 'revoked', size: 1 });
    const answer = await get('/api/keys').catch((error) => {
      setText(this.#failed, error.message);
      return unanswered(error);
    });
    if (!answer) return;
    setText(this.#failed, '');
    this.#rows.set(answer.keys);
  }

  events(events) {
    if (events.some((event) => ['revoked', 'created', 'deleted', 'expired'].includes(event.kind))) this.update();
  }

  close() {}
}
